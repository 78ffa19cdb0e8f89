"""Grids of faces with what each method says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from igm_cli.benchmarks.frame.images import Scene, Scenes
from igm_cli.benchmarks.frame.tables import by_label
from igm_cli.benchmarks.suite import PictureGrid, Record
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE, SAME_DRAWS
from igm_cli.core.concepts import Categorical
from igm_cli.plugins.base import ConceptParser

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS = 9  # of a grid, shared by the splits
ACROSS = 3  # methods beside the truth: more would be too small to read
_UNSEEN = (ENUMERATE, SAME_DRAWS)  # say what igm says
_WRONG, _RIGHT = (200, 40, 40), (255, 255, 255)


def picture_grids(
    records: Sequence[Record], scenes: Mapping[str, Scenes], parser: ConceptParser
) -> Iterator[PictureGrid]:
    """Faces on which some method is wrong first, igm's own misses before the others'."""
    labels = {label: rows for label, rows in by_label(records).items() if label not in _UNSEEN}
    each = max(1, ROWS // max(1, len(scenes)))
    shown = [
        (split, item) for split in scenes for item in _chosen(labels, split, list(scenes[split].rows), each)
    ]
    names = list(labels)
    for number, first in enumerate(range(0, len(names), ACROSS), start=1):
        part = names[first : first + ACROSS]
        rows = []
        for split, item in shown:
            scene = scenes[split][item]
            told = [labels[name].get(f"{split} {item}") for name in part]
            truth = _drawn(scene, parser, parser.decode(scene.truth, scene.frame), right=True)
            rows.append((split, [truth, *(_answer(scene, parser, row) if row else None for row in told)]))
        yield PictureGrid(
            f"pictures-{number}",
            "Truth and what each method says; framed red where it is wrong",
            ["truth", *part],
            rows,
        )


def _chosen(
    labels: Mapping[str, Mapping[str, Mapping[str, Any]]], split: str, items: Sequence[str], count: int
) -> list[str]:
    """Items of a split, those that igm or any other method gets wrong first."""

    def order(item: str) -> tuple[bool, int]:
        rows = {label: rows[f"{split} {item}"] for label, rows in labels.items() if f"{split} {item}" in rows}
        wrong = {label for label, row in rows.items() if row["predicted"] != row["truth"]}
        return "igm" not in wrong, -len(wrong)

    known = [item for item in items if any(f"{split} {item}" in rows for rows in labels.values())]
    return sorted(known, key=order)[:count]


def _answer(scene: Scene, parser: ConceptParser, row: Mapping[str, Any]) -> Image:
    """What a row says, with its confidence where it has one."""
    factors = cast(Categorical, parser.space).factors
    values = zip(factors.items(), row["predicted"], strict=True)
    items: list[dict[str, Any]] = [{"factor": name, "value": names[value]} for (name, names), value in values]
    if row["confidence"] is not None:
        items = [{**i, "confidence": c} for i, c in zip(items, row["confidence"], strict=True)]
    return _drawn(scene, parser, items, right=row["predicted"] == row["truth"])


def _drawn(scene: Scene, parser: ConceptParser, items: Sequence[Mapping[str, Any]], *, right: bool) -> Image:
    from PIL import ImageOps

    drawn = parser.draw(scene.image, items)
    return ImageOps.expand(drawn, border=max(1, drawn.height // 32), fill=_RIGHT if right else _WRONG)
