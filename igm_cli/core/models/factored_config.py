"""Shape of the factored denoiser."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class FactoredConfig:
    """Shape of a factored denoiser.

    Attributes:
        image_size: (width, height) in pixels; both divisible by ``4 * patch``.
        patch: Side of a space-to-depth cell in pixels.
        channels: Trunk channels at full, half and quarter cell resolution.
        blocks: Residual blocks a level, on the way down and on the way up.
        head_channels: Channels of the concept head.
        head_layers: Residual layers of the concept head.
        window: Radius in cells beyond which a contribution is zero.
        coordinates: Whether the trunk is told where in the image a cell lies; without that, a model of local concepts
            inverts images of any size.
    """

    image_size: tuple[int, int] = (96, 64)
    patch: int = 4
    channels: tuple[int, int, int] = (128, 192, 192)
    blocks: int = 2
    head_channels: int = 96
    head_layers: int = 2
    window: int = 6
    coordinates: bool = True

    def __post_init__(self) -> None:
        if self.channels[0] % 2:
            raise ValueError(f"the first of the channels {self.channels} must be even")
        if any(side % (4 * self.patch) for side in self.image_size):
            raise ValueError(f"image sides {self.image_size} must be divisible by {4 * self.patch}")

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FactoredConfig:
        """Inverse of :meth:`to_dict`."""
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**tuples)
