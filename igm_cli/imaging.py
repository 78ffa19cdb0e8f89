"""Input images: reads them as RGB pictures, and turns these into the tensors that a model sees."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from igm_cli.errors import InputError, cause, kind_and_message
from igm_cli.pixels import OVERSHOOT, Limits, Scaling, to_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@cache
def formats() -> tuple[str, ...]:
    """Returns the formats that are decoded, whatever a file's suffix; none starts another program, as EPS does in Pillow."""
    more = ("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()
    return ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", *more)


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
"""Suffixes of the formats in which pictures are written; all keep EXIF fields, which say that igm drew them."""

SOFTWARE, DRAWN_BY, RECORD = 0x0131, "igm", "igm"
"""The EXIF field that marks pictures drawn by igm, and the text of a PNG that holds the record of a generated image."""

MAX_BYTES = 1 << 30
"""Maximum memory for decoding an image, and maximum size of its file."""

_PER_PIXEL = {"1": 5, "L": 5, "P": 5, "RGB": 8, "I": 20, "F": 20}
"""Bytes per pixel during decoding and conversion, by mode; 12 for other modes."""


@dataclass(frozen=True)
class Frame:
    """The part of an image that a model sees."""

    size: tuple[int, int]  # (width, height) in pixels of the image as given
    # (left, top, right, bottom) in its pixels; the whole image when squashed
    box: tuple[float, float, float, float]
    # how far beyond its sides, in x and y, the centres of partly visible objects may lie
    margin: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def fit(cls, size: tuple[int, int], aspect: float, mode: str = "crop") -> Frame:
        """Returns the frame with an aspect ratio (width / height) at the centre of an image with the given size.

        The mode ``crop`` cuts off what lies outside, ``squash`` takes the whole image.
        """
        w, h = size
        if mode == "squash":
            return cls(size, (0.0, 0.0, float(w), float(h)))
        cw, ch = (w, w / aspect) if w / h < aspect else (h * aspect, h)
        left, top = (w - cw) / 2, (h - ch) / 2
        return cls(size, (left, top, left + cw, top + ch))

    @property
    def share(self) -> float:
        """Share of the image's area that is in the frame, at most 1."""
        left, top, right, bottom = self.box
        return min(1.0, (right - left) * (bottom - top) / (self.size[0] * self.size[1]))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that a user names; an :class:`InputError` says why it cannot be read."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r} has a name that is not in UTF-8; rename it") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file; name files inside it")
    if path.is_fifo() and path.parts[:2] != ("/", "dev"):  # opening one would wait for a writer
        raise InputError(f"{path} is a pipe, not a file; save what comes out of it as a file")
    if (path.is_char_device() and not path.samefile("/dev/null")) or path.is_block_device() or path.is_socket():
        raise InputError(f"{path} is a device, not a file; name a file")
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        if path.is_symlink():
            raise InputError(f"{path} is a link to a file that does not exist; check where it leads") from error
        raise InputError(f"{path} does not exist; check the path") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; change its permissions") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({cause(error)})") from error


def is_drawn(path: Path) -> bool:
    """Returns whether a file is an overlay, a map, a plot or a sheet of igm; a generated image, which holds its record, is none.

    The picture is not decoded.
    """
    from PIL import Image

    if path.suffix.lower() not in PICTURES:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes
            with Image.open(path, formats=formats()) as picture:
                if RECORD in picture.info or (picture.format == "PNG" and "exif" not in picture.info):
                    return False  # Pillow would decode a PNG to look for EXIF fields at its end
                return bool(picture.getexif().get(SOFTWARE) == DRAWN_BY)
    except Exception:  # Pillow raises errors of many kinds; reported when it is read
        return False


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file; an :class:`InputError` says why it cannot be read."""
    with opened(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(
            f"{path} has more than {MAX_BYTES >> 30} GB, which is more than igm reads; make it smaller"
        )
    return data


def open_image(path: Path, scaling: Scaling | None = None) -> Image:
    """Returns an image file as :func:`decode_image` does."""
    return decode_image(read_bytes(path), str(path), scaling)


def decode_image(data: bytes, name: str, scaling: Scaling | None = None) -> Image:
    """Returns an encoded image as 8-bit RGB, rotated as its EXIF says, with transparency on white.

    Reads greyscale, palette, 16-bit, floating-point and animated files (their first frame).  ``name`` is its name in
    messages; ``scaling`` says how values become bytes, and None follows the rule of :mod:`igm_cli.pixels`.

    Raises:
        InputError: If it is in none of the :func:`formats`, damaged, too large or too small.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise InputError(f"{name} is empty (0 bytes); save the image again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about sizes and damaged metadata
            with Image.open(io.BytesIO(data), formats=formats()) as opened:
                refuse_large(opened.size, opened.mode, name)
                deep = opened.format in ("PNG", "TIFF") and any(";16" in str(tile[3]) for tile in opened.tile)
                # The further frames of an MPO are extras that cameras add to a photograph.
                if getattr(opened, "is_animated", False) and opened.format != "MPO":
                    (scaling := scaling or Scaling()).say_of_frames(name)
                opened.load()
                with contextlib.suppress(Exception):  # damaged metadata do not rotate it
                    ImageOps.exif_transpose(opened, in_place=True)
                image = to_rgb(opened, name, scaling, deep=deep)
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has too many pixels; scale it down") from error
    except UnidentifiedImageError as error:
        says = "is not an image that can be read; use PNG, JPEG, WebP or TIFF of 8 or 16 bits"
        if b"%PDF-" in data[:1024]:
            says = "is a PDF, which is not read; save the page or the figure in it as a PNG"
        elif data.startswith(b"\x93NUMPY"):
            says = "is an array, not an image; bound vectors are taken apart by igm decompose"
        raise InputError(f"{name} {says}") from error
    except Exception as error:  # Pillow's readers raise anything
        raise InputError(
            f"{name} is damaged ({kind_and_message(error)[:120]}); save the image again"
        ) from error
    return _large_enough(image, name)


def from_array(values: Any, name: str, scaling: Scaling | None = None) -> Image:
    """Returns an image in memory as 8-bit RGB.

    Args:
        values: A PIL image, an array ``[H,W]``, ``[H,W,3]`` or ``[H,W,4]``, or a tensor ``[3,H,W]`` or ``[1,H,W]``;
            integers are 0..255, floats 0..1, unless ``scaling`` says otherwise.
        name: Its name in messages.
        scaling: How values become bytes; None follows the rule of :mod:`igm_cli.pixels`, for PIL images too.

    Raises:
        InputError: If it is none of these, too large or too small, or holds values that cannot be scaled.
    """
    import numpy as np
    from PIL import Image

    if isinstance(values, Image.Image):
        refuse_large(values.size, values.mode, name)
        try:
            image = to_rgb(values, name, scaling)
        except OSError as error:  # of a file that Pillow decodes only now
            raise InputError(
                f"{name} is damaged ({kind_and_message(error)[:120]}); save the image again"
            ) from error
        except (AssertionError, AttributeError, ValueError) as error:
            told = kind_and_message(error)[:120]
            raise InputError(f"{name} was closed before it was read ({told}); open the image again") from error
        return _large_enough(image, name)
    _refuse_other(values, name)
    shape = list(getattr(values, "shape", ()))
    is_tensor = hasattr(values, "detach")
    if is_tensor:
        values = values.detach().cpu().to_dense()
        values = values.float() if values.is_floating_point() else values
    pixels = np.asarray(values)
    if is_tensor and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    layered = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype.kind not in "fui" or not (pixels.ndim == 2 or layered) or not pixels.size:
        raise InputError(
            f"{name} has the shape {shape or list(pixels.shape)} and the type {pixels.dtype}; "
            "give arrays [H,W,3] or tensors [3,H,W] of 0..255 or 0..1, several of them as a list"
        )
    refuse_large(pixels.shape[1::-1], "RGBA" if layered else "F", name)
    given = scaling.given if scaling else None
    usual = Limits(0, 1, overshoot=OVERSHOOT) if pixels.dtype.kind == "f" else Limits(0, 255)
    scaled = to_bytes(pixels, Limits(*given) if given else usual, name, cut=given is not None)
    if given and layered and pixels.shape[2] == 4:
        scaled[..., 3] = to_bytes(pixels[..., 3], usual, name, cut=True)
    return _large_enough(to_rgb(Image.fromarray(scaled)), name)


def _refuse_other(values: Any, name: str) -> None:
    """Refuses what is neither an array nor a tensor, and says how to make an image of it."""
    what, way_out = (
        f"of the type {type(values).__name__}",
        "give a path, an open file, a PIL image, an array or a tensor",
    )
    if values is None:
        what, way_out = (
            "None",
            "check the path given to its reader, such as cv2.imread, where there may be no image",
        )
    elif isinstance(values, bytes | bytearray | memoryview):
        way_out = "give the bytes of a file as io.BytesIO(...)"
    elif isinstance(values, list | tuple | int | float):
        way_out = "make an array of numbers by numpy.array(...)"
    elif hasattr(values, "__next__"):
        way_out = "make a list of what it yields"
    elif not isinstance(values, type) and (
        hasattr(values, "__array__") or hasattr(values, "__array_interface__")
    ):
        return
    raise InputError(f"{name} is {what}; {way_out}")


def refuse_large(size: Sequence[int], mode: str, name: str) -> None:
    """Refuses an image that would take too much memory to decode, before it is decoded."""
    takes = math.prod(size) * _PER_PIXEL.get(mode, 12)
    if takes > MAX_BYTES:
        raise InputError(
            f"{name} has {size[0]}×{size[1]} pixels, which take {takes / 2**30:.1f} GB while they are decoded, "
            f"more than igm allows ({MAX_BYTES >> 30} GB); scale it down"
        )


def refuse_enlarged(size: Sequence[int], scale: float, name: str, option: str = "--scale") -> None:
    """Refuses an image that at a scale would have more pixels than one may have, before it is resized."""
    width, height = (round(side * scale) for side in size)
    most = MAX_BYTES // _PER_PIXEL["RGB"]
    if width * height > most:
        raise InputError(
            f"{name} would have {width}×{height} pixels at the scale {scale:g}, more than the {most // 10**6} megapixels that "
            f"igm allows; use a smaller {option}, or scale the image down"
        )


def _large_enough(image: Image, name: str) -> Image:
    if min(image.size) < 2:
        raise InputError(f"{name} has only {image.width}×{image.height} pixels; use a larger image")
    return image


def to_rgb(
    image: Image, name: str = "an image", scaling: Scaling | None = None, *, deep: bool = False
) -> Image:
    """Returns an image of any mode as RGB: values scaled to bytes, transparency composited on white.

    The arguments are those of :func:`decode_image`; ``deep`` says that its file has 16 bits per channel.
    """
    from PIL import Image

    scaling = scaling or Scaling()
    if image.mode.startswith("I") or image.mode == "F":
        return scaling.grey(image, name).convert("RGB")
    if image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    if "transparency" in image.info and image.mode not in ("RGBA", "LA"):
        image = image.convert("RGBA")
    image = scaling.colours(image, name, deep)
    if image.mode in ("PA", "RGBa"):
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image.convert("RGB"), mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def pixel_hash(picture: Image) -> str:
    """Returns the SHA-256 of an image's size and pixels."""
    return hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()


def to_model(image: Image, frame: Frame, image_size: tuple[int, int]) -> Tensor:
    """Returns what :func:`cut_out` does in -1..1."""
    return cut_out(image, frame, image_size).float().div_(127.5).sub_(1.0)


def cut_out(image: Image, frame: Frame, image_size: tuple[int, int]) -> Tensor:
    """Returns the framed part of an RGB image at a model's size (width, height), bytes ``[3,H,W]``.

    Resizing is bicubic with antialiasing; a frame that already has this size is unchanged.
    """
    import numpy as np
    import torch
    from PIL import Image

    left, top, right, bottom = whole = tuple(round(side) for side in frame.box)
    near = all(math.isclose(side, edge, abs_tol=1e-9) for side, edge in zip(frame.box, whole, strict=True))
    if near and (right - left, bottom - top) == tuple(image_size):
        resized = image.crop((left, top, right, bottom))
    else:
        resized = image.resize(image_size, Image.Resampling.BICUBIC, box=frame.box, reducing_gap=3.0)
    return torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1)


def from_model(x: Tensor) -> Image:
    """Returns ``[3,H,W]`` in -1..1 as an RGB image; inverse of :func:`to_model`."""
    from PIL import Image

    return Image.fromarray(as_bytes(x).permute(1, 2, 0).numpy())


def as_bytes(x: Tensor) -> Tensor:
    """Returns values in -1..1 rounded to bytes, on the CPU."""
    import torch

    return ((x.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
