"""How a latent text-to-image model is trained, in three phases.

First the autoencoder alone; then, it being frozen, the U-Net's first half and the text encoder by reading labels off
noised latents, which makes them notice what there is; then the whole by the composed objective with its contrast
(:mod:`igm_cli.core.training.latent_losses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.latent_losses import (
    LABELS,
    LARGEST_SET,
    Noised,
    autoencoder_loss,
    caption_loss,
    label_loss,
    reading_loss,
)
from igm_cli.core.training.plan import StepPlan
from igm_cli.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from igm_cli.core.training.trainer import Samples

CAPTION_EVERY = 5
"""Steps of which one trains whole captions."""

AUTOENCODER_SHARE = 16
"""One image of so many of a batch trains the autoencoder: pixels are plenty, steps are dear."""

ENCODED_AT_ONCE = 256
"""Images; the first of so many also say by what all latents are scaled."""


class LatentTraining:
    """The losses of the phases of a training.

    Args:
        model: Under training.
        samples: What it is trained on.
        config: How.
        accelerator: Gives the precision and the device.
    """

    def __init__(
        self, model: LatentTextToImage, samples: Samples, config: TrainConfig, accelerator: Accelerator
    ) -> None:
        self.model, self.samples, self.config, self.accelerator = model, samples, config, accelerator
        self.encoded: Encoded | None = None

    def loss(self, step: int, plan: StepPlan, t: Tensor, contrast: float) -> Tensor:
        """Of one step.

        Args:
            step: Its number, which tells the phase.
            plan: What it draws for B images, of which a phase takes as many as cost what B cost in the reading.
            t: ``[B]``.
            contrast: Weight of the contrast.

        Raises:
            InputError: If an image holds no label, or too many.
        """
        generator, config = torch.Generator().manual_seed(plan.seed), self.config
        if self.encoded is None and step >= config.autoencoder_steps:
            self.encoded = self._encode(step)
        with self.accelerator.autocast():
            if step < config.autoencoder_steps:
                return autoencoder_loss(self.model, self._images(plan), generator)
            if step < config.autoencoder_steps + config.reading_steps:
                return reading_loss(self.model, *self._seen(plan, t, generator), generator)
            seen, held = self._seen(plan.rows(0, _share(plan, LABELS)), t, generator)
            if step % CAPTION_EVERY == 0:
                return caption_loss(self.model, seen, held, contrast, generator)
            return label_loss(self.model, seen, held, contrast, generator)

    def _images(self, plan: StepPlan) -> Tensor:
        """The images of an autoencoder's step ``[b,3,H,W]``."""
        few = plan.rows(0, _share(plan, AUTOENCODER_SHARE))
        images = self.samples.batch(few.indices, few.flips)[0].to(self.accelerator.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _seen(self, plan: StepPlan, t: Tensor, generator: torch.Generator) -> tuple[Noised, Tensor]:
        """Latents under noise, and which labels their images hold ``[b,M]``."""
        assert self.encoded is not None  # once the autoencoder is trained
        index, side = torch.tensor(plan.indices), torch.tensor(plan.flips).long()
        device, t = self.accelerator.device, t[: len(index)]
        latents = self.encoded.latents[index, side].to(device, torch.float32)
        noise = torch.randn(latents.shape, generator=generator).to(device)
        seen = Noised(self.model.schedule.add_noise(latents, noise, t), t, noise)
        return seen, self.encoded.held[index].to(device)

    @torch.no_grad()
    def _encode(self, step: int) -> Encoded:
        """All images as latents of unit variance: the autoencoder is frozen from now on, no loss reaches it.

        One that came trained, by ``--init``, keeps the scale that it came with.
        """
        device, latents, held = self.accelerator.device, [], []
        for first in range(0, len(self.samples), ENCODED_AT_ONCE):
            rows = list(range(first, min(first + ENCODED_AT_ONCE, len(self.samples))))
            sides = []
            for flip in (False, True) if self.config.mirror else (False,):
                images, concepts, present = self.samples.batch(rows, [flip] * len(rows))
                images = images.to(device).contiguous(memory_format=torch.channels_last)
                if first == 0 and not flip and 0 < step == self.config.autoencoder_steps:
                    self.model.scale.fill_(1.0)
                    self.model.scale.copy_(1 / self._latents(images).std())
                sides.append(self._latents(images).half().cpu())
            latents.append(torch.stack(sides, dim=1))
            held.append(_held(concepts, present))
        return Encoded(torch.cat(latents), torch.cat(held))

    def _latents(self, images: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return self.model.encode(images)


@dataclass(frozen=True)
class Encoded:
    """Samples as a U-Net is trained on them.

    Attributes:
        latents: As they are and, if mirrored ones are trained on, mirrored, float16 ``[N,1 or 2,C,h,w]``.
        held: Which labels they hold ``[N,M]``.
    """

    latents: Tensor
    held: Tensor


def _share(plan: StepPlan, of: int) -> int:
    """One row of so many, at least one."""
    return max(1, len(plan.indices) // of)


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
