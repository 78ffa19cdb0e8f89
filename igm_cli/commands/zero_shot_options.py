"""What ``igm zero-shot`` is told, read and checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.imaging import read_bytes
from igm_cli.label_models import check_labels

_RANGE = re.compile(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*")
_T = 1000
"""Timesteps that Stable Diffusion is trained on: a range of theirs is divided by it."""


def read_labels(text: str | None, file: Path | None) -> tuple[str, ...]:
    """Returns the labels of ``--labels`` or ``--labels-file``; none if neither is given."""
    if text is not None and file is not None:
        raise UsageError("--labels and --labels-file exclude each other; leave one out")
    if file is not None:
        return check_labels(_lines(file, "labels"), str(file), InputError)
    return (
        check_labels([part.strip() for part in text.split(",")], "--labels", UsageError)
        if text is not None
        else ()
    )


def read_templates(texts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Returns the prompts of ``--template`` or ``--templates-file``; none if neither is given."""
    if texts and file is not None:
        raise UsageError("--template and --templates-file exclude each other; leave one out")
    error: type[IgmError] = UsageError if file is None else InputError
    templates = tuple(texts) if file is None else tuple(_lines(file, "templates"))
    for template in templates:
        if "{label}" not in template:
            where = file or "--template"
            raise error(f"the template {template!r} of {where} has no {{label}}, where the label goes")
    return templates


def _lines(file: Path, what: str) -> list[str]:
    """Returns the lines of a text file without blank ones and comments; there must be one."""
    try:
        text = read_bytes(file.expanduser()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text; save it as that") from error
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise InputError(f"{file} holds no {what}; write one per line")
    return kept


def parse_timesteps(text: str | None) -> tuple[float | None, float | None]:
    """Returns ``LOW-HIGH`` as fractions of the schedule; above 1, timesteps of a thousand."""
    if text is None:
        return None, None
    match = _RANGE.fullmatch(text)
    low, high = (float(match[1]), float(match[2])) if match else (1.0, 0.0)
    if high > 1 and low.is_integer() and high.is_integer():
        low, high = low / _T, high / _T
    if not low < high <= 1:
        raise UsageError(f"--timesteps takes LOW-HIGH within 0-1 (or 0-{_T}), such as 0.1-0.7, not {text!r}")
    return low, high
