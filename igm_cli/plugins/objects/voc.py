"""Pascal VOC's XML, one file per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from igm_cli.errors import InputError
from igm_cli.plugins.objects.annotations import Annotation, Findings, Object, boxed, number
from igm_cli.plugins.objects.layout import Folder

WHAT = "Pascal VOC (.xml for each image)"
SUFFIXES = (".xml",)
PER_IMAGE = True


def claims(ends: str) -> bool:
    """Returns whether the beginning and the end of a file look like Pascal VOC's."""
    return "<annotation" in ends


def read(folder: Folder, files: Sequence[str], findings: Findings) -> Iterator[Annotation]:
    """Yields the annotation of every file."""

    def parse(file: str) -> Annotation:
        parser = ElementTree.XMLParser(target=_Builder())
        text = (folder.root / file).read_bytes()
        if not text.strip():
            raise ValueError("it is empty")
        root = ElementTree.fromstring(text, parser)
        if root.tag == "annotations":
            raise InputError("it is in CVAT's own format; export COCO, Pascal VOC or YOLO from there instead")
        sides = [number(root.findtext(f"size/{side}") or 0) for side in ("width", "height")]
        size = (sides[0], sides[1]) if all(sides) else None
        objects = [_object(element) for element in root.findall("object")]
        return Annotation(root.findtext("filename") or "", objects, file, size)

    return folder.one_by_one(files, parse, findings)


def _object(element: ElementTree.Element) -> Object:
    label, sides = (element.findtext("name") or "").strip(), []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        text = element.findtext(f"bndbox/{side}")
        if text is None:
            raise ValueError(f"the object {label!r} has no {side} in a bndbox")
        sides.append(number(text))
    left, top, right, bottom = sides
    return boxed(left, top, right, bottom, label)


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities could grow without limit."""

    def doctype(self, *_: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which annotations do not need")
