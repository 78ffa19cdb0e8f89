"""Dataset ``objects``: a folder of your own images, with annotations of their objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from igm_cli.core.names import names_option
from igm_cli.errors import InputError, UsageError, near_names
from igm_cli.plugins import shares
from igm_cli.plugins.adapters import ALL, SPLITS, Adapter, Dataset, SplitRequest, image_dataset
from igm_cli.plugins.base import Advice
from igm_cli.plugins.crops import Crops
from igm_cli.plugins.objects.advice import CELL, advise
from igm_cli.plugins.objects.annotations import Annotation, Findings, Object
from igm_cli.plugins.objects.checks import usable
from igm_cli.plugins.objects.formats import FORMATS, choose
from igm_cli.plugins.objects.layout import Folder
from igm_cli.plugins.objects.splits import split_images
from igm_cli.plugins.sizes import HELP, parse_size, refuse_fractions, refuse_other_size


class Objects(Adapter):
    """Images of any number of objects, with annotations in one of the common formats.

    The columns of a split are ``image``, ``file`` (its path in the data root), ``width``, ``height`` and ``objects``:
    a list of ``{"pixel_coords": [x, y], "label": "", "box": [width, height] or None, "attributes": {}}``.  Images are in
    the order of their paths, turned as their EXIF says, and decoded on access.  ``ignored`` holds the boxes
    ``[left, top, right, bottom]`` of regions that are not fully annotated: no training crop overlaps them.
    """

    name = "objects"
    summary = "your own images, annotated in COCO, Pascal VOC, YOLO, LabelMe, text or a table"
    licence = "your own"
    source = "put images and their annotations into a folder, and give it with --data-root FOLDER"
    image_size = (128, 96)
    whole = True
    concepts = "pos"
    options: Mapping[str, str] = {
        "format": f"format of the annotations: {', '.join(FORMATS)}; else it is found out",
        "labels": "labels between commas: only these objects count; else all do",
        "ignore": "labels between commas whose boxes are regions to ignore: nothing in them is trained on or scored",
        "annotated": HELP,
        **shares.OPTIONS,
    }

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns a split; problems of the folder are reported for any split."""
        split, limit, progress, options = request.split, request.limit, request.progress, request.options
        share = partial(shares.seeded_share, **shares.shares_of(options))
        stated = parse_size(options.get("annotated"))
        folder, findings, of_split = Folder(root), Findings(), Findings()
        name, files = choose(folder, options.get("format"))
        annotations = _by_image(FORMATS[name].read(folder, files, findings), findings)
        for image in folder.images:
            if image not in annotations:
                findings.add("bare", image, "it has no annotation, and is left out")
        if split == ALL:
            splits = dict.fromkeys(annotations, ALL)
        else:
            splits = split_images(folder, annotations, not FORMATS[name].PER_IMAGE, share, findings)
        chosen = [image for image in folder.images if splits.get(image) == split]
        every = [each for found in annotations.values() for part in found for each in part.objects or ()]
        kept, regions = (_labels(name, options.get(name), every) for name in ("labels", "ignore"))
        attributes = sorted({key for each in every for key in each.attributes})
        count = min(limit or len(chosen), len(chosen))
        rows: list[dict[str, Any]] = []
        number = 0  # of annotated objects
        every_place: list[tuple[tuple[int, int], list[tuple[float, float]]]] = []
        for image in chosen:
            found = usable(folder.root / image, image, annotations[image], of_split, stated)
            if found is None:
                continue
            (width, height), objects, places = found
            number += sum(len(each.objects or ()) for each in annotations[image])
            every_place.append(((width, height), places))
            wanted = [
                each for each in objects if each.label not in regions and (not kept or each.label in kept)
            ]
            described = [_described(each, attributes) for each in wanted if not each.crowd]
            ignored = [_region(each, image) for each in objects if each.label in regions]
            ignored += [_region(each, image) for each in wanted if each.crowd]
            row = {"file": image, "width": width, "height": height, "objects": described, "ignored": ignored}
            rows.append({"image": str(folder.root / image), **row})
            if progress:
                progress("reading annotations", len(rows), count)
            if len(rows) == count:
                break
        if stated is None:
            refuse_fractions(root, [place for _, places in every_place for place in places])
            refuse_other_size(root, every_place)
        sentences = [*findings.sentences(), *of_split.sentences()]
        if not rows:
            raise InputError(f"{root} has no usable {split} image{_why(split, splits, sentences)}")
        counts = {"all": findings.counts(), f"the split {split}": of_split.counts()}
        sentences += [
            f"amiss in {where} of {root.absolute().name}: {each}" for where, each in counts.items() if each
        ]
        if 2 * (outside := of_split.count("outside")) > number:
            sentences.append(
                f"{outside} of {number} annotated objects of the split {split} lie outside of their images; if these were scaled "
                "since, let the annotations give the size before as the size of the images, and places are scaled, too"
            )
        for sentence in filter(None, (folder.left_out, *sentences)):
            request.note(sentence)
        return image_dataset({column: [row[column] for row in rows] for column in rows[0]})

    def advise(self, data: Dataset, tables: Mapping[str, Mapping[str, Any]]) -> Advice:
        """Returns the scale, crops, reach and grid that suit the images."""
        most = tables.get("crops", {}).get("most", Crops.most)
        if not isinstance(most, int) or most < 1:
            raise InputError(f"crops.most must be a whole number of at least 1, not {most!r}")
        return advise(data, most, int(tables.get("model", {}).get("patch", CELL)))


def _by_image(annotations: Iterable[Annotation], findings: Findings) -> dict[str, list[Annotation]]:
    """Returns the annotations of every image that has any."""
    found: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.image, []).append(annotation)
    for image, several in found.items():
        if len(several) > 1:
            where = " and ".join(dict.fromkeys(each.source for each in several))
            findings.add(
                "twice", image, f"it is annotated {len(several)} times, in {where}; all objects are taken"
            )
    return found


def _described(thing: Object, attributes: Sequence[str]) -> dict[str, Any]:
    """Returns an object as stored in a row; all have the same attributes, empty if an object has none."""
    return {
        "pixel_coords": [thing.x, thing.y],
        "label": thing.label,
        "box": None if thing.box is None else list(thing.box),
        "attributes": {name: thing.attributes.get(name, "") for name in attributes},
    }


def _region(thing: Object, image: str) -> list[float]:
    """Returns the box of a region to ignore: left, top, right, bottom."""
    if thing.box is None:
        raise InputError(f"{image}: a {thing.label!r} has no box, so it marks no region to ignore; draw a box")
    (width, height), x, y = thing.box, thing.x, thing.y
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def _why(split: str, splits: Mapping[str, str], sentences: Sequence[str]) -> str:
    """Returns why a split is empty, and the way out."""
    others = " and ".join(name for name in SPLITS if name in splits.values())
    if others and split not in splits.values():
        return f", only {others}; list some in {split}.txt, or choose another split or other shares"
    amiss = f" ({sentences[0]})" if sentences else ""
    return f"{amiss}; correct its annotations, or name another format with --set data.format=..."


def _labels(option: str, value: Any, objects: Iterable[Object]) -> frozenset[str]:
    """Returns the labels of an option, which objects must have; none if it is not given."""
    names, known = names_option(option, value), sorted({each.label for each in objects})
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no object has the label {unknown[0]!r}; {near_names(unknown[0], known)}")
    return frozenset(names)
