"""How a latent text-to-image model is trained, in three phases.

First the autoencoder alone; then, it being frozen, the U-Net's first half and the text encoder by reading labels off
noised latents, which makes them notice what there is; then the whole by the composed objective with its contrast
(:mod:`igm_cli.core.latent_losses`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from igm_cli.core.latent_losses import (
    LABELS,
    LARGEST_SET,
    Noised,
    autoencoder_loss,
    caption_loss,
    label_loss,
    reading_loss,
)
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.train_config import TrainConfig
from igm_cli.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from igm_cli.core.training import Samples

CAPTION_EVERY = 5
"""Steps of which one trains whole captions."""

AUTOENCODER_SHARE = 16
"""One image of so many of a batch trains the autoencoder: pixels are plenty, steps are dear."""

SCALED_BY = 256
"""Images whose latents say by what all latents are scaled."""


class LatentTraining:
    """The losses of the phases of a training.

    Args:
        model: Under training.
        samples: What it is trained on.
        config: How.
        accelerator: Gives the precision.
    """

    def __init__(
        self, model: LatentTextToImage, samples: Samples, config: TrainConfig, accelerator: Accelerator
    ) -> None:
        self.model, self.samples, self.config, self.accelerator = model, samples, config, accelerator

    def loss(
        self,
        step: int,
        seed: int,
        images: Tensor,
        concepts: Tensor,
        present: Tensor,
        t: Tensor,
        contrast: float,
    ) -> Tensor:
        """Of one step.

        Args:
            step: Its number, which tells the phase.
            seed: Of everything random.
            images: ``[B,3,H,W]``, of which a phase takes as many as cost what B cost in the reading.
            concepts: One-hot rows ``[B,K,M]``.
            present: ``[B,K]``.
            t: ``[B]``.
            contrast: Weight of the contrast.

        Raises:
            InputError: If an image holds no label, or too many.
        """
        generator, config = torch.Generator().manual_seed(seed), self.config
        images = images.contiguous(memory_format=torch.channels_last)
        with self.accelerator.autocast():
            if step < config.autoencoder_steps:
                return autoencoder_loss(self.model, _first(images, AUTOENCODER_SHARE), generator)
            if step == config.autoencoder_steps:
                self._set_scale(images.device)
            held = _held(concepts, present)
            if step < config.autoencoder_steps + config.reading_steps:
                return reading_loss(self.model, self._noised(images, t, generator), held, generator)
            images, t, held = (_first(each, LABELS) for each in (images, t, held))
            seen = self._noised(images, t, generator)
            if step % CAPTION_EVERY == 0:
                return caption_loss(self.model, seen, held, contrast, generator)
            return label_loss(self.model, seen, held, contrast, generator)

    @torch.no_grad()
    def _noised(self, images: Tensor, t: Tensor, generator: torch.Generator) -> Noised:
        latents = self.model.encode(images)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        return Noised(self.model.schedule.add_noise(latents, noise, t), t, noise)

    @torch.no_grad()
    def _set_scale(self, device: torch.device) -> None:
        """Latents to unit variance, and the autoencoder frozen from now on: no loss reaches it."""
        count = min(SCALED_BY, len(self.samples))
        images = self.samples.batch(list(range(count)), [False] * count)[0].to(device)
        self.model.scale.fill_(1.0)
        self.model.scale.copy_(1 / self.model.encode(images).std())


def _first(rows: Tensor, share: int) -> Tensor:
    """One row of so many, at least one."""
    return rows[: max(1, len(rows) // share)]


def _held(concepts: Tensor, present: Tensor) -> Tensor:
    """Which labels every image holds ``[B,M]``."""
    held = ((concepts > 0) & present[..., None]).any(1)
    count = held.sum(1)
    if int(count.min()) < 1 or int(count.max()) > LARGEST_SET:
        wrong = int(count.min()) if int(count.min()) < 1 else int(count.max())
        raise InputError(
            f"an image holds {wrong} labels; text-to-image models learn from images of 1 to {LARGEST_SET}"
        )
    return held
