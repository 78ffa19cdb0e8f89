"""What ``igm zero-shot`` is told, read and checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.pipelines import check_labels

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
