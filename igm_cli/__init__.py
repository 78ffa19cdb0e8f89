# ruff: noqa: F405
"""igm: understand scenes by inverting compositional generative models.

    import igm_cli as igm

    result = igm.load("clevr-pos").invert("photo.png")

The names of :mod:`igm_cli.api` are imported when they are first used, so that ``import igm_cli`` is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igm_cli.api import *  # noqa: F403

__version__ = "0.1.0"

__all__ = [
    "EnergyMap",
    "GeneratedImage",
    "IgmError",
    "ImageCount",
    "ImageResult",
    "InputError",
    "LabelResult",
    "MissingError",
    "Model",
    "PluginError",
    "Result",
    "SharedResult",
    "UsageError",
    "VectorCount",
    "VectorResult",
    "count",
    "decompose",
    "generate",
    "invert",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'igm_cli' has no attribute {name!r}")
    from igm_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
