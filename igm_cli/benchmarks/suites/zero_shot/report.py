"""What the records of the benchmark amount to: tables, plots, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from igm_cli.benchmarks.suite import Confusion, Curve, PictureGrid, Plot, Record, Report, Table
from igm_cli.benchmarks.suites.zero_shot.figures import Agreement, Paired, Scores, agreement, paired, score
from igm_cli.benchmarks.suites.zero_shot.methods import ENUMERATE, IGM
from igm_cli.benchmarks.suites.zero_shot.pictures import picture_grids
from igm_cli.benchmarks.suites.zero_shot.published import PUBLISHED, TASK
from igm_cli.benchmarks.suites.zero_shot.splits import SPLITS, Cell, counts

_PUBLISHED = (
    "Published: the paper's accuracy with Stable Diffusion 2.1 on 71 photographs from the web: another model, other "
    "data. Its own method is the enumeration, which igm gives the answers of."
)
_NOTES = (
    "Exact set: pictures whose labels are all found and no other. Recall: share of the true labels that were found. "
    "95 % intervals: Wilson's of exact sets and numbers, bootstrap over pictures of recall, seconds and U-Net calls.",
    "U-Net calls: one for every noised latent under one prompt.",
    "All methods but igm-adaptive and prompt-weights see the same draws, as many of them; prompt-weights takes new "
    "ones of the same range every step, igm-adaptive stops when its choice is settled.",
)


def summarise(
    records: Sequence[Record],
    infos: Mapping[str, Mapping[str, Any]],
    cells: Mapping[str, Cell],
    model: Mapping[str, Any],
) -> Report:
    """The report of all records.

    Args:
        records: Of every method, split and item.
        infos: What the methods say of themselves.
        cells: Pictures of every split.
        model: What it is.
    """
    parts = {name: of_splits(records, [name]) for name in cells}
    parts = {name: part for name, part in parts.items() if by_label(part)}
    scores = {
        name: [score(label, list(r.values())) for label, r in by_label(p).items()] for name, p in parts.items()
    }
    pairs = {name: found for name, part in parts.items() if (found := paired(part))}
    agreed = {name: one for name, part in parts.items() if (one := agreement(part))}
    failed = failed_methods(infos)
    tables = [score_table(name, SPLITS[name], scores[name], failed) for name in parts]
    tables += common_tables(parts, SPLITS, score, score_table)
    tables += [_paired(pairs)] if pairs else []
    tables += [_agreement(agreed)] if agreed else []
    tables.append(what_was_compared({"model": model, **infos}))
    figures: list[Plot | Confusion | PictureGrid] = [_plot(name, scores[name]) for name in parts]
    figures += [_confusion(name, part) for name, part in parts.items() if counts(name)]
    shown = {name: cells[name] for name in parts}
    figures += picture_grids([record for part in parts.values() for record in part], shown)
    splits = {name: {s.label: s.to_dict() for s in part} for name, part in scores.items()}
    summary = {
        "model": dict(model),
        "splits": splits,
        "paired": {name: {p.other: vars(p) for p in part} for name, part in pairs.items()},
        "agreement": {name: vars(one) for name, one in agreed.items()},
        "methods": dict(infos),
    }
    return Report(tables, [every_figure(splits)], figures, summary, _NOTES)


def score_table(name: str, about: str, scores: Sequence[Scores], failed: Sequence[str] = ()) -> Table:
    """Accuracy and cost of every method on one split, a failed method's row saying so.

    Args:
        name: Of the split.
        about: What the split is, for the heading.
        scores: Of every method.
        failed: Methods that could not be run.
    """
    numbered = counts(name)
    published = PUBLISHED if name.startswith(f"{TASK}-") else {}
    extra = ["number right"] if numbered else ["published"] if published else []
    costs = ["calls a draw", "U-Net calls", "seconds", "images", "draws"]
    columns = ["method", "exact set", *extra, "recall", *costs]
    rows = []
    for s in scores:
        e = s.estimates
        beside = [percent(e["number"])] if numbered else [published.get(s.label, "")] if published else []
        cost = [interval(e["calls"], ".0f"), interval(e["seconds"], ".3g"), str(s.images)]
        first = [s.label, percent(e["exact"]), *beside, percent(e["recall"])]
        rows.append([*first, f"{e['calls_a_draw'].value:.4g}", *cost, f"{e['draws'].value:.3g}"])
    rows += [[method, "failed", *[""] * (len(columns) - 2)] for method in failed]
    note = _PUBLISHED if published else ""
    return Table(f"table-{name}", about[0].upper() + about[1:], columns, rows, note)


def _paired(pairs: Mapping[str, Sequence[Paired]]) -> Table:
    rows = [
        [name, p.other, str(p.images), str(p.both), str(p.ours), str(p.theirs), f"{p.p:.2g}"]
        for name, part in pairs.items()
        for p in part
    ]
    columns = ("split", "igm against", "images", "both right", "only igm", "only the other", "p")
    note = "On the pictures that both were run on. p: McNemar's exact test, two-sided, not corrected for their number."
    return Table("paired", "igm against each other method, picture by picture", columns, rows, note)


def _agreement(agreed: Mapping[str, Agreement]) -> Table:
    rows = [
        [
            name,
            f"{a.agreeing} of {a.images}",
            f"{a.difference:.1e}",
            *(f"{a.calls[label]:g}" for label in (IGM, ENUMERATE)),
            *(f"{a.seconds[label]:.3g}" for label in (IGM, ENUMERATE)),
        ]
        for name, a in agreed.items()
    ]
    columns = (
        "split",
        "equal sets",
        "errors differ by at most",
        "calls a draw: igm",
        "calls a draw: enumerate",
        "seconds: igm",
        "seconds: enumerate",
    )
    note = (
        "Under equal draws. Calls a draw: M labels against K times the number of sets of K of them; "
        "the errors' difference is relative."
    )
    return Table("agreement", "igm against plain enumeration", columns, rows, note)


def _plot(name: str, scores: Sequence[Scores]) -> Plot:
    """Accuracy over cost, a point a method."""
    curves = [
        Curve(s.label, [s.estimates["calls"].value], [e.value], [e.low], [e.high])
        for s in scores
        for e in (s.estimates["exact"],)
    ]
    title = f"{SPLITS[name][0].upper()}{SPLITS[name][1:]}"
    return Plot(f"cost-{name}", title, "U-Net calls a picture", "exact sets", curves, log_x=True)


def _confusion(name: str, records: Sequence[Record]) -> Confusion:
    """True against estimated numbers of labels."""
    rows = {label: list(rows.values()) for label, rows in by_label(records).items()}
    sizes = sorted({len(r[key]) for part in rows.values() for r in part for key in ("truth", "predicted")})

    def count(part: Sequence[Mapping[str, Any]], truth: int, estimate: int) -> int:
        return sum((len(r["truth"]), len(r["predicted"])) == (truth, estimate) for r in part)

    counted = {label: [[count(part, a, b) for b in sizes] for a in sizes] for label, part in rows.items()}
    names = [str(size) for size in sizes]
    return Confusion(f"numbers-{name}", f"Numbers of labels: {SPLITS[name]}", names, names, counted)
