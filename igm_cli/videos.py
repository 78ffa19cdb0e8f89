"""Frames of videos, decoded one by one as needed."""

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
"""Keeps a video from opening other files or addresses, which some containers that FFmpeg reads can name."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    number: int  # from 0
    time: float | None  # when it is shown, in seconds from the beginning; None if the video does not say
    decoded: Any  # the decoder's frame

    def picture(self) -> Image:
        """Returns it as RGB, rotated as the video says."""
        image: Image = self.decoded.to_image()
        return image.rotate(self.decoded.rotation, expand=True) if self.decoded.rotation else image


def frames(video: Path | bytes, name: str, every: int) -> Iterator[Frame]:
    """Yields each ``every``-th frame of a video, starting with the first.

    ``video`` is a file or its content: MP4, QuickTime, Matroska, WebM or AVI, whatever its suffix.

    Raises:
        ExtraError: If PyAV is not installed.
        InputError: If it is not a video, is damaged, or has frames that are too large.
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
    """Returns the number of frames that a video declares; 0 if it declares none."""
    with _opened(video, name) as (container, stream):
        seconds = (container.duration or 0) / 1e6
        return int(stream.frames or seconds * float(stream.average_rate or 0))


@contextmanager
def _opened(video: Path | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """Opens a video, whose first bytes tell its kind; errors within the block become an :class:`InputError`."""
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
    """Returns FFmpeg's name of a container from its first bytes; None if igm does not read it."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    return "avi" if head[:4] == b"RIFF" and head[8:11] == b"AVI" else None
