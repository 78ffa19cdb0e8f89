"""Small videos, which tests and the fault suite share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CODECS = {".mp4": "mpeg4", ".mov": "mpeg4", ".mkv": "mpeg4", ".avi": "mpeg4", ".webm": "libvpx"}


def write(path: Path, frames: int = 12, rate: int = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """Writes a video whose frames become lighter, 20 of 255 a frame; the upper left quarter is always black."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix], rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), 20 * number % 256, np.uint8)
            pixels[: size[1] // 2, : size[0] // 2] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path
