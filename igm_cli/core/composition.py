"""How predictions under single concepts combine into the prediction under all of them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Composition: TypeAlias = Literal["sum", "mean"]


def weight(composition: Composition, k: Tensor) -> Tensor:
    """Returns w(K): 1 for ``sum`` (the paper's text), 1/K for ``mean`` (the paper's code).

    Numbers of concepts ``[...]`` may be 0: nothing is added then.
    """
    if composition == "sum":
        return torch.ones_like(k, dtype=torch.float32)
    return 1.0 / k.clamp(min=1).float()


def compose(
    base: Tensor, contributions: Tensor, composition: Composition, present: Tensor | None = None
) -> Tensor:
    """Returns eps_u + w(K) sum_k Delta_k ``[N,C,H,W]``.

    IGM (Wang et al. 2025), eq. 4, and the released code's mean over conditional predictions.

    Args:
        base: eps_u ``[N,C,H,W]``.
        contributions: Delta ``[N,K,C,H,W]``.
        composition: ``sum`` or ``mean``.
        present: ``[N,K]`` booleans, False for padding.
    """
    if present is None:
        present = torch.ones(contributions.shape[:2], dtype=torch.bool, device=base.device)
    w = weight(composition, present.sum(dim=1))  # [N]
    scale = (w[:, None] * present).to(contributions.dtype)
    return base + torch.einsum("nk,nkchw->nchw", scale, contributions)
