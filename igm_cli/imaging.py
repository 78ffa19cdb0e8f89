"""Images in: whatever people have, as RGB pictures and as tensors a model sees."""

from __future__ import annotations

import glob
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, cause

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""What a folder is searched for; a file named on the command line may end as it likes."""

MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Frame:
    """The part of an image that a model sees."""

    size: tuple[int, int]  # (width, height) in pixels of the image as given
    # (left, top, right, bottom) in its pixels; the whole image when squashed
    box: tuple[float, float, float, float]
    # how far beyond its sides, in x and y, centres lie of what shows in it in part and is meant as well
    margin: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def fit(cls, size: tuple[int, int], aspect: float, mode: str = "crop") -> Frame:
        """Returns the frame of an aspect ratio (width / height) around the centre of an image of a size.

        The mode ``crop`` cuts what sticks out, ``squash`` takes the whole image.
        """
        w, h = size
        if mode == "squash":
            return cls(size, (0.0, 0.0, float(w), float(h)))
        cw, ch = (w, w / aspect) if w / h < aspect else (h * aspect, h)
        left, top = (w - cw) / 2, (h - ch) / 2
        return cls(size, (left, top, left + cw, top + ch))


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds; an :class:`InputError` says why it cannot be read."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r} has a name that is not in UTF-8; rename it") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file; name files inside it")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read; change its permissions") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({cause(error)})") from error


def decode_image(data: bytes, name: str) -> Image:
    """Returns an encoded image as 8-bit RGB, turned as its EXIF says, transparency on white; ``name`` is for messages.

    Greyscale, palette, 16-bit and animated files (their first frame) are understood.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise InputError(f"{name} is empty (0 bytes); save the image again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise InputError(
                        f"{name} has {opened.width}×{opened.height} pixels, more than igm reads "
                        f"({MAX_PIXELS // 10**6} million); scale it down"
                    )
                opened.load()
                image = to_rgb(ImageOps.exif_transpose(opened))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has too many pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image that can be read; use PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise InputError(f"{name} is damaged ({' '.join(str(error).split())}); save the image again") from error
    return _large_enough(image, name)


def from_array(values: Any, name: str) -> Image:
    """Returns an image in memory as 8-bit RGB; ``name`` is for messages.

    Args:
        values: A PIL image, an array ``[H,W]``, ``[H,W,3]`` or ``[H,W,4]``, or a tensor ``[3,H,W]`` or ``[1,H,W]``;
            whole numbers are 0..255, others 0..1.
        name: What messages call it.
    """
    import numpy as np
    from PIL import Image

    if isinstance(values, Image.Image):
        return _large_enough(to_rgb(values), name)
    is_tensor = hasattr(values, "detach")
    pixels = np.asarray(values.detach().cpu() if is_tensor else values)
    if is_tensor and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    layered = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype.kind not in "fui" or not (pixels.ndim == 2 or layered):
        raise InputError(
            f"{name} has the shape {list(pixels.shape)} and the type {pixels.dtype}; "
            "give arrays [H,W,3] or tensors [3,H,W] of 0..255 or 0..1, several of them as a list"
        )
    pixels = pixels * 255.0 if pixels.dtype.kind == "f" else pixels
    if not pixels.size or not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 255.5:
        raise InputError(f"{name} has values beyond 0..255, or 0..1 of floating-point numbers; scale them")
    return _large_enough(to_rgb(Image.fromarray(pixels.round().astype(np.uint8))), name)


def _large_enough(image: Image, name: str) -> Image:
    if min(image.size) < 2:
        raise InputError(f"{name} has only {image.width}×{image.height} pixels; use a larger image")
    return image


def to_rgb(image: Image) -> Image:
    """Returns an image of any mode as RGB: 16 bits scaled to 8, transparency composited on white."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_8_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _deep_to_8_bit(image: Image) -> Image:
    """Returns images of 16-bit modes and of the 32-bit ones that PIL opens 16-bit files in as bytes."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    top = float(values.max(initial=0.0))
    scale = 255.0 / 65535.0
    if image.mode in ("I", "F") and top <= 255.0:
        scale = 255.0 if image.mode == "F" and top <= 1.0 else 1.0
    return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))


def expand_inputs(inputs: Sequence[str], suffixes: Sequence[str] = SUFFIXES, noun: str = "image") -> list[Path]:
    """Returns the files that files, folders (searched in depth) and patterns name, sorted within each, each once."""
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = [f for f in sorted(path.rglob("*")) if f.suffix.lower() in suffixes and f.is_file()]
            if not files:
                raise InputError(f"{path} holds no {noun}; give a folder with {', '.join(suffixes[:4])} files")
        elif not path.exists() and glob.has_magic(text):
            matches = (Path(m) for m in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
            files = [f for f in matches if f.is_file()]
            if not files:
                raise InputError(f"no file matches {text}; check the pattern")
        else:
            files = [path]
        for file in files:
            found.setdefault(file.absolute(), file)
    if not found:
        raise InputError(f"no {noun} given; name a file, a folder or a pattern")
    return list(found.values())


def to_model(image: Image, frame: Frame, image_size: tuple[int, int]) -> Tensor:
    """Returns the framed part of an RGB image at the size (width, height) a model sees, ``[3,H,W]`` in -1..1.

    Bicubic with antialiasing; nothing changes when the frame already has that size.
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
    pixels = torch.from_numpy(np.array(resized, dtype=np.uint8))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1.0


def from_model(x: Tensor) -> Image:
    """Returns ``[3,H,W]`` in -1..1 as an RGB image; inverse of :func:`to_model`."""
    import torch
    from PIL import Image

    pixels = ((x.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
