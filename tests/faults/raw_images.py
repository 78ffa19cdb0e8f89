"""Image files byte by byte: what no library would write, with values that are known."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32
GREY = np.linspace(0, 255, SIDE * SIDE).round().reshape(SIDE, SIDE).astype(np.uint8)
"""A grey picture with all of 0..255 in it."""

COLOURED = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)


def saved(pixels: Any, kind: str, **how: Any) -> bytes:
    """A picture as Pillow writes it."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: bytes, size: Sequence[int], bits: int = 8, colour: int = 0, more: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """A PNG of rows, each with its filter byte."""
    head = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png16(values: np.ndarray, colour: int = 0, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of 16 bits; ``colour`` 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(rows, values.shape[1::-1], 16, colour, more)


def tiff(
    data: bytes,
    size: tuple[int, int] = (SIDE, SIDE),
    bits: int = 16,
    kind: int = 1,
    photometric: int = 1,
    more: Sequence[tuple[int, int, float]] = (),
    big: bool = False,
) -> bytes:
    """A grey TIFF of one strip; ``kind`` 1 unsigned, 2 signed, 3 floating-point; ``more`` has (tag, type, value)."""
    order = ">" if big else "<"
    tags: list[tuple[int, int, Any]] = [
        (256, 4, size[0]), (257, 4, size[1]), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, None),
        (277, 3, 1), (278, 4, size[1]), (279, 4, len(data)), (339, 3, kind), *more,
    ]  # fmt: skip
    tags.sort(key=lambda tag: tag[0])
    start = 8 + 2 + 12 * len(tags) + 4
    out = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, form, value in tags:
        code = {3: "HH", 4: "I", 8: "hh", 9: "i", 11: "f"}[form]
        held = start if value is None else value
        out += struct.pack(f"{order}HHI{code}", tag, form, 1, *((held, 0) if len(code) == 2 else (held,)))
    return out + struct.pack(f"{order}I", 0) + data


def packed(values: np.ndarray, bits: int) -> bytes:
    """Values of some bits each, one after the other."""
    text = "".join(f"{value:0{bits}b}" for value in values.ravel())
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def written(path_bytes: bytes) -> Callable[[Path], object]:
    """A function that writes a file."""
    return lambda path: path.write_bytes(path_bytes)
