"""Frames of videos, decoded one by one as needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, kind_and_message, need
from igm_cli.imaging import opened, refuse_large

if TYPE_CHECKING:
    from PIL.Image import Image

_CLOSED: dict[str, Any] = {"options": {"protocol_whitelist": "none"}, "metadata_errors": "replace"}
"""Keeps a video from opening other files or addresses, which some containers that FFmpeg reads can name."""


def frames(
    video: Path | bytes, name: str, every: int
) -> Iterator[tuple[int, float | None, Callable[[], Image]]]:
    """Yields each ``every``-th frame of a video: its number from 0, its time in seconds, and what makes it a picture.

    The time is None if the video does not say it.  ``video`` is a file or its content: MP4, QuickTime, Matroska, WebM or
    AVI, whatever its suffix.

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
                yield number, time, partial(_picture, decoded)
        if number < 0:
            raise InputError(f"{name} holds no frame; save the video again")


def _picture(frame: Any) -> Image:
    """Returns a decoder's frame as RGB, rotated as the video says."""
    image: Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


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
