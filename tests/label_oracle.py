"""A denoiser over labels in closed form: which labels explain an image can be known exactly.

x0 | S ~ N(mean of m_j over S, s² I) with a random pattern m_j for every label.  Then x_t is Gaussian too and

    eps(x_t, t | S) = sigma (x_t - alpha mean_S m_j) / (alpha² s² + sigma²)

is the mean of eps(x_t, t | {j}) over S: the mean composition is exact, and so is a caption that names all of S.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.noise_schedule import Schedule

Features = tuple[Tensor, Tensor]
SIDE = 8


class LabelOracle:
    """Counts its calls, one for every latent and prompt."""

    def __init__(
        self,
        labels: Sequence[str],
        spread: float = 0.3,
        templates: Sequence[str] = ("a photo of a {label}",),
        nothing: str = "",
    ) -> None:
        self.space, self.schedule, self.spread = (
            Text(tuple(labels), tuple(templates), nothing),
            Schedule(),
            spread,
        )
        self.patterns = {
            label: torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(ord(label)))
            for label in labels
        }
        self.calls = 0

    def image(self, labels: Sequence[str], seed: int = 0) -> Tensor:
        """A draw of x0 ``[4,S,S]`` under a set."""
        mean = torch.stack([self.patterns[label] for label in labels]).mean(0)
        return mean + self.spread * torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))

    def features(self, x_t: Tensor, t: Tensor) -> Features:
        return x_t, t

    def base(self, features: Features) -> Tensor:
        return self._epsilon(features, torch.zeros(1, 1, *features[0].shape[1:]))[:, 0]

    def predictions(self, features: Features, concepts: Tensor) -> Tensor:
        every = torch.stack([self.patterns[label] for label in self.space.labels])
        return self._epsilon(features, every[concepts.argmax(-1)], len(self.space.templates))

    def contributions(self, features: Features, concepts: Tensor) -> Tensor:
        calls = self.calls
        base = self.base(features)[:, None]
        self.calls = calls  # models keep what they predict under no label
        return self.predictions(features, concepts) - base

    def predictions_of_prompts(self, features: Features, texts: Sequence[str]) -> Tensor:
        """Of captions such as "a photo of a x, a y and a z"."""
        sets = [re.findall(r"a (\w+)(?=,| and|$)", text) for text in texts]
        means = [torch.stack([self.patterns[s] for s in named]).mean(0) for named in sets]
        return self._epsilon(features, torch.stack(means)[None])

    def _epsilon(self, features: Features, means: Tensor, times: int = 1) -> Tensor:
        """``[N,R,4,S,S]`` under means ``[1,R,4,S,S]`` or ``[N,R,4,S,S]``."""
        x_t, t = features
        self.calls += len(t) * means.shape[1] * times
        alpha, sigma = (f(t).view(-1, 1, 1, 1, 1) for f in (self.schedule.alpha, self.schedule.sigma))
        return sigma * (x_t[:, None] - alpha * means) / (alpha**2 * self.spread**2 + sigma**2)


def letters(count: int) -> list[str]:
    """Labels of one letter."""
    return [chr(ord("a") + i + (256 if i >= 26 else 0)) for i in range(count)]


def names(oracle: LabelOracle, concepts: Tensor) -> set[str]:
    """Labels of one-hot rows ``[K,M]``."""
    return {oracle.space.labels[int(row.argmax())] for row in concepts}
