"""Pictures and maps of results: decides where they go, and overwrites only what igm drew."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from igm_cli.commands.results import paths_of, refuse_inputs
from igm_cli.core.files import file_hash, fingerprint_of, require_writable, write_atomically
from igm_cli.errors import UsageError
from igm_cli.folders import SUFFIXES, Source
from igm_cli.imaging import DRAWN_BY, PICTURES, RECORD, SOFTWARE
from igm_cli.output import Record, json_line

if TYPE_CHECKING:
    from igm_cli.commands.exports import Export
    from igm_cli.energy_map import EnergyMap
    from igm_cli.inputs import Input

BESIDE, OF = 0x010E, 0x010D
"""The EXIF fields of a picture with the hash of the array beside it, and with that of what it shows."""


@dataclass
class Drawing:
    """A kind of picture drawn for every image."""

    option: str  # the option that asks for it
    where: Path  # a file or folder
    draw: Callable[[Record, Input[Image.Image]], Any]  # makes a picture or a map from a record and its input
    is_map: bool = False  # whether it is a map, which has an array beside it
    targets: Mapping[str, Path] = field(default_factory=dict)  # where each image's picture goes
    labels: bool = False  # whether it says beside each object what it is

    def missing(self, record: Record) -> bool:
        """Returns whether the picture of an image has yet to be drawn, as there is none or one of another result."""
        if (target := self._target(record)) is None:
            return False
        shown = self._of(record)
        return not all(path.exists() for path in self.files(target)) or _exif(target).get(OF) != shown

    def files(self, target: Path) -> list[Path]:
        """Returns a picture's files: of a map also the array beside it."""
        return [target, target.with_suffix(".npy")] if self.is_map else [target]

    def make(self, record: Record, each: Input[Image.Image]) -> None:
        """Draws and writes the picture of an image, if it has one."""
        if target := self._target(record):
            save = save_map if self.is_map else save_picture
            save(self.draw(record, each), target, marks={OF: self._of(record)})

    def _of(self, record: Record) -> str:
        """Returns what identifies the picture's content."""
        return fingerprint_of([self.option, self.labels, record.get("run"), record["sha256"]])

    def _target(self, record: Record) -> Path | None:
        """Returns the path of an image's picture, which for a frame is in its video's folder."""
        target = self.targets.get(record["image"])
        return target / f"{record['frame']:06d}.png" if target and "frame" in record else target


def aim(
    drawings: Sequence[Drawing],
    exports: Sequence[Export],
    output: Path | None,
    files: Sequence[Source],
    sources: Sequence[Path],
) -> list[Path]:
    """Decides where the pictures of files go; returns all paths that are read: the files, and further ``sources``.

    Refuses files that cannot be written or are not igm's, and options that would write the same one or an input.
    """
    inputs, written = [*paths_of(files), *sources], list[tuple[str, Path]]()
    for drawing in drawings:
        drawing.targets = picture_targets(files, drawing.where, drawing.option)
        if drawing.is_map:
            refuse_arrays(known_pictures(files, drawing.targets), drawing.option)
        for target in drawing.targets.values():
            written += [(drawing.option, path) for path in drawing.files(target)]
    for export in exports:
        export.check(inputs)
        written.append((export.option, export.path))
    if output:
        refuse_inputs([output], inputs, "--output")
        written.append(("--output", output))
    owner: dict[Path, str] = {}
    for option, path in written:
        other = owner.setdefault(path.resolve(), option)
        if other != option:
            raise UsageError(f"{other} and {option} would write the same file; give each a path of its own")
    return inputs


def picture_targets(sources: Sequence[Source], target: Path | None, option: str) -> dict[str, Path]:
    """Returns the path of each image's picture: ``target`` itself, or for several images files in it.

    The frames of a video get a folder there.  Pictures of images with the same name are named by as much of the path as
    distinguishes them.
    """
    if target is None:
        return {}
    looks_like_file = target.suffix.lower() in PICTURES and not target.is_dir()
    if not looks_like_file and not target.is_dir() and target.suffix.lower() in SUFFIXES:
        raise UsageError(f"{option} cannot write {target.suffix} files; use .png, .jpg or .webp")
    if target.exists() and not target.is_dir() and not looks_like_file:
        raise UsageError(f"{option} {target} is a file that is no picture; name a folder, or a picture")
    several = "a video" if sources[0].is_video else "" if len(sources) == 1 else f"{len(sources)} images"
    if looks_like_file and several:
        raise UsageError(f"{option} {target} is one file for {several}; name a folder")
    if looks_like_file:
        targets = {sources[0].name: target}
    elif not several and target.suffix and not target.is_dir():
        raise UsageError(f"{option} cannot write {target.suffix} files; use .png, .jpg or .webp")
    else:
        targets = {s.name: target / name for s, name in zip(sources, _told_apart(sources), strict=True)}
    refuse_inputs(targets.values(), paths_of(sources), option)
    refuse_others_pictures(known_pictures(sources, targets), option)
    for path in {path.parent: path for path in targets.values()}.values():
        require_writable(path)
    return targets


def require_picture(path: Path, option: str) -> None:
    """Refuses a file for the only picture of a call that is no picture, not igm's, or cannot be written."""
    name = option.strip("-")
    if picture_targets([Source.of(Path(name))], path, option)[name] != path:
        raise UsageError(f"{option} {path} is a folder; name a file in it, such as {path}/{name}.png")


def _told_apart(sources: Sequence[Source]) -> list[str]:
    """Returns a unique name for the picture of each source, or for the folder of a video's pictures."""
    suffixes = ["" if source.is_video else ".png" for source in sources]
    names = [source.stem + suffix for source, suffix in zip(sources, suffixes, strict=True)]
    for parts in range(1, 1 + max(len(Path(source.name).parts) for source in sources)):
        number = Counter(map(str.casefold, names))  # many systems take X.png and x.png for one file
        names = [
            source.end(parts) + suffix if number[name.casefold()] > 1 else name
            for source, suffix, name in zip(sources, suffixes, names, strict=True)
        ]
    taken: set[str] = set()
    for place, (name, suffix) in enumerate(zip(names, suffixes, strict=True)):
        numbers = itertools.count(2)
        while names[place].casefold() in taken:  # "a-b/c.png" and "a/b-c.png"
            names[place] = f"{name.removesuffix(suffix)}-{next(numbers)}{suffix}"
        taken.add(names[place].casefold())
    return names


def known_pictures(sources: Sequence[Source], targets: Mapping[str, Path]) -> Iterator[Path]:
    """Yields the pictures whose names are known beforehand: those of images, and those already in a video's folder.

    Raises:
        UsageError: If the folder's path is that of something else.
    """
    for source in sources:
        target = targets[source.name]
        if not source.is_video:
            yield target
        elif target.is_dir():
            yield from sorted(target.glob("*.png"))
        elif target.exists():
            raise UsageError(
                f"{target} is not a folder, where the pictures of {source.name} should go; choose another path"
            )


def refuse_others_pictures(targets: Iterable[Path], option: str) -> None:
    """Raises a :class:`UsageError` if a picture that igm did not draw would be overwritten."""
    for picture in targets:
        if picture.is_dir():
            raise UsageError(f"{option} {picture} is a folder where a picture should be; choose another path")
        if picture.exists() and _exif(picture).get(SOFTWARE) != DRAWN_BY:
            raise UsageError(f"{option} would overwrite {picture}, which igm did not draw; choose another path")


def refuse_arrays(pictures: Iterable[Path], option: str) -> None:
    """Raises a :class:`UsageError` if the array beside a picture is not the one igm wrote with it."""
    for path in pictures:
        array = path.with_suffix(".npy")
        refuse_inputs([array], (), option)
        if array.is_dir() or (array.exists() and _exif(path).get(BESIDE) != file_hash(array)):
            raise UsageError(f"{option} would overwrite {array}, which igm did not write; choose another path")


def _exif(path: Path) -> Mapping[int, Any]:
    """Returns the EXIF fields of a picture; none if there is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes
            with Image.open(path) as picture:
                return dict(picture.getexif())
    except Exception:  # Pillow raises errors of many kinds for what is no picture, or too large a one
        return {}


def save_map(found: EnergyMap, path: Path, marks: Mapping[int, str]) -> None:
    """Writes the picture of a map, and its values beside it as .npy."""
    data = found.npy()
    save_picture(found.picture(), path, marks={**marks, BESIDE: hashlib.sha256(data).hexdigest()})
    write_atomically(path.with_suffix(".npy"), lambda temporary: temporary.write_bytes(data))


def save_picture(
    image: Any,
    path: Path,
    about: Mapping[str, Any] | None = None,
    marks: Mapping[int, str] = MappingProxyType({}),
) -> None:
    """Writes a PIL image atomically in the format of its suffix, marked as igm's own; ``marks`` are further EXIF fields.

    A PNG stores ``about``.
    """
    kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
    exif = Image.Exif()
    exif.update({SOFTWARE: DRAWN_BY, **marks})
    how: dict[str, Any] = {"format": kind, "exif": exif}
    if about is not None:
        how["pnginfo"] = PngInfo()
        how["pnginfo"].add_itxt(RECORD, json_line(about))
    write_atomically(path, lambda temporary: image.save(temporary, **how))


def sheet(
    pictures: Sequence[Any], columns: int = 4, width: int = 240, *, gap: int = 0, titles: Sequence[str] = ()
) -> Any:
    """Returns PIL images in rows of ``columns``, all scaled to one width.

    A ``gap`` is between pictures; ``titles`` stand above the rows, shortened to fit.
    """
    columns = min(columns, len(pictures))
    scaled = [p.resize((width, max(1, round(p.height * width / p.width)))) for p in pictures]
    head, font = 24 if titles else 0, ImageFont.load_default(size=15)
    height = max(p.height for p in scaled) + head
    rows = -(-len(scaled) // columns)
    page = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for number, picture in enumerate(scaled):
        page.paste(picture, (number % columns * (width + gap), number // columns * (height + gap) + head))
    for row, title in enumerate(titles):
        shown = title
        while shown and font.getlength(shown) > page.width - 8:
            shown = shown.removesuffix("…")[:-1] + "…" if shown != "…" else ""
        ImageDraw.Draw(page).text((4, row * (height + gap) + head / 2), shown, "black", font, "lm")
    return page
