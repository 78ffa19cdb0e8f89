"""The composed objective with a contrast between the values of factors (ours).

Training lowers the composed error under true concepts only.  It does not constrain the prediction under *wrong* values, on
which inversion rests, and learns small details very slowly, since their concepts lower the error little.  The contrast
trains both: given the image and one noise draw, the likelihood of the noise

    p(v | x0, eps, t) = softmax_v( -P/2 · ‖eps - compose(c with v in place of its factor's value)‖² ),

with P the number of pixels (the error is a mean over them), should favour the true value.

If concepts are points with values, an image holds several; each step compares one of them and holds all others.  Let r be
the residual less all contributions but that of the concept, and Delta(v) its contribution with the value v.  The errors
of the composed prediction under different values differ only by

    |Delta(v)|² - 2 <r, Delta(v)>,

which depends only on the cells of its window.  This contrast seldom shows concepts at empty places, or two at one place.  So
the contrast between points and none (:mod:`igm_cli.core.training.presence`) is added, with a false concept beside the one
compared and another anywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.composition import Composition, compose, weight
from igm_cli.core.concepts import Categorical, Product
from igm_cli.core.device import to_device
from igm_cli.core.inference.windows import Local
from igm_cli.core.objective import Noised
from igm_cli.core.training.presence import presence

NEAR = 0.05
"""Standard deviation of a false concept's distance from the one it is beside, as a fraction of the range."""


def contrastive_loss(
    model: nn.Module,
    seen: Noised,
    composition: Composition,
    space: Categorical,
    concepts: Tensor,
    contrast: float,
) -> Tensor:
    """Returns the composed error under true concepts plus ``contrast`` times the cross-entropy of every factor.

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta).
        seen: B images under noise.
        composition: ``sum`` or ``mean``.
        space: The factors.
        concepts: One-hot rows ``[B,F,D]``, one per factor in the space's order.
        contrast: Weight of the cross-entropy.
    """
    values = to_device(space.candidates(), concepts.device)[None]
    base, contributions, logits = model(seen.x_t, seen.t, values, read=True)
    residual, delta = (seen.noise - base.float()).flatten(1), contributions.float().flatten(2)  # [B,P], [B,D,P]
    true = concepts.argmax(2)
    errors = errors_of_values(residual, delta, true, space.groups(), composition)
    denoising = errors.gather(1, true[:, :1])[:, 0]  # the same at every factor's true value
    crossed = contrasts(errors, logits, true, space.groups(), residual.shape[1]).sum(1)
    return (seen.weight * denoising + contrast * crossed).mean()


def contrasts(errors: Tensor, logits: Tensor, true: Tensor, groups: list[list[int]], pixels: int) -> Tensor:
    """Returns the contrast of every factor plus the cross-entropy of its read-out, ``[B,F]``.

    Args:
        errors: Errors with one value exchanged ``[B,D]``.
        logits: Logits read from the image ``[B,D]``; contributions can use the features learned for these.
        true: Candidate of every factor ``[B,F]``.
        groups: Candidates of every factor.
        pixels: P, the number of pixels over which an error is the mean.
    """
    likelihood = -pixels / 2 * errors
    return cross_entropies(likelihood, true, groups) + cross_entropies(logits.float(), true, groups)


def cross_entropies(logits: Tensor, true: Tensor, groups: list[list[int]]) -> Tensor:
    """Returns the cross-entropy of every factor's true value ``[B,F]``, from logits of all values ``[B,D]``."""
    each = [
        F.cross_entropy(logits[:, g[0] : g[-1] + 1], true[:, f] - g[0], reduction="none")
        for f, g in enumerate(groups)
    ]
    return torch.stack(each, dim=1)


def errors_of_values(
    residual: Tensor, delta: Tensor, true: Tensor, groups: list[list[int]], composition: Composition
) -> Tensor:
    """Returns errors under the true configuration with one value exchanged ``[B,D]``.

    Args:
        residual: r = eps - eps_u ``[B,P]``.
        delta: Contributions of all values ``[B,D,P]``.
        true: Candidate of every factor ``[B,F]``.
        groups: Candidates of every factor.
        composition: How contributions add up.
    """
    w = float(weight(composition, torch.tensor(len(groups))))
    factor = to_device(torch.tensor([f for f, group in enumerate(groups) for _ in group]), delta.device)
    chosen = delta.gather(1, true[..., None].expand(-1, -1, delta.shape[2]))  # [B,F,P]
    left = residual - w * chosen.sum(1)
    return (left[:, None] - w * (delta - chosen[:, factor])).square().mean(2)


def contrastive_loss_of_points(
    model: nn.Module,
    denoiser: Local,
    seen: Noised,
    space: Product,
    concepts: Tensor,
    present: Tensor,
    shown: Tensor,
    member: Tensor,
    false: Tensor,
    contrast: float,
) -> Tensor:
    """Returns the composed error plus ``contrast`` times the cross-entropy of every factor of one concept per image.

    ``contrast`` times the logistic loss of deciding for true concepts and against false ones is added.

    Args:
        model: Called with (x_t, t, concepts, compared) for (eps_u, Delta, and the windows of the concepts compared);
            contributions are summed.
        denoiser: Splits images into cells.
        seen: B images under noise.
        space: Points with values.
        concepts: True concepts ``[B,K,D]``; a factor with a mixture is unknown.
        present: Which of them are present ``[B,K]``.
        shown: The concepts as the model sees them ``[B,K,D]``, perhaps with more mixtures.
        member: Index of the concept that is compared ``[B]``.
        false: Concepts that the images do not show ``[B,M,D]``, from :func:`false_concepts`.
        contrast: Weight of the cross-entropy.
    """
    image = torch.arange(len(concepts), device=concepts.device)
    compared = space.variants(shown[image, member])  # [B,V,D]
    base, delta, values, cells = model(seen.x_t, seen.t, torch.cat([shown, false], dim=1), compared=compared)
    delta = delta.float()
    residual = seen.noise - compose(base.float(), delta[:, : shown.shape[1]], "sum", present)
    without = residual + delta[image, member]
    likelihood = -changes(denoiser.to_patches(without), values[0], cells) / 2
    told, groups = concepts[image, member][:, space.where.dim :], space.what.groups()
    true = torch.stack([told[:, group].argmax(1) + group[0] for group in groups], dim=1)
    known = torch.stack([told[:, group].amax(1) == 1 for group in groups], dim=1)
    crossed = cross_entropies(likelihood, true, groups) * (known & present[image, member][:, None])
    denoising = seen.weight * residual.square().mean((1, 2, 3))
    return (denoising + contrast * crossed.sum(1)).mean() + contrast * presence(residual, delta, present)


def false_concepts(space: Product, beside: Tensor, generator: torch.Generator) -> Tensor:
    """Returns two false concepts per image ``[B,2,D]``: one near a true one, with some of its values, and one anywhere.

    Args:
        space: Points with values.
        beside: The true ones ``[B,D]``.
        generator: Draws them, on the CPU.
    """
    b, sizes = len(beside), torch.tensor([len(group) for group in space.what.groups()])
    low, extent = torch.tensor(space.where.low), space.where.extent.float()
    values = [torch.eye(n)[torch.randint(n, (b, 2), generator=generator)] for n in sizes.tolist()]
    step = NEAR * extent * torch.randn(b, space.where.dim, generator=generator)
    anywhere = low + extent * torch.rand(b, space.where.dim, generator=generator)
    kept = (torch.rand(b, len(sizes), generator=generator) < 0.5).repeat_interleave(sizes, dim=1)
    point, own = beside.split([space.where.dim, space.what.dim], dim=1)
    other, any_value = to_device(torch.cat(values, dim=2), beside.device).unbind(1)
    near = [point + to_device(step, beside.device), torch.where(to_device(kept, beside.device), own, other)]
    far = [to_device(anywhere, beside.device), any_value]
    return space.clamp(torch.stack([torch.cat(near, dim=1), torch.cat(far, dim=1)], dim=1))


def changes(patches: Tensor, values: Tensor, cells: Tensor) -> Tensor:
    """Returns by how much each of V contributions alone changes the summed square of the residual ``[B,V]``.

    Args:
        patches: Residual of images, cell after cell ``[B,G,c]``.
        values: Contributions in their windows ``[B,V,W,c]``, zero outside the image.
        cells: Indices of the windows' cells, the same for all V ``[B,V,W]``; G stands for one outside.
    """
    index = cells[:, 0].clamp(max=patches.shape[1] - 1)
    there = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))  # [B,W,c]
    return values.square().sum((2, 3)) - 2 * torch.einsum("bvwc,bwc->bv", values, there)
