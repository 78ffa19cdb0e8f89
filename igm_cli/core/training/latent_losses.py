"""The losses of a latent text-to-image model, which make its predictions under single labels compose.

The composed objective over the labels of an image,

    ‖eps - 1/K sum_k eps_theta(x_t, t | "a photo of a {label_k}")‖²     (IGM, Wang et al. 2025)

with a contrast between sets of labels (ours): given the image and one noise draw, the likelihood of the noise

    p(S | x0, eps, t) = softmax_S( -P/2 · ‖eps - 1/|S| sum_S eps_theta(x_t, t | label)‖² )

over all sets of some of the labels, true ones and others, should favour the true set and its size.  The weight alpha_t² keeps
it at low noise, where inversion looks, and almost removes it at high noise, where generated images take their shape: there it
would make predictions bolder than the best ones are, and the images garish.
Whole captions, "a photo of a {label}, a {label} and a {label}", are learned the same way, so that the model knows them
as text-to-image models do.  Without a contrast, only the composed objective is learned, as in the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.device import to_device
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.models.prompts import compound
from igm_cli.core.objective import Noised

LABELS = 4
"""Labels predicted per image: those it holds, and others."""

EASY = 0.25
"""Share of images whose other labels are drawn uniformly."""

LARGEST_SET = 3

SMOOTHNESS = 1e-4
"""Weight of the divergence of latents from a normal distribution."""

READING, MATCHING = 0.1, 0.5
"""Weights of reading labels, and of matching prompts, relative to the composed error."""


def autoencoder_loss(model: LatentTextToImage, images: Tensor, generator: torch.Generator) -> Tensor:
    """Returns squared plus absolute error of the reconstruction, and the KL divergence of the latents' posterior."""
    posterior = model.vae.encode(images).latent_dist
    mean, spread = posterior.mean.float(), posterior.std.float()
    noise = to_device(torch.randn(mean.shape, generator=generator), mean.device)
    decoded: Tensor = model.vae.decode(mean + spread * noise).sample.float()
    divergence: Tensor = 0.5 * (mean.square() + spread.square() - 1 - 2 * spread.log()).mean()
    return F.mse_loss(decoded, images) + F.l1_loss(decoded, images) + SMOOTHNESS * divergence


def reading_loss(model: LatentTextToImage, seen: Noised, present: Tensor, generator: torch.Generator) -> Tensor:
    """Returns the cross-entropy of labels ``[B,M]`` read from the U-Net's first half under the empty prompt."""
    nothing = model.embed([""]).expand(len(present), 1, -1, -1)
    pooled = model.reader.pool(model(seen.x_t, seen.t, nothing, whole=False)[1])
    return _reading(model, pooled, model.embed(_prompts(model.space, generator)), present)


def _reading(model: LatentTextToImage, pooled: Tensor, prompts: Tensor, present: Tensor) -> Tensor:
    """Returns the cross-entropy of both readings of rows ``[B,...]``; a row's labels share its probability."""
    wanted = present / present.sum(1, keepdim=True)
    logits = model.reader.read(pooled, prompts)
    return sum((F.cross_entropy(each, wanted) for each in logits), start=pooled.new_zeros(()))


def composed_label_loss(
    model: LatentTextToImage, seen: Noised, present: Tensor, drop: float, generator: torch.Generator
) -> Tensor:
    """Returns the composed error under the true labels alone.

    Args:
        model: The networks in training.
        seen: Latents under noise.
        present: Which labels an image holds ``[B,M]``, on the CPU.
        drop: Proportion of images that are learned under the empty prompt, as those without labels are.
        generator: Draws them and the template.
    """
    device = seen.x_t.device
    present = present & (torch.rand(len(present), 1, generator=generator) >= drop)
    held = torch.cat([present, ~present.any(1, keepdim=True)], dim=1)
    images, labels = (to_device(rows, device) for rows in held.nonzero(as_tuple=True))
    embedded = model.embed([*_prompts(model.space, generator), ""])
    epsilon, _ = model(seen.x_t[images], seen.t[images], embedded[labels, None])
    share = to_device(1 / held.sum(1), device)[images, None, None, None]  # 1/K
    composed = torch.zeros_like(seen.noise).index_add(0, images, share * epsilon[:, 0])
    return (seen.weight * (seen.noise - composed).square().mean((1, 2, 3))).mean()


def label_loss(
    model: LatentTextToImage, seen: Noised, present: Tensor, contrast: float, generator: torch.Generator
) -> Tensor:
    """Returns the composed error under the true labels plus the losses of the set contrast, reading and matching.

    Args:
        model: The networks in training.
        seen: Latents under noise.
        present: Which labels an image holds ``[B,M]``, one to ``LARGEST_SET``.
        contrast: Weight of the contrast; 0 leaves the composed error, the reading and the matching.
        generator: Draws the other labels and the template.
    """
    prompts = model.embed(_prompts(model.space, generator))
    likely = _likely(model, seen, prompts)
    asked, true = sample_labels(present, min(LABELS, present.shape[1]), generator, likely)  # [B,L]
    epsilon, noticed = model(seen.x_t, seen.t, prompts[asked])
    sets = to_device(subsets(asked.shape[1], LARGEST_SET), epsilon.device).to(epsilon)  # [S,L]
    errors = set_errors(epsilon, seen.noise, sets)
    target = (sets[None] == true[:, None].to(sets)).all(2).float().argmax(1)
    denoising = seen.weight * errors.gather(1, target[:, None])[:, 0]
    crossed = _contrast(model, seen, errors, target)
    pooled = model.reader.pool(noticed)
    matching = F.binary_cross_entropy_with_logits(model.reader.match(pooled), true.flatten().float())
    read = _reading(model, pooled, prompts, present.repeat_interleave(asked.shape[1], dim=0))
    return denoising.mean() + contrast * crossed + READING * read + MATCHING * matching


def caption_loss(
    model: LatentTextToImage, seen: Noised, present: Tensor, contrast: float, generator: torch.Generator
) -> Tensor:
    """Returns the error under the whole caption, contrasted with two wrong ones, and under the empty prompt.

    The arguments are those of :func:`label_loss`.
    """
    texts = [text for row in present.tolist() for text in _captions(model.space, row, generator)]
    embedded = model.embed(texts).unflatten(0, (len(present), 4))
    epsilon, _ = model(seen.x_t, seen.t, embedded)
    errors: Tensor = (seen.noise[:, None] - epsilon).square().mean((2, 3, 4))  # [B,4]
    denoising = (seen.weight * (errors[:, 0] + errors[:, 3]) / 2).mean()
    target = torch.zeros(len(present), dtype=torch.long, device=errors.device)
    return denoising + contrast * _contrast(model, seen, errors[:, :3], target)


def _contrast(model: LatentTextToImage, seen: Noised, errors: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of the noise's likelihood from errors of sets ``[B,S]``, weighted by alpha_t²."""
    pixels = seen.noise[0].numel()  # P, over which an error is the mean
    crossed = F.cross_entropy(-pixels / 2 * errors, target, reduction="none")
    return (model.schedule.alpha(seen.t).square() * crossed).mean()


@torch.no_grad()
def _likely(model: LatentTextToImage, seen: Noised, prompts: Tensor) -> Tensor:
    """Returns logits of all labels ``[B,M]``, read under the empty prompt."""
    nothing = model.embed([""]).expand(len(seen.x_t), 1, -1, -1)
    pooled = model.reader.pool(model(seen.x_t, seen.t, nothing, whole=False)[1])
    one, other = model.reader.read(pooled, prompts)
    return (one + other) / 2


def sample_labels(
    present: Tensor, count: int, generator: torch.Generator, likely: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns every image's labels and others: indices and whether they are true, both ``[B,count]``.

    Args:
        present: Which labels an image holds ``[B,M]``.
        count: Number per image.
        generator: Draws the others.
        likely: Logits of all labels ``[B,M]``, by which others are drawn (a Gumbel variable for every label), so that
            training tells likely mistakes apart; a share of the images, ``EASY``, and all if None, get any others.
    """
    uniform = to_device(torch.rand(present.shape, generator=generator).clamp(1e-6, 1 - 1e-6), present.device)
    chance = -torch.log(-torch.log(uniform))
    if likely is not None:
        hard = to_device(torch.rand(len(present), 1, generator=generator) >= EASY, present.device)
        chance = chance + torch.where(hard, likely.float(), 0.0)
    asked = chance.masked_fill(present.bool(), torch.inf).topk(count, dim=1).indices
    return asked, present.gather(1, asked)


def subsets(candidates: int, largest: int) -> Tensor:
    """Returns all sets of 1 to ``largest`` candidates as booleans ``[S,candidates]``."""
    rows = [
        [index in chosen for index in range(candidates)]
        for size in range(1, min(largest, candidates) + 1)
        for chosen in itertools.combinations(range(candidates), size)
    ]
    return torch.tensor(rows)


def set_errors(epsilon: Tensor, noise: Tensor, sets: Tensor) -> Tensor:
    """Returns ‖eps - mean of predictions‖² under sets of labels ``[B,S]``.

    Args:
        epsilon: Predictions under single labels ``[B,L,C,h,w]``.
        noise: ``[B,C,h,w]``.
        sets: Members ``[S,L]``.
    """
    weights = sets / sets.sum(1, keepdim=True)
    with torch.autocast(epsilon.device.type, enabled=False):  # differences of errors are small
        composed = torch.einsum("sl,blchw->bschw", weights, epsilon)
    return (noise[:, None] - composed).square().mean((2, 3, 4))


def _template(space: Text, generator: torch.Generator) -> str:
    """Draws the first template half of the time, any of them otherwise."""
    number = int(torch.randint(2 * len(space.templates), (), generator=generator))
    return (*space.templates, *space.templates[:1] * len(space.templates))[number]


def _prompts(space: Text, generator: torch.Generator) -> list[str]:
    """Returns every label in one template."""
    template = _template(space, generator)
    return [template.replace("{label}", label) for label in space.labels]


def _captions(space: Text, present: Sequence[bool], generator: torch.Generator) -> list[str]:
    """Returns four captions of an image: the true one, two wrong ones, and empty ones for the rest."""
    order = torch.randperm(len(present), generator=generator).tolist()
    true = [i for i in order if present[i]]
    others = [i for i in order if not present[i]][:2]
    template = _template(space, generator)
    # Wrong captions exchange a label; if too few others are left, they have one too many or too few.
    exchanged, added = ([[*kept, other] for other in others] for kept in (true[:-1], true))
    wrong = [chosen for chosen in (*exchanged, *added, true[:-1], true[1:]) if chosen][:2]
    named = [[space.labels[i] for i in chosen] for chosen in (true, *wrong)]
    captions = [compound(template, names) for names in named]
    return [*captions, *[""] * (4 - len(captions))]
