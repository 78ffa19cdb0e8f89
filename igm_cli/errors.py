"""Errors a user can do something about: one sentence that ends with what to do.  The class sets the exit code.

A leaf module: every layer may import it, and it imports none of them.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence


class IgmError(Exception):
    """Base of the errors that are shown as one sentence without a traceback."""

    exit_code = 1


class UsageError(IgmError):
    """The command line asks for something impossible (exit code 2)."""

    exit_code = 2


class UnknownConceptError(UsageError):
    """A concept parser does not know the words that name a concept."""


class InputError(IgmError):
    """An input or a configuration cannot be used (exit code 3)."""

    exit_code = 3


class OutputError(IgmError):
    """Something cannot be written; no input is at fault, so the run ends (exit code 3)."""

    exit_code = 3


class MissingError(IgmError):
    """Weights or data are not here and cannot be fetched (exit code 4)."""

    exit_code = 4


class ExtraError(MissingError):
    """A library of an extra is not installed."""


class PluginError(IgmError):
    """A plugin is unknown, ambiguous or broken (exit code 5)."""

    exit_code = 5


def close_names(name: str, known: Sequence[str], least: float = 0.45) -> list[str]:
    """Returns up to three known names close to a mistyped one, the nearest first; ``least`` is how close, up to 1."""
    return difflib.get_close_matches(name, known, n=3, cutoff=least)


def near_names(name: str, known: Sequence[str], otherwise: str = "known are") -> str:
    """Returns the hint of an error message about a mistyped name: the known names close to it, or all if none is."""
    near = close_names(name, known)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {', '.join(known) or 'none'}"


def counted(count: int, noun: str, more: str = "") -> str:
    """Returns a count with its noun, such as ``1 image without annotation``."""
    return f"{count} {noun}{'' if count == 1 else 's'}{more}"


def percentage(value: float, digits: int = 1) -> str:
    """Returns a proportion as a percentage."""
    return f"{100 * value:.{digits}f} %"


def some(names: Sequence[str], most: int = 3) -> str:
    """Returns the first few of the names, or the ends of long ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if len(name) <= 60 else f"…{name[-59:]}" for name in names[:most]) + more


EXTRAS = {
    "train": ("training", ("accelerate", "datasets", "tensorboard")),
    "text": ("a text-to-image model", ("accelerate", "diffusers", "transformers")),
    "sentencepiece": ("a tokenizer in a file of SentencePiece", ("google.protobuf", "sentencepiece")),
    "plots": ("a plot", ("matplotlib",)),
    "bench": ("a benchmark", ("accelerate", "datasets", "diffusers", "matplotlib", "skimage", "transformers")),
    "ui": ("the page", ("gradio", "matplotlib")),
    "faces": ("drawing faces (unless --data-root names the real CelebA)", ("python_avatars", "resvg_py")),
    "video": ("a video", ("av",)),
    "quantize": ("a network in few bits", ("bitsandbytes", "gguf", "torchao")),
    "xformers": ("--attention xformers", ("xformers",)),
}
"""What each extra of igm-cli is for, and the libraries it brings."""


def missing(*libraries: str) -> list[str]:
    """Returns which of the libraries are not installed, without importing any."""
    return [name for name in libraries if sys.modules.get(name) is None and not _findable(name)]


def need(extra: str, *libraries: str) -> None:
    """Raises an :class:`ExtraError`, which says what to install, if one of some libraries of an extra, or of all, is missing."""
    what, every = EXTRAS[extra]
    if absent := missing(*(libraries or every)):
        raise ExtraError(f"{what} needs {' and '.join(absent)}; pip install 'igm-cli[{extra}]'")


def _findable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: it was imported without a spec
        return False


LONGEST = 280
"""Maximum characters of a message; it begins with what is wrong and ends with what to do."""


def brief(text: str) -> str:
    """Shortens what a long message quotes; its end, which says what to do, stays."""
    if len(text) > LONGEST:
        text = re.sub(r"\S{60,}", lambda word: f"{word[0][:36]}…{word[0][-12:]}", text)
    return text if len(text) <= LONGEST else f"{text[:150]} … {text[153 - LONGEST :]}"


def cause(error: OSError) -> str:
    """Returns the operating system's reason for an error."""
    return (error.strerror or str(error)).lower()


def kind_and_message(error: BaseException) -> str:
    """Returns the class and message of a foreign error, on one line."""
    return f"{type(error).__name__}: {' '.join(reason(error).split())}".rstrip(": ")


def reason(error: BaseException) -> str:
    """Returns what an error says; of pydantic's, which are long, the first thing that is wrong."""
    if type(error).__name__ != "ValidationError" or not hasattr(error, "errors"):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if where and first["type"] != "value_error":
        return f"{where}: {first['msg']}"
    return str(first["msg"]).removeprefix("Value error, ")


def out_of_memory(error: BaseException) -> bool:
    """Returns whether the machine or a GPU ran out of memory, without importing torch."""
    says = str(error).lower()
    full = isinstance(error, RuntimeError) and ("can't allocate memory" in says or "out of memory" in says)
    return full or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def debugging() -> bool:
    """Returns whether the user asks for tracebacks of bugs (``IGM_DEBUG``)."""
    return os.environ.get("IGM_DEBUG", "") not in ("", "0")


def sentence(error: BaseException) -> tuple[str, int]:
    """Returns the message shown for an error of igm, the system or a library, and the exit code."""
    if isinstance(error, IgmError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return f"cannot read or write{where}: {cause(error)}; check the path, its rights and space", 3
    says = str(error).lower()
    if out_of_memory(error):
        use = "use" if isinstance(error, MemoryError) or "can't allocate" in says else "use --device cpu,"
        way_out = "a smaller --batch-size or --scale, fewer --draws or smaller images, or end other programs"
        return f"not enough memory; {use} {way_out}", 3
    if isinstance(error, RuntimeError) and "busy or unavailable" in says:
        way_out = "end what uses it, choose another with --device cuda:N, or use --device cpu"
        return f"the GPU is busy with another program, or may not be used by this one; {way_out}", 3
    if "mps" in says and ("float64" in says or isinstance(error, NotImplementedError)):
        return "this needs an operation that MPS does not have, such as one in float64; use --device cpu", 3
    return f"this is a bug in igm: {kind_and_message(error)}; set IGM_DEBUG=1 to see where, and report it", 1
