"""The protocol that every generative model is wrapped to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.noise_schedule import Schedule


class Denoiser(Protocol):
    """eps_theta(x_t, t | c), split so that what all concepts share is computed once.

    The composed prediction is base + w(K) * sum_k contribution_k
    (see :mod:`igm_cli.core.composition`).
    """

    space: ConceptSpace
    schedule: Schedule

    def features(self, x_t: Tensor, t: Tensor) -> Any:
        """Returns what does not depend on a concept, for noised images ``[N,C,H,W]`` at timesteps ``[N]``."""
        ...

    def base(self, features: Any) -> Tensor:
        """Returns eps_u, the prediction under no concept, ``[N,C,H,W]`` float32."""
        ...

    def contributions(self, features: Any, concepts: Tensor) -> Tensor:
        """Returns Delta_k = eps_theta(x_t, t | c_k) - eps_u, ``[N,M,C,H,W]`` float32.

        Concepts are ``[N,M,D]``, or ``[1,M,D]`` if all N noised images share them.
        """
        ...


@dataclass
class InputFeatures:
    """The features of a denoiser whose concepts share only the input and, once computed, eps_u.

    Attributes:
        x_t: Noised images or latents ``[N,C,H,W]``.
        t: Timesteps ``[N]``.
        base: eps_u ``[N,C,H,W]``.
    """

    x_t: Tensor
    t: Tensor
    base: Tensor | None = None
