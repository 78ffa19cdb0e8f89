"""Code shared by the suites' reports: cells, tables of scores, and grids of pictures with answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from PIL import ImageOps

from igm_cli.benchmarks.frame import AnnotatedImage, AnnotatedImages, DeclaredBench, declared
from igm_cli.benchmarks.intervals import Estimate
from igm_cli.benchmarks.scores import Paired, ScoredSplits, Scores
from igm_cli.benchmarks.suite import Confusion, Curve, Figure, Infos, PictureGrid, Report, Table
from igm_cli.errors import percentage
from igm_cli.plugins.base import ConceptParser

Column: TypeAlias = tuple[str, Callable[[Any], str]]
"""Head of a column, and a function from a row's subject to its cell."""

GRID_ROWS = 9  # rows of a grid, shared by the splits
ACROSS = 3  # methods beside the truth: more would be too small to read
_WRONG, _RIGHT = (200, 40, 40), (255, 255, 255)


def percent(e: Estimate) -> str:
    """Returns a proportion and its interval, if it has one, as a cell; a dash if there were no trials."""
    if math.isnan(e.value):
        return "–"
    ends = "" if math.isnan(e.low) else f" [{100 * e.low:.1f}, {100 * e.high:.1f}]"
    return f"{percentage(e.value)}{ends}"


def interval(e: Estimate, form: str) -> str:
    """Returns a number and its interval, if it has one, as a cell; a dash if there is no number."""
    if math.isnan(e.value):
        return "–"
    ends = "" if math.isnan(e.low) else f" [{e.low:{form}}, {e.high:{form}}]"
    return f"{e.value:{form}}{ends}"


def capitalised(text: str) -> str:
    """Returns text with a capital first letter; names in it stay as they are."""
    return text[0].upper() + text[1:]


def table(
    split: str, about: str, columns: Sequence[Column], items: Iterable[Any], lost: Sequence[Sequence[str]]
) -> Table:
    """Returns the table of a split in declared columns: a row per item, then the ``lost`` rows."""
    rows = [*([cell(item) for _, cell in columns] for item in items), *lost]
    return Table(f"table-{split}", capitalised(about), [head for head, _ in columns], rows)


def curve(label: str, points: Iterable[tuple[float, Estimate]], factor: float = 1) -> Curve:
    """Returns estimates over x, with their intervals, scaled by a factor."""
    points = list(points)
    columns = [[factor * e[end] for _, e in points] for end in range(3)]
    return Curve(label, [float(x) for x, _ in points], *columns)


def confusion(
    name: str,
    title: str,
    pairs: Mapping[str, Sequence[tuple[int, int]]],
    estimates: Sequence[int],
    truths: Sequence[int],
) -> Confusion:
    """Returns how often each pair of (truth, estimate) occurs, by label."""
    counts = {label: [[part.count((t, e)) for e in estimates] for t in truths] for label, part in pairs.items()}
    return Confusion(name, title, list(map(str, truths)), list(map(str, estimates)), counts)


def score_column(head: str, cell: str, published: Mapping[str, str]) -> Column:
    """Returns a column of scores as a suite declares it; its cell is empty if a method lacks the estimate.

    ``cell`` is ``published`` or ``images``, or a form and the name of an estimate: ``rate`` for a proportion, ``.3g``
    for a number with its interval, ``=.3g`` for a number alone.
    """
    form, _, name = cell.partition(" ")
    cells: dict[str, Callable[[Any], str]] = {
        "published": lambda s: published.get(s.label, ""),
        "images": lambda s: str(len(s.rows)),
        "rate": lambda s: percent(s[name]) if name in s.estimates else "",
        f"={form[1:]}": lambda s: f"{s[name].value:{form[1:]}}",
    }
    return head, cells.get(form, lambda s: interval(s[name], form) if name in s.estimates else "")


def score_table(
    bench: DeclaredBench, split: str, about: str, scores: Sequence[Scores], failed: Sequence[str]
) -> Table:
    """Returns the scores of every label on one split in declared columns; the row of a failed method says so."""
    words, columns, published = bench.suite.words, bench.columns(split, scores), bench.published(split)
    labelled: list[Column] = [("method", lambda s: str(s.label))]
    labelled += [score_column(head, cell, published) for head, cell in columns.items()]
    note = words.get("table_notes", {}).get("published", "") if published else ""
    third, blank = list(columns.values())[1], [""] * (len(columns) - 2)
    printed = published if third == "published" else {}
    there = {score.label for score in scores}  # by an earlier call
    lost = [[method, "failed", printed.get(method, ""), *blank] for method in failed if method not in there]
    return replace(table(split, about, labelled, scores, lost), note=note, brief=words.get("brief", 0))


def scored_report(
    bench: DeclaredBench,
    scored: ScoredSplits,
    infos: Infos,
    tables: Sequence[Table],
    figures: Sequence[Figure],
    found: Mapping[str, Any],
) -> Report:
    """Returns the report of scores, other tables and further findings (``found``).

    Every split has a table, and if some methods ran on fewer images, another over the images that all methods ran on.
    """
    suite, about = bench.suite, bench.suite.splits
    failed = [name for name, info in infos.items() if "failed" in info]
    shown = [score_table(bench, name, about[name], part, failed) for name, part in scored.scores.items()]
    for name in scored.scores:
        if common := scored.common(name):
            number = len(common[0].rows)
            images = f"{number} images" if number > 1 else "one image"
            heading = f"{about[name]}: the {images} that every method was run on"
            again = score_table(bench, name, heading, common, ())
            shown.append(replace(again, name=f"{again.name}-common"))
    told = {"model": found["model"], **infos} if "model" in found else infos
    methods = [
        [name, "; ".join(f"{key} {_brief(v)}" for key, v in info.items())] for name, info in told.items()
    ]
    heads = ("method", "what it is and how it was trained")
    shown += [*tables, Table("methods", "What was compared", heads, methods)]
    splits = scored.to_dict()
    rows = [
        [split, label, str(scores["images"]), name, *map(repr, estimate)]
        for split, labels in splits.items()
        for label, scores in labels.items()
        for name, estimate in scores.items()
        if name != "images"
    ]
    columns = ("split", "method", "images", "figure", "value", "low", "high")
    results = Table("results", "Every figure", columns, rows)
    return Report(shown, [results], figures, {"splits": splits, **found, "methods": dict(infos)}, suite.notes)


def declared_tables(suite: str, **rows: Sequence[Sequence[str]]) -> list[Table]:
    """Returns the declared tables with these names that have rows."""
    return [declared_table(suite, name, cells, bins=10) for name, cells in rows.items() if cells]


def declared_table(suite: str, name: str, rows: Sequence[Sequence[str]], **numbers: object) -> Table:
    """Returns a table whose title, columns and note are declared in a suite's file; ``numbers`` fill in the note."""
    words = declared(suite)["tables"][name]
    return Table(name, words["title"], words["columns"], rows, words["note"].format(**numbers))


def paired_rows(paired: Mapping[str, Mapping[str, Paired]]) -> list[list[str]]:
    """Returns the cells of paired comparisons, by split and whatever else distinguishes the pairs."""
    found = [(split, other, p) for split, part in paired.items() for other, p in part.items()]
    return [[split, other, *map(str, p), f"{p.p:.2g}"] for split, other, p in found]


def calibration_rows(calibrated: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[list[str]]:
    """Returns the cells of :func:`~igm_cli.benchmarks.scores.calibration`, by split and label."""
    return [
        [split, label, str(c["values"]), *(percentage(c[name]) for name in ("confidence", "accuracy", "error"))]
        for split, labels in calibrated.items()
        for label, c in labels.items()
    ]


def same_cells(held: Mapping[str, Any]) -> list[str]:
    """Returns the cells of :func:`~igm_cli.benchmarks.scores.same_answers`: how often two answers agree, and the share."""
    return [f"{held['agreeing']} of {held['images']}", percent(held["agree"])]


def agreement_rows(
    agreed: Mapping[str, Mapping[str, Any]], labels: tuple[str, str], share: bool = False
) -> list[list[str]]:
    """Returns the cells of igm's agreement with enumeration on every split; ``labels`` are igm's, then the other's."""
    rows = []
    for split, a in agreed.items():
        forms = (("calls", "g"), ("seconds", ".3g"))
        costs = [f"{a[what][label]:{form}}" for what, form in forms for label in labels]
        rows.append([split, *same_cells(a)[: 1 + share], f"{a['difference']:.1e}", *costs])
    return rows


def answer_grids(
    scored: ScoredSplits,
    scenes: Mapping[str, AnnotatedImages],
    unseen: Sequence[str],
    right: Callable[[Mapping[str, Any]], bool],
    items: Callable[[Mapping[str, Any]], list[dict[str, Any]]],
) -> Iterator[PictureGrid]:
    """Yields pictures with each method's answers, framed red if wrong.

    Pictures on which igm itself is wrong come first, then those on which most methods are; ``unseen`` labels give
    the same answers as igm.  ``items`` turns a row into the items that the concept parser draws.
    """
    labels: dict[str, dict[str, Mapping[str, Any]]] = {}
    for seen in scored.labels.values():
        for label in (label for label in seen if label not in unseen):
            labels.setdefault(label, {}).update(seen[label])

    def wrong_first(key: str) -> tuple[bool, int]:
        wrong = {label for label, rows in labels.items() if key in rows and not right(rows[key])}
        return "igm" not in wrong, -len(wrong)

    def answer(scene: AnnotatedImage, parser: ConceptParser, row: Mapping[str, Any] | None) -> Any:
        if row is None:
            return None
        told = items(row)
        if row["confidence"] is not None:
            told = [{**item, "confidence": c} for item, c in zip(told, row["confidence"], strict=True)]
        return _framed(parser.draw(scene.image, told), right(row))

    each = max(1, GRID_ROWS // max(1, len(scored.labels)))
    shown = []
    for split in scored.labels:
        keys = [f"{split} {item}" for item in scenes[split].rows]
        known = [key for key in keys if any(key in rows for rows in labels.values())]
        shown += [(split, key) for key in sorted(known, key=wrong_first)[:each]]
    names = list(labels)
    for number, first in enumerate(range(0, len(names), ACROSS), start=1):
        part, rows = names[first : first + ACROSS], []
        for split, key in shown:
            scene, parser = scenes[split][key.removeprefix(f"{split} ")], scenes[split].parser
            truth = _framed(parser.draw(scene.image, parser.decode(scene.truth, scene.frame)), True)
            rows.append((split, [truth, *(answer(scene, parser, labels[name].get(key)) for name in part)]))
        title = "Truth and what each method says; framed red where it is wrong"
        yield PictureGrid(f"pictures-{number}", title, ["truth", *part], rows)


def _framed(drawn: Any, right: bool) -> Any:
    return ImageOps.expand(drawn, border=max(1, drawn.height // 32), fill=_RIGHT if right else _WRONG)


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_brief(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
