"""A composed model as samplers see it: a score, and the Gram matrix of its contributions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, weight
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.noised_batch import precision_of


@dataclass(frozen=True)
class Prediction:
    """What a composed model says of x_t at one timestep.

    Attributes:
        epsilon: eps_u + sum_k v_k Delta_k ``[B,C,H,W]``.
        overlap: sum_{i≠j} v_i v_j <Delta_i,Delta_j> ``[B]``: how far contributions meet.
    """

    epsilon: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class Composed:
    """Concepts joined by AND, each with its weight: the product of experts (Du, Li & Mordatch 2020, eq. 4).

    Attributes:
        denoiser: The model.
        concepts: ``[B,K,D]`` on its device.
        scale: v, the weight of every contribution ``[B,K]``: 1 for AND under ``sum``, 0 for padding, below 0 for NOT.
    """

    denoiser: Denoiser
    concepts: Tensor
    scale: Tensor

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        concepts: Tensor,
        composition: Composition,
        present: Tensor | None,
        guidance: Tensor | float,
    ) -> Composed:
        """Composes concepts as a model was trained to, contributions times a guidance ``[B,K]`` or a number."""
        if present is None:
            present = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        return cls(
            denoiser, concepts, weight(composition, present.sum(1))[:, None].to(concepts) * present * guidance
        )

    def __len__(self) -> int:
        return len(self.concepts)

    def repeated(self, particles: int) -> Composed:
        """Each set of concepts for so many images in a row."""
        concepts, scale = (tensor.repeat_interleave(particles, 0) for tensor in (self.concepts, self.scale))
        return Composed(self.denoiser, concepts, scale)

    def predict(self, x: Tensor, t: int) -> Prediction:
        """Predicts the noise in ``[B,C,H,W]`` at timestep t."""
        times = torch.full((len(x),), t, device=x.device)
        with precision_of(self.denoiser, x.device):
            features = self.denoiser.features(x, times)
            base, delta = self.denoiser.base(features), self.denoiser.contributions(features, self.concepts)
        parts = self.scale[..., None] * delta.float().flatten(2)  # [B,K,P]
        total = parts.sum(1)
        overlap = total.square().sum(1) - parts.square().sum((1, 2))
        return Prediction(base.float() + total.view_as(base), overlap)
