"""Frames of videos, decoded one by one as they are asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, kind_and_message, need
from igm_cli.imaging import opened, refuse_large

if TYPE_CHECKING:
    from PIL.Image import Image

_CLOSED: dict[str, Any] = {"options": {"protocol_whitelist": "none"}, "metadata_errors": "replace"}
"""A video opens no other file and no address: FFmpeg knows containers that name some."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    number: int  # from 0
    time: float | None  # when it is shown, in seconds from the beginning; None if the video does not say
    decoded: Any  # what the decoder made of it

    def picture(self) -> Image:
        """Returns it as RGB, turned as the video says."""
        image: Image = self.decoded.to_image()
        return image.rotate(self.decoded.rotation, expand=True) if self.decoded.rotation else image


def frames(video: Path | bytes, name: str, every: int) -> Iterator[Frame]:
    """Yields each ``every``-th frame of a video, the first one first.

    It is a file, or what one holds: MP4, QuickTime, Matroska, WebM or AVI, whatever it is called.

    Raises:
        ExtraError: If PyAV is not installed.
        InputError: If it is no video, damaged, or its frames are too large.
    """
    with _opened(video, name) as (container, stream):
        number = -1
        for number, decoded in enumerate(container.decode(stream)):
            if number % every == 0:
                refuse_large((decoded.width, decoded.height), "RGB", name)
                time = None if decoded.time is None else max(0.0, round(decoded.time, 3))
                yield Frame(number, time, decoded)
        if number < 0:
            raise InputError(f"{name} holds no frame; save the video again")


def length(video: Path, name: str) -> int:
    """Returns how many frames a video says that it has; 0 if it does not say."""
    with _opened(video, name) as (container, stream):
        seconds = (container.duration or 0) / 1e6
        return int(stream.frames or seconds * float(stream.average_rate or 0))


@contextmanager
def _opened(video: Path | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """Opens a video of a kind that its first bytes say; what goes wrong inside becomes an :class:`InputError`."""
    need("video")
    import av

    with io.BytesIO(video) if isinstance(video, bytes) else opened(video) as file:
        try:
            kind = _kind(file.read(16))
            file.seek(0)
            if kind is None:
                raise InputError(f"{name} is not a video that can be read; use MP4, MKV, WebM, AVI or MOV")
            with av.open(file, format=kind, **_CLOSED) as container:
                if not container.streams.video:
                    raise InputError(f"{name} has no pictures in it; name a video that has")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise InputError(f"{name} is coded in a way that PyAV does not know; save it as H.264")
                refuse_large((stream.width, stream.height), "RGB", name)
                yield container, stream
        except (av.error.FFmpegError, ValueError, RuntimeError, LookupError) as error:
            says = getattr(error, "strerror", None) or kind_and_message(error)
            raise InputError(f"{name} is damaged ({says[:120]}); save the video again") from error


def _kind(head: bytes) -> str | None:
    """Returns FFmpeg's name of a container by its first bytes; None if it is none of those that are read."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:11] == b"AVI" else None
