"""Dataset ``pictures``: a folder of your own pictures, labelled with the things in them."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from igm_cli.errors import InputError, cause, counted
from igm_cli.plugins import shares
from igm_cli.plugins.adapters import (
    ALL,
    SPLIT_NAMES,
    SPLITS,
    Adapter,
    Dataset,
    SplitRequest,
    choice,
    image_dataset,
)
from igm_cli.plugins.base import Advice, Note
from igm_cli.plugins.pictures.files import ImageFiles
from igm_cli.plugins.pictures.tables import NAMES, find_table, read_table, tables_below, text_of
from igm_cli.plugins.pictures.words import Vocabulary

LAYOUTS = ("auto", *NAMES, "names", "folders")


class Pictures(Adapter):
    """Pictures of several things, such as two of cat, dog and rabbit, with their names.

    A folder holds images at any depth, and gives their labels in one of four ways:

    * ``metadata.jsonl`` or ``metadata.parquet`` as Hugging Face has it: ``{"file_name": "1.jpg", "labels": ["cat", "dog"]}``;
    * ``metadata.csv``, ``labels.csv`` or the only ``.csv``, with columns ``file,labels`` or ``file,cat,dog``;
    * names of files: ``cat_dog_003.jpg``;
    * names of folders: ``cat_dog/003.jpg``.

    A table, if there is one, overrides all names: images that it does not list are left out.  If both folders and
    files have names that may be labels, those of folders count, unless ``labels`` or ``layout`` says otherwise.

    With folders ``train``, ``val`` (or ``validation``) and ``test``, each split is one of them, in any of these
    layouts, or listed in a file next to the three.  Without them, images are divided by a hash of their paths.
    The split ``all`` is the whole folder.

    The columns of a split are ``image``, ``file`` (its path in the data root) and ``labels`` (their names, in lower
    case, each once, in the order as written).  Images are in the order of their paths, the same on every machine,
    and read on access.
    """

    name = "pictures"
    summary = "your own pictures of several things, labelled in a table or in their names"
    licence = "your own"
    source = "collect images named like cat_dog_1.jpg, or list them in a labels.csv, and give their folder"
    image_size = (64, 64)
    whole = True
    concepts = "labels"
    options: Mapping[str, str] = {
        "labels": "labels between commas, e.g. cat,dog,rabbit: only these count; else every one that is found",
        "layout": "where labels stand: jsonl (metadata.jsonl), csv (labels.csv), parquet (metadata.parquet), "
        "names (cat_dog_1.jpg), folders (cat_dog/1.jpg) or auto, which finds out",
        **shares.OPTIONS,
    }

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns the pictures in a folder."""
        split, note = request.split, request.note
        vocabulary = Vocabulary.of(request.options.get("labels"))
        layout = choice("layout", request.options.get("layout", "auto"), LAYOUTS)
        how, homes = shares.shares_of(request.options), _homes(root, split, vocabulary)
        labels: dict[str, list[str]] = {}
        for home in homes or [root]:
            labels |= _labels(root, home, layout, vocabulary, note)
        files = list(labels)
        if not homes and split != ALL:
            of_split = {file: shares.seeded_share(file, **how) for file in files}
            counts = Counter(of_split.values())
            if sum(share > 0 for share in how["shares"]) > 1:
                told = ", ".join(f"{counts[name]} {name}" for name in SPLITS)
                note(
                    f"no folder of {root.absolute().name} is called train, val or test, so a hash of their names divides "
                    f"its {counted(len(files), 'image')}: {told}; the split all takes every one"
                )
            files = [file for file in files if of_split[file] == split]
        files = files[: request.limit]
        if not files:
            raise InputError(f"{root} has no {split} image; add some, or choose another split or other shares")
        columns = {
            "image": [str(root / file) for file in files],
            "file": files,
            "labels": [labels[file] for file in files],
        }
        return image_dataset(columns)

    def advise(self, data: Dataset, tables: Mapping[str, Mapping[str, Any]]) -> Advice:
        """Returns what the images are like; their labels suit the concept parser, which advises them."""
        counts = [len(labels) for labels in data["labels"]]
        least, most = min(counts), counted(max(counts), "label")
        each = f"{most} in each" if min(counts) == max(counts) else f"{least} to {most} in each"
        return Advice({}, (f"{counted(len(data), 'image')} with {each}",))


def _homes(root: Path, split: str, vocabulary: Vocabulary) -> list[Path]:
    """Returns the folder of a split, or those of all; none if there are no folders of splits."""
    if not root.is_dir():
        raise InputError(f"data root {root} is not a folder; give a folder with pictures")
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    except OSError as error:
        raise InputError(f"{root} may not be read ({cause(error)}); change its permissions") from error
    homes: dict[str, Path] = {}
    for path in folders:
        name = path.name.lower()
        if name in SPLIT_NAMES and name not in vocabulary.known:  # a train may be a thing in pictures
            homes.setdefault(SPLIT_NAMES[name], path)
    if homes and split != ALL and split not in homes:
        names = " and ".join(path.name for path in homes.values())
        raise InputError(f"{root} has {names} but no folder {split}; add it, or choose another split")
    return [path for name, path in homes.items() if split in (name, ALL)]


def _labels(root: Path, home: Path, layout: str, vocabulary: Vocabulary, note: Note) -> dict[str, list[str]]:
    """Returns the labels of a split's images by their paths in the root, in order."""
    inside = "" if home == root else f"{home.name}/"
    for folder in dict.fromkeys((home, root)):  # a table of the split itself before one of all splits
        table = find_table(folder, layout)
        below = tables_below(folder, layout)
        if table and below and folder == home:
            raise InputError(f"{table} and {below[0]} both hold labels; make one of them")
        if table:
            listed = read_table(table, _files(folder, note), vocabulary)
            if folder == home:
                return {inside + file: labels for file, labels in listed.items()}
            return {file: labels for file, labels in listed.items() if file.startswith(inside)}
    if below := tables_below(home, layout):
        found = {}
        for table in below:
            place = table.parent.relative_to(root).as_posix()
            listed = read_table(table, ImageFiles(table.parent), vocabulary)
            for file, labels in listed.items():
                if f"{place}/{file}" in found:
                    raise InputError(
                        f"{table} lists {file}, which another table lists too; keep one of the lines"
                    )
                found[f"{place}/{file}"] = labels
        return found
    if layout in NAMES:
        raise InputError(f"{home} has no {NAMES[layout][-1]}; add it or choose another layout")
    return {inside + file: labels for file, labels in _named(_files(home, note), layout, vocabulary).items()}


def _files(folder: Path, note: Note) -> ImageFiles:
    """Returns the images in a folder, and notes what was skipped."""
    files = ImageFiles(folder)
    if files.left_out:
        note(files.left_out)
    return files


def _named(files: ImageFiles, layout: str, vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Returns labels from the names of files, or of the nearest folder with labels in its name."""
    by_name, by_folder = {}, {}
    for file in files.names:
        path = PurePosixPath(file)
        by_name[file] = vocabulary.in_name(path.stem)
        by_folder[file] = next(
            filter(None, (_of_folder(above.name, files, vocabulary) for above in path.parents)), []
        )
    if layout == "auto":
        layout = _guess(by_name, by_folder)
    labels = by_folder if layout == "folders" else by_name
    without = [file for file, found in labels.items() if not found]
    if without:
        what = f"none of {', '.join(vocabulary.known)}" if vocabulary.known else "no label"
        where = "folders' names" if layout == "folders" else "names"
        raise InputError(
            f"{files.folder} has {what} in the {where} of {len(without)} of {counted(len(labels), 'image')}, the first "
            f"{without[0]}; name images like cat_dog_1.jpg, put them in folders like cat_dog, or list them in a labels.csv"
        )
    return labels


_SYNSET = re.compile(r"n\d{8}")
_SYNSET_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")


def _of_folder(name: str, files: ImageFiles, vocabulary: Vocabulary) -> list[str]:
    """Returns the labels in the name of a folder; a synset of WordNet has its name in a list."""
    if not _SYNSET.fullmatch(name):
        return vocabulary.in_name(name)
    label = _synsets(files.folder).get(name)
    if label is None:
        raise InputError(
            f"{files.folder} has the folder {name}, a synset, and no name of it; add {_SYNSET_NAMES[0]} with lines such as "
            f"'{name} tench, Tinca tinca'"
        )
    return vocabulary.among([label])


@functools.cache
def _synsets(folder: Path) -> dict[str, str]:
    """Returns the first name of every synset from a list in a folder, or next to it."""
    for path in (place / name for place in (folder, folder.parent) for name in _SYNSET_NAMES):
        if path.is_file():
            pairs = (line.strip().split(maxsplit=1) for line in text_of(path).splitlines())
            return {pair[0]: pair[1].partition(",")[0] for pair in pairs if len(pair) == 2}
    return {}


def _guess(by_name: Mapping[str, list[str]], by_folder: Mapping[str, list[str]]) -> str:
    """Returns where labels are, if no option says it: where fewer images lack them."""
    if len(set(map(frozenset, by_folder.values()))) == 1:
        # The name of a single folder gives the labels only if the names of its images give none.
        return "folders" if all(by_folder.values()) and not any(by_name.values()) else "names"
    gaps = [sum(not found for found in labels.values()) for labels in (by_folder, by_name)]
    return "folders" if gaps[0] <= gaps[1] else "names"
