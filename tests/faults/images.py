"""Images: every format, wrong names, damage, bombs, and ranges of values that are known."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from faults.case import Case, Check, Outcome
from faults.kit import QUICK, Kit
from faults.raw_images import COLOURED, GREY, SIDE, chunk, packed, png, png16, saved, tiff

GREY_PNG, COLOURED_PNG = saved(GREY, "PNG"), saved(COLOURED, "PNG")
V16, V12 = GREY.astype("<u2") * 257, (GREY * (4095 / 255)).round().astype("<u2")
SHARE = (GREY / 255).astype("<f4")

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
%%Page: 1 1
showpage
%%EOF
"""
GHOSTSCRIPT = b"#!/bin/sh\necho ran > witness\n"


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _formats(kit)
    yield from _ranges(kit)
    yield from _damaged(kit)
    yield from _bombs(kit)
    yield from _turned(kit)
    yield from _several_frames(kit)
    yield from _no_images(kit)
    yield from _special_files(kit)


def _looks_like(
    kit: Kit, kind: str, name: str, data: bytes, picture: bytes, file: str, *words: str, **more: Any
) -> Case:
    """An image that must be read as a PNG of 8 bits is: its results must be the same to the last digit."""

    def check(outcome: Outcome) -> str | None:
        known = kit.results(picture)
        found = [(r["k"], r["denoising_error"], r["items"]) for r in outcome.json()]
        return None if found == [known] else f"{found[0][:2]}, not {known[:2]}"

    return Case(
        kind, name, (*kit.invert(file), "--json", *words), {file: data}, "answered", check=check, **more
    )


def sized(width: int, height: int) -> Check:
    """Whether the image was seen in a size."""
    return lambda outcome: (
        None if (found := outcome.json()[-1]["size"]) == [width, height] else f"{found}, not {width}, {height}"
    )


def _formats(kit: Kit) -> Iterator[Case]:
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOURED)
    opaque = colour.copy()
    opaque.putalpha(255)
    palette = grey.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    exact = {
        "PNG": ("png", saved(colour, "PNG")),
        "PNG with alpha": ("png", saved(opaque, "PNG")),
        "PNG interlaced by nobody, level 0": ("png", saved(colour, "PNG", compress_level=0)),
        "WebP": ("webp", saved(colour, "WEBP", lossless=True)),
        "BMP": ("bmp", saved(colour, "BMP")),
        "DIB": ("dib", saved(colour, "DIB")),
        "TIFF": ("tif", saved(colour, "TIFF")),
        "TIFF, LZW": ("tiff", saved(colour, "TIFF", compression="tiff_lzw")),
        "TIFF, deflate": ("tiff", saved(colour, "TIFF", compression="tiff_adobe_deflate")),
        "TIFF, PackBits": ("tiff", saved(colour, "TIFF", compression="packbits")),
        "BigTIFF": ("tif", saved(colour, "TIFF", big_tiff=True)),
        "PPM": ("ppm", saved(colour, "PPM")),
        "PPM as text": (
            "ppm", f"P3 {SIDE} {SIDE} 255\n".encode() + " ".join(map(str, COLOURED.ravel())).encode()
        ),
        "PPM of 16 bits": (
            "ppm", f"P6 {SIDE} {SIDE} 65535\n".encode() + (COLOURED.astype(">u2") * 257).tobytes()
        ),
        "JPEG 2000": ("jp2", saved(colour, "JPEG2000")),
        "JPEG 2000 without a box": ("j2k", saved(colour, "JPEG2000", no_jp2=True)),
        "PNG of 16 bits": ("png", png16(COLOURED.astype(np.uint16) * 257, 2)),
    }  # fmt: skip
    for name, (suffix, data) in exact.items():
        yield _looks_like(kit, "format", name, data, COLOURED_PNG, f"a.{suffix}")
        yield _looks_like(kit, "format, no suffix", name, data, COLOURED_PNG, "a")
        for other in ("png", "jpg", "tif"):
            if other != suffix:
                yield _looks_like(
                    kit, "format, wrong suffix", f"{name} as {other}", data, COLOURED_PNG, f"a.{other}"
                )
    greys = {
        "PNG, L": saved(grey, "PNG"),
        "PNG, palette": saved(palette, "PNG"),
        "PNG, LA": saved(grey.convert("LA"), "PNG"),
        "PGM": saved(grey, "PPM"),
        "PGM as text": f"P2\n# by hand\n{SIDE} {SIDE} 255\n".encode()
        + " ".join(map(str, GREY.ravel())).encode(),
        "PGM of 16 bits": f"P5 {SIDE} {SIDE} 65535\n".encode() + V16.astype(">u2").tobytes(),
        "GIF": saved(palette, "GIF"),
        "BMP, L": saved(grey, "BMP"),
        "TIFF, palette": saved(palette, "TIFF"),
        "TIFF, L": tiff(GREY.tobytes(), bits=8),
        "TIFF, L, Motorola": tiff(GREY.tobytes(), bits=8, big=True),
        "WebP, L": saved(grey, "WEBP", lossless=True),
        "JPEG 2000 of 16 bits": saved(Image.fromarray(V16.astype(np.uint16)), "JPEG2000"),
        "PFM": f"Pf\n{SIDE} {SIDE}\n-1.0\n".encode() + SHARE[::-1].tobytes(),
    }
    for name, data in greys.items():
        yield _looks_like(kit, "format, grey", name, data, GREY_PNG, "a.img")
    lossy = {
        "JPEG": saved(colour, "JPEG"),
        "JPEG, progressive": saved(colour, "JPEG", progressive=True),
        "JPEG, grey": saved(grey, "JPEG"),
        "JPEG, CMYK": saved(colour.convert("CMYK"), "JPEG"),
        "MPO": saved(colour, "MPO", save_all=True, append_images=[grey.convert("RGB")]),
        "WebP, lossy": saved(colour, "WEBP"),
        "TIFF, JPEG inside": saved(colour, "TIFF", compression="jpeg"),
        "TIFF, CMYK": saved(colour.convert("CMYK"), "TIFF"),
        "TIFF, YCbCr": saved(colour.convert("YCbCr"), "TIFF"),
        "TIFF, LAB": saved(colour.convert("LAB"), "TIFF"),
        "TIFF, one bit": saved(grey.convert("1"), "TIFF", compression="group4"),
        "PNG, one bit": saved(grey.convert("1"), "PNG"),
        "PBM": saved(grey.convert("1"), "PPM"),
        "AVIF": saved(colour, "AVIF"),
        "GIF of two colours": saved(grey.convert("1").convert("P"), "GIF", transparency=0),
        "PNG, palette with transparency": saved(palette, "PNG", transparency=bytes(range(256))),
        "PNG of 16 bits with a clear value": png16(V16, more=[(b"tRNS", b"\0\0")]),
        "thin": saved(np.full((3, 3000, 3), 90, np.uint8), "PNG"),
        "2x2": saved(np.full((2, 2, 3), 90, np.uint8), "PNG"),
    }
    for name, data in lossy.items():
        # Pillow 12 does not read all YCbCr that it writes (python-pillow/Pillow#9770).
        expect: Literal["answered", "either"] = "either" if name == "TIFF, YCbCr" else "answered"
        yield Case("format, not exact", name, (*kit.invert("a"), "--json"), {"a": data}, expect)


def _ranges(kit: Kit) -> Iterator[Case]:
    over, nan = SHARE.copy(), SHARE.copy()
    nan[3, 3] = np.nan
    infinite = SHARE.copy()
    infinite[0, 0] = np.inf

    def overshooting(value: float) -> bytes:
        over[:] = SHARE
        over[-1, -1] = value  # the last one is 1, so it is cut to what it was
        return over.tobytes()

    white = np.uint16(65535) - V16
    told = "taken for black"
    right: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
        "16 bits": (tiff(V16.tobytes()), told, ()),
        "16 bits, Motorola": (tiff(V16.astype(">u2").tobytes(), big=True), told, ()),
        "16 bits, min is white": (tiff(white.tobytes(), photometric=0), "65535 is taken for black and 0 for white", ()),
        "8 bits, min is white": (tiff((255 - GREY).tobytes(), bits=8, photometric=0), "", ()),
        "4 bits": (tiff(packed(GREY // 17, 4), bits=4), "", ()),
        "12 bits": (tiff(packed(V12, 12), bits=12), "4095 for white", ()),
        "12 bits in 16, MaxSampleValue": (tiff(V12.tobytes(), more=[(281, 3, 4095)]), "4095 for white", ()),
        "12 bits in 16, --range": (tiff(V12.tobytes()), "", ("--range", "0,4095")),
        "MaxSampleValue of 16 bits": (tiff(V16.tobytes(), more=[(281, 3, 65535)]), told, ()),
        "floats": (tiff(SHARE.tobytes(), bits=32, kind=3), "0 is taken for black and 1 for white", ()),
        "floats, Motorola": (tiff(SHARE.astype(">f4").tobytes(), bits=32, kind=3, big=True), told, ()),
        "floats, min is white": (tiff((1 - SHARE).tobytes(), bits=32, kind=3, photometric=0), "1 is taken for black", ()),
        "one float at 1.004": (tiff(overshooting(1.004), bits=32, kind=3), r"0\.\.1\.004", ()),
        "one float at 1.01": (tiff(overshooting(1.01), bits=32, kind=3), r"0\.\.1\.01", ()),
        "one float at 1.09": (tiff(overshooting(1.09), bits=32, kind=3), told, ()),
        "floats of 0..255, --range": (tiff((SHARE * 255).tobytes(), bits=32, kind=3), "", ("--range", "0,255")),
        "floats of -1..1, --range": (tiff((SHARE * 2 - 1).tobytes(), bits=32, kind=3), "", ("--range", "-1,1")),
        "floats of 0..1000, SMaxSampleValue": (
            tiff((SHARE * 1000).tobytes(), bits=32, kind=3, more=[(340, 11, 0.0), (341, 11, 1000.0)]), "1000 for white", ()
        ),
        "one float at 300, --range cuts": (tiff(overshooting(300.0), bits=32, kind=3), "", ("--range", "0,1")),
        "signed 16 bits, --range": (tiff(V12.astype("<i2").tobytes(), kind=2), "", ("--range", "0,4095")),
        "signed 16 bits, SMaxSampleValue": (
            tiff(V12.astype("<i2").tobytes(), kind=2, more=[(340, 8, 0), (341, 8, 4095)]), "4095 for white", ()
        ),
        "signed 32 bits, --range": (tiff(V12.astype("<i4").tobytes(), bits=32, kind=2), "", ("--range", "0,4095")),
        "unsigned 32 bits, --range": (
            tiff((GREY.astype("<u4") * 16843009).tobytes(), bits=32), "", ("--range", "0,4294967295")
        ),
    }  # fmt: skip
    for name, (data, says, words) in right.items():
        known = saved(GREY // 17 * 17, "PNG") if name == "4 bits" else GREY_PNG
        yield _looks_like(kit, "range of a TIFF", name, data, known, "a.tif", *words, says=says)
    pngs: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
        "16 bits": (png16(V16), "65535 for white", ()),
        "16 bits, sBIT says 12": (png16(V16, more=[(b"sBIT", b"\x0c")]), "65535 for white", ()),
        "12 bits in 16, --range": (png16(V12), "", ("--range", "0,4095")),
        "8 bits, --range": (saved(GREY // 5, "PNG"), "", ("--range", "0,51")),
        "palette, --range": (saved(Image.fromarray(GREY // 5).convert("P"), "PNG"), "", ("--range", "0,51")),
        "RGB of 16 bits": (png16(np.stack([V16] * 3, -1), 2), "16 bits|65535 for white", ()),
        "grey of 16 bits with alpha": (png16(np.stack([V16, V16 * 0 + 65535], -1), 4), "65535 for white", ()),
        "mask of 0 and 1, --range": (
            saved((GREY > 100).astype(np.uint8), "PNG"), "", ("--range", "0,1")
        ),
    }  # fmt: skip
    known = {
        "8 bits, --range": GREY // 5 * 5,
        "palette, --range": GREY // 5 * 5,
        "mask of 0 and 1, --range": (GREY > 100).astype(np.uint8) * 255,
    }
    for name, (data, says, words) in pngs.items():
        picture = saved(known.get(name, GREY), "PNG")
        yield _looks_like(kit, "range of a PNG", name, data, picture, "a.png", *words, says=says)
    yield _looks_like(
        kit,
        "range of a PGM",
        "4095",
        f"P5 {SIDE} {SIDE} 4095\n".encode() + V12.astype(">u2").tobytes(),
        GREY_PNG,
        "a.pgm",
    )
    refused: dict[str, tuple[bytes, str]] = {
        "floats of 0..255": (tiff((SHARE * 255).tobytes(), bits=32, kind=3), "--range LOW,HIGH"),
        "one float at 1.2": (tiff(overshooting(1.2), bits=32, kind=3), "--range LOW,HIGH"),
        "one float at -0.2": (tiff((SHARE * 1.2 - 0.2).astype("<f4").tobytes(), bits=32, kind=3), "--range"),
        "NaN": (tiff(nan.tobytes(), bits=32, kind=3), "NaN"),
        "infinity": (tiff(infinite.tobytes(), bits=32, kind=3), "infinity"),
        "signed 16 bits": (tiff(V12.astype("<i2").tobytes(), kind=2), "--range"),
        "signed 32 bits": (tiff(V12.astype("<i4").tobytes(), bits=32, kind=2), "--range"),
        "unsigned 32 bits": (tiff(V12.astype("<u4").tobytes(), bits=32), "--range"),
        "MaxSampleValue that is too small": (tiff(V16.tobytes(), more=[(281, 3, 4095)]), "--range"),
        "float64": (tiff(SHARE.astype("<f8").tobytes(), bits=64, kind=3), "8 or 16 bits"),
        "half": (tiff(SHARE.astype("<f2").tobytes(), bits=16, kind=3), "8 or 16 bits"),
        "PFM beyond 1": (f"Pf\n{SIDE} {SIDE}\n-1.0\n".encode() + (SHARE * 9).tobytes(), "--range"),
        "PFM with NaN": (f"Pf\n{SIDE} {SIDE}\n-1.0\n".encode() + nan.tobytes(), "NaN"),
    }
    for name, (data, says) in refused.items():
        yield Case("range that is not known", name, kit.invert("a.tif"), {"a.tif": data}, codes=(3,), says=says)
    given = {"NaN": nan, "infinity": infinite}
    for name, values in given.items():
        data = tiff(values.tobytes(), bits=32, kind=3)
        command = (*kit.invert("a.tif"), "--range", "0,1")
        yield Case(
            "range that is not known", f"{name} with --range", command, {"a.tif": data}, codes=(3,), says="NaN"
        )
    deep = png16(COLOURED.astype(np.uint16), 2)
    yield Case("range that is not known", "colours of 16 bits with --range", (*kit.invert("a.png"), "--range", "0,255"),
               {"a.png": deep}, codes=(3,), says="16 bits per colour")  # fmt: skip
    for text in (
        "",
        "a",
        "1",
        "5,1",
        "0,0",
        "nan,1",
        "0,inf",
        "-inf,0",
        "0,1,2",
        ",",
        "0;1",
        "0-255",
        "0,255k",
        "١,",
    ):
        yield Case("--range that is none", repr(text), (*kit.invert("a.png"), f"--range={text}"),
                   {"a.png": GREY_PNG}, codes=(2,), says="0,4095|is empty")  # fmt: skip
    for command in ("estimate-k", "zero-shot"):
        words = ("--model", str(kit.positions), *QUICK) if command == "estimate-k" else ("--labels", "cat,dog")
        data = {"a.tif": tiff((SHARE * 255).tobytes(), bits=32, kind=3)}
        yield Case(
            "range that is not known", command, (command, "a.tif", *words), data, codes=(3,), says="--range"
        )
    many = {f"{n}.tif": tiff(V16.tobytes()) for n in range(4)}
    yield Case(
        "said once", "four of 16 bits", (*kit.invert(*many), "--json"), many, "answered", check=_said_once
    )
    yield Case("said once", "nothing of 8 bits", (*kit.invert("a.png"), "--json"), {"a.png": GREY_PNG}, "answered",
               check=lambda outcome: outcome.err or None)  # fmt: skip


def _said_once(outcome: Outcome) -> str | None:
    count = outcome.err.count("taken for black")
    return None if count == 1 else f"said {count} times: {outcome.err[:300]}"


def _whole(kit: Kit) -> dict[str, bytes]:
    colour = Image.fromarray(COLOURED)
    return {
        "png": COLOURED_PNG,
        "jpg": saved(colour, "JPEG"),
        "webp": saved(colour, "WEBP", lossless=True),
        "bmp": saved(colour, "BMP"),
        "gif": saved(Image.fromarray(GREY).convert("P"), "GIF"),
        "tif": saved(colour, "TIFF"),
        "lzw.tif": saved(colour, "TIFF", compression="tiff_lzw"),
        "16.tif": tiff(V16.tobytes()),
        "ppm": saved(colour, "PPM"),
        "jp2": saved(colour, "JPEG2000"),
        "avif": saved(colour, "AVIF"),
    }


def _damaged(kit: Kit) -> Iterator[Case]:
    for suffix, data in _whole(kit).items():
        places = sorted({1, 4, 9, *(kit.random.randrange(12, int(len(data) * 0.8)) for _ in range(5))})
        for place in places:
            file = f"cut.{suffix}"
            yield Case("cut short", f"{suffix} after {place} of {len(data)}", kit.invert(file), {file: data[:place]},
                       codes=(3,), says="cut")  # fmt: skip
        for _ in range(6):
            spoilt = bytearray(data)
            for _ in range(3):
                spoilt[kit.random.randrange(len(data))] ^= 1 << kit.random.randrange(8)
            file = f"flipped.{suffix}"
            yield Case("bits flipped", f"{suffix} {hash(bytes(spoilt)) % 1000}", kit.invert(file), {file: bytes(spoilt)},
                       "either", codes=(3,))  # fmt: skip
        spoilt = bytearray(data)
        head = kit.random.randrange(8, min(60, len(data)))
        spoilt[head : head + 8] = kit.random.randbytes(8)
        yield Case("head spoilt", suffix, kit.invert("a"), {"a": bytes(spoilt)}, "either", codes=(3,))
    two = {"good.png": GREY_PNG, "cut.png": COLOURED_PNG[: len(COLOURED_PNG) // 2]}
    for order in (("good.png", "cut.png"), ("cut.png", "good.png"), (".",)):
        yield Case("one of several", " ".join(order), (*kit.invert(*order), "--json"), two, codes=(3,),
                   says="cut.png is damaged.*\n.*1 of 2 images could not be used")  # fmt: skip
    yield Case(
        "one of several", "shared", (*kit.invert(".", "--shared"),), two, codes=(3,), says="cut.png is damaged"
    )


def _bombs(kit: Kit) -> Iterator[Case]:
    zeros = zlib.compress(bytes(1 << 20))
    claims = {
        "png": png(b"", (50_000, 50_000), 8, 2),
        "RGBA of 99 megapixels": png(b"", (11_000, 9_000), 8, 6),
        "16 bits of 99 megapixels": png(b"", (11_000, 9_000), 16, 0),
        "png, largest": png(b"", (2**31 - 1, 2**31 - 1), 8, 2),
        "png, one bit": png(b"", (30_000, 30_000), 1, 0),
        "tif": tiff(b"\0" * 16, (100_000, 100_000), 8),
        "tif, floats": tiff(b"\0" * 16, (8_000, 8_000), 32, 3),
        "tif, largest": tiff(b"\0" * 16, (2**32 - 1, 2**32 - 1), 8),
        "gif": b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0"
        + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0",
        "bmp": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 90_000, 90_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bmp, negative": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, -9, 9, 1, 24, 0, 0, 0, 0, 0, 0),
        "pgm": b"P5 100000 100000 255\n" + bytes(64),
        "pgm, 10 digits": b"P5 9999999999 9999999999 255\n" + bytes(64),
        "pfm": b"Pf\n9000 9000\n-1.0\n" + bytes(64),
        "jpg": b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", 65500, 65500)
        + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0",
        "webp": b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + bytes(12),
    }
    for name, data in claims.items():
        yield Case("bomb", name, kit.invert("a"), {"a": data}, codes=(3,), says="a ")
    texts = {
        "text of a megabyte in a kilobyte": [(b"zTXt", b"a\0\0" + zeros)],
        "a thousand texts": [(b"zTXt", b"a\0\0" + zeros[:1000])] * 1000,
        "a colour profile of zeros": [(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))],
    }
    rows = b"".join(b"\0" + row.tobytes() for row in GREY)
    for name, chunks in texts.items():
        yield Case(
            "bomb",
            name,
            kit.invert("a.png"),
            {"a.png": png(rows, GREY.shape, more=chunks)},
            "either",
            codes=(3,),
        )
    yield Case("bomb", "too much data", kit.invert("a.png"), {"a.png": png(bytes(1 << 26), (SIDE, SIDE))}, "either",
               codes=(3,))  # fmt: skip


def _turned(kit: Kit) -> Iterator[Case]:
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    picture = Image.fromarray(COLOURED).resize((40, 24))
    known = saved(picture, "PNG")
    for number, method in back.items():
        turned = picture if method is None else picture.transpose(method)
        mark = Image.Exif()
        mark[0x0112] = number
        for kind, how in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
            data = saved(turned, kind, exif=mark, **how)
            yield _looks_like(kit, "EXIF", f"{kind}, orientation {number}", data, known, f"a.{kind.lower()}")
    for name, exif in {
        "orientation 0": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0",
        "orientation 99": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
        "garbage": b"Exif\0\0" + bytes(range(64)),
        "cut": b"Exif\0\0II*\0\x08\0\0\0\xff",
        "empty": b"Exif\0\0",
        "a loop": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    }.items():
        for kind, how in (("PNG", {}), ("WEBP", {"lossless": True})):
            data = saved(picture, kind, exif=exif, **how)
            yield _looks_like(kit, "EXIF, odd", f"{kind}, {name}", data, known, "a.img")


def _several_frames(kit: Kit) -> Iterator[Case]:
    first, second = Image.fromarray(COLOURED), Image.fromarray(COLOURED[::-1])
    for kind, how in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        data = saved(first, kind, save_all=True, append_images=[second] * 3, **how)
        yield _looks_like(kit, "animation", kind, data, COLOURED_PNG, "a.img")
    grey = [Image.fromarray(pixels).convert("P") for pixels in (GREY, GREY[::-1])]
    yield _looks_like(
        kit, "animation", "GIF", saved(grey[0], "GIF", save_all=True, append_images=grey[1:]), GREY_PNG, "a.gif"
    )
    data = saved(grey[0], "GIF", save_all=True, append_images=grey[1:])
    yield Case(
        "animation", "GIF without its end", kit.invert("a.gif"), {"a.gif": data[:-1]}, "either", codes=(3,)
    )


def _no_images(kit: Kit) -> Iterator[Case]:
    other = Image.fromarray(COLOURED)
    foreign = {
        "EPS": EPS,
        "EPS with a preview": b"\xc5\xd0\xd3\xc6"
        + struct.pack("<IIIIIIH", 30, len(EPS), 0, 0, 0, 0, 0xFFFF)
        + EPS,
        "PDF": b"%PDF-1.4\n%%EOF\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "HTML": b"<!doctype html><title>404</title>",
        "JSON": b'{"error": "not found"}',
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "ICO": saved(other, "ICO"),
        "TGA": saved(other, "TGA"),
        "PCX": saved(other, "PCX"),
        "SGI": saved(other, "SGI"),
        "IM": saved(other, "IM"),
        "ICNS": saved(other, "ICNS"),
        "XBM": b"#define a_width 8\n#define a_height 2\nstatic char a_bits[] = {0x00, 0xff};\n",
        "PSD": b"8BPS\0\x01" + bytes(40),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
        "FITS": b"SIMPLE  =                    T" + b" " * 2850,
        "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(30),
        "zip": b"PK\x05\x06" + bytes(18),
        "gzip": b"\x1f\x8b\x08" + bytes(20),
        "npy": b"\x93NUMPY\x01\0" + bytes(60),
        "ELF": b"\x7fELF" + bytes(60),
        "zero bytes": bytes(100),
        "nothing": b"",
        "one byte": b"\x89",
        "noise": kit.random.randbytes(400),
        "FLI": b"\0\0\0\0\x11\xaf\x01\0\x20\0\x20\0\x08\0" + bytes(120),
    }
    for name, data in foreign.items():
        for suffix in ("png", "tif", "jpg"):
            files = {f"a.{suffix}": data, "gs": _executable(GHOSTSCRIPT), "witness": b"nothing ran"}
            yield Case("no image", f"{name} as {suffix}", kit.invert(f"a.{suffix}"), files, codes=(3,), says=f"a.{suffix}",
                       env={"PATH": f".:{os.environ['PATH']}"})  # fmt: skip
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP",
                  b"P6", b"P6 9", b"P5 2 2 0\n", b"P5 2 2 70000\n", b"P5 -2 2 255\n", b"\0\0\0\x0cjP  \r\n\x87\n",
                  b"\xff\x4f\xff\x51", b"II+\0"):  # fmt: skip
        yield Case(
            "no image", f"only {magic!r}", kit.invert("a.png"), {"a.png": magic}, codes=(3,), says="a.png"
        )
    tall = {"1x1": (1, 1), "1x9": (9, 1), "9x1": (1, 9)}
    for name, shape in tall.items():
        data = saved(np.zeros(shape, np.uint8), "PNG")
        yield Case(
            "too small", name, kit.invert("a.png"), {"a.png": data}, codes=(3,), says="use a larger image"
        )
    for size in ((0, 0), (0, 9), (9, 0)):
        yield Case(
            "too small",
            f"png of {size}",
            kit.invert("a.png"),
            {"a.png": png(b"", size)},
            codes=(3,),
            says="a.png",
        )
    unfinished = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
        + chunk(b"IEND", b"")
    )
    yield Case(
        "no image", "PNG without pixels", kit.invert("a.png"), {"a.png": unfinished}, codes=(3,), says="a.png"
    )


def _executable(data: bytes) -> Any:
    def make(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(0o755)

    return make


def _special_files(kit: Kit) -> Iterator[Case]:
    def listen(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(path.parent)  # names of sockets are short
            try:
                made.bind(path.name)
            finally:
                os.chdir(here)

    made: dict[str, Any] = {
        "a pipe": os.mkfifo,
        "a socket": listen,
        "a folder": lambda path: path.mkdir(),
        "a broken link": Path("nowhere.png"),
        "a link to itself": Path("a.png"),
        "a link to a pipe of nobody": Path("/dev/zero"),
        "a link to nothing": Path("/dev/null"),
        "a link to a folder": Path(),
    }
    for name, content in made.items():
        yield Case("special file", name, kit.invert("a.png"), {"a.png": content}, codes=(3,), says="a.png")
        several = {"a.png": content, "b.png": GREY_PNG}
        if name == "a link to a folder":
            continue
        walks = name in ("a folder",)
        yield Case("special file, in a folder", name, (*kit.invert("in"), "--json"),
                   {f"in/{file}": data for file, data in several.items()}, "answered",
                   says="" if walks else "left out of in|^$")  # fmt: skip
    for path in ("/dev/zero", "/dev/full", "/dev/random", "/dev/tty", "/proc/self/mem", "/proc/self/maps", "/dev/stdin",
                 "/dev/fd/99", "/", "/dev", "a.png/b.png", "a.png/"):  # fmt: skip
        yield Case("special file", path, kit.invert(path), {"a.png": GREY_PNG}, "either" if path == "a.png/" else "refused",
                   codes=(2, 3, 4))  # fmt: skip
