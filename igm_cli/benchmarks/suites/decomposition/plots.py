"""The figures of the report: accuracy, seconds and arithmetic over what a split varies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from igm_cli.benchmarks.suite import Curve, Plot
from igm_cli.benchmarks.suites.decomposition.figures import Score
from igm_cli.core.metrics import Estimate

_EXACT, _RIGHT, _SECONDS = "exact accuracy", "share of right factors", "seconds a problem"
_OPERATIONS = "operations a problem"

_AXES = {
    "size": ("search_space", "search space n^K"),
    "dimension": ("dim", "dimension D"),
    "restarts": ("restarts", "restarts R"),
    "steps": ("steps", "diffusion steps"),
    "noise": ("noise", "noise on the bound vector, in standard deviations of its coordinates"),
}
"""Field and name of what a split varies."""

_LOGARITHMIC = ("size", "dimension", "steps")

_QUANTITIES = {
    "size": (_EXACT, _RIGHT, _SECONDS, _OPERATIONS),
    "restarts": (_EXACT,),
    "steps": (_EXACT, _RIGHT),
}
"""What is shown of a split; exact accuracy and right factors by default."""


def plots(split: str, scored: Sequence[Score]) -> Iterator[Plot]:
    """The figures of one split; none of one that varies no number."""
    if split not in _AXES:
        return
    for part, title, each in _parts(split, scored):
        for quantity in _QUANTITIES.get(split, (_EXACT, _RIGHT)):
            yield _plot(split, part, title, quantity, each)


def _parts(split: str, scored: Sequence[Score]) -> Iterator[tuple[str, str, Mapping[str, list[Score]]]]:
    """Name, title and curves of every part of a split: one a K, one a method of restarts, else the whole."""
    if split == "size":
        for factors in sorted({each.row["factors"] for each in scored}):
            yield (
                f"-K{factors}",
                f", K = {factors}",
                _curves([s for s in scored if s.row["factors"] == factors]),
            )
    elif split == "restarts":
        for label in dict.fromkeys(each.label for each in scored):
            mine = [each for each in scored if each.label == label]
            ratios = dict.fromkeys(each.row["ratio"] for each in mine)
            yield (
                f"-{label}",
                f", {label}",
                {f"ρ = {r:g}": [s for s in mine if s.row["ratio"] == r] for r in ratios},
            )
    else:
        yield "", "", _curves(scored)


def _curves(scored: Sequence[Score]) -> dict[str, list[Score]]:
    labels = dict.fromkeys(each.label for each in scored)
    return {label: [each for each in scored if each.label == label] for label in labels}


def _plot(split: str, part: str, title: str, quantity: str, curves: Mapping[str, Sequence[Score]]) -> Plot:
    field, axis = _AXES[split]
    cost = quantity in (_SECONDS, _OPERATIONS)
    drawn = []
    for label, each in curves.items():
        mine = sorted((s for s in each if _figure(s, quantity)), key=lambda score: float(score.row[field]))
        figures = [figure for score in mine if (figure := _figure(score, quantity))]
        if not figures:
            continue  # exhaustive search of which only the time was reckoned
        low, high = ([], []) if cost else ([f.low for f in figures], [f.high for f in figures])
        drawn.append(Curve(label, [float(s.row[field]) for s in mine], [f.value for f in figures], low, high))
    stem = {_EXACT: "exact", _RIGHT: "factors", _SECONDS: "seconds", _OPERATIONS: "operations"}[quantity]
    heading = f"{quantity[0].upper()}{quantity[1:]} over {axis.partition(',')[0]}{title}"
    return Plot(
        f"{split}{part}-{stem}", heading, axis, quantity, drawn, log_x=split in _LOGARITHMIC, log_y=cost
    )


def _figure(score: Score, quantity: str) -> Estimate | None:
    """None if it was not measured."""
    if quantity == _SECONDS:
        return Estimate(score.seconds, score.seconds, score.seconds)
    return {_EXACT: score.exact, _RIGHT: score.right, _OPERATIONS: score.operations}[quantity]
