"""CelebA as it is published: ``img_align_celeba/000001.jpg`` and ``list_attr_celeba.txt``, or Kaggle's copy."""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from igm_cli.errors import InputError, counted
from igm_cli.plugins.adapters import SPLITS, Dataset, SplitRequest, image_dataset
from igm_cli.plugins.celeba.attribute_file import AttributeTable, read_attributes, read_partition

DOMAIN = "Male"
"""The attribute that distinguishes the domains."""

_OFFICIAL_FIRSTS = (162_771, 182_638)  # numbers of the first images of val and of test
_NESTS = ("img_align_celeba", "img_align_celeba_png")
_IMAGE_FOLDERS = (
    *(f"{outer}{nest}" for nest in _NESTS for outer in ("", f"{nest}/", "Img/")),
    "",  # the folder of images itself was given
)
_LAYOUT = "give a folder in the layout of CelebA (img_align_celeba/000001.jpg and list_attr_celeba.txt)"


def from_folder(root: Path, request: SplitRequest, male: bool | None) -> Dataset:
    """Returns a split of CelebA as it is published; ``male`` is the domain, and None takes both.

    The splits are those of ``list_eval_partition``, or without it those of the images' numbers.  If these leave
    a split empty, or names are not numbers, they are 80, 10 and 10 per cent in the order of the file.
    """
    import pyarrow  # type: ignore[import-untyped]

    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; {_LAYOUT}")
    folder, present = _images(root)
    path = _find(root, "list_attr_celeba")
    if path is None:
        raise InputError(
            f"{root} has no list_attr_celeba.txt or .csv, neither there nor in its folder Anno; {_LAYOUT}"
        )
    table = read_attributes(path)
    chosen = np.array(_splits(root, table)) == SPLITS.index(request.split)
    if male is not None:
        if DOMAIN not in table.names:
            raise InputError(f"{path} has no attribute {DOMAIN} to tell the domain by; choose the domain all")
        chosen &= table.holds[:, table.names.index(DOMAIN)] == male
    rows = np.flatnonzero(chosen)[: request.limit]
    if not len(rows):
        domain = "" if male is None else f" with {DOMAIN} {'1' if male else '-1'}"
        raise InputError(
            f"{path} has no {request.split} image{domain}; choose another split or domain, or a larger limit"
        )
    files = _existing(folder, present, [table.files[row] for row in rows])
    holds = [pyarrow.array(np.ascontiguousarray(column)) for column in table.holds[rows].T]
    attributes = pyarrow.StructArray.from_arrays(holds, names=list(table.names))  # no Python object per value
    return image_dataset(
        {"image": [str(folder / file) for file in files], "file": files, "attributes": attributes}
    )


def _images(root: Path) -> tuple[Path, frozenset[str]]:
    """Returns the first folder that holds images, and their names."""
    for folder in filter(Path.is_dir, (root / name for name in _IMAGE_FOLDERS)):
        with os.scandir(folder) as entries:
            names = frozenset(e.name for e in entries if e.name.lower().endswith((".jpg", ".jpeg", ".png")))
        if names:
            return folder, names
    raise InputError(f"{root} has no folder img_align_celeba with images in it; {_LAYOUT}")


def _find(root: Path, stem: str) -> Path | None:
    """Returns a file of the dataset, which is above the images if their folder was given."""
    homes = [root, root.parent, root.parent.parent] if root.name in _NESTS else [root]
    names = [f"{folder}{stem}{suffix}" for folder in ("", "Anno/", "Eval/") for suffix in (".txt", ".csv")]
    return next(filter(Path.is_file, (home / name for home in homes for name in names)), None)


def _splits(root: Path, table: AttributeTable) -> list[int]:
    """Returns the index in `SPLITS` of every row, independent of the split asked for: splits must not overlap."""
    path = _find(root, "list_eval_partition")
    if path is not None:
        partition = read_partition(path)
        absent = [file for file in table.files if file not in partition]
        if absent:
            raise InputError(
                f"{path} lacks {counted(len(absent), 'image')} of {table.path.name}, the first {absent[0]}; fetch both again"
            )
        return [partition[file] for file in table.files]
    numbers = [file.rpartition(".")[0] for file in table.files]
    if all(number.isascii() and number.isdecimal() for number in numbers):
        splits = [bisect(_OFFICIAL_FIRSTS, int(number)) for number in numbers]
        if len(set(splits)) == len(SPLITS):
            return splits
    count = len(table.files)
    firsts = (count * 8 // 10, count * 9 // 10)
    return [bisect(firsts, row) for row in range(count)]


def _existing(folder: Path, present: frozenset[str], annotated: Sequence[str]) -> list[str]:
    """Returns names of images as on disk: annotations say .jpg even if the images are .png."""
    files = [name if name in present else f"{name.rpartition('.')[0]}.png" for name in annotated]
    absent = [name for name, file in zip(annotated, files, strict=True) if file not in present]
    if absent:
        raise InputError(
            f"{folder} lacks {len(absent)} of {len(files)} annotated images, the first {absent[0]}; "
            "extract all of its archive"
        )
    return files
