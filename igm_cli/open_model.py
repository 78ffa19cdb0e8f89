"""A model that is open: its denoiser, the parser of its concepts, and how it is used."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from igm_cli.core.composition import Composition
    from igm_cli.plugins.base import ConceptParser

BATCH_PIXELS = {"cpu": 8 * 96 * 64, "cuda": 64 * 96 * 64, "mps": 16 * 96 * 64}
"""Pixels of the images that are inverted together, by device, where nobody says how many."""


@dataclass(repr=False)
class OpenModel:
    """A denoiser and the parser of its concepts."""

    name: str  # what users call it
    parser: ConceptParser  # the concept parser
    composition: Composition  # how its predictions compose
    inference: Mapping[str, Any]  # inversion settings tuned to its weights
    device: torch.device  # where it computes
    open: Callable[[], Any]  # loads the denoiser
    identity: Mapping[str, Any]  # what of the model decides about a result
    # (width, height) in pixels of the images it sees; None asks the denoiser
    size: tuple[int, int] | None = None
    scale: float = 0.0  # pixels it sees per pixel of an image of any size; 0 brings every image to its size
    margin: int = 0  # pixels beyond the border where points may lie that show in it, for images of any size
    # turns a framed image ``[3,H,W]`` into what a latent denoiser sees of it, for a number of views
    encode: Callable[[Tensor, int], Tensor] | None = None
    # turns latents ``[B,C,h,w]`` into images ``[B,3,H,W]``
    decode: Callable[[Tensor], Tensor] | None = None
    unknown: tuple[str, ...] = field(default=())  # concepts asked for that it says it was not trained on
    guidance: float = 1.0  # factor of contributions in generation, where nobody says
    guidance_told: float | None = (
        None  # what a network distilled from guided predictions is told of the guidance
    )
    joins: Composition | None = None  # how concepts compose in generation, if not as in inversion
    companions: tuple[str, ...] = ()  # models that it was trained with, without which it predicts nothing
    dataset: str = ""  # what it was trained on, where that is known
    draws: bool = True  # whether it says that its pictures are worth looking at
    knows: str = ""  # what it was trained on, in a few words, where it says so

    def __repr__(self) -> str:
        return f"<igm model {self.name!r}: {self.parser.name} on {self.device}>"

    @cached_property
    def denoiser(self) -> Any:
        """The denoiser; its weights are loaded when it is first needed."""
        if self.device.type == "cpu":
            from igm_cli.core.device import keep_freed_memory

            keep_freed_memory()
        return self.open()

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images it sees."""
        return self.size or self.denoiser.image_size


def suitable_batch(model: OpenModel) -> int:
    """Returns how many images the model's device works out together."""
    if model.encode:  # a text-to-image network is busy with the labels of one image
        return 1
    width, height = model.image_size
    return max(1, BATCH_PIXELS.get(model.device.type, 0) // (width * height))


def process_device(name: str) -> torch.device:
    """Returns the device of a name; with several processes on several GPUs, each takes its own."""
    import torch

    from igm_cli.core.device import resolve_device

    device, local = resolve_device(name), os.environ.get("LOCAL_RANK", "")
    if str(device) == "cuda" and local.isascii() and local.isdigit():
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device
