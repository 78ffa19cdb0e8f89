"""A composed model as samplers see it: a score, and the Gram matrix of its contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, weight
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.noised_batch import precision_of
from igm_cli.core.noise_schedule import Schedule
from igm_cli.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """A composed model's prediction for x_t at one timestep.

    Attributes:
        epsilon: eps_u + sum_k v_k Delta_k ``[B,C,H,W]``.
        overlap: sum_{i≠j} v_i v_j <Delta_i,Delta_j> ``[B]``: how much contributions overlap.
        own: sum_i v_i² <Delta_i,Delta_i> ``[B]``.
    """

    epsilon: Tensor
    overlap: Tensor
    own: Tensor


@dataclass(frozen=True)
class Part:
    """Concepts of one model, each with its weight.

    Attributes:
        denoiser: The model.
        concepts: ``[B,K,D]`` on its device.
        scale: v, the weight of every contribution ``[B,K]``: 1 for AND under ``sum``, 0 for padding, below 0 for NOT.
    """

    denoiser: Denoiser
    concepts: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Composed:
    """Concepts joined by AND: the product of experts (Du, Li & Mordatch 2020, eq. 4), of one model or of several.

        eps = eps_u + sum_k v_k Delta_k

    with eps_u of the first model.  Models trained apart follow the factors of p(x|c) p(d|x): a contribution of every
    further model is log p(d|x) = log p(x|d) - log p(x), so its eps_u must be that of images in general
    (:attr:`igm_cli.core.training.config.TrainConfig.drop`); that of the first model need not be.

    Attributes:
        parts: The concepts of every model, for the same B images.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        concepts: Tensor,
        composition: Composition = "sum",
        present: Tensor | None = None,
        guidance: Tensor | float = 1.0,
    ) -> Composed:
        """Composes concepts ``[B,K,D]`` as a model was trained to.

        Args:
            denoiser: The model.
            concepts: On its device.
            composition: How the model composes.
            present: ``[B,K]`` booleans, False for padding.
            guidance: Factor of every contribution, ``[B,K]`` or one for all: 1 for AND, above 1 for more of it, below 0
                for NOT.
        """
        if present is None:
            present = torch.ones(concepts.shape[:2], dtype=torch.bool, device=concepts.device)
        scale = weight(composition, present.sum(1))[:, None].to(concepts) * present * guidance
        return cls((Part(denoiser, concepts, scale),))

    def __and__(self, other: Composed) -> Composed:
        """Joins the concepts of other models, for the same images, by AND."""
        return Composed(self.parts + other.parts)

    def __len__(self) -> int:
        return len(self.parts[0].concepts)

    @property
    def schedule(self) -> Schedule:
        """The noise schedule, which all models share."""
        return self.parts[0].denoiser.schedule

    @property
    def device(self) -> torch.device:
        """Where the models compute."""
        return self.parts[0].concepts.device

    def repeated(self, particles: int) -> Composed:
        """Returns each set of concepts repeated for several images in a row."""
        parts = []
        for part in self.parts:
            concepts, scale = (each.repeat_interleave(particles, 0) for each in (part.concepts, part.scale))
            parts.append(Part(part.denoiser, concepts, scale))
        return Composed(tuple(parts))

    def overlap_in(self, x0: Tensor, t: int) -> Tensor:
        """Returns sum_{i≠j} / sum_i of the Gram matrix of contributions ``[B]``, in clean images at timestep t.

        Where it is 0, adding up scores is exact; where it is large, concepts touch.
        """
        noise = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(0)).to(x0)
        with torch.no_grad():
            at = torch.full((len(x0),), t, device=x0.device)
            found = self.predict(self.schedule.add_noise(x0, noise.expand_as(x0), at), t)
        return found.overlap / found.own.clamp(min=1e-12)

    def predict(self, x: Tensor, t: int | Tensor) -> Prediction:
        """Predicts the noise in ``[B,C,H,W]`` at one timestep, or at one per image ``[B]``."""
        times = t if isinstance(t, Tensor) else torch.full((len(x),), t, device=x.device)
        base = torch.zeros_like(x)
        deltas: list[Tensor] = []
        for part in self.parts:
            with precision_of(part.denoiser, x.device):
                features = part.denoiser.features(x, times)
                if not deltas:
                    base = part.denoiser.base(features).float()
                delta = part.denoiser.contributions(features, part.concepts)
            deltas.append(part.scale[..., None] * delta.float().flatten(2))  # [B,K,P]
        each = torch.cat(deltas, 1)
        total = each.sum(1)
        own = each.square().sum((1, 2))
        return Prediction(base + total.view_as(base), total.square().sum(1) - own, own)


def require_alike(named: Sequence[tuple[str, Any]]) -> None:
    """Raises an :class:`InputError` unless named models can be composed: of one image size and one noise schedule."""
    (name, first), *others = named
    every = torch.arange(first.schedule.steps)
    for other_name, other in others:
        if tuple(other.image_size) != tuple(first.image_size):
            (w, h), (v, g) = first.image_size, other.image_size
            raise InputError(
                f"{name!r} sees images of {w}×{h} pixels and {other_name!r} of {v}×{g}; models that are composed need one "
                "size"
            )
        steps = {model.schedule.steps for model in (first, other)}
        if len(steps) > 1 or not torch.allclose(first.schedule.alpha(every), other.schedule.alpha(every)):
            raise InputError(
                f"{name!r} and {other_name!r} have different noise schedules, so that they cannot be composed; train one "
                "of them again on the other's"
            )
