"""Inversion over factors: one value of each, by exact search over the evidence of all values.

Sum of values network calls a draw give the errors of all configurations, of which there are as many as
the product of the numbers of values; the best is found without a further call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.confidence import Rivals, familiarity, legibility, tempered
from igm_cli.core.inference.configurations import best_configuration
from igm_cli.core.inference.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.inference.look import look
from igm_cli.core.inference.pool import gather
from igm_cli.core.noise_schedule import draw
from igm_cli.errors import UsageError

AT_ONCE = 32
"""Draws that pass the network together: bounds the memory."""


def invert_factors(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, k: int | None, composition: Composition
) -> Inversion:
    """One value of every factor.

    Args:
        denoiser: Over a :class:`Categorical` space.
        image: ``[C,H,W]``.
        settings: ``method`` is evidence, relax, enumerate or eliminate.
        k: Number of factors or None.
        composition: How contributions add up.

    Raises:
        UsageError: If ``k`` is not the number of factors.
    """
    from igm_cli.core.inference.enumeration import eliminate, enumerate_all
    from igm_cli.core.inference.relaxation import relax

    factors = len(cast(Categorical, denoiser.space).factors)
    if k not in (None, factors):
        raise UsageError(f"the model has {factors} factors, so k cannot be {k}; leave it out")
    methods: dict[str, Callable[..., Inversion]] = {
        "evidence": by_evidence,
        "relax": relax,
        "enumerate": enumerate_all,
        "eliminate": eliminate,
    }
    return methods[settings.method](denoiser, image, settings, composition)


def by_evidence(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """The best of all configurations under the evidence; noise is drawn until every value is settled."""
    space, s = cast(Categorical, denoiser.space), settings
    candidates, groups = space.candidates().to(image.device), space.groups()
    evidence = None
    while True:
        seen = 0 if evidence is None else len(evidence)
        more = min(s.draws if seen == 0 else seen, s.max_draws - seen)
        for first in range(seen, seen + more, AT_ONCE):
            count = min(AT_ONCE, seen + more - first)
            taken = draw(
                denoiser.schedule, tuple(image.shape), count, low=s.low, high=s.high, seed=s.seed, start=first
            )
            part = gather(denoiser, look(denoiser, image, taken, s.power), candidates, composition)
            evidence = part if evidence is None else evidence.join(part)
        assert evidence is not None  # at least one draw was taken
        found = best_configuration(evidence.expected(), groups)
        rivals = Rivals.of(evidence, found.subset, groups)
        if len(evidence) >= s.max_draws or rivals.settled(s.settled):
            break
    probability = rivals.probability(s.temperature)
    familiar = familiarity(found.error, s.typical) * legibility(probability, groups)  # nan if not calibrated
    return of_configuration(
        candidates[list(found.subset)],
        tempered(probability, groups, familiar),
        found.error,
        calls=len(evidence) * (1 + len(candidates)),
        draws=len(evidence),
        familiar=familiar,
    )


def of_configuration(
    concepts: Tensor,
    confidence: Tensor | None,
    error: float,
    *,
    calls: int,
    draws: int,
    familiar: float = float("nan"),
) -> Inversion:
    """The answer of a method of factors: concepts ``[F,D]``, confidence ``[F]`` where it has one."""
    unknown = torch.full((len(concepts),), float("nan"))
    return Inversion(
        concepts=concepts.float().cpu(),
        confidence=unknown if confidence is None else confidence.float(),
        k=len(concepts),
        k_source="given",
        denoising_error=error,
        k_curve=(KPoint(len(concepts), error, 0.0),),
        network_calls=calls,
        seconds=0.0,
        draws=draws,
        familiarity=familiar,
    )
