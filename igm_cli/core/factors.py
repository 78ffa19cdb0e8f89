"""Inversion over factors: one value of each, by exact search over the evidence of all values."""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.evidence import paired
from igm_cli.core.inversion import Inversion, InversionSettings, KPoint
from igm_cli.core.look import look
from igm_cli.core.pool import gather
from igm_cli.core.schedule import draw
from igm_cli.core.search import exhaustive_configurations


def invert_factors(
    denoiser: Denoiser, image: Tensor, settings: InversionSettings, composition: Composition
) -> Inversion:
    """One value of every factor, by exact search over the evidence of all values."""
    space = denoiser.space
    assert isinstance(space, Categorical)
    candidates = space.candidates().to(image.device)
    shape = tuple(image.shape)
    s = settings
    taken = draw(denoiser.schedule, shape, s.draws, low=s.low, high=s.high, seed=s.seed)
    seen = look(denoiser, image, taken, s.power)
    evidence = gather(denoiser, seen, candidates, composition)
    found = exhaustive_configurations(evidence.expected(), space.groups())
    subset = list(found.subset)
    errors = evidence.errors(subset)
    confidence = []
    for place, group in enumerate(space.groups()):
        rivals = [[*subset[:place], v, *subset[place + 1 :]] for v in group if v != subset[place]]
        gaps = [paired(evidence.errors(rival), errors, evidence.importance) for rival in rivals]
        confidence.append(min(gap.probability() for gap in gaps))
    return Inversion(
        concepts=candidates[subset].cpu(),
        confidence=torch.tensor(confidence),
        k=len(subset),
        k_source="given",
        denoising_error=found.error,
        k_curve=(KPoint(len(subset), found.error, 0.0),),
        network_calls=len(seen) * (1 + len(candidates)),
        seconds=0.0,
        draws=len(seen),
    )
