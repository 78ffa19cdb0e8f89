"""Splits, options and presets that dataset adapters are asked for, checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from igm_cli.errors import UsageError, near_names


def check_request(
    dataset: str, split: str, splits: Iterable[str], options: Iterable[str], known: Iterable[str]
) -> None:
    """Refuses a split or options that a dataset does not have."""
    if split not in splits:
        raise UsageError(f"{dataset} has no split {split!r}; choose {' or '.join(splits)}")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"{dataset} has no option {unknown[0]!r}; it has {', '.join(known)}")


def check_choice(option: str, value: Any, known: Iterable[str]) -> None:
    """Refuses a value of an option that is none of the known ones."""
    names = list(known)
    if value not in names:
        raise UsageError(f"unknown {option} {value!r}; {near_names(str(value), names)}")


def object_range(text: Any) -> tuple[int, int] | None:
    """Returns ``"3-5"``, ``4``, ``[3, 5]`` or None as (least, most) objects in an image."""
    if text is None:
        return None
    try:
        parts = str(text).split("-") if isinstance(text, str | int) else [str(part) for part in text]
        low, high = int(parts[0]), int(parts[-1])
    except (TypeError, ValueError, IndexError) as error:
        raise UsageError(f"objects must look like 3-5, not {text!r}") from error
    if not 1 <= low <= high or len(parts) > 2:
        raise UsageError(f"objects must look like 3-5, not {text!r}")
    return low, high


def image_count(text: Any) -> int:
    """Returns how many images to render, a whole number of at least 1."""
    try:
        count = int(text)
    except (TypeError, ValueError) as error:
        raise UsageError(f"size must be a number of images, not {text!r}") from error
    if count < 1:
        raise UsageError(f"size must be at least 1, not {count}")
    return count


def preset_files(folder: Path) -> dict[str, Path]:
    """Training presets in a dataset's folder, by name."""
    return {path.stem: path for path in sorted((folder / "presets").glob("*.toml"))}
