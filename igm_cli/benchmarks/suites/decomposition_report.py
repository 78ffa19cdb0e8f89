"""The report of the suite ``decomposition``: tables, plots and paired comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

from igm_cli.benchmarks import report
from igm_cli.benchmarks.intervals import UNKNOWN, Estimate, mean, proportion, rate
from igm_cli.benchmarks.scores import Paired, grouped, rows_by_split
from igm_cli.benchmarks.suite import Infos, Plot, Record, Report, Row, Table
from igm_cli.benchmarks.suites.decomposition_points import AUTO, COUPLED, DEMANDED, RESONATOR

SLOWER = 1.1
"""Ratio of times that counts as slower; repeated calls of the same method differ by as much."""

QUANTITIES = {
    "exact": ("exact", "exact accuracy"),
    "right": ("factors", "share of right factors"),
    "seconds": ("seconds", "seconds a problem"),
    "operations": ("operations", "operations a problem"),
}
"""Estimate to file stem and axis."""

AXES = {
    "size": ("search_space", "search space n^K"),
    "dimension": ("dim", "dimension D"),
    "restarts": ("restarts", "restarts R"),
    "steps": ("steps", "diffusion steps"),
    "noise": ("noise", "noise on the bound vector, in standard deviations of its coordinates"),
}
"""Field that a split varies, and its name."""

RIVALS = (RESONATOR, "resonator-outer", "factorizer")
"""Methods with which coupled diffusion is compared problem by problem."""


@dataclass(frozen=True)
class Score:
    """The record of one method at one point."""

    row: Row

    def __getitem__(self, name: str) -> Any:
        return self.row[name]

    @cached_property
    def hits(self) -> list[bool]:
        """Whether all factors of each problem are right."""
        return [right == self["factors"] for right in self["right"]]

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Proportions of exact problems, right factors, and sure but wrong answers, and costs.

        The first three are missing if accuracy was not measured.
        """
        found = {}
        if self["right"] is not None:
            astray = [bool(sure) and not hit for sure, hit in zip(self["sure"], self.hits, strict=True)]
            right = rate(self["right"], [self["factors"]] * len(astray))
            found = {"exact": proportion(self.hits), "right": right, "astray": proportion(astray)}
        seconds = UNKNOWN._replace(value=self["seconds"])
        return {**found, **{n: mean(self[n]) for n in ("iterations", "operations")}, "seconds": seconds}

    @property
    def exact(self) -> Estimate:
        """The proportion of exact problems."""
        return self.estimates.get("exact", UNKNOWN)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        estimates = {name: list(e) for name, e in self.estimates.items()}
        costs = {name: self[name] for name in ("seconds", "cpu_seconds", "limit", "share")}
        return {"problems": self["problems"], **estimates, **costs}


def build(records: Sequence[Record], infos: Infos, about: Mapping[str, str]) -> Report:
    """Returns the report of all records; ``about`` describes the splits."""
    splits = {split: list(map(Score, rows)) for split, rows in rows_by_split(records, about).items()}
    raced = {split: race for split, part in splits.items() if (race := races(part))}
    pairs = {
        rival: {split: both for split, part in splits.items() if (both := paired(part, rival))}
        for rival in RIVALS
    }
    failed = [name for name, info in infos.items() if "failed" in info]
    tables = report.declared_tables("decomposition", auto=_race_rows(raced, splits))
    for split, part in splits.items():
        tables += [_side_by_side(split, about[split], part), _details(split, about[split], part, failed)]
    compared = [
        [split, point, rival, *rest]
        for rival, both in pairs.items()
        for split, point, *rest in report.paired_rows(both)
    ]
    tables += report.declared_tables("decomposition", **{"coupled-and-rivals": compared})
    tables.append(_methods_table(infos))
    names = ("problems", "both", "first", "second")
    summary = {
        "auto": raced,
        **{
            f"coupled_and_{rival.replace('-', '_')}": {
                split: {point: p.to_dict(*names, point=point) for point, p in part.items()}
                for split, part in both.items()
            }
            for rival, both in pairs.items()
        },
        "splits": {
            split: {
                point: {s["label"]: s.to_dict() for s in scores}
                for point, scores in grouped(part, itemgetter("point")).items()
            }
            for split, part in splits.items()
        },
        "methods": dict(infos),
    }
    figures = [plot for split, part in splits.items() for plot in _plots(split, part)]
    return Report(tables, [_results_table(splits)], figures, summary)


def races(scored: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Compares ``auto`` with the fastest other method that is at least as accurate, point by point.

    ``demanded`` is the minimum exact accuracy and the maximum arithmetic relative to exhaustive search, if any is
    required; ``met`` tells whether auto satisfies both and is no slower than the others.
    """
    found = {}
    for ours in (score for score in scored if score["label"] == AUTO):
        others = [s for s in scored if s["point"] == ours["point"] and s["label"] != AUTO]
        # Exhaustive search counts as accurate enough where only its time was estimated.
        fit = [s for s in others if "exact" not in s.estimates or s.exact.value >= ours.exact.value]
        best = min(fit, key=lambda score: float(score["seconds"])) if fit else None
        arithmetic = ours.estimates["operations"].value / ours["exhaustive"]
        demanded = DEMANDED.get(ours["point"])
        least, most = demanded or (0.0, math.inf)
        slower = best is not None and ours["seconds"] > SLOWER * best["seconds"]
        found[ours["point"]] = {
            "exact": ours.exact.value,
            "seconds": ours["seconds"],
            "fastest_as_accurate": best and best["label"],
            "its_seconds": best and best["seconds"],
            "arithmetic": arithmetic,
            "demanded": demanded,
            "met": ours.exact.value >= least and arithmetic <= most and not slower,
        }
    return found


def paired(scored: Sequence[Score], rival: str) -> dict[str, Paired]:
    """Returns the paired comparison of coupled diffusion with a rival at every point where both were run."""
    found = {}
    for point, part in grouped(scored, itemgetter("point")).items():
        hits = {score["label"]: score.hits for score in part if score["label"] in (COUPLED, rival)}
        if len(hits) == 2:
            found[point] = Paired.of(list(zip(hits[COUPLED], hits[rival], strict=False)))
    return found


DETAILS: Sequence[report.Column] = (
    ("point", lambda s: str(s["point"])),
    ("search space", lambda s: f"{float(s['search_space']):.3g}"),
    ("method", lambda s: str(s["label"])),
    ("all right", lambda s: report.percent(s.exact) if "exact" in s.estimates else ""),
    ("factors right", lambda s: report.percent(s.estimates["right"]) if "right" in s.estimates else ""),
    ("sure and wrong", lambda s: report.percent(s.estimates["astray"]) if "exact" in s.estimates else ""),
    ("iterations", lambda s: f"{s.estimates['iterations'].value:.1f}"),
    ("operations", lambda s: f"{s.estimates['operations'].value:.3g}"),
    ("seconds", lambda s: _seconds(s["seconds"]) + f" (from {100 * s['share']:.2g} %)" * (s["share"] != 1)),
    ("processor", lambda s: _seconds(s["cpu_seconds"])),
    ("problems", lambda s: str(s["problems"])),
)


HEADS = {"exact": "all right", "right": "factors right", "astray": "sure and wrong", "cpu_seconds": "processor"}
"""Heads of estimates in :data:`DETAILS` that have other names."""


def _race_rows(
    raced: Mapping[str, Mapping[str, Any]], splits: Mapping[str, Sequence[Score]]
) -> list[list[str]]:
    rows = []
    for split, ours in ((name, s) for name in raced for s in splits[name] if s["label"] == AUTO):
        race = raced[split][ours["point"]]
        seconds, theirs = race["seconds"], race["its_seconds"]
        demanded = f"≥ {100 * race['demanded'][0]:g} %" if race["demanded"] else ""
        best, faster = race["fastest_as_accurate"] or "none", f"{theirs / seconds:.3g}×" if theirs else ""
        times = [_seconds(seconds), best, _seconds(theirs) if theirs else "", faster]
        met = [f"{race['arithmetic']:.2g}", "yes" if race["met"] else "no"]
        rows.append([split, ours["point"], report.percent(ours.exact), demanded, *times, *met])
    return rows


def _side_by_side(split: str, about: str, scored: Sequence[Score]) -> Table:
    """Returns a table of exact accuracy, with a row per point and a column per method."""
    labels = list(grouped(scored, itemgetter("label")))
    rows = []
    for point, part in grouped(scored, itemgetter("point")).items():
        cells = {s["label"]: f"{100 * s.exact.value:.1f}" for s in part if "exact" in s.estimates}
        rows.append([point, *(cells.get(label, "") for label in labels)])
    return Table(f"exact-{split}", f"All factors right, in percent: {about}", ["point", *labels], rows)


def _details(split: str, about: str, scored: Sequence[Score], failed: Sequence[str]) -> Table:
    """Returns a table of all figures of a split, point by point; a failed method's row says so."""
    by_point = [score for part in grouped(scored, itemgetter("point")).values() for score in part]
    lost = [["", "", method, "failed", *[""] * (len(DETAILS) - 4)] for method in failed]
    return report.table(split, about, DETAILS, by_point, lost)


def _methods_table(infos: Infos) -> Table:
    rows = []
    for name, info in infos.items():
        settings = "; ".join(f"{key} {value}" for key, value in info.items() if key not in ("how", "failed"))
        rows.append([name, info.get("how", "failed"), settings or info.get("failed", "none")])
    return report.declared_table("decomposition", "methods", rows)


def _results_table(splits: Mapping[str, Sequence[Score]]) -> Table:
    """Returns a table for scripts, with one number per line."""
    rows = []
    for split, s in ((split, s) for split, part in splits.items() for s in part):
        for name, number in list(s.to_dict().items())[1:]:
            triple = number if isinstance(number, list) else [number, "", ""]
            head = HEADS.get(name, name if name in dict(DETAILS) else "")
            rows.append([split, s["point"], s["label"], str(s["problems"]), name, *map(repr, triple), head])
    columns = ("split", "point", "method", "problems", "figure", "value", "low", "high", report.HEAD)
    return Table("results", "Every figure", columns, rows)


def _seconds(value: float) -> str:
    """Returns seconds with three digits in a suitable unit."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _plots(split: str, scored: Sequence[Score]) -> Iterator[Plot]:
    """Yields the plots of one split, one per K or per method of restarts; none for a split that does not vary a number."""
    parts: dict[tuple[str, str], Mapping[Any, list[Score]]] = {}  # keyed by name and title
    if split == "size":
        for factors, part in sorted(grouped(scored, itemgetter("factors")).items()):
            parts[f"-K{factors}", f", K = {factors}"] = grouped(part, itemgetter("label"))
    elif split == "restarts":
        for label, part in grouped(scored, itemgetter("label")).items():
            ratios = grouped(part, itemgetter("ratio"))
            parts[f"-{label}", f", {label}"] = {f"ρ = {ratio:g}": each for ratio, each in ratios.items()}
    elif split in AXES:
        parts["", ""] = grouped(scored, itemgetter("label"))
    shown = {"size": tuple(QUANTITIES), "restarts": ("exact",)}.get(split, ("exact", "right"))
    for (name, title), curves in parts.items():
        for quantity in shown:
            yield _plot(split, name, title, quantity, curves)


def _plot(split: str, part: str, title: str, quantity: str, curves: Mapping[str, Sequence[Score]]) -> Plot:
    (field, axis), (stem, name) = AXES[split], QUANTITIES[quantity]
    cost, drawn = quantity in ("seconds", "operations"), []
    for label, scores in curves.items():
        # Exhaustive search has no accuracy where only its time was estimated.
        mine = [(float(s[field]), s.estimates[quantity]) for s in scores if quantity in s.estimates]
        line = report.curve(label, sorted(mine, key=lambda point: point[0]))
        drawn += [replace(line, low=[], high=[]) if cost else line] if mine else []
    heading = f"{report.capitalised(name)} over {axis.partition(',')[0]}{title}"
    log_x = split in ("size", "dimension", "steps")
    return Plot(f"{split}{part}-{stem}", heading, axis, name, drawn, log_x=log_x, log_y=cost)
