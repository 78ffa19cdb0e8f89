"""Inputs: images and bound vectors from files and programs, identified by name and content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from igm_cli.core.files import file_hash, home_expanded
from igm_cli.errors import InputError
from igm_cli.folders import ADDRESS, STDIN, Source
from igm_cli.imaging import decode_image, from_array, pixel_hash, read_bytes
from igm_cli.pixels import Scaling

if TYPE_CHECKING:
    from PIL.Image import Image

Data = TypeVar("Data")


@dataclass
class Input(Generic[Data]):
    """An image or a bound vector from a file or a program."""

    about: Mapping[str, Any]  # the fields of its record that identify it
    sha256: str  # hash of its content
    load: Callable[[], Data]  # decodes it

    @cached_property
    def data(self) -> Data:
        """The image or vector itself, decoded once."""
        return self.load()


class ImageInputs:
    """Reads images: the part of a session that turns sources named by users, or data from programs, into inputs."""

    scaling: Scaling  # which pixel values are black and white
    every: int | None  # reads one video frame in this many; None reads no videos

    def read(self, source: Source) -> Iterable[Input[Image]]:
        """Returns the image of a source, not decoded yet, or the frames of a video, decoded as needed."""
        if source.is_video and self.every:
            return self._frames(source, self.every)
        data = bytes_of(source)
        name = "standard input" if source.name == STDIN else source.name
        digest = hashlib.sha256(data).hexdigest()
        return [Input(fields_of(source), digest, lambda: decode_image(data, name, self.scaling))]

    def _frames(self, source: Source, every: int) -> Iterator[Input[Image]]:
        from igm_cli.videos import frames

        video = source.path or bytes_of(source)
        digest = ""
        for number, time, picture in frames(video, source.name, every):
            if not digest:  # only now is it known to be a video
                digest = file_hash(video) if isinstance(video, Path) else hashlib.sha256(video).hexdigest()
            shown = {} if time is None else {"time": time}
            yield Input({**fields_of(source), "frame": number, **shown}, digest, picture)

    def expected(self, source: Source) -> int:
        """Returns the number of images in a source: for a video its frames to be read, or 1 if it does not say."""
        if not (source.is_video and source.path and self.every):
            return 1
        from igm_cli.videos import length

        try:
            return max(1, -(-length(source.path, source.name) // self.every))
        except InputError:  # reported when it is read
            return 1

    def input(self, image: Any, name: str = "image") -> Input[Image]:
        """Returns an image in any form as an input."""
        if isinstance(image, str) and ADDRESS.match(image):
            raise InputError(f"{image} is an address; fetch it, and give the image or its file")
        if isinstance(image, str | Path):
            return next(iter(self.read(Source.of(home_expanded(image)))))
        if callable(getattr(image, "read", None)):  # an open file
            name = str(getattr(image, "name", name))
            try:
                data = image.read()
            except UnicodeDecodeError:
                data = ""
            except ValueError as error:
                raise InputError(f"{name} is closed; open it again, or give its path") from error
            if not isinstance(data, bytes):
                raise InputError(f"{name} is not open as bytes; open it with mode 'rb', or give its path")
            digest = hashlib.sha256(data).hexdigest()
            return Input({"image": name}, digest, lambda: decode_image(data, name, self.scaling))
        name = getattr(image, "filename", "") or name
        picture = from_array(image, name, self.scaling)
        return Input({"image": name}, pixel_hash(picture), lambda: picture)

    def inputs(self, images: Sequence[Any]) -> list[Input[Image]]:
        """Returns images in any form as inputs."""
        return [self.input(image, f"image {number}") for number, image in enumerate(images, 1)]


def bytes_of(source: Source) -> bytes:
    """Returns the bytes of an image in a file, at an address or on standard input."""
    if source.path is not None:
        return read_bytes(source.path)
    from igm_cli.fetching import fetch, standard_input

    return standard_input() if source.name == STDIN else fetch(source.name)


def fields_of(source: Source, field: str = "image") -> dict[str, str]:
    """Returns the fields of a record that name a source, with the folder that a relative path starts from."""
    relative = source.path is not None and not source.path.is_absolute()
    return {field: source.name, **({"root": str(Path.cwd())} if relative else {})}


def shared_key(images: Sequence[Input[Image]]) -> dict[str, str]:
    """Returns the fields that identify a result about several images.

    These are a hash of their paths and contents, and the folder that relative paths start from.
    """
    every = [[image.about["image"], image.sha256] for image in images]
    root = next(({"root": image.about["root"]} for image in images if "root" in image.about), {})
    return {**root, "sha256": hashlib.sha256(json.dumps(every).encode()).hexdigest()}


def what_about(line: Mapping[str, Any], key: Sequence[str]) -> str:
    """Identifies the input of a record: the fields of its key, with the folder that its path starts from.

    Standard input is known by its content.
    """
    content = ("sha256",) if line.get(key[0]) == STDIN else ()
    return " ".join(str(line[name]) for name in ("root", *key, *content) if name in line)
