"""Assigns images to splits: by lists, by names of folders and files, or by a seeded share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from igm_cli.errors import counted
from igm_cli.plugins.adapters import SPLIT_NAMES, SPLITS
from igm_cli.plugins.objects.annotations import Annotation, Findings
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.pictures.tables import text_of

_WORD = re.compile(rf"(?:.*[^a-z])?({'|'.join(SPLIT_NAMES)})(?:[^a-z].*)?", re.IGNORECASE)


def split_images(
    folder: Folder,
    annotations: Mapping[str, Sequence[Annotation]],
    whole: bool,
    share: Callable[[str], str],
    findings: Findings,
) -> dict[str, str]:
    """Returns the split of every annotated image that is in one.

    An image that would be in several is in the last of train, val and test, so no test image is trained on.

    Args:
        folder: The images' folder.
        annotations: Those of every image.
        whole: Whether files annotate many images, so that their names also give a split: ``instances_train2017.json``.
        share: Gives the split of an image if no list and no folder gives that of any.
        findings: Receives images of no split.
    """
    splits, why = _listed(folder, findings), "it is in no list of a split, and is left out"
    if not splits:
        why = "it is in no folder of a split, and is left out"
        for image, several in annotations.items():
            names = [*image.split("/")[:-1]]
            for source in (PurePosixPath(each.source) for each in several):
                names += [*source.parent.parts, *([source.stem] if whole else [])]
            if named := [SPLIT_NAMES[match[1].lower()] for match in map(_WORD.fullmatch, names) if match]:
                splits[image] = max(named, key=SPLITS.index)
    if not splits:
        return {image: share(image) for image in annotations}
    for image in annotations:
        if image not in splits:
            findings.add("unplaced", image, why)
    return {image: splits[image] for image in annotations if image in splits}


def _listed(folder: Folder, findings: Findings) -> dict[str, str]:
    """Returns the splits of images in lists: those in ``ImageSets/Main``, or else the ones nearest to the root."""
    files = [file for file in folder.others if folder.is_list(file)]
    main = [file for file in files if PurePosixPath(f"/{file}".lower()).parent.match("imagesets/main")]
    depth = min((file.count("/") for file in files), default=0)
    splits: dict[str, str] = {}
    for file in main or [file for file in files if file.count("/") == depth]:
        split, absent = SPLIT_NAMES[PurePosixPath(file).stem.lower()], []
        with findings.reading(folder.root / file, file, "its split is left out"):
            for line in filter(None, map(str.strip, text_of(folder.root / file).splitlines())):
                image = folder.find(line, file) or folder.find(line.split()[0], file)
                if image is None:
                    absent.append(line)
                else:
                    splits[image] = max(split, splits.get(image, split), key=SPLITS.index)
        if absent:
            says = f"it lists {counted(len(absent), 'image')} that there is none of, the first {absent[0]}"
            findings.add("missing", file, says, len(absent))
    return splits
