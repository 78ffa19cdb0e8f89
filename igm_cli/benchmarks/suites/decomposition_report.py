"""What the records of the suite ``decomposition`` amount to: tables, plots, and methods side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from igm_cli.benchmarks.report import Column, Infos, capitalised, curve, paired_cells, percent, table
from igm_cli.benchmarks.scores import Estimate, Paired, mean, proportion, rate
from igm_cli.benchmarks.suite import Plot, Record, Report, Row, Table
from igm_cli.benchmarks.suites.decomposition_points import AUTO, COUPLED, DEMANDED, RESONATOR

SLOWER = 1.1
"""How many times as long counts as slower: repeated calls of the same method differ by as much."""

ORIGIN = (
    "Settings were chosen by benchmarks/calibrate_decomposition.py on problems of other seeds with K = 3, n = 100, "
    "D = 1000 and 100 iterations; the variants of coupled diffusion one by one; the factorizer's are near the best ones and do for few codewords, too."
)
"""Where the settings of the methods come from."""

_EXACT, _RIGHT, _SECONDS, _OPERATIONS = "exact", "right", "seconds", "operations"
_QUANTITIES = {
    _EXACT: ("exact", "exact accuracy"),
    _RIGHT: ("factors", "share of right factors"),
    _SECONDS: ("seconds", "seconds a problem"),
    _OPERATIONS: ("operations", "operations a problem"),
}
"""Name of an estimate to file stem and axis."""

_AXES = {
    "size": ("search_space", "search space n^K"),
    "dimension": ("dim", "dimension D"),
    "restarts": ("restarts", "restarts R"),
    "steps": ("steps", "diffusion steps"),
    "noise": ("noise", "noise on the bound vector, in standard deviations of its coordinates"),
}
"""Field and name of what a split varies."""

_LOGARITHMIC = ("size", "dimension", "steps")
_SHOWN = {"size": tuple(_QUANTITIES), "restarts": (_EXACT,)}
"""What is plotted of a split; exact accuracy and right factors by default."""


@dataclass(frozen=True)
class Score:
    """One method at one point, as it was recorded."""

    row: Row

    def __getitem__(self, name: str) -> Any:
        return self.row[name]

    @cached_property
    def hits(self) -> list[bool]:
        """Whether all factors of a problem are right."""
        return [right == self["factors"] for right in self["right"]]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Proportions of problems that are exact, factors that are right and answers sure but wrong, and costs.

        The first three are missing where accuracy was not measured.
        """
        found = {}
        if self["right"] is not None:
            astray = [bool(sure) and not hit for sure, hit in zip(self["sure"], self.hits, strict=True)]
            trials = [self["factors"]] * len(astray)
            found = {
                _EXACT: proportion(self.hits),
                _RIGHT: rate(self["right"], trials),
                "astray": proportion(astray),
            }
        seconds = Estimate(self[_SECONDS], math.nan, math.nan)
        return {**found, **{n: mean(self[n]) for n in ("iterations", _OPERATIONS)}, _SECONDS: seconds}

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        costs = {name: self[name] for name in (_SECONDS, "cpu_seconds", "limit", "share")}
        estimates = {name: e.to_list() for name, e in self.estimates.items()}
        return {"problems": self["problems"], **estimates, **costs}


def build(records: Sequence[Record], infos: Infos, about: Mapping[str, str]) -> Report:
    """Returns tables, plots and numbers of all records; ``about`` tells what the splits are."""
    splits = {
        split: [Score(row) for record in records if record["split"] == split for row in record["rows"]]
        for split in about
    }
    splits = {split: part for split, part in splits.items() if part}
    raced = {split: found for split, part in splits.items() if (found := races(part))}
    pairs = {split: both for split, part in splits.items() if (both := paired(part, COUPLED, RESONATOR))}
    failed = [name for name, info in infos.items() if "failed" in info]
    tables = [_races_table(raced, splits)] if raced else []
    for split, part in splits.items():
        tables += [_side_by_side(split, about[split], part), _details(split, about[split], part, failed)]
    tables += [_paired_table(pairs)] if pairs else []
    tables.append(_methods_table(infos))
    results: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in splits}
    for split, part in splits.items():
        for score in part:
            results[split].setdefault(score["point"], {})[score["label"]] = score.to_dict()
    summary = {
        "auto": raced,
        "coupled_and_resonator": {
            split: {point: _paired_json(point, pair) for point, pair in found.items()}
            for split, found in pairs.items()
        },
        "splits": results,
        "methods": dict(infos),
    }
    figures = [plot for split, part in splits.items() for plot in _plots(split, part)]
    return Report(tables, [_results_table(splits)], figures, summary)


def races(scored: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Returns ``auto`` beside the fastest of the other methods that are as accurate, point by point.

    ``demanded`` is the least exact accuracy, and the most arithmetic relative to exhaustive search, where something is
    demanded; ``met`` tells whether auto is as accurate and cheap as that, and no slower than the others.
    """
    found = {}
    for ours in (score for score in scored if score["label"] == AUTO):
        exact = _exact(ours).value
        others = [s for s in scored if s["point"] == ours["point"] and s["label"] != AUTO]
        # Exhaustive search is taken for as accurate where only its time was reckoned.
        fit = [s for s in others if _EXACT not in s.estimates or _exact(s).value >= exact]
        best = min(fit, key=lambda score: float(score[_SECONDS])) if fit else None
        arithmetic = ours.estimates[_OPERATIONS].value / ours["exhaustive"]
        demanded = DEMANDED.get(ours["point"])
        least, most = demanded or (0.0, math.inf)
        slower = best is not None and ours[_SECONDS] > SLOWER * best[_SECONDS]
        found[ours["point"]] = {
            "exact": exact,
            "seconds": ours[_SECONDS],
            "fastest_as_accurate": best and best["label"],
            "its_seconds": best and best[_SECONDS],
            "arithmetic": arithmetic,
            "demanded": demanded,
            "met": exact >= least and arithmetic <= most and not slower,
        }
    return found


def _exact(score: Score) -> Estimate:
    return score.estimates.get(_EXACT, Estimate(math.nan, math.nan, math.nan))


def paired(scored: Sequence[Score], first: str, second: str) -> dict[str, Paired]:
    """Returns two methods side by side, at every point where both were run."""
    scores = {(score["point"], score["label"]): score for score in scored}
    found = {}
    for point in dict.fromkeys(score["point"] for score in scored):
        both = [scores.get((point, label)) for label in (first, second)]
        if both[0] and both[1]:
            found[point] = Paired.of(list(zip(both[0].hits, both[1].hits, strict=False)))
    return found


def _paired_json(point: str, p: Paired) -> dict[str, Any]:
    counts = {"problems": p.items, "both": p.both, "first": p.first, "second": p.second}
    return {"point": point, **counts, "p": p.p}


RACES: Sequence[Column] = (
    ("split", lambda r: str(r["split"])),
    ("point", lambda r: str(r["point"])),
    ("auto, exact", lambda r: percent(r["estimate"])),
    ("demanded", lambda r: f"≥ {100 * r['demanded'][0]:g} %" if r["demanded"] else ""),
    ("seconds", lambda r: _seconds(r["seconds"])),
    ("fastest of the others as accurate", lambda r: r["fastest_as_accurate"] or "none"),
    ("its seconds", lambda r: _seconds(r["its_seconds"]) if r["its_seconds"] else ""),
    ("auto is faster", lambda r: f"{r['its_seconds'] / r['seconds']:.3g}×" if r["its_seconds"] else ""),
    ("arithmetic over exhaustive", lambda r: f"{r['arithmetic']:.2g}"),
    ("as demanded, and no slower", lambda r: "yes" if r["met"] else "no"),
)
DETAILS: Sequence[Column] = (
    ("point", lambda s: str(s["point"])),
    ("search space", lambda s: f"{float(s['search_space']):.3g}"),
    ("method", lambda s: str(s["label"])),
    ("all right", lambda s: percent(s.estimates[_EXACT]) if _EXACT in s.estimates else ""),
    ("factors right", lambda s: percent(s.estimates[_RIGHT]) if _RIGHT in s.estimates else ""),
    ("sure and wrong", lambda s: f"{100 * s.estimates['astray'].value:.1f} %" if _EXACT in s.estimates else ""),
    ("iterations", lambda s: f"{s.estimates['iterations'].value:.1f}"),
    ("operations", lambda s: f"{s.estimates[_OPERATIONS].value:.3g}"),
    (
        "seconds",
        lambda s: _seconds(s[_SECONDS]) + ("" if s["share"] == 1 else f" (from {100 * s['share']:.2g} %)"),
    ),
    ("processor", lambda s: _seconds(s["cpu_seconds"])),
    ("problems", lambda s: str(s["problems"])),
)


def _races_table(raced: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Sequence[Score]]) -> Table:
    items = [
        {"split": split, "point": s["point"], "estimate": _exact(s), **found[s["point"]]}
        for split, found in raced.items()
        for s in splits[split]
        if s["label"] == AUTO
    ]
    note = (
        "As accurate: as many problems right; exhaustive search is taken for as accurate where only its time was "
        "reckoned. Slower: by more than a tenth. Of exhaustive search's arithmetic auto may take a tenth at K4-n100-D2000, "
        "elsewhere all."
    )
    return table("auto", "auto beside the fastest of the others that are as accurate", RACES, items, note)


def _side_by_side(split: str, about: str, scored: Sequence[Score]) -> Table:
    """Returns exact accuracy, a row per point, a column per method."""
    labels = list(_grouped(scored, "label"))
    cells = {(s["point"], s["label"]): s.estimates.get(_EXACT) for s in scored}
    found = {key: f"{100 * exact.value:.1f}" for key, exact in cells.items() if exact}
    rows = [
        [point, *(found.get((point, label), "") for label in labels)] for point in _grouped(scored, "point")
    ]
    return Table(f"exact-{split}", f"All factors right, in percent: {about}", ["point", *labels], rows)


def _details(split: str, about: str, scored: Sequence[Score], failed: Sequence[str]) -> Table:
    """Returns everything of a split, point by point; a failed method's row says so."""
    by_point = [score for part in _grouped(scored, "point").values() for score in part]
    shown = table(f"table-{split}", capitalised(about), DETAILS, by_point)
    lost = [["", "", method, "failed", *[""] * (len(DETAILS) - 4)] for method in failed]
    return replace(shown, rows=[*shown.rows, *lost])


def _paired_table(pairs: Mapping[str, Mapping[str, Paired]]) -> Table:
    rows = [[split, point, *paired_cells(p)] for split, found in pairs.items() for point, p in found.items()]
    columns = ("split", "point", "problems", "both right", "only coupled", "only resonator", "p")
    note = "p: McNemar's exact test, two-sided, not corrected for the number of points."
    title = "Coupled diffusion and the resonator network, problem by problem"
    return Table("coupled-and-resonator", title, columns, rows, note)


def _methods_table(infos: Infos) -> Table:
    rows = []
    for name, info in infos.items():
        settings = [f"{key} {value}" for key, value in info.items() if key not in ("how", "failed")]
        rows.append([name, info.get("how", "failed"), "; ".join(settings) or info.get("failed", "none")])
    return Table("methods", "Methods and their settings", ("method", "what it is", "settings"), rows, ORIGIN)


def _results_table(splits: Mapping[str, Sequence[Score]]) -> Table:
    """Returns every number on a line of its own, for scripts."""
    rows = [
        [split, s["point"], s["label"], str(s["problems"]), name, *map(repr, _triple(number))]
        for split, part in splits.items()
        for s in part
        for name, number in s.to_dict().items()
        if name != "problems"
    ]
    columns = ("split", "point", "method", "problems", "figure", "value", "low", "high")
    return Table("results", "Every figure", columns, rows)


def _triple(number: Any) -> Sequence[Any]:
    return number if isinstance(number, list) else [number, "", ""]


def _seconds(value: float) -> str:
    """Returns three digits, in a unit that is read easily."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _plots(split: str, scored: Sequence[Score]) -> Iterator[Plot]:
    """Yields the plots of one split; none of one that varies no number."""
    if split not in _AXES:
        return
    for part, title, curves in _parts(split, scored):
        for quantity in _SHOWN.get(split, (_EXACT, _RIGHT)):
            yield _plot(split, part, title, quantity, curves)


def _parts(split: str, scored: Sequence[Score]) -> Iterator[tuple[str, str, Mapping[str, list[Score]]]]:
    """Yields name, title and curves of every part of a split: one per K, one per method of restarts, else the whole."""
    if split == "size":
        for factors, part in sorted(_grouped(scored, "factors").items()):
            yield f"-K{factors}", f", K = {factors}", _grouped(part, "label")
    elif split == "restarts":
        for label, part in _grouped(scored, "label").items():
            curves = {f"ρ = {ratio:g}": each for ratio, each in _grouped(part, "ratio").items()}
            yield f"-{label}", f", {label}", curves
    else:
        yield "", "", _grouped(scored, "label")


def _grouped(scored: Sequence[Score], field: str) -> dict[Any, list[Score]]:
    found: dict[Any, list[Score]] = {}
    for score in scored:
        found.setdefault(score[field], []).append(score)
    return found


def _plot(split: str, part: str, title: str, quantity: str, curves: Mapping[str, Sequence[Score]]) -> Plot:
    field, axis = _AXES[split]
    stem, name = _QUANTITIES[quantity]
    cost = quantity in (_SECONDS, _OPERATIONS)
    drawn = []
    for label, scores in curves.items():
        # Of exhaustive search of which only the time was reckoned there is no accuracy.
        mine = [(float(s[field]), s.estimates[quantity]) for s in scores if quantity in s.estimates]
        line = curve(label, sorted(mine, key=lambda point: point[0]))
        drawn += [replace(line, low=[], high=[]) if cost else line] if mine else []
    heading = f"{capitalised(name)} over {axis.partition(',')[0]}{title}"
    log_x = split in _LOGARITHMIC
    return Plot(f"{split}{part}-{stem}", heading, axis, name, drawn, log_x=log_x, log_y=cost)
