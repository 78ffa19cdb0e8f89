"""How a latent text-to-image model is trained so that its predictions under single labels compose.

First the autoencoder alone, then, it being frozen, the composed objective over the labels of an image

    ‖eps - 1/K sum_k eps_theta(x_t, t | "a photo of a {label_k}")‖²     (IGM, Wang et al. 2025)

with a contrast between sets of labels (ours): given the image and one noise draw, the likelihood of the noise

    p(S | x0, eps, t) = softmax_S( -P/2 · ‖eps - 1/|S| sum_S eps_theta(x_t, t | label)‖² )

over all sets of some of the labels, true ones and others, should speak for the true set, number included.
A part of the steps trains whole captions, "a photo of a {label}, a {label} and a {label}", the same way, so that
the model knows them as text-to-image models do.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.core.captions import compound
from igm_cli.core.concepts import Text
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.objective import denoising_weight
from igm_cli.core.train_config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from igm_cli.core.training import Samples

LABELS = 4
"""Asked about every image: those it holds, and others."""

LARGEST_SET = 3
CAPTION_EVERY = 5
"""Steps of which one trains whole captions."""

SMOOTHNESS = 1e-3
"""Weight of the divergence of latents from a normal distribution."""


MATCHING = 0.03
"""Weight of the matching of prompts before the contrast begins."""

AUTOENCODER_SHARE = 4
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
        """Of one step, of images ``[B,3,H,W]`` with one-hot concepts ``[B,K,M]``, ``[B,K]``, at t ``[B]``."""
        generator = torch.Generator().manual_seed(seed)
        images = images.contiguous(memory_format=torch.channels_last)
        with self.accelerator.autocast():
            if step < self.config.autoencoder_steps:
                few = images[: max(1, len(images) // AUTOENCODER_SHARE)]
                return autoencoder_loss(self.model, few, generator)
            if step == self.config.autoencoder_steps:
                self._set_scale(images.device)
            with torch.no_grad():
                latents = self.model.encode(images)
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            seen = Noised(self.model.schedule.add_noise(latents, noise, t), t, noise)
            held = ((concepts > 0) & present[..., None]).any(1)
            if step % CAPTION_EVERY == 0:
                return caption_loss(self.model, seen, held, contrast, generator)
            return label_loss(self.model, seen, held, contrast, generator)

    @torch.no_grad()
    def _set_scale(self, device: torch.device) -> None:
        """Latents to unit variance, and the autoencoder frozen from now on: no loss reaches it."""
        count = min(SCALED_BY, len(self.samples))
        images = self.samples.batch(list(range(count)), [False] * count)[0].to(device)
        self.model.scale.fill_(1.0)
        self.model.scale.copy_(1 / self.model.encode(images).std())


def autoencoder_loss(model: LatentTextToImage, images: Tensor, generator: torch.Generator) -> Tensor:
    """Squared and absolute error of the reconstruction, and the KL divergence of the latents' posterior."""
    posterior = model.vae.encode(images).latent_dist
    mean, spread = posterior.mean.float(), posterior.std.float()
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    decoded: Tensor = model.vae.decode(mean + spread * noise).sample.float()
    divergence: Tensor = 0.5 * (mean.square() + spread.square() - 1 - 2 * spread.log()).mean()
    return F.mse_loss(decoded, images) + F.l1_loss(decoded, images) + SMOOTHNESS * divergence


@dataclass(frozen=True)
class Noised:
    """Latents under noise: x_t ``[B,C,h,w]``, t ``[B]``, and the noise."""

    x_t: Tensor
    t: Tensor
    noise: Tensor


def label_loss(
    model: LatentTextToImage, seen: Noised, present: Tensor, contrast: float, generator: torch.Generator
) -> Tensor:
    """The composed error under the true labels, the contrast of sets, and the matching of prompts.

    Args:
        model: Under training.
        seen: Latents under noise.
        present: Which labels an image holds ``[B,M]``, one to ``LARGEST_SET``.
        contrast: Weight of the contrast; 0 leaves the paper's objective (and the matching).
        generator: Of the other labels and the template.
    """
    asked, true = sample_labels(present, min(LABELS, present.shape[1]), generator)  # [B,L]
    embedded = model.embed(_prompts(model.space, generator))[asked]  # [B,L,T,D]
    epsilon, match = model.predict(seen.x_t, seen.t, embedded)
    sets = subsets(asked.shape[1], LARGEST_SET).to(epsilon)  # [S,L]
    errors = set_errors(epsilon, seen.noise, sets)
    target = (sets[None] == true[:, None].to(sets)).all(2).float().argmax(1)
    denoising = denoising_weight(model.schedule, seen.t) * errors.gather(1, target[:, None])[:, 0]
    crossed = F.cross_entropy(-_pixels(seen) / 2 * errors, target)
    matching = F.binary_cross_entropy_with_logits(match, true.float())
    return denoising.mean() + contrast * crossed + max(contrast, MATCHING) * matching


def caption_loss(
    model: LatentTextToImage, seen: Noised, present: Tensor, contrast: float, generator: torch.Generator
) -> Tensor:
    """The error under the whole caption, contrasted with two wrong ones, and under no caption at all.

    Args:
        model: Under training.
        seen: Latents under noise.
        present: Which labels an image holds ``[B,M]``.
        contrast: Weight of the contrast.
        generator: Of the order of labels, the template, and what is wrong.
    """
    texts = [text for row in present for text in _captions(model.space, row, generator)]
    embedded = model.embed(texts).unflatten(0, (len(present), 4))
    epsilon, _ = model.predict(seen.x_t, seen.t, embedded)
    errors = (seen.noise[:, None] - epsilon).square().mean((2, 3, 4))  # [B,4]
    weight = denoising_weight(model.schedule, seen.t)
    denoising = (weight * (errors[:, 0] + errors[:, 3]) / 2).mean()
    target = torch.zeros(len(present), dtype=torch.long, device=errors.device)
    return denoising + contrast * F.cross_entropy(-_pixels(seen) / 2 * errors[:, :3], target)


def _pixels(seen: Noised) -> int:
    """P, of which an error is the mean."""
    return seen.noise[0].numel()


def sample_labels(present: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The labels of every image and random others: indices and whether they are true, both ``[B,count]``."""
    chance = torch.rand(present.shape, generator=generator).to(present.device)
    asked = (chance + 2 * present).topk(count, dim=1).indices
    return asked, present.gather(1, asked)


def subsets(candidates: int, largest: int) -> Tensor:
    """All sets of 1 to ``largest`` candidates as booleans ``[S,candidates]``."""
    rows = [
        [index in chosen for index in range(candidates)]
        for size in range(1, min(largest, candidates) + 1)
        for chosen in itertools.combinations(range(candidates), size)
    ]
    return torch.tensor(rows)


def set_errors(epsilon: Tensor, noise: Tensor, sets: Tensor) -> Tensor:
    """‖eps - mean of predictions‖² under sets of labels ``[B,S]``.

    Args:
        epsilon: Predictions under single labels ``[B,L,C,h,w]``.
        noise: ``[B,C,h,w]``.
        sets: Members ``[S,L]``.
    """
    weights = sets / sets.sum(1, keepdim=True)
    composed = torch.einsum("sl,blchw->bschw", weights, epsilon)
    return (noise[:, None] - composed).square().mean((2, 3, 4))


def _template(space: Text, generator: torch.Generator) -> str:
    """The first template half of the time, any of them otherwise."""
    number = int(torch.randint(2 * len(space.templates), (), generator=generator))
    return space.templates[number] if number < len(space.templates) else space.templates[0]


def _prompts(space: Text, generator: torch.Generator) -> list[str]:
    """Every label in one template."""
    template = _template(space, generator)
    return [template.replace("{label}", label) for label in space.labels]


def _captions(space: Text, present: Tensor, generator: torch.Generator) -> list[str]:
    """The caption of an image, two with a label exchanged for another, and none."""
    order = torch.randperm(len(present), generator=generator).tolist()
    true = [i for i in order if present[i]]
    others = [i for i in order if not present[i]][:2]
    template = _template(space, generator)
    wrong = [[*true[:-1], other] for other in others]
    named = [[space.labels[i] for i in chosen] for chosen in (true, *wrong)]
    return [*(compound(template, names) for names in named), ""]
