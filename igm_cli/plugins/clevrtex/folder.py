"""CLEVRTex as it is published: ``clevrtex_full/0/CLEVRTEX_full_000000.png`` with a ``.json`` next to it.

The rules are those of its authors' loader (``clevrtex_eval.py`` of karazijal/clevrtex-generation): images are
at any depth, and the splits are fractions of the images in the order of their numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError, UsageError
from igm_cli.folders import walk
from igm_cli.plugins.adapters import Dataset, SplitRequest, image_dataset, number_range
from igm_cli.plugins.clevr.folder import fit, plain_object
from igm_cli.plugins.sizes import parse_size

FRACTIONS = {"test": (0.0, 0.1), "val": (0.1, 0.2), "train": (0.2, 1.0)}
TEST_ONLY = "outd"  # the variant without splits: all of it is for testing
_FOLDER = re.compile(r"clevrtex_([a-z0-9]+)", re.IGNORECASE)
_FILE = re.compile(r"CLEVRTEX_([A-Za-z0-9]+)_(\d{6})\.(png|json)")
_LAYOUT = "give a folder in the layout of CLEVRTex (clevrtex_full/0/CLEVRTEX_full_000000.png and .json)"


@dataclass(frozen=True)
class Variant:
    """The files of one variant, by their numbers, which start at 0 without gaps."""

    name: str
    folder: Path
    images: Mapping[int, Path]
    annotations: Mapping[int, Path]

    def part(self, split: str) -> list[int]:
        """Returns the numbers of the images of a split."""
        if self.name == TEST_ONLY:
            if split != "test":
                raise UsageError(f"variant {self.name} of clevrtex is for testing only; choose split test")
            return sorted(self.images)
        first, last = (int(share * len(self.images)) for share in FRACTIONS[split])
        if first == last:
            raise InputError(
                f"{self.folder} holds too few images ({len(self.images)}) for a {split} split; "
                "extract all of its archives"
            )
        return sorted(self.images)[first:last]


def from_folder(root: Path, request: SplitRequest) -> Dataset:
    """Returns a split of CLEVRTex as it is published; ``root`` is the folder of a variant, or one with such folders.

    CLEVRTex's generator redraws a scene until every object shows more than 200 of 320×240 pixels, so no annotated
    object is hidden, and the masks are not read.
    """
    variant, counts = request.options.get("variant"), number_range("objects", request.options.get("objects"))
    found = find_variant(root, None if variant is None else str(variant))
    numbers = found.part(request.split)
    columns: dict[str, list[Any]] = {"image": [], "image_index": [], "file": [], "objects": []}
    for done, number in enumerate(numbers, 1):
        image = found.images[number]
        objects = _read_objects(found.annotations[number], colored=found.name == "vbg")
        if counts is None or counts[0] <= len(objects) <= counts[1]:
            for name, value in zip(columns, (str(image), number, image.name, objects), strict=True):
                columns[name].append(value)
        if request.progress:
            request.progress("reading scenes", done, len(numbers))
        if request.limit and len(columns["image"]) == request.limit:
            break
    if not columns["image"]:
        raise InputError(f"{found.folder} holds no {request.split} scene with so many objects; widen objects")
    fit(root, columns, parse_size(request.options.get("annotated")))
    return image_dataset(columns)


def find_variant(root: Path, name: str | None) -> Variant:
    """Returns a variant in a folder, complete and annotated; None takes the only one, or ``full``."""
    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; {_LAYOUT}")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    named = {match[1].lower(): path for path in folders if (match := _FOLDER.fullmatch(path.name))}
    if named:
        name = _choose(root, named, name)
        root = named[name]
    files = _files(root)
    if not files:
        raise InputError(f"{root} holds no image or annotation of CLEVRTex; {_LAYOUT}")
    name = _choose(root, files, name)
    images, annotations = files[name].get("png", {}), files[name].get("json", {})
    for number in range(max([*images, *annotations]) + 1):
        for numbered, suffix in ((images, "png"), (annotations, "json")):
            if number not in numbered:
                raise InputError(
                    f"{root} lacks CLEVRTEX_{name}_{number:06d}.{suffix}, and only a complete set tells which "
                    "images to train on and which to test on; extract all of its archives"
                )
    return Variant(name, root, images, annotations)


def _choose(root: Path, names: Iterable[str], wanted: str | None) -> str:
    known = sorted(names)
    if wanted is None:
        if len(known) > 1 and "full" not in known:
            raise UsageError(f"{root} holds several variants; choose one with variant: {', '.join(known)}")
        return known[0] if len(known) == 1 else "full"
    if wanted not in known:
        raise UsageError(f"{root} has no variant {wanted!r} of clevrtex; it holds {', '.join(known)}")
    return wanted


def _files(root: Path) -> dict[str, dict[str, dict[int, Path]]]:
    """Returns files at any depth, by variant, suffix and number."""
    found: dict[str, dict[str, dict[int, Path]]] = {}
    for file in walk(root, (".png", ".json")).files:
        path = root / file
        if match := _FILE.fullmatch(path.name):
            variant, number, suffix = match.groups()
            numbered = found.setdefault(variant.lower(), {}).setdefault(suffix, {})
            other = numbered.setdefault(int(number), path)
            if other != path:
                raise InputError(f"{other} and {path} have the same name; keep one of them")
    return found


def _read_objects(path: Path, colored: bool) -> list[dict[str, Any]]:
    """Returns the objects of a scene; colours only if they are those of the image."""
    try:
        objects = json.loads(path.read_text(encoding="utf-8-sig"))["objects"]
        if not isinstance(objects, list):
            raise TypeError("objects is no list")
        rows = [plain_object(o) for o in objects]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a CLEVRTex annotation: {error!r}; extract it again") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return rows if colored else [{**row, "color": ""} for row in rows]
