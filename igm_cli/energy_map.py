"""Energy maps: how much each single concept explains of an image, as an array and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from igm_cli.errors import UsageError
from igm_cli.imaging import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.inputs import Input
    from igm_cli.plugins.base import ConceptParser
    from igm_cli.session import ImageSession

PIXELS_PER_CELL = 2
"""Width and height of a cell of a map, in pixels of the images that the model sees."""


@dataclass(frozen=True)
class EnergyMap:
    """How much each single concept, on its own, lowers the denoising error of an image.

    This is the mean of 2 <r,Delta> - |Delta|² over noise samples and pixels, r = eps - eps_u (Du, Li & Mordatch 2020,
    Figure 12).

    Attributes:
        values: ``[Y,X]`` float64 for concepts of two coordinates, rows along the second one; otherwise ``[M]``.
        axes: One list per axis of ``values``: coordinates of the centres of the cells, 0..1 of the frame; otherwise
            the items.
        frame: The part of the image that the model sees; its ``box`` is in pixels of the image as given.
        image: The image as given.
        parser: Draws the map.
    """

    values: NDArray[Any] = field(repr=False)
    axes: Mapping[str, list[Any]] = field(repr=False)
    frame: Frame
    image: Image
    parser: ConceptParser = field(repr=False)

    def picture(self) -> Image:
        """Returns the map as a picture: over the image as given for positions, otherwise beside it.

        Raises:
            UsageError: If the parser cannot draw maps.
        """
        import torch

        draw = getattr(self.parser, "draw_map", None)
        if draw is None:
            raise UsageError(
                f"the concepts {self.parser.name} draw no maps; use the values of Model.energy_map"
            )
        picture: Image = draw(self.image, torch.from_numpy(self.values), self.frame)
        return picture

    def npy(self) -> bytes:
        """Returns the values as the content of a .npy file."""
        import numpy as np

        buffer = io.BytesIO()
        np.save(buffer, self.values)
        return buffer.getvalue()


def energy_map(session: ImageSession, image: Input[Image]) -> EnergyMap:
    """Returns how much each single concept, on its own, lowers the denoising error of an image."""
    from igm_cli.core.inference.energy_map import energy_map

    parser = session.parser
    (frame,), (seen,) = session.framed([image])
    size = (seen.shape[-1], seen.shape[-2]) if session.scale else session.model.image_size
    axes, candidates = map_axes(parser.space, size)
    gains = energy_map(session.model.denoiser, seen, session.settings, candidates)
    shape = [len(axis) for axis in axes.values()]
    best = gains.view(*shape, -1).amax(-1)  # for points with values, the values that explain most
    named: dict[str, list[Any]] = {**axes} or {parser.space.plural: parser.decode(candidates, frame)}
    return EnergyMap(best.numpy() if axes else gains.numpy(), named, frame, image.data, parser)


def map_axes(space: ConceptSpace, image_size: tuple[int, int]) -> tuple[dict[str, list[float]], Tensor]:
    """Returns the axes of a space's map, the rows first, and the concepts ``[M,D]`` on it.

    A finite space has no axes, only candidates.  ``image_size`` is (width, height) in pixels of the images that the model sees.

    Raises:
        UsageError: If the space is neither finite nor one of two coordinates.
    """
    candidates = getattr(space, "candidates", None)
    if candidates is not None:
        return {}, candidates()
    point = getattr(space, "point", None)
    if point is None or point.dim != 2:
        raise UsageError(f"maps are of factors, labels and concepts of two coordinates, not of {space.plural}")
    counts = [max(1, side // PIXELS_PER_CELL) for side in image_size]
    cells = point.grid(counts).view(counts[1], counts[0], 2)
    axes = {point.names[1]: cells[:, 0, 1].tolist(), point.names[0]: cells[0, :, 0].tolist()}
    return axes, space.grid(counts)  # type: ignore[attr-defined]
