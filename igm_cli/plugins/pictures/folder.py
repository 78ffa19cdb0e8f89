"""A folder of pictures: its splits, and where it says what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from igm_cli.errors import InputError
from igm_cli.plugins.pictures.annotations import read_table, table_in
from igm_cli.plugins.pictures.files import ImageFiles
from igm_cli.plugins.pictures.words import Vocabulary

if TYPE_CHECKING:
    import datasets

LAYOUTS = ("auto", "jsonl", "csv", "names", "folders")
SPLITS = ("train", "val", "test")
_SPLIT_OF = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
_LABEL = "name images like cat_dog_1.jpg, put them in folders like cat_dog, or list them in a labels.csv"


def from_folder(
    root: Path, split: str, limit: int | None, layout: str, vocabulary: Vocabulary
) -> datasets.Dataset:
    """A split of a folder of pictures.

    Args:
        root: The folder.
        split: ``train``, ``val`` or ``test``.
        limit: At most so many images.
        layout: One of `LAYOUTS`.
        vocabulary: Labels that count.

    Raises:
        InputError: If the folder has no images or no such split, or an image has no label.
    """
    import datasets

    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; give a folder with pictures")
    home = _home(root, split, vocabulary)
    labels = _labels(root, home, layout, vocabulary)
    files = list(labels)[:limit]
    if not files:
        raise InputError(
            f"{root} has no {split} image in its table; add some, or choose another split or limit"
        )
    columns = {
        "image": [str(root / file) for file in files],
        "file": files,
        "labels": [labels[file] for file in files],
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def _home(root: Path, split: str, vocabulary: Vocabulary) -> Path:
    """The folder of a split, or the whole folder if it has none of any split."""
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    except OSError as error:
        raise InputError(f"{root} may not be read ({error.strerror}); change its permissions") from error
    homes: dict[str, Path] = {}
    for path in folders:
        name = path.name.lower()
        if name in _SPLIT_OF and name not in vocabulary.known:  # a train may be a thing in the pictures
            homes.setdefault(_SPLIT_OF[name], path)
    if homes and split not in homes:
        names = " and ".join(path.name for path in homes.values())
        raise InputError(f"{root} has {names} but no folder {split}; add it, or choose another split")
    return homes.get(split, root)


def _labels(root: Path, home: Path, layout: str, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Labels of the images of a split by their paths in the root, in order."""
    inside = "" if home == root else f"{home.name}/"
    for folder in dict.fromkeys((home, root)):  # a table of the split itself before one of all splits
        table = table_in(folder, layout)
        if table:
            listed = read_table(table, ImageFiles(folder), vocabulary)
            if folder == home:
                return {inside + file: labels for file, labels in listed.items()}
            return {file: labels for file, labels in listed.items() if file.startswith(inside)}
    if layout in ("jsonl", "csv"):
        name = "metadata.jsonl" if layout == "jsonl" else "labels.csv"
        raise InputError(f"{home} has no {name}; add it or choose another layout")
    return {inside + file: labels for file, labels in _named(ImageFiles(home), layout, vocabulary).items()}


def _named(files: ImageFiles, layout: str, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Labels in the names of files or folders."""
    by_name, by_folder = (_read(files.names, source, vocabulary) for source in (_stem, _folders))
    if layout == "auto":
        layout = _guess(by_name, by_folder)
    labels = by_folder if layout == "folders" else by_name
    _check(files, labels, layout, vocabulary)
    return labels


def _read(
    files: Iterable[str], source: Callable[[str], Iterable[str]], vocabulary: Vocabulary
) -> dict[str, list[str]]:
    """For every file the labels of the first text that holds any."""
    return {file: next(filter(None, map(vocabulary.in_name, source(file))), []) for file in files}


def _stem(file: str) -> list[str]:
    return [PurePosixPath(file).stem]


def _folders(file: str) -> list[str]:
    """The folders that hold a file, the nearest first."""
    return [folder.name for folder in PurePosixPath(file).parents]


def _guess(by_name: dict[str, list[str]], by_folder: dict[str, list[str]]) -> str:
    """Where labels stand, if no option says it: where fewer images lack them."""
    if len(set(map(frozenset, by_folder.values()))) == 1:
        # One folder of all images is named like a cat and a dog only if their own names say nothing at all.
        return "folders" if all(by_folder.values()) and not any(by_name.values()) else "names"
    gaps = [sum(not found for found in labels.values()) for labels in (by_folder, by_name)]
    return "folders" if gaps[0] <= gaps[1] else "names"


def _check(files: ImageFiles, labels: dict[str, list[str]], layout: str, vocabulary: Vocabulary) -> None:
    """That every image has a label."""
    without = [file for file, found in labels.items() if not found]
    if without:
        what = f"none of {', '.join(vocabulary.known)}" if vocabulary.known else "no label"
        where = "folders' names" if layout == "folders" else "names"
        raise InputError(
            f"{files.folder} has {what} in the {where} of {len(without)} of {len(labels)} images, "
            f"the first {without[0]}; {_LABEL}"
        )
