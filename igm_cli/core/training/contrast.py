"""The composed objective with a contrast between the values of factors (ours).

The composed error is lowered under true concepts only: what a *wrong* value predicts, on which inversion
rests, is left to chance, and the little that small details gain from their concept is learned very slowly.
The contrast asks for it: given the image and one noise draw, the likelihood of the noise

    p(v | x0, eps, t) = softmax_v( -P/2 · ‖eps - compose(c with v in place of its factor's value)‖² ),

P the number of pixels (the error is a mean over them), should speak for the true value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igm_cli.core.composition import Composition, weight
from igm_cli.core.concepts import Categorical
from igm_cli.core.device import to_device
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.objective import denoising_weight


def contrastive_loss(
    model: nn.Module,
    schedule: Schedule,
    composition: Composition,
    space: Categorical,
    x0: Tensor,
    concepts: Tensor,
    t: Tensor,
    noise: Tensor,
    contrast: float,
) -> Tensor:
    """The composed error under true concepts, and ``contrast`` times the cross-entropy of every factor.

    Args:
        model: Called with (x_t, t, concepts) for (eps_u, Delta).
        schedule: The noise schedule.
        composition: ``sum`` or ``mean``.
        space: The factors.
        x0: Clean images ``[B,C,H,W]``.
        concepts: One-hot rows ``[B,F,D]``, one per factor in the space's order.
        t: Timesteps ``[B]``.
        noise: Standard normal samples ``[B,C,H,W]``.
        contrast: Weight of the cross-entropy.
    """
    x_t = schedule.add_noise(x0, noise, t)
    base, contributions, logits = model(x_t, t, to_device(space.candidates(), x0.device)[None], read=True)
    residual, delta = (noise - base.float()).flatten(1), contributions.float().flatten(2)  # [B,P], [B,D,P]
    true = concepts.argmax(2)
    errors = errors_of_values(residual, delta, true, space.groups(), composition)
    denoising = errors.gather(1, true[:, :1])[:, 0]  # the same at every factor's true value
    crossed = contrasts(errors, logits, true, space.groups(), residual.shape[1]).sum(1)
    return (denoising_weight(schedule, t) * denoising + contrast * crossed).mean()


def contrasts(errors: Tensor, logits: Tensor, true: Tensor, groups: list[list[int]], pixels: int) -> Tensor:
    """The contrast of every factor, and the cross-entropy of its read-out, ``[B,F]``.

    Args:
        errors: Errors with one value exchanged ``[B,D]``.
        logits: Logits read off the image ``[B,D]``; what is noticed for it, contributions can use.
        true: Candidate of every factor ``[B,F]``.
        groups: Candidates of every factor.
        pixels: P, the number of pixels that an error is the mean over.
    """

    def cross_entropies(logits: Tensor) -> Tensor:
        each = [
            F.cross_entropy(logits[:, g], true[:, f] - g[0], reduction="none") for f, g in enumerate(groups)
        ]
        return torch.stack(each, dim=1)

    likelihood = -pixels / 2 * errors
    return cross_entropies(likelihood) + cross_entropies(logits.float())


def errors_of_values(
    residual: Tensor, delta: Tensor, true: Tensor, groups: list[list[int]], composition: Composition
) -> Tensor:
    """Errors under the true configuration with one value exchanged ``[B,D]``.

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
