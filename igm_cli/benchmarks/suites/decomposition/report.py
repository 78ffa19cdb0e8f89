"""What the records amount to: tables, plots, and auto and coupled diffusion beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.benchmarks.frame.tables import failed_methods, percent
from igm_cli.benchmarks.suite import Record, Report, Table
from igm_cli.benchmarks.suites.decomposition.figures import Paired, Race, Score, paired, races, scores
from igm_cli.benchmarks.suites.decomposition.plots import plots
from igm_cli.benchmarks.suites.decomposition.points import SPLITS, Options
from igm_cli.benchmarks.suites.decomposition.settings import COUPLED, ORIGIN, RESONATOR


def build(
    records: Sequence[Record],
    infos: Mapping[str, Mapping[str, Any]],
    options: Options,
    machine: Mapping[str, Any],
) -> Report:
    """The report of all records.

    Args:
        records: Of every method, split and point.
        infos: What the methods say of themselves.
        options: Of the suite.
        machine: What computed.
    """
    splits = {split: scores(records, split) for split in SPLITS}
    splits = {split: part for split, part in splits.items() if part}
    raced = {split: found for split, part in splits.items() if (found := races(part))}
    pairs = {split: both for split, part in splits.items() if (both := paired(part, COUPLED, RESONATOR))}
    failed = failed_methods(infos)
    tables = [_races(raced)] if raced else []
    for split, part in splits.items():
        tables += [_side_by_side(split, part), _details(split, part, failed)]
    tables += [_paired(pairs)] if pairs else []
    tables.append(_settings(infos))
    summary = {
        "machine": dict(machine),
        "auto": {split: {race.point: race.to_dict() for race in found} for split, found in raced.items()},
        "coupled_and_resonator": {
            split: {pair.point: {**vars(pair), "p": pair.p} for pair in found} for split, found in pairs.items()
        },
        "splits": {split: _by_point(part) for split, part in splits.items()},
        "methods": dict(infos),
    }
    figures = [plot for split, part in splits.items() for plot in plots(split, part)]
    return Report(tables, [_every_figure(splits)], figures, summary, _notes(options, machine))


def _races(raced: Mapping[str, Sequence[Race]]) -> Table:
    rows = []
    for split, found in raced.items():
        for race in found:
            demanded = "" if race.demanded is None else f"≥ {100 * race.demanded[0]:g} %"
            best = [race.best.label, seconds(race.best.seconds)] if race.best else ["none", ""]
            faster = f"{race.best.seconds / race.ours.seconds:.3g}×" if race.best else ""
            figures = [percent(race.accuracy), demanded, seconds(race.ours.seconds), *best, faster]
            rows.append([split, race.point, *figures, f"{race.arithmetic:.2g}", "yes" if race.met else "no"])
    columns = (
        "split", "point", "auto, exact", "demanded", "seconds", "fastest of the others as accurate", "its seconds",
        "auto is faster", "arithmetic over exhaustive", "as demanded, and no slower",
    )  # fmt: skip
    note = (
        "As accurate: as many problems right; exhaustive search is taken for as accurate where only its time was "
        "reckoned. Slower: by more than a tenth. Of exhaustive search's arithmetic auto may take a tenth at K4-n100-D2000, "
        "elsewhere all."
    )
    return Table("auto", "auto beside the fastest of the others that are as accurate", columns, rows, note)


def _side_by_side(split: str, scored: Sequence[Score]) -> Table:
    """Exact accuracy, a row a point, a column a method."""
    labels = list(dict.fromkeys(score.label for score in scored))
    cells = {(score.point, score.label): f"{100 * score.exact.value:.1f}" for score in scored if score.exact}
    rows = [
        [point, *(cells.get((point, label), "") for label in labels)]
        for point in dict.fromkeys(score.point for score in scored)
    ]
    return Table(f"exact-{split}", f"All factors right, in percent: {SPLITS[split]}", ["point", *labels], rows)


def _details(split: str, scored: Sequence[Score], failed: Sequence[str]) -> Table:
    """Everything of a split; a failed method's row says so."""
    columns = (
        "point", "search space", "method", "all right", "factors right", "sure and wrong", "iterations", "operations",
        "seconds", "processor", "problems",
    )  # fmt: skip
    rows = []
    for point in dict.fromkeys(score.point for score in scored):
        for s in (each for each in scored if each.point == point):
            rates = [percent(e) if e else "" for e in (s.exact, s.right)]
            rates.append(f"{100 * s.astray.value:.1f} %" if s.astray else "")
            costs = [
                f"{s.iterations.value:.1f}",
                f"{s.operations.value:.3g}",
                _time(s),
                seconds(s.row["cpu_seconds"]),
            ]
            first = [point, f"{float(s.row['search_space']):.3g}", s.label]
            rows.append([*first, *rates, *costs, str(s.row["problems"])])
    rows += [["", "", method, "failed", *[""] * (len(columns) - 4)] for method in failed]
    return Table(f"table-{split}", f"{SPLITS[split][0].upper()}{SPLITS[split][1:]}", columns, rows)


def _paired(pairs: Mapping[str, Sequence[Paired]]) -> Table:
    rows = [
        [split, *map(str, (p.point, p.problems, p.both, p.first, p.second)), f"{p.p:.2g}"]
        for split, found in pairs.items()
        for p in found
    ]
    columns = ("split", "point", "problems", "both right", "only coupled", "only resonator", "p")
    note = "p: McNemar's exact test, two-sided, not corrected for the number of points."
    return Table(
        "coupled-and-resonator",
        "Coupled diffusion and the resonator network, problem by problem",
        columns,
        rows,
        note,
    )


def _settings(infos: Mapping[str, Mapping[str, Any]]) -> Table:
    """What every method is, and its settings."""
    rows = []
    for name, info in infos.items():
        settings = [f"{key} {value}" for key, value in info.items() if key not in ("how", "failed")]
        rows.append([name, info.get("how", "failed"), "; ".join(settings) or info.get("failed", "none")])
    return Table("methods", "Methods and their settings", ("method", "what it is", "settings"), rows, ORIGIN)


def _by_point(scored: Sequence[Score]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in scored:
        found.setdefault(each.point, {})[each.label] = each.to_dict()
    return found


def _every_figure(splits: Mapping[str, Sequence[Score]]) -> Table:
    """Every figure on a line of its own, for scripts."""
    rows = [
        [split, s.point, s.label, str(s.row["problems"]), name, *map(repr, _triple(figure))]
        for split, part in splits.items()
        for s in part
        for name, figure in s.to_dict().items()
        if name != "problems"
    ]
    columns = ("split", "point", "method", "problems", "figure", "value", "low", "high")
    return Table("results", "Every figure", columns, rows)


def _triple(figure: Any) -> Sequence[Any]:
    return figure if isinstance(figure, list) else [figure, "", ""]


def _notes(options: Options, machine: Mapping[str, Any]) -> list[str]:
    return [
        f"{machine['device']}, {machine['processor']}, {machine['threads']} threads on {machine['cores']} cores, torch {machine['torch']}.",
        f"{options.problems} random problems a point, the same for all methods; iterative methods stop after "
        f"{options.iterations} iterations, or when their answer is similar beyond chance and no exchange of a factor is better.",
        "Seconds are of one call with all problems, divided by their number, after a warm-up on smaller problems; short "
        "calls are timed up to five times, and the fastest counts. Where processor seconds lie far below seconds times "
        "threads, the machine was busy with other things.",
        f"Where exhaustive search would take more than {options.exhaustive_gflop} GFLOP a point, only a part of the "
        "products is compared: seconds are scaled (the part is given behind them), and there is no accuracy.",
        "Operations are multiplications and additions that the methods count themselves. Iterations are those of the "
        "iterative methods; auto has some only where it falls back on coupled diffusion.",
        "95 % intervals: Wilson's of problems that are all right, bootstrap over problems of right factors. Sure and "
        "wrong: wrong answers with a confidence of 0.99 or more in every factor.",
    ]


def _time(score: Score) -> str:
    reckoned = "" if score.row["share"] == 1 else f" (from {100 * score.row['share']:.2g} %)"
    return f"{seconds(score.seconds)}{reckoned}"


def seconds(value: float) -> str:
    """Three digits, in a unit that is read easily."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"
