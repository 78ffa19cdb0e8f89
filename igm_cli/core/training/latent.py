"""How a latent text-to-image model is trained, in three phases.

The first phase trains the autoencoder, which is then frozen.  The second trains the U-Net's first half and the text encoder
to read labels from noised latents, so that they notice what images hold.  The third trains all but the autoencoder by the
composed objective, with its contrast if there is one (:mod:`igm_cli.core.training.latent_losses`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from igm_cli.core.device import fits, to_device
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.objective import Noised
from igm_cli.core.training.batches import Samples, as_floats
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.latent_losses import (
    LABELS,
    LARGEST_SET,
    autoencoder_loss,
    caption_loss,
    composed_label_loss,
    label_loss,
    reading_loss,
)
from igm_cli.core.training.plan import StepPlan
from igm_cli.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

CAPTION_EVERY = 5
"""One step in this many trains whole captions."""

AUTOENCODER_SHARE = 16
"""One image in this many of a batch trains the autoencoder: its many pixels suffice, and steps are expensive."""

ENCODED_AT_ONCE = 256
"""Images encoded at once; the first of these batches also sets the scale of all latents."""


class LatentObjective:
    """The losses of all phases of a training, an :class:`~igm_cli.core.training.objectives.Objective`.

    Raises:
        InputError: If the training runs on several processes.
    """

    def __init__(
        self, model: LatentTextToImage, samples: Samples, config: TrainConfig, accelerator: Accelerator
    ) -> None:
        if accelerator.num_processes > 1:
            raise InputError("text-to-image models are trained by one process; run igm train without launch")
        self.network, self.samples, self.config, self.accelerator = model, samples, config, accelerator
        self.encoded: Encoded | None = None

    def loss(self, model: nn.Module, step: int, plan: StepPlan) -> Tensor:
        """Returns the loss of a step's phase, on so few rows that it costs about as much as the reading of all rows.

        Raises:
            InputError: If an image holds no label, or too many.
        """
        config, generator = self.config, plan.generator()
        network = cast(LatentTextToImage, model)  # perhaps compiled
        if self.encoded is None and step >= config.autoencoder_steps:
            self.encoded = self._encode(step)
        with self.accelerator.autocast():
            if step < config.autoencoder_steps:
                few = _part(plan, AUTOENCODER_SHARE)
                images, _, _ = self._batch(few.indices, few.flips)
                return autoencoder_loss(network, images, generator)
            if step < config.autoencoder_steps + config.reading_steps:
                seen, held = self._noised(plan)
                return reading_loss(network, seen, to_device(held, seen.x_t.device), generator)
            seen, held = self._noised(_part(plan, LABELS))
            if not config.contrast:
                return composed_label_loss(network, seen, held, config.drop, generator)
            loss = caption_loss if step % CAPTION_EVERY == 0 else label_loss
            return loss(network, seen, to_device(held, seen.x_t.device), config.contrast_at(step), generator)

    def _batch(self, indices: list[int], flips: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
        images, concepts, present = self.samples.batch(indices, flips)
        images = as_floats(to_device(images, self.accelerator.device))
        images = images.contiguous(memory_format=torch.channels_last)
        return images, concepts, present

    def _noised(self, plan: StepPlan) -> tuple[Noised, Tensor]:
        """Returns latents under noise, and which labels their images hold ``[b,M]``, on the CPU."""
        assert self.encoded is not None  # once the autoencoder is trained
        device, schedule = self.accelerator.device, self.network.schedule
        places = torch.tensor([plan.indices, [int(flip) for flip in plan.flips]])
        index, side = to_device(places, self.encoded.latents.device)
        latents = to_device(self.encoded.latents[index, side], device).float()
        t = to_device(plan.timesteps(schedule.steps, self.config.timestep_power), device)
        noise = plan.noise(tuple(latents.shape[1:]), device)
        return Noised.of(schedule, latents, t, noise), self.encoded.held[plan.indices]

    @torch.no_grad()
    def _encode(self, step: int) -> Encoded:
        """Returns all images as latents of unit variance; no loss reaches the autoencoder from now on.

        An autoencoder that was already trained, by ``--init``, keeps its scale.
        """
        latents, held = [], []
        for first in range(0, len(self.samples), ENCODED_AT_ONCE):
            rows = list(range(first, min(first + ENCODED_AT_ONCE, len(self.samples))))
            sides = []
            for flip in (False, True) if self.config.mirror else (False,):
                images, concepts, present = self._batch(rows, [flip] * len(rows))
                if first == 0 and not flip and 0 < step == self.config.autoencoder_steps:
                    self.network.scale.fill_(1.0)
                    self.network.scale.copy_(1 / self._latents(images).std())
                sides.append(self._latents(images).half().cpu())
            latents.append(torch.stack(sides, dim=1))
            held.append(labels_of(concepts, present).cpu())
        device, one = self.accelerator.device, latents[0]
        home = device if fits(one.nbytes // len(one) * len(self.samples), device) else torch.device("cpu")
        return Encoded(torch.cat(latents).to(home), torch.cat(held))

    def _latents(self, images: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return self.network.encode(images)


class Encoded(NamedTuple):
    """Samples in the form that the U-Net is trained on.

    Attributes:
        latents: Plain ones and, if training mirrors images, mirrored ones, float16 ``[N,1 or 2,C,h,w]``.
        held: Which labels the images hold ``[N,M]``, on the CPU.
    """

    latents: Tensor
    held: Tensor


def _part(plan: StepPlan, share: int) -> StepPlan:
    """Returns one row in ``share``, at least one."""
    return plan.rows(0, max(1, len(plan.indices) // share))


def labels_of(concepts: Tensor, present: Tensor) -> Tensor:
    """Returns which labels every image holds ``[B,M]``.

    Raises:
        InputError: If an image holds none, or too many.
    """
    held = ((concepts > 0) & present[..., None]).any(1)
    for count in (int(held.sum(1).min()), int(held.sum(1).max())):
        if not 1 <= count <= LARGEST_SET:
            raise InputError(
                f"an image holds {count} labels; text-to-image models learn from images of 1 to {LARGEST_SET}"
            )
    return held
