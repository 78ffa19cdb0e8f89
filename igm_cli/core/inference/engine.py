"""Inversion: the concepts under which the composed model denoises an image best.

    c* = argmin_c  E_{t,eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, eq. 6)

One algorithm for every kind of concept: candidates are evaluated under noise samples that all hypotheses share, their
inner products give the error of every set, the constraint of the concept space finds the best set and its
alternatives, and noise is drawn until these are ruled out.  The published algorithms are in
:mod:`igm_cli.core.inference.reference`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.concepts import ConceptSpace
from igm_cli.core.device import divided_work, memory_of, on_streams, side_by_side
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint
from igm_cli.core.inference.continuous import ContinuousInference
from igm_cli.core.inference.noised_batch import Whole
from igm_cli.core.inference.posterior import posterior, posteriors, shrink_to_chance
from igm_cli.core.inference.sparse_subset import SparseSubset
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.inference.typicality import LEAST, LEAST_MARGIN, features
from igm_cli.core.noise_schedule import quadrature_levels
from igm_cli.core.types import Evidence, Inversion, InversionSettings, KPoint, Progress
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser
    from igm_cli.core.inference.closer_look import Look

R = TypeVar("R")

IMAGES_AT_ONCE = 128
"""Images whose tensors pass a GPU together, at most."""

BYTES_PER_PIXEL = 60_000
"""GPU memory per pixel of the images that pass together; most of it is used while two groups are at work."""


def check_method(space: ConceptSpace, method: str) -> None:
    """Raises a :class:`UsageError` if a method cannot find concepts of a space."""
    if method not in space.methods:
        raise UsageError(
            f"method {method!r} does not support {space.plural}; choose {' or '.join(space.methods)}"
        )


def constraint_of(space: ConceptSpace) -> type[Constraint]:
    """Returns the constraint that a space names; any-set and one-of-each are imported only where needed."""
    if space.constraint == SparseSubset.name:
        return SparseSubset
    from igm_cli.core.inference import any_set, one_of_each  # noqa: F401  (subclasses of Constraint)

    return {constraint.name: constraint for constraint in Constraint.__subclasses__()}[space.constraint]


def invert(
    denoiser: Denoiser,
    image: Tensor,
    settings: InversionSettings | None = None,
    *,
    k: int | None = None,
    composition: Composition = "sum",
    progress: Progress | None = None,
) -> Inversion:
    """Finds the concepts of one image ``[C,H,W]``, or of V views of it ``[V,C,H,W]``; see :func:`invert_batch`."""
    return invert_batch(denoiser, image[None], settings, k=k, composition=composition, progress=progress)[0]


def invert_batch(
    denoiser: Denoiser,
    images: Tensor,
    settings: InversionSettings | None = None,
    *,
    k: int | None = None,
    composition: Composition = "sum",
    progress: Progress | None = None,
) -> list[Inversion]:
    """Finds the concepts of B images.

    On a CPU each image is inverted alone, on as many cores as torch uses; on other devices images pass together.  An
    answer does not depend on what else is in the batch.

    Args:
        denoiser: The model.
        images: Images ``[B,C,H,W]`` in -1..1 on the denoiser's device (latents for latent models), or for labels V
            views of each ``[B,V,C,H,W]``.
        settings: How to invert.
        k: Number of concepts; None estimates it (for factors it follows from the space).
        composition: How the denoiser was trained to compose.
        progress: Called with the network calls made and in total; for a single image only.

    Raises:
        UsageError: If ``k`` is out of range for the space, or the method does not support it.
    """
    settings = settings or InversionSettings()
    check_method(denoiser.space, settings.method)

    def understand(group: Tensor) -> list[Inversion]:
        started = time.monotonic()
        if settings.method == "evidence":
            told = progress if len(images) == 1 else None
            found = by_statistics(denoiser, group, settings, k, composition, told)
        else:
            from igm_cli.core.inference.reference import METHODS

            method = METHODS[settings.method]
            found = [method(denoiser, image, settings, k, composition) for image in group]
        seconds = (time.monotonic() - started) / len(group)
        return [replace(each, seconds=seconds) for each in found]

    return [each for found in in_groups(understand, images, denoiser) for each in found]


def in_groups(work: Callable[[Tensor], R], images: Tensor, denoiser: Denoiser) -> list[R]:
    """Works on images in groups that pass a device together; on a CPU, single images side by side on its cores.

    A denoiser with whole predictions keeps a device busy by itself, and serves one group at a time.
    """
    with torch.no_grad(), divided_work(images.device):
        together = side_by_side if images.device.type == "cpu" or isinstance(denoiser, Whole) else on_streams
        return together(work, images.split(_images_at_once(images)))


def _images_at_once(images: Tensor) -> int:
    """Returns how many images pass a device together: one on a CPU, as many as fit in memory on a GPU."""
    if images.device.type == "cpu":
        return 1
    fit = memory_of(images.device) // (BYTES_PER_PIXEL * images.shape[-1] * images.shape[-2])
    return min(IMAGES_AT_ONCE, max(1, fit))


def by_statistics(
    denoiser: Denoiser,
    images: Tensor,
    settings: InversionSettings,
    k: int | None,
    composition: Composition,
    progress: Progress | None = None,
) -> list[Inversion]:
    """Inverts a batch of images ``[B,C,H,W]`` whose tensors are computed together; see :func:`invert_batch`."""
    space = denoiser.space
    constraint = constraint_of(space)(space, settings, k)
    growing = isinstance(constraint, SparseSubset)
    candidates = CandidateSet(denoiser, images, settings, composition, growing=growing, progress=progress)
    if isinstance(constraint, SparseSubset):
        ContinuousInference(candidates, constraint).run()
    else:
        candidates.add(space.candidates().to(images.device).expand(len(images), -1, -1))  # type: ignore[attr-defined]
        candidates.see(constraint.first_draws)
    return draw_until_decided(candidates, constraint, given=k is not None or not space.countable)


def draw_until_decided(candidates: CandidateSet, constraint: Constraint, given: bool) -> list[Inversion]:
    """Draws noise until every image is decided, or the draws are spent.

    Decided images see no further noise, nor do candidates that can no longer be part of an answer.  ``given`` says
    whether the number of concepts was given.
    """
    s, rows = candidates.settings, torch.arange(len(candidates.images))
    answers: dict[int, Inversion] = {}
    while True:
        statistics = candidates.statistics()
        found = constraint.alternatives(statistics, constraint.solve(statistics.expected), rows)
        early, last = candidates.draws < s.draws, candidates.draws >= max(s.draws, s.max_draws)
        decided = (found.ruled_out(s.settled) & (not early) | last).cpu()
        if bool(decided.any()):
            images = decided.nonzero()[:, 0].tolist()
            told = dict(zip(images, constraint.answers(found, candidates.candidates, images), strict=True))
            looked = looked_at(candidates.denoiser, candidates.images, told, s, candidates.composition)
            calls = candidates.calls.cpu().tolist()
            inversions = report(s, found, told, calls, given, candidates.denoiser.space, looked)
            answers |= zip(rows[decided].tolist(), inversions, strict=True)
        if bool(decided.all()):
            return [answers[row] for row in range(len(answers))]
        candidates.usable = constraint.still_possible(found)
        if bool(decided.any()):
            rows = rows[~decided]
            candidates.keep_images((~decided).nonzero()[:, 0])
        left = (s.draws if early else s.max_draws) - candidates.draws
        candidates.see(min(constraint.more_draws(candidates.draws), left))


def looked_at(
    denoiser: Denoiser,
    images: Tensor,
    answers: Mapping[int, Answer],
    settings: InversionSettings,
    composition: Composition,
) -> Mapping[int, Look]:
    """Returns a closer look at some of the images ``[b,C,H,W]``, given their answers by index, if typicality asks for it."""
    usual = settings.typical
    if usual is None or not usual.looks:
        return {}
    from igm_cli.core.inference.closer_look import closer_look

    concepts = [answer.concepts for answer in answers.values()]
    looks = closer_look(
        denoiser, images[list(answers)], concepts, composition, usual.looks, usual.regions, settings.seed
    )
    return dict(zip(answers, looks, strict=True))


def report(
    settings: InversionSettings,
    found: Alternatives,
    answers: Mapping[int, Answer],
    calls: Sequence[int],
    given: bool,
    space: ConceptSpace,
    looked: Mapping[int, Look],
) -> list[Inversion]:
    """Returns the inversions of some of the images, given their answers and closer looks by index, with their errors per K."""
    statistics, solution, inversions = found.statistics, found.solution, []
    errors = statistics.errors(solution.sets)  # [B,S,N]
    chosen = errors.gather(1, solution.chosen[:, None, None].expand(-1, 1, errors.shape[2]))
    stderr = PairedDifference.of(errors, chosen, statistics.importance).stderr.cpu()
    expected, places = solution.errors.cpu(), solution.chosen.cpu()
    stderr[torch.arange(len(places)), places] = 0.0
    sizes = (solution.sets >= 0).sum(-1).cpu().tolist()
    levels = quadrature_levels(settings.low, settings.high, 0, statistics.draws)
    seen = chosen[:, 0].cpu()
    for image, answer in answers.items():
        curve = zip(sizes[image], expected[image].tolist(), stderr[image].tolist(), strict=True)
        inversion = Inversion(
            concepts=answer.concepts,
            k=len(answer.concepts),
            k_source="given" if given else "estimated",
            denoising_error=float(expected[image, places[image]]),
            k_curve=tuple(KPoint(*point) for point in curve if math.isfinite(point[1])),
            network_calls=calls[image] + (looked[image].calls if image in looked else 0),
            seconds=0.0,
            draws=statistics.draws,
            **certainty(settings, answer, levels, seen[image], looked.get(image), space, given),
        )
        inversions.append(inversion)
    return inversions


def certainty(
    settings: InversionSettings,
    answer: Answer,
    levels: Tensor,
    errors: Tensor,
    look: Look | None,
    space: ConceptSpace,
    given: bool,
) -> dict[str, Any]:
    """Returns the fields of an :class:`Inversion` that say how sure an answer is.

    Args:
        settings: Temperatures, and what is typical.
        answer: The answer for an image.
        levels: Noise level of every noise sample, as a fraction of T ``[N]``.
        errors: Denoising error under the answer for each ``[N]``.
        look: A closer look at the image, if typicality takes one.
        space: The concept space.
        given: Whether the number of concepts was given; the weakest of them may then be none.
    """
    margins = torch.tensor([float(each.mean.min()) for each in answer.rivals if len(each.mean)])
    usual = settings.typical
    where = (usual.low, usual.high, usual.ranges) if usual else (settings.low, settings.high)
    seen = features(levels, errors, margins, *where)
    if look:
        seen = torch.cat([look.errors.double().clamp(min=LEAST).log(), seen])
    if given and space.countable:
        seen[LEAST_MARGIN] = torch.nan
    typicality = usual.at(seen) if usual else math.nan
    if answer.nothing is not None:
        something = posterior(answer.nothing, settings.temperature)
        typicality = something if math.isnan(typicality) else min(something, typicality)
    confidence = posteriors(answer.rivals, settings.temperature)
    marginals, values = answer.marginals, None
    if marginals is not None:
        held = len(marginals) - (answer.nothing is not None)
        guess = torch.full_like(marginals, len(answer.concepts) / held)
        marginals = shrink_to_chance(marginals, guess, typicality)
        if answer.nothing is not None:  # it is part of no answer
            marginals[space.nothing_place] = math.nan
    if answer.value_rivals is not None:
        values = torch.zeros(len(answer.concepts), len(space.variant_groups()))
        for place, rivals in enumerate(answer.value_rivals):
            sure = posteriors(rivals, settings.value_temperature)
            guess = torch.tensor([1 / (len(each.mean) + 1) for each in rivals])
            values[place] = shrink_to_chance(sure, guess, typicality)
    return {
        "confidence": shrink_to_chance(confidence, answer.chance, typicality),
        "typicality": typicality,
        "marginals": marginals,
        "values": values,
        "evidence": Evidence(answer.rivals, answer.value_rivals or (), seen, answer.nothing),
    }
