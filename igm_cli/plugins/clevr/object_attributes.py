"""Concept parser ``object-attributes``: the colour, shape, size and material of the only object in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from igm_cli.core.names import names_option
from igm_cli.errors import InputError
from igm_cli.plugins.attributes import Attributes, parse_factors

if TYPE_CHECKING:
    from torch import Tensor

    from igm_cli.plugins.base import Frame

VALUES: Mapping[str, tuple[str, ...]] = {
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "shape": ("cube", "sphere", "cylinder"),
    "size": ("small", "large"),
    "material": ("rubber", "metal"),
}
"""Factors of CLEVR's objects (Johnson et al. 2017), and their values."""


class ObjectAttributes(Attributes):
    """Factors of the only object; the annotation is a column ``objects`` with one of CLEVR's objects.

    Args:
        factors: Name of every factor to its values; None takes CLEVR's four.
    """

    name = "object-attributes"
    summary = "attributes of the only object of an image"
    options: Mapping[str, str] = {
        "factors": "some of color, shape, size and material, between commas; fewer values of one after an equals "
        "sign, e.g. color,shape=cube|sphere"
    }

    def __init__(self, factors: Mapping[str, tuple[str, ...]] | None = None) -> None:
        super().__init__(factors or VALUES)

    def configured(self, options: Mapping[str, Any]) -> ObjectAttributes:
        """Returns a parser of fewer factors, or of fewer or other values."""
        factors = options.get("factors", VALUES)
        if not isinstance(factors, Mapping):
            names = sorted(names_option("factors", factors), key=lambda name: "=" in name)
            if unknown := [name for name in names if "=" not in name and name not in VALUES]:
                raise InputError(f"objects have no factor {unknown[0]!r}; choose from {', '.join(VALUES)}")
            factors = [name if "=" in name else f"{name}={'|'.join(VALUES[name])}" for name in names]
        return ObjectAttributes(parse_factors(factors))

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the values of the only object as one-hot rows ``[F,D]``."""
        objects = example.get("objects")
        if not isinstance(objects, list) or len(objects) != 1:
            count = len(objects) if isinstance(objects, list) else "no"
            raise InputError(
                f"concepts {self.name} need images of one object, and one has {count}; choose them with objects = '1-1'"
            )
        return super().parse({"attributes": objects[0]}, frame)
