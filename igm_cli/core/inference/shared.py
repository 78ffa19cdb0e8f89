"""What several images have in common: the concepts under which all of them are denoised best.

    C* = argmin_C  sum_i  min_{S_i ⊇ C}  error_i(S_i)

is argmin_c sum_i E(x_i|c) (Du, Li & Mordatch 2020, section 4.5) for images that also hold other concepts.  Every image
is explained by C and by a rest of its own.  Where C leaves no rest, as with a value of every factor, this is the sum of
the errors.  A concept can raise the error of an image without bound, but cannot bring it below that of its best set: no
single image can outvote others that do not show the concept.

The errors of all sets of candidates follow from inner products (:mod:`igm_cli.core.inference.statistics`); all images
share candidates and noise samples.  In a continuous space the candidates are the concepts found in each image alone;
the chosen ones are moved to where the error of all images together is least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import methodcaller
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from igm_cli.core.composition import Composition, weight
from igm_cli.core.concepts import ConceptSpace, Continuous, Product
from igm_cli.core.device import divided_work, side_by_side
from igm_cli.core.inference.candidates import CandidateSet
from igm_cli.core.inference.constraints import Alternatives, Answer, Constraint, Solution
from igm_cli.core.inference.continuous import ContinuousInference, one_more
from igm_cli.core.inference.engine import check_method, constraint_of, in_groups, looked_at, report
from igm_cli.core.inference.gauss_newton import refine
from igm_cli.core.inference.noised_batch import noised
from igm_cli.core.inference.posterior import posteriors, shrink_to_chance
from igm_cli.core.inference.sparse_subset import SparseSubset
from igm_cli.core.inference.statistics import GramStatistics
from igm_cli.core.noise_schedule import drawn
from igm_cli.core.types import InversionSettings, Progress
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

PROPOSERS = 6
"""Images whose own concepts are candidates: any image holds what all have in common."""

SUPPORTED = 0.5
"""Least probability of a common concept in every image, if the number of concepts is estimated."""


@dataclass(frozen=True)
class SharedInversion:
    """What n images have in common.

    Attributes:
        concepts: The common concepts ``[K,D]`` on the CPU.
        support: Probability of each in each image alone ``[n,K]``, shrunk towards a guess where the image is untypical.
        k_source: ``given`` or ``estimated``.
        denoising_error: Mean squared error of the predicted noise, over the images, each under the common concepts and
            its own rest.
        typicality: How much each image, explained on its own, is like those trained on, 0..1; nan if unknown.
        network_calls: Evaluations of the denoiser.
    """

    concepts: Tensor
    support: Tensor
    typicality: tuple[float, ...]
    k_source: str
    denoising_error: float
    network_calls: int

    @property
    def confidence(self) -> Tensor:
        """Probability that every image holds the concept ``[K]``."""
        return self.support.prod(0)


def check_shared(space: ConceptSpace, settings: InversionSettings, k: int | None) -> Constraint:
    """Returns the constraint on each image's set, which may hold as many concepts as the images have in common.

    Raises:
        UsageError: If ``k`` is out of range, or the method or the space has no shared inference.
    """
    check_method(space, settings.method)
    if settings.method != "evidence":
        raise UsageError(f"method {settings.method!r} does not find what images have in common; use evidence")
    settings = replace(settings, k_max=max(settings.k_max, k or 0))
    constraint = constraint_of(space)(space, settings, None)
    if k is not None and not 1 <= k <= constraint.largest:
        raise UsageError(f"images have 1 to {constraint.largest} {space.plural} in common, not {k}")
    return constraint


def invert_shared(
    denoiser: Denoiser,
    images: Tensor,
    settings: InversionSettings | None = None,
    *,
    k: int | None = None,
    composition: Composition = "sum",
    progress: Progress | None = None,
) -> SharedInversion:
    """Finds what images have in common.

    Args:
        denoiser: The model.
        images: n images ``[n,C,H,W]`` in -1..1 on the denoiser's device, or V views of each ``[n,V,C,H,W]``.
        settings: How to invert.
        k: Number of concepts in common; None estimates it: all whose presence every image supports.
        composition: How the denoiser was trained to compose.
        progress: Called with the images done and in total; each counts once per pass.

    Raises:
        UsageError: If ``k`` is out of range, or the method or the space has no shared inference.
    """
    with torch.no_grad(), divided_work(images.device):
        return _Search(denoiser, images, settings or InversionSettings(), k, composition, progress).run()


@dataclass(frozen=True)
class _Choice:
    """The choice under some noise samples.

    Attributes:
        held: The candidates in common.
        solution: The best sets of each image that hold them.
        support: Probability of each of them in each image ``[n,K]``.
        decided: Whether the noise samples decide the sets of all images.
    """

    held: list[int]
    solution: Solution
    support: Tensor
    decided: bool


class _Search:
    """The images of one call, and their candidates."""

    def __init__(
        self,
        denoiser: Denoiser,
        images: Tensor,
        settings: InversionSettings,
        k: int | None,
        composition: Composition,
        progress: Progress | None,
    ) -> None:
        self.denoiser, self.images, self.k, self.composition = denoiser, images, k, composition
        self.constraint = check_shared(denoiser.space, settings, k)
        self.settings, self.progress, self.calls, self.done = self.constraint.settings, progress, 0, 0
        self.candidates = images.new_zeros(0, denoiser.space.dim)
        """Candidates for the common concepts ``[M,D]``."""
        self.typical: list[float] = []
        """Typicality of every image, explained by its own best set."""

    def run(self) -> SharedInversion:
        """Chooses among candidates; in a continuous space, moves the chosen ones and chooses again."""
        if isinstance(self.constraint, SparseSubset):
            self.candidates = self.proposed(self.constraint)
        else:
            self.candidates = self.denoiser.space.candidates().to(self.images.device)  # type: ignore[attr-defined]
        sets = self.seen()
        statistics = self.statistics(sets)
        choice = self.choose(statistics)
        if isinstance(self.constraint, SparseSubset) and choice.held and self.settings.refine_steps:
            self.candidates = self.sharpened(choice)
            self.calls += sum(int(each.calls.sum()) for each in sets)
            sets = self.seen()
            statistics = self.statistics(sets)
            choice = self.choose(statistics)
        while not choice.decided and statistics.draws < self.settings.max_draws:
            more = self.constraint.more_draws(statistics.draws)
            more = min(more, self.settings.max_draws - statistics.draws)
            side_by_side(methodcaller("see", more), sets)
            statistics = self.statistics(sets)
            choice = self.choose(statistics)
        self.calls += sum(int(each.calls.sum()) for each in sets)
        return SharedInversion(
            concepts=self.candidates[choice.held].float().cpu(),
            support=choice.support,
            typicality=tuple(self.typical),
            k_source="estimated" if self.k is None else "given",
            denoising_error=float(choice.solution.error.mean()),
            network_calls=self.calls,
        )

    def proposed(self, constraint: SparseSubset) -> Tensor:
        """Returns candidates of a continuous space ``[M,D]``: members of each image's best and next larger set."""
        settings = replace(self.settings, k_min=max(self.settings.k_min, self.k or 0))

        def propose_for(group: Tensor) -> tuple[list[Tensor], list[float], int, float]:
            own = SparseSubset(constraint.space, settings, None)
            found = CandidateSet(self.denoiser, group, settings, self.composition, growing=True)
            ContinuousInference(found, own).run()
            statistics, rows = found.statistics(), torch.arange(len(group))
            solution = own.solve(statistics.expected)
            others = own.alternatives(statistics, solution, rows)
            typical, calls = self.typicality_of(
                group, others, own.answers(others, found.candidates, rows.tolist())
            )
            every = torch.cat([solution.best, one_more(solution)], dim=1).to(found.candidates.device)
            members = [found.candidates[row, each[each >= 0].unique()] for row, each in enumerate(every)]
            self.tell(len(group))
            return members, typical, calls + int(found.calls.sum()), own.cost

        proposed = in_groups(propose_for, self.images, self.denoiser)
        self.typical = [each for _, typical, _, _ in proposed for each in typical]
        self.calls += sum(calls for *_, calls, _ in proposed)
        self.constraint.cost = proposed[0][3]
        members = sorted((own for group, *_ in proposed for own in group), key=len)
        candidates: Tensor = torch.cat(members[:PROPOSERS]).unique(dim=0)
        return candidates

    def seen(self) -> list[CandidateSet]:
        """Returns the candidates under the noise samples of the first decision, for every group of images."""

        def see(group: Tensor) -> CandidateSet:
            found = CandidateSet(self.denoiser, group, self.settings, self.composition)
            found.add(self.candidates.expand(len(group), -1, -1))
            found.see(self.settings.draws)
            self.tell(len(group))
            return found

        return in_groups(see, self.images, self.denoiser)

    def statistics(self, sets: Sequence[CandidateSet]) -> GramStatistics:
        """Returns the statistics of all images."""
        every = [each.statistics() for each in sets]
        tensors = ((each.residual, each.linear, each.gram, each.usable) for each in every)
        residual, linear, gram, usable = map(torch.cat, zip(*tensors, strict=True))
        return GramStatistics(residual, linear, gram, usable, self.composition, every[0].importance)

    def choose(self, statistics: GramStatistics) -> _Choice:
        """Adds one concept after the other, then exchanges them as long as that helps."""
        form = statistics.expected
        free = self.constraint.solve(form)  # the alternatives refer to it
        own, _ = self.confidences(statistics, free)
        most = self.k if self.k is not None else int((free.best >= 0).sum(1).min())
        choice, alone = self.explained(statistics, [], own), (2 * form.linear - form.diagonal).sum(0)
        while len(choice.held) < most:
            total = self.constraint.least_with(form, choice.held).sum(0)
            if not bool(total.isfinite().any()):
                break
            tied = total <= total.min() * (1 + 1e-9)  # as all concepts of one image are: takes the strongest
            best = int(alone.masked_fill(~tied, -torch.inf).argmax())
            more = self.explained(statistics, [*choice.held, best], own)
            if self.k is None and bool((more.support[:, -1] < SUPPORTED).any()):
                break
            choice = more
        improved = len(choice.held) > 1
        while improved:
            improved, least = False, self.error(choice.solution)
            for place in range(len(choice.held)):
                others = choice.held[:place] + choice.held[place + 1 :]
                total = self.constraint.least_with(form, others).sum(0)
                if int(total.argmin()) == choice.held[place] or float(total.min()) >= least:
                    continue
                other = self.explained(statistics, [*others, int(total.argmin())], own)
                if self.error(other.solution) < least - 1e-9 * abs(least):
                    choice, improved = other, True
                    break
        if isinstance(self.constraint, SparseSubset) or choice.held == sorted(choice.held):
            return choice
        return self.explained(statistics, sorted(choice.held), own)

    def error(self, solution: Solution) -> float:
        """Returns the sum of the errors plus costs of the chosen sets."""
        return float(solution.total(self.constraint.cost).sum())

    def explained(self, statistics: GramStatistics, held: list[int], own: Tensor) -> _Choice:
        """Returns the best sets that hold the given candidates, and how probable these are in each image.

        Args:
            statistics: Statistics of all images.
            held: The candidates.
            own: The :meth:`confidences` of the images' own sets, used for the members of these.
        """
        form = statistics.expected
        solution = self.constraint.containing(form, held)
        forced, decided = self.confidences(statistics, solution)
        support = torch.where(own.isnan(), forced, own)[:, held]
        return _Choice(held, solution, support, decided)

    def confidences(self, statistics: GramStatistics, solution: Solution) -> tuple[Tensor, bool]:
        """Returns how probable the members of sets are ``[n,M]``, nan for others, and whether all sets are decided."""
        n, constraint = len(self.images), self.constraint
        found = constraint.alternatives(statistics, solution, torch.arange(n))
        answers = constraint.answers(found, self.candidates.expand(n, -1, -1), range(n))
        if not self.typical:  # their own sets are asked about first
            self.typical, calls = self.typicality_of(self.images, found, answers)
            self.calls += calls
        known, every = self.candidates.float().cpu(), torch.full(statistics.usable.shape, torch.nan)
        for image, answer in enumerate(answers):  # each in its own order
            same = (answer.concepts[:, None] == known).all(2)  # [K,M]
            sure = posteriors(answer.rivals, constraint.settings.temperature)
            every[image, same.long().argmax(1)] = shrink_to_chance(sure, answer.chance, self.typical[image])
        return every, bool(found.ruled_out(self.settings.settled).all())

    def typicality_of(
        self, images: Tensor, found: Alternatives, answers: Sequence[Answer]
    ) -> tuple[list[float], int]:
        """Returns how much images ``[b,C,H,W]`` are like those trained on, judged by their answers, and the network calls."""
        told, given = dict(enumerate(answers)), self.k is not None
        looked = looked_at(self.denoiser, images, told, self.settings, self.composition)
        every = report(self.settings, found, told, [0] * len(answers), given, self.denoiser.space, looked)
        return [each.typicality for each in every], sum(each.network_calls for each in every)

    def sharpened(self, choice: _Choice) -> Tensor:
        """Moves the common concepts to where the error of all images is least, each image's own rest fixed.

        Returns:
            The moved concepts, and all members of the images' sets ``[M,D]``.
        """
        s, device, space = self.settings, self.images.device, cast(Continuous | Product, self.denoiser.space)
        draws = min(s.scan_draws, s.draws)
        noise = drawn(
            self.denoiser.schedule, tuple(self.images.shape[-3:]), draws, s.low, s.high, s.seed, 0, device
        )
        sets = [choice.solution.members(image) for image in range(len(self.images))]
        rests = [[member for member in members if member not in choice.held] for members in sets]
        sizes = torch.tensor([len(members) for members in sets])
        weights = weight(self.composition, sizes).to(device)  # [n]
        parts = [
            noised(self.denoiser, image.expand(draws, 1, *image.shape), noise, s.power).left_over(
                self.candidates[rest][None], w.expand(1, len(rest))
            )
            for image, rest, w in zip(self.images, rests, weights, strict=True)
        ]
        together = self.candidates[choice.held]
        there = torch.ones(1, len(choice.held), dtype=torch.bool)
        moved = refine(
            parts, space.point, together[None, None], there[None], weights.mean()[None], s.refine_steps
        )
        self.calls += draws * (int(moved.calls) * len(parts) + sum(map(len, rests)) + len(parts))
        members = sorted({member for members in sets for member in members})
        every: Tensor = torch.cat([moved.concepts[0, 0], self.candidates[members]]).unique(dim=0)
        return every

    def tell(self, images: int) -> None:
        """Reports progress."""
        passes = 3 if isinstance(self.constraint, SparseSubset) else 1
        self.done += images
        if self.progress:
            self.progress(min(self.done, passes * len(self.images)), passes * len(self.images))
