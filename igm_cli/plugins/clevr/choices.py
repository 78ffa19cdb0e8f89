"""What users ask for, as text or as numbers, to what rendering and reading take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.plugins.clevr.scenes import SceneOptions


def object_range(text: Any) -> tuple[int, int] | None:
    """``"3-5"``, ``4``, ``[3, 5]`` or None to (least, most).

    Raises:
        UsageError: If it is none of these.
    """
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


def scene_options(options: Mapping[str, Any]) -> SceneOptions:
    """Options as given on a command line or in a preset to those of the renderer.

    Raises:
        UsageError: If a value is none that the renderer knows.
    """
    from igm_cli.plugins.clevr.scenes import SceneOptions

    values: dict[str, Any] = {}
    for name, value in options.items():
        if name == "objects":
            values[name] = object_range(value)
        elif name in ("colors", "shapes", "sizes"):
            values[name] = _names(name, value)
        elif name == "texture":
            values[name] = None if value in (None, "none") else ",".join(_names(name, value))
        elif name == "crowd":
            values[name] = _share(value)
        else:
            values[name] = value
    try:
        return SceneOptions(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"these scenes cannot be rendered: {error}") from error


def _names(option: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split(","))
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    raise UsageError(f"{option} must be names with commas between them, not {value!r}")


def _share(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"crowd must be a number from 0 to 1, not {value!r}") from error
