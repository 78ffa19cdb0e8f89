"""What the records of the benchmark amount to: tables, plots, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from igm_cli.benchmarks.frame.images import Scenes
from igm_cli.benchmarks.frame.tables import (
    by_label,
    common_tables,
    every_figure,
    failed_methods,
    interval,
    of_splits,
    percent,
    what_was_compared,
)
from igm_cli.benchmarks.suite import Confusion, PictureGrid, Plot, Record, Report, Table
from igm_cli.benchmarks.suites.attributes.factors import factor_plots, factor_rows, factor_summary, factor_table
from igm_cli.benchmarks.suites.attributes.figures import BINS, Exactness, Scores, exactness, score
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE, SAME_DRAWS
from igm_cli.benchmarks.suites.attributes.pictures import picture_grids
from igm_cli.benchmarks.suites.attributes.published import FACTORS, PUBLISHED
from igm_cli.benchmarks.suites.attributes.splits import SPLITS
from igm_cli.core.concepts import Categorical
from igm_cli.plugins.base import ConceptParser

_NOTES = (
    "All right: images on which every attribute is right at once, the paper's accuracy. 95 % intervals: Wilson's of "
    "rates, bootstrap over images of seconds and network calls.",
    "Published: the paper's accuracy on photographs of CelebA, with its own models; drawn faces are ours.",
    "Network calls: one for every noised image a network looks at and one for every concept evaluated on it.",
    f"{ENUMERATE} asks the network for every attribute of every configuration; {SAME_DRAWS} is igm under the same draws, "
    "as many as its settings allow. igm alone stops as soon as every value is settled.",
    "gc and gc-variant start from the trunk of the measured checkpoint, are trained with a contrast between values as "
    "igm is (--set contrast), and inverted over the same range of noise, with as many draws as igm takes at most.",
)


def summarise(
    records: Sequence[Record],
    infos: Mapping[str, Mapping[str, object]],
    scenes: Mapping[str, Scenes],
    parser: ConceptParser,
) -> Report:
    """The report of all records.

    Args:
        records: Of every method, split and item.
        infos: What the methods say of themselves.
        scenes: Images of every split, for the pictures.
        parser: Draws results.
    """
    factors = list(cast(Categorical, parser.space).factors)
    parts = {name: of_splits(records, [name]) for name in scenes}
    parts = {name: part for name, part in parts.items() if by_label(part)}
    scores = {name: _scores(part, factors) for name, part in parts.items()}
    exact = {name: found for name, part in parts.items() if (found := exactness(part))}
    points, failed = factor_rows(records), failed_methods(infos)
    tables = [accuracy_table(name, SPLITS[name], scores[name], factors, failed) for name in parts]
    scored, tabled = partial(score, factors=factors), partial(accuracy_table, factors=factors)
    tables += common_tables(parts, SPLITS, scored, tabled)
    tables += [_exactness(exact)] if exact else []
    tables += [table] if (table := _calibration(scores)).rows else []
    tables += [factor_table(points)] if points else []
    tables.append(what_was_compared(infos))
    figures: list[Plot | Confusion | PictureGrid] = [*factor_plots(points)] if points else []
    shown = {name: scenes[name] for name in parts}
    figures += picture_grids([record for part in parts.values() for record in part], shown, parser)
    splits = {name: {s.label: s.to_dict() for s in part} for name, part in scores.items()}
    summary = {
        "splits": splits,
        "exactness": {name: found.to_dict() for name, found in exact.items()},
        "calibration": {
            name: {s.label: vars(s.calibration) for s in part if s.calibration} for name, part in scores.items()
        },
        "factors": factor_summary(points),
        "methods": dict(infos),
    }
    return Report(tables, [every_figure(splits)], figures, summary, _NOTES)


def _scores(records: Sequence[Record], factors: Sequence[str]) -> list[Scores]:
    return [score(label, list(rows.values()), factors) for label, rows in by_label(records).items()]


def accuracy_table(
    name: str, about: str, scores: Sequence[Scores], factors: Sequence[str], failed: Sequence[str] = ()
) -> Table:
    """Accuracy and cost of every label on one split, a failed method's row saying so.

    Args:
        name: Of the split.
        about: What the split is, for the heading.
        scores: Of every label.
        factors: Their names; the paper's figures stand beside its own only.
        failed: Methods that could not be run.
    """
    published = PUBLISHED.get(name, {}) if set(factors) == FACTORS else {}
    heads = [factor.replace("_", " ") for factor in factors]
    columns = ("method", "all right", "published", "seconds", "network calls", "images", "draws", *heads)
    rows = [[s.label, *_cells(s, published.get(s.label, ""), factors)] for s in scores]
    blank = [""] * (len(columns) - 3)
    rows += [[method, "failed", published.get(method, ""), *blank] for method in failed]
    return Table(f"table-{name}", about[0].upper() + about[1:], columns, rows, brief=6)


def _cells(scores: Scores, published: str, factors: Sequence[str]) -> list[str]:
    e = scores.estimates
    return [
        percent(e["all_right"]),
        published,
        interval(e["seconds"], ".3g"),
        interval(e["calls"], ".0f"),
        str(scores.images),
        f"{e['draws'].value:.3g}",
        *(percent(e[factor]) for factor in factors),
    ]


def _exactness(exact: Mapping[str, Exactness]) -> Table:
    rows = [
        [
            name,
            f"{e.agreeing} of {e.images}",
            percent(e.agree),
            f"{e.difference:.1e}",
            *(f"{e.calls[label]:g}" for label in (SAME_DRAWS, ENUMERATE)),
            *(f"{e.seconds[label]:.3g}" for label in (SAME_DRAWS, ENUMERATE)),
        ]
        for name, e in exact.items()
    ]
    columns = (
        "split",
        "same answer",
        "share",
        "errors differ by at most",
        "calls a draw: igm",
        "calls a draw: enumerate",
        "seconds: igm",
        "seconds: enumerate",
    )
    note = (
        "Enumeration of all configurations by network calls against igm under the same draws. Calls a draw: besides the "
        "unconditional one, the sum of the numbers of values against factors times their product."
    )
    return Table("exactness", "Evidence against enumeration", columns, rows, note)


def _calibration(scores: Mapping[str, Sequence[Scores]]) -> Table:
    rows = [
        [name, s.label, str(c.values), f"{c.confidence:.1%}", f"{c.accuracy:.1%}", f"{c.error:.1%}"]
        for name, part in scores.items()
        for s in part
        if s.label != SAME_DRAWS and (c := s.calibration)
    ]
    columns = ("split", "method", "values", "mean confidence", "right", "ECE")
    note = f"Over the values of all attributes. ECE: expected calibration error, {BINS} bins of confidence."
    return Table("calibration", "Confidence against accuracy", columns, rows, note)
