"""Pictures with what each method says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from igm_cli.benchmarks.frame.tables import by_label
from igm_cli.benchmarks.suite import PictureGrid, Record
from igm_cli.benchmarks.suites.zero_shot.figures import right
from igm_cli.benchmarks.suites.zero_shot.methods import ADAPTIVE, ENUMERATE, IGM
from igm_cli.benchmarks.suites.zero_shot.splits import Cell

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS = 9  # of a grid, shared by the splits
ACROSS = 3  # methods beside the truth: more would be too small to read
_UNSEEN = (ADAPTIVE, ENUMERATE)  # nearly always say what igm says
_WRONG, _RIGHT = (200, 40, 40), (255, 255, 255)


def picture_grids(records: Sequence[Record], cells: Mapping[str, Cell]) -> Iterator[PictureGrid]:
    """Pictures on which some method is wrong first, igm's own misses before the others'."""
    labels = {label: rows for label, rows in by_label(records).items() if label not in _UNSEEN}
    each = max(1, ROWS // max(1, len(cells)))
    shown = [(split, item) for split, cell in cells.items() for item in _chosen(labels, split, cell, each)]
    names = list(labels)
    for number, first in enumerate(range(0, len(names), ACROSS), start=1):
        part = names[first : first + ACROSS]
        rows = [
            (split, _row(cells[split], split, item, [labels[name] for name in part])) for split, item in shown
        ]
        title = "Truth and what each method says; framed red where it is wrong"
        yield PictureGrid(f"pictures-{number}", title, ["truth", *part], rows)


def _chosen(
    labels: Mapping[str, Mapping[str, Mapping[str, Any]]], split: str, cell: Cell, count: int
) -> list[str]:
    """Items of a split, those that igm or any other method gets wrong first."""

    def order(item: str) -> tuple[bool, int]:
        key = f"{split} {item}"
        wrong = {label for label, rows in labels.items() if key in rows and not right(rows[key])}
        return IGM not in wrong, -len(wrong)

    known = [item for item in cell.scenes.rows if any(f"{split} {item}" in rows for rows in labels.values())]
    return sorted(known, key=order)[:count]


def _row(
    cell: Cell, split: str, item: str, columns: Sequence[Mapping[str, Mapping[str, Any]]]
) -> list[Image | None]:
    """The truth, and what every method says where it was run."""
    image = cell.scenes[item].image
    told = [rows.get(f"{split} {item}") for rows in columns]
    truth = cell.names(cell.scenes[item], cell.scenes[item].truth)
    return [
        _drawn(cell, image, [{"label": name} for name in truth], good=True),
        *(_drawn(cell, image, _items(row), good=right(row)) if row else None for row in told),
    ]


def _items(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a row says, with its confidence where it has one."""
    items: list[dict[str, Any]] = [{"label": name} for name in row["predicted"]]
    if row["confidence"] is None:
        return items
    return [{**item, "confidence": c} for item, c in zip(items, row["confidence"], strict=True)]


def _drawn(cell: Cell, image: Image, items: Sequence[Mapping[str, Any]], *, good: bool) -> Image:
    from PIL import ImageOps

    drawn = cell.parser.draw(image, items)
    return ImageOps.expand(drawn, border=max(1, drawn.height // 32), fill=_RIGHT if good else _WRONG)
