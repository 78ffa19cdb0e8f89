"""Candidates and their statistics, which grow by candidates and by noise samples."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.device import floats_at_once, search_device, side_by_side
from igm_cli.core.inference.noised_batch import NoisedBatch, Whole, noised
from igm_cli.core.inference.statistics import GramStatistics, gathered
from igm_cli.core.inference.windows import DENSE_CELLS, Windows
from igm_cli.core.noise_schedule import drawn, views_of_draws
from igm_cli.core.types import InversionSettings, Progress
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from igm_cli.core.denoiser import Denoiser

DRAWS_AT_ONCE = 6
"""Noise samples that pass the network together on a CPU; its cores share these parts among them."""


@dataclass
class _Part:
    """Some noise samples of a :class:`CandidateSet`.

    Attributes:
        seen: The images under these noise samples.
        delta: Contributions of the candidates; None if there are no candidates, or no more will be added.
        canvas: The same as whole images ``[n,b,M,P]``, if these are small.
    """

    seen: NoisedBatch
    delta: Windows | None = None
    canvas: Tensor | None = None

    def add(self, new: Windows, keep: bool) -> tuple[Tensor, Tensor]:
        """Returns <r,Delta> ``[n,b,m]`` and <Delta,Delta_all> ``[n,b,m,M+m]`` of new contributions, which it may keep."""
        if new.g > DENSE_CELLS:
            every = Windows.joined([self.delta, new]) if self.delta else new
            self.delta = every if keep else None
            return new.pull(self.seen.residual), new.gram(every)
        canvas = new.canvas()
        whole = canvas if self.canvas is None else torch.cat([self.canvas, canvas], dim=2)
        self.canvas = whole if keep else None
        return (canvas @ self.seen.residual.flatten(2)[..., None])[..., 0], canvas @ whole.mT

    def select(self, index: Tensor) -> None:
        """Keeps some of the candidates of each image ``[b,m]``."""
        if self.delta:
            self.delta = self.delta.select(index)
        if self.canvas is not None:
            self.canvas = self.canvas[:, torch.arange(len(index), device=index.device)[:, None], index]


@dataclass
class CandidateSet:
    """M candidates of each of b images, and their statistics under the noise samples seen so far.

    Grows by candidates and by noise samples; no network call is made twice.

    Attributes:
        denoiser: The model.
        images: The images ``[b,C,H,W]``, or V views of each ``[b,V,C,H,W]``.
        settings: ``low``, ``high``, ``power``, ``seed`` and ``max_draws`` are used.
        composition: How contributions add up.
        growing: Whether candidates will be added after noise was seen.
        progress: Called with the network calls made and in total, unless candidates grow.
        candidates: ``[b,M,D]``.
        usable: Which of them exist and are not given up ``[b,M]``.
        calls: Network calls made for each image ``[b]``.
        home: The device that holds and searches the statistics.
    """

    denoiser: Denoiser
    images: Tensor
    settings: InversionSettings
    composition: Composition
    growing: bool = False
    progress: Progress | None = None
    parts: list[_Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        b, dim = len(self.images), self.denoiser.space.dim
        self.home = search_device(self.images.device) if self.growing else torch.device("cpu")
        self.candidates = self.images.new_zeros(b, 0, dim)
        self.usable = torch.ones(b, 0, dtype=torch.bool, device=self.home)
        self.calls = torch.zeros(b, dtype=torch.long, device=self.home)
        self.residual = torch.zeros(b, 0, device=self.home)
        self.linear = torch.zeros(b, 0, 0, device=self.home)
        self.gram = torch.zeros(b, 0, 0, 0, device=self.home)
        self.importance = torch.zeros(0, device=self.home)
        self._told = threading.Lock()

    @property
    def draws(self) -> int:
        """Noise samples seen so far."""
        return len(self.importance)

    @property
    def scale(self) -> tuple[float, float]:
        """Width and height of the images over those of the images the denoiser was trained on.

        Raises:
            UsageError: If they differ and the denoiser cannot be used on images of another size.
        """
        trained: tuple[int, int] | None = getattr(self.denoiser, "image_size", None)
        height, width = self.images.shape[-2:]
        if trained is None or (width, height) == tuple(trained):
            return 1.0, 1.0
        if not getattr(self.denoiser, "any_size", False):
            # Whether it is told where in an image a cell lies.
            placed = getattr(getattr(self.denoiser, "config", None), "coordinates", False)
            raise UsageError(
                f"the model was trained on images of {trained[0]}x{trained[1]} pixels, so it cannot invert one of "
                f"{width}x{height}; resize it{', or train with model.coordinates = false' if placed else ''}"
            )
        return width / trained[0], height / trained[1]

    @property
    def has_base(self) -> bool:
        """Whether every noise sample takes a network call for eps_u."""
        return not (self.composition == "mean" and isinstance(self.denoiser, Whole))

    def calls_per_draw(self) -> Tensor:
        """Returns the network calls per image for one more noise sample ``[b]``."""
        return self.has_base + self.usable.sum(1) * self.denoiser.space.calls_per_concept

    def statistics(self) -> GramStatistics:
        """Returns the statistics of all candidates under all noise samples."""
        return GramStatistics(
            self.residual, self.linear, self.gram, self.usable, self.composition, self.importance
        )

    def see(self, count: int) -> None:
        """Evaluates all candidates under further noise samples."""
        asked = None  # all candidates: finding out which matter is not worth the wait
        if self.home.type == "cpu":
            asked = self.usable.any(0).nonzero()[:, 0]  # all but those that every image has given up
        number = self.usable.shape[1] if asked is None else len(asked)
        starts = range(self.draws, self.draws + count, self._draws_at_once(number))
        spans = [(start, min(start + starts.step, starts.stop)) for start in starts]
        seen = side_by_side(lambda span: self._see(span, asked), spans)
        m = self.usable.shape[1]
        for part, residual, linear, gram in seen:
            if asked is not None:
                b, n = residual.shape
                linear = linear.new_zeros(b, n, m).index_copy_(2, asked, linear)
                among, gram = gram, gram.new_zeros(b, n, m, m)
                gram[:, :, asked[:, None], asked] = among
            self.residual = torch.cat([self.residual, residual], dim=1)
            self.linear = torch.cat([self.linear, linear], dim=1)
            self.gram = torch.cat([self.gram, gram], dim=1)
            self.importance = torch.cat([self.importance, part.seen.importance.to(self.home)])
            if self.growing:
                self.parts.append(part)

    def _see(self, span: tuple[int, int], asked: Tensor | None) -> tuple[_Part, Tensor, Tensor, Tensor]:
        start, end = span
        s, device = self.settings, self.images.device
        shape = tuple(self.images.shape[-3:])
        taken = drawn(self.denoiser.schedule, shape, end - start, s.low, s.high, s.seed, start, device)
        images = torch.stack([views_of_draws(image, start, end - start) for image in self.images], dim=1)
        candidates = self.candidates if asked is None else self.candidates[:, asked.to(device)]
        shared = None if self.has_base else candidates[:1]
        seen = noised(self.denoiser, images, taken, s.power, shared)
        part = _Part(seen)
        square = seen.residual.square().mean((2, 3)).T.to(self.home)
        linear, gram = self._add(part, candidates)
        with self._told:
            each = self.calls_per_draw()
            self.calls += (end - start) * each
            if self.progress:
                done = int(self.calls.sum())
                left = (s.max_draws - end) * int(each.sum())
                self.progress(done, done + left)
        return part, square, linear, gram

    def add(self, candidates: Tensor, usable: Tensor | None = None) -> None:
        """Adds candidates ``[b,m,D]``, all of which exist or some ``[b,m]``, and computes inner products with these."""
        if usable is None:
            usable = torch.ones(candidates.shape[:2], dtype=torch.bool, device=self.home)
        (b, held), m = self.usable.shape, candidates.shape[1]
        grown = [
            (self.linear.new_zeros(b, 0, m), self.gram.new_zeros(b, 0, m, held + m))
        ]  # if no noise was seen
        grown += side_by_side(lambda part: self._add(part, candidates), self.parts)
        linear, rows = (torch.cat(new, dim=1) for new in zip(*grown, strict=True))  # [b,N,m], [b,N,m,M+m]
        wide = torch.cat([self.gram, rows[..., :held].mT], dim=3)
        self.gram = torch.cat([wide, rows], dim=2)
        self.linear = torch.cat([self.linear, linear], dim=2)
        self.candidates = torch.cat([self.candidates, candidates], dim=1)
        self.usable = torch.cat([self.usable, usable], dim=1)
        self.calls += self.draws * usable.sum(1) * self.denoiser.space.calls_per_concept

    def _add(self, part: _Part, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns <r,Delta> ``[b,n,m]`` and <Delta,Delta_all> ``[b,n,m,M+m]`` of further candidates."""
        n, b = part.seen.residual.shape[:2]
        if candidates.shape[1] == 0:
            return torch.zeros(b, n, 0, device=self.home), torch.zeros(b, n, 0, 0, device=self.home)
        new = part.seen.contributions(candidates)
        linear, rows = (each / new.pixels for each in part.add(new, keep=self.growing))
        return linear.transpose(0, 1).to(self.home), rows.transpose(0, 1).to(self.home)

    def select(self, index: Tensor) -> None:
        """Keeps only some candidates of each image, by index ``[b,m]``, padded with -1."""
        there, index = index >= 0, index.clamp(min=0)
        self.usable = self.usable.gather(1, index) & there
        n, m = self.draws, index.shape[1]
        self.linear = self.linear.gather(2, index[:, None].expand(-1, n, -1))
        rows = self.gram.gather(2, index[:, None, :, None].expand(-1, n, -1, self.gram.shape[3]))
        self.gram = rows.gather(3, index[:, None, None].expand(-1, n, m, -1))
        index = index.to(self.candidates.device)
        self.candidates = gathered(self.candidates, index)
        for part in self.parts:
            part.select(index)

    def of(self, index: Tensor) -> Tensor:
        """Returns candidates of each image ``[b,m,D]`` by index ``[b,m]``; an arbitrary one for an index below 0."""
        return gathered(self.candidates, index.clamp(min=0))

    def keep_images(self, index: Tensor) -> None:
        """Keeps only some of the images; no candidates can be added after that."""
        self.parts, self.growing, index = [], False, index.to(self.home)
        there = index.to(self.images.device)
        self.images, self.candidates = self.images[there], self.candidates[there]
        self.usable, self.calls = self.usable[index], self.calls[index]
        self.residual, self.linear, self.gram = self.residual[index], self.linear[index], self.gram[index]

    def explained(self, grid: Tensor, parts: list[NoisedBatch] | None = None) -> Tensor:
        """Returns how much of the residual each candidate ``[M,D]``, at any amplitude, explains alone ``[b,M]``.

        That is <r,Delta>²/<Delta,Delta>; those pointing the wrong way explain nothing.  By default, the parts to be
        explained are the images themselves.
        """
        parts = parts or [part.seen for part in self.parts]
        sums = side_by_side(lambda seen: seen.explained(grid), parts)
        scale = sum(float(part.importance.sum()) for part in parts) * parts[0].residual[0, 0].numel()
        pull = torch.stack([pull for pull, _ in sums]).sum(0) / scale
        square = torch.stack([square for _, square in sums]).sum(0) / scale
        self.calls += sum(len(part.importance) for part in parts) * len(grid)
        return pull.clamp(min=0).square() / square.clamp(min=1e-12)

    def _draws_at_once(self, candidates: int) -> int:
        if self.images.device.type == "cpu":
            return DRAWS_AT_ONCE
        size = len(self.images) * max(1, candidates) * math.prod(self.images.shape[-3:])
        return max(1, floats_at_once(self.images.device) // size)
