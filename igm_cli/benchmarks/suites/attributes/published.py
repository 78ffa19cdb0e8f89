"""Figures that the paper printed: IGM (Wang, Dauwels & Du, ICML 2025), CelebA table; all attributes at once."""

from __future__ import annotations

_FEMALE = {"igm": "80.8 %", "gc": "79.1 %", "gc-variant": "77.8 %", "resnet-50": "79.6 %"}
_MALE = {"igm": "65.6 %", "gc": "61.7 %", "gc-variant": "58.1 %", "resnet-50": "62.2 %"}

FACTORS = {"Black_Hair", "Eyeglasses", "Smiling"}
"""Which the figures are of."""

PUBLISHED: dict[str, dict[str, str]] = {
    "folder-female": _FEMALE,
    "female": _FEMALE,
    "folder-male": _MALE,
    "male": _MALE,
}
"""Of CelebA's photographs; drawn faces are ours and easier.  Nothing is published of outlined ones."""
