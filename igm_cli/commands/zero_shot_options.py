"""What ``igm zero-shot`` is told, read and checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from igm_cli.errors import IgmError, InputError, UsageError

_RANGE = re.compile(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*")
_T = 1000
"""Timesteps that Stable Diffusion is trained on: a range of theirs is divided by it."""


def read_labels(text: str | None, file: Path | None) -> tuple[str, ...]:
    """The labels of ``--labels`` or ``--labels-file``; none if neither is given.

    Raises:
        UsageError: If both are given, or those of the command line cannot be used.
        InputError: If the file or its labels cannot be used.
    """
    if text is not None and file is not None:
        raise UsageError("--labels and --labels-file exclude each other; leave one out")
    if file is not None:
        return check_labels(_lines(file, "labels"), str(file), InputError)
    if text is not None:
        return check_labels([part.strip() for part in text.split(",")], "--labels", UsageError)
    return ()


def read_templates(texts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """The prompts of ``--template`` or ``--templates-file``; none if neither is given.

    Raises:
        UsageError: If both are given, or those of the command line cannot be used.
        InputError: If the file or its templates cannot be used.
    """
    if texts and file is not None:
        raise UsageError("--template and --templates-file exclude each other; leave one out")
    error: type[IgmError] = UsageError if file is None else InputError
    where = "--template" if file is None else str(file)
    templates = tuple(texts) if file is None else tuple(_lines(file, "templates"))
    for template in templates:
        if "{label}" not in template:
            raise error(f"the template {template!r} of {where} has no {{label}}, where the label goes")
    return templates


def check_labels(labels: Sequence[str], where: str, error: type[IgmError]) -> tuple[str, ...]:
    """Labels among which a choice makes sense.

    Args:
        labels: In order.
        where: Where they come from, for messages.
        error: Raised if they are too few, empty or not different.
    """
    seen: dict[str, str] = {}
    for label in labels:
        key = plain(label)
        if not key:
            raise error(f"{where} holds an empty label; leave out the comma too many")
        if key in seen:
            same = (
                f"{label!r} twice" if label == seen[key] else f"{seen[key]!r} and {label!r}, which are the same"
            )
            raise error(f"{where} holds {same}; leave one out")
        seen[key] = label
    if len(labels) < 2:
        raise error(f"{where} holds one label, {labels[0]!r}; give two labels or more")
    return tuple(labels)


def plain(label: str) -> str:
    """A label as text encoders tell labels apart: without regard to case and to how wide spaces are."""
    return " ".join(label.casefold().split())


def _lines(file: Path, what: str) -> list[str]:
    """Lines of a text file less blank ones and comments.

    Raises:
        InputError: If it cannot be read, or nothing is left.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text; save it as that") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read ({(error.strerror or str(error)).lower()})") from error
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise InputError(f"{file} holds no {what}; write one a line")
    return kept


def parse_k(text: str) -> int | None:
    """``auto`` (None) or a number.

    Raises:
        UsageError: If it is neither.
    """
    if text.strip().lower() == "auto":
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"--k takes auto or a number of 1 or more, not {text!r}")
    return int(text)


def parse_timesteps(text: str | None) -> tuple[float | None, float | None]:
    """``LOW-HIGH`` as fractions of the schedule; above 1, timesteps of a thousand.

    Raises:
        UsageError: If it is no such range.
    """
    if text is None:
        return None, None
    match = _RANGE.fullmatch(text)
    low, high = (float(match[1]), float(match[2])) if match else (1.0, 0.0)
    if high > 1 and low.is_integer() and high.is_integer():
        low, high = low / _T, high / _T
    if not low < high <= 1:
        raise UsageError(f"--timesteps takes LOW-HIGH within 0-1 (or 0-{_T}), such as 0.1-0.7, not {text!r}")
    return low, high


def parse_draws(draws: int | None, most: int | None, own: int) -> int | None:
    """The draws to begin with: the model's own, or those asked for, but no more than the most.

    Raises:
        UsageError: If more are asked for than allowed.
    """
    if draws is not None and most is not None and draws > most:
        raise UsageError(f"--draws {draws} is above --max-draws {most}; lower one or raise the other")
    return draws if draws is not None or most is None else min(own, most)
