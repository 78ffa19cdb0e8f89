"""An open model: its denoiser, its concept parser and its settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from igm_cli.errors import close_names, some

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from igm_cli.core.composition import Composition
    from igm_cli.plugins.base import ConceptParser

P = ParamSpec("P")
R = TypeVar("R")

NAMED = 5
"""Unknown labels named at most."""

MISTYPED = 0.8
"""How close an unknown label is to a known one, up to 1, if it may be mistyped."""

BATCH_PIXELS = {"cpu": 8 * 96 * 64, "cuda": 64 * 96 * 64, "mps": 16 * 96 * 64}
"""Pixels of a batch in inversion, by device, unless the user sets the batch size."""


@dataclass(repr=False)
class OpenModel:
    """A denoiser and its concept parser."""

    name: str  # its name for users
    parser: ConceptParser
    composition: Composition  # how its predictions compose
    inference: Mapping[str, Any]  # inversion settings tuned to its weights
    device: torch.device  # where it computes
    open: Callable[[], Any]  # loads the denoiser
    identity: Mapping[str, Any]  # everything about the model that determines results
    # (width, height) in pixels of the images it sees; None asks the denoiser
    size: tuple[int, int] | None = None
    scale: float = 0.0  # pixels it sees per pixel of an image of any size; 0 resizes every image to its size
    margin: int = 0  # pixels beyond the border where points of visible objects may lie, for images of any size
    # turns a framed image ``[3,H,W]`` into a latent denoiser's input, for a number of views
    encode: Callable[[Tensor, int], Tensor] | None = None
    # turns latents ``[B,C,h,w]`` into images ``[B,3,H,W]``
    decode: Callable[[Tensor], Tensor] | None = None
    unknown: tuple[str, ...] = field(default=())  # requested concepts that it says it was not trained on
    labels: tuple[str, ...] = ()  # the labels that it says it was trained on
    # generation settings tuned to its weights: fields of igm_cli.core.checkpoint.GenerationDefaults
    generation: Mapping[str, Any] = field(default_factory=dict)
    # the fixed guidance input of a network distilled from guided predictions
    guidance_told: float | None = None
    joins: Composition | None = None  # how concepts compose in generation, if not as in inversion
    companions: tuple[str, ...] = ()  # models it was trained with; without them it predicts nothing
    dataset: str = ""  # its training dataset, if known
    draws: bool = True  # whether, by its description, its pictures are worth looking at
    discriminative: bool = False  # whether it was also trained to tell concepts apart
    knows: str = ""  # its training data in a few words, if its description says so
    described: bool = True  # whether it has a description of igm's, where a calibration is kept

    def __repr__(self) -> str:
        return f"<igm model {self.name!r}: {self.parser.name} on {self.device}>"

    @cached_property
    def denoiser(self) -> Any:
        """The denoiser; its weights are loaded at first use."""
        if self.device.type == "cpu":
            from igm_cli.core.device import keep_freed_memory

            keep_freed_memory()
        return self.open()

    def not_trained_on(self, so: str = "treat the result as a guess") -> str:
        """Returns a sentence about requested concepts that the model was not trained on; empty if there are none."""
        if not self.unknown:
            return ""
        near = {label: close_names(label, self.labels, MISTYPED) for label in self.unknown[:NAMED]}
        meant = {label: f" (did you mean {names[0]}?)" for label, names in near.items() if names}
        named = some([f"{label!r}{meant.get(label, '')}" for label in self.unknown], NAMED)
        return f"{self.name} was not trained on {named}; {so}"

    def not_calibrated(self) -> str:
        """Returns a sentence about confidence that was fitted to no images; empty if it was fitted to some."""
        if self.inference.get("temperature") or self.inference.get("typical"):
            return ""
        blind = self.parser.space.nothing_place is None
        unseen = ", and images unlike those it was trained on are not noticed" * blind
        mends = "; igm evaluate --calibrate mends that" * self.described
        return f"{self.name} was not calibrated: confidence is rough{unseen}{mends}"

    def about_drawing(self) -> list[str]:
        """Returns what users should know about the model before it draws, one sentence each."""
        said = [] if self.draws else [f"{self.name} was not trained to draw; its pictures are rough"]
        return [*said, *filter(None, [self.not_trained_on("its pictures of it are a guess")])]

    @property
    def told(self) -> dict[str, Any]:
        """What every record of an answer says about the model beside its name."""
        guidance = {} if self.guidance_told is None else {"guidance_told": self.guidance_told}
        return {**({"discriminative": True} if self.discriminative else {}), **guidance}

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images it sees."""
        return self.size or self.denoiser.image_size


def suitable_batch(model: OpenModel) -> int:
    """Returns the batch size that suits the model's device."""
    if model.encode:  # the labels of one image keep a text-to-image network busy
        return 1
    width, height = model.image_size
    return max(1, BATCH_PIXELS.get(model.device.type, 0) // (width * height))


class _Default:
    lock = threading.Lock()
    users = 0  # calls in progress
    was: torch.dtype  # the default before the first of them


def in_float32(function: Callable[P, R]) -> Callable[P, R]:
    """Makes float32 torch's default type while a function runs, in any thread, as a program may have set another."""

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        import torch

        with _Default.lock:
            if not _Default.users:
                _Default.was = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            _Default.users += 1
        try:
            return function(*arguments, **named)
        finally:
            with _Default.lock:
                _Default.users -= 1
                if not _Default.users:
                    torch.set_default_dtype(_Default.was)

    return call


def process_device(name: str) -> torch.device:
    """Returns the device with a name; each of several processes takes a GPU of its own."""
    import torch

    from igm_cli.core.device import resolve_device

    device, local = resolve_device(name), os.environ.get("LOCAL_RANK", "")
    if str(device) == "cuda" and local.isascii() and local.isdigit():
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    return device
