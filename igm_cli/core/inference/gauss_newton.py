"""Gradient refinement of continuous concepts, from contributions and their derivatives.

The composed error is a sum of squares, e(c) = ‖r - w sum_k Delta_k(c_k)‖², so the Gauss-Newton step with
Levenberg-Marquardt damping (Marquardt 1963) reaches the minimum in a handful of evaluations where plain gradient
descent takes hundreds.  Derivatives are central differences, which need only a denoiser's contributions, in any
precision.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igm_cli.core.concepts import Continuous
from igm_cli.core.device import search_device, side_by_side
from igm_cli.core.inference.noised_batch import NoisedBatch
from igm_cli.core.inference.windows import DENSE_CELLS, Windows

STEP = 0.005
"""Step of the differences, as a fraction of a coordinate's range: a smaller one drowns in bf16, a larger one blurs."""

REACH = 0.03
"""Longest move of a coordinate in one step, as a fraction of its range."""

FRESH = 2
"""Steps that recompute derivatives.  Later moves are so short that the last derivatives still hold."""


@dataclass(frozen=True)
class Refined:
    """Hypotheses ``[b,H,K,D]``, their expected errors ``[b,H]``, and contributions evaluated per image ``[b]``."""

    concepts: Tensor
    errors: Tensor
    calls: Tensor


def refine(
    parts: Sequence[NoisedBatch],
    point: Continuous,
    concepts: Tensor,
    present: Tensor,
    w: Tensor,
    steps: int,
) -> Refined:
    """Moves hypotheses of K concepts each to the nearest minima of their composed errors.

    Args:
        parts: b images under their noise samples.
        point: The coordinates to move, which come first in a concept vector.
        concepts: Where to start: H hypotheses for each image, ``[b,H,K,D]``.
        present: Which of these concepts exist ``[b,H,K]``, or ``[b,1,K]`` for all hypotheses; images may differ in number.
        w: Weight of contributions, per image ``[b]``.
        steps: Gauss-Newton steps at most.

    Returns:
        Hypotheses, none with a higher error than at its start.
    """
    present = present.to(concepts.device).expand(concepts.shape[:3])
    problem = _Problem(parts, point, present, w.to(concepts), steps)
    each = present.sum((1, 2))
    calls, state = each.clone(), problem.start(concepts)
    active = present.any(2).any(1)
    for step in range(steps):
        active = active & ~state.settled.all(1)
        if not bool(active.any()):
            break
        if step < FRESH:
            problem.differentiate(state.concepts)
            calls += 2 * point.dim * each * active
        state = problem.step(state, active)
        calls += each * active
    return Refined(state.concepts, state.errors, calls)


@dataclass(frozen=True)
class _State:
    """State of the hypotheses between steps.

    Attributes:
        concepts: ``[b,H,K,D]``.
        left: What they leave over of the cells that they can reach ``[n,b*H,G,c]``, per part.
        errors: ``[b,H]``.
        damping: Damping of the next step ``[b,H]``.
        settled: Whether the last step changed so little that another is not worth it ``[b,H]``.
    """

    concepts: Tensor
    left: list[Tensor]
    errors: Tensor
    damping: Tensor
    settled: Tensor


@dataclass(frozen=True)
class Boxes:
    """The parts of a large image that single concepts can reach while they are refined; the rest does not change.

    Attributes:
        corner: First column and row of cells of the box of each of R concepts ``[R,2]``.
        size: Columns and rows of every box; their product is L.
        grid: Columns and rows of the image.
    """

    corner: Tensor
    size: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def around(cls, delta: Windows, reach: Tensor) -> Boxes:
        """Returns boxes around the windows of R concepts, one to each image, that move by no more than a reach.

        The reach is that of every coordinate, x and y first, as fractions of the image ``[m]``.
        """
        there, corners, sizes = delta.cells < delta.g, [], []
        places = delta.cells % delta.grid[0], delta.cells // delta.grid[0]
        for at, side, far in zip(places, delta.grid, reach.tolist(), strict=False):
            more = math.ceil(far * side) + 1
            first = torch.where(there, at, side).amin((1, 2))
            last = torch.where(there, at, -1).amax((1, 2))
            size = min(side, int((last - first).max().clamp(min=0)) + 1 + 2 * more)
            corners.append((first - more).clamp(0, side - size))
            sizes.append(size)
        return cls(torch.stack(corners, dim=1), (sizes[0], sizes[1]), delta.grid)

    def cut(self, patches: Tensor) -> Tensor:
        """Cuts the boxes, the same number per image, out of images ``[n,b,G,c]`` as cells ``[n,R,L,c]``."""
        n, b, g, c = patches.shape
        (width, height), rows, device = self.size, len(self.corner), self.corner.device
        inner = torch.arange(height, device=device)[:, None] * self.grid[0] + torch.arange(width, device=device)
        first = self.corner[:, 1] * self.grid[0] + self.corner[:, 0]
        first = first + torch.arange(b, device=device).repeat_interleave(rows // b) * g
        cells = first[:, None] + inner.flatten()
        return patches.reshape(n, b * g, c).index_select(1, cells.flatten()).view(n, rows, -1, c)

    def within(self, delta: Windows) -> Windows:
        """Returns contributions to R images as contributions to their boxes."""
        (width, height), left, top = self.size, *self.corner[..., None, None].unbind(1)
        x, y = delta.cells % delta.grid[0] - left, delta.cells // delta.grid[0] - top
        inside = (delta.cells < delta.g) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return Windows(delta.values, torch.where(inside, y * width + x, width * height), self.size)


class _Problem:
    """The composed errors of hypotheses, and how they change with the concepts."""

    def __init__(
        self, parts: Sequence[NoisedBatch], point: Continuous, present: Tensor, w: Tensor, steps: int
    ) -> None:
        self.parts, self.point, self.steps = parts, point, steps
        self.pixels = math.prod(parts[0].residual.shape[2:])
        self.boxes: Boxes | None = None
        self.weight = present * w[:, None, None]  # [b,H,K]
        self.home = search_device(w.device)
        self.extent = _extent(point, self.home)
        self.total = torch.stack([part.importance.sum() for part in parts]).sum()

    def start(self, concepts: Tensor) -> _State:
        """Returns the state before the first step."""
        b, h, k, _ = concepts.shape
        if k == 1 and self.parts[0].residual.shape[2] > DENSE_CELLS:
            delta = one_by_one(self.parts[0].contributions(concepts.flatten(1, 2)), b * h)
            self.boxes = Boxes.around(delta, self.steps * REACH * self.point.extent)
        left, errors = self.left_over(concepts)
        settled = torch.zeros_like(errors, dtype=torch.bool)
        return _State(concepts, left, errors, torch.full_like(errors, 1e-3), settled)

    def left_over(self, concepts: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns what hypotheses leave over of every part, and its mean squares ``[b,H]``."""
        b, h = concepts.shape[:2]

        def of(part: NoisedBatch) -> tuple[Tensor, Tensor]:
            delta = one_by_one(part.contributions(concepts.flatten(1, 2)), b * h)
            weight = -self.weight.flatten(0, 1)
            if self.boxes is None:
                patches = part.residual.repeat_interleave(h, dim=1)  # [n,b*H,G,c]
                left = delta.added_to(patches, weight)
                square = left.square().mean((2, 3)).unflatten(1, (b, h))
            else:
                patches = self.boxes.cut(part.residual)
                left = self.boxes.within(delta).added_to(patches, weight)
                change = (left.square().sum((2, 3)) - patches.square().sum((2, 3))) / self.pixels
                square = part.residual.square().mean((2, 3))[..., None] + change.unflatten(1, (b, h))
            return left, torch.einsum("n,nbh->bh", part.importance, square)

        found = side_by_side(of, self.parts)
        return [left for left, _ in found], torch.stack([errors for _, errors in found]).sum(0) / self.total

    def differentiate(self, concepts: Tensor) -> None:
        """Computes the derivatives of all contributions in their own coordinates, and their inner products.

        The inner products are float64: LAPACK's rounding depends on where arrays lie in memory.  In double precision that
        is lost when a step becomes float32 again, so two processes take the same steps.
        """
        b, h, k, dim = concepts.shape
        m = self.point.dim
        moves = (STEP * self.extent).to(concepts)  # [m], half the width of the differences
        shift = torch.nn.functional.pad(torch.diag(moves), (0, dim - m))  # [m,D]
        moved = torch.stack([concepts[..., None, :] + shift, concepts[..., None, :] - shift], dim=1)
        around = concepts[:, None, :, :, None].expand(moved.shape)  # [b,2,H,K,m,D]
        scale = (self.weight[..., None] / (2 * moves)).reshape(b, -1, 1, 1)

        def of(part: NoisedBatch) -> tuple[Windows, Tensor]:
            delta = part.contributions(moved.flatten(1, 4), around.flatten(1, 4))
            there, back = delta.values.unflatten(2, (2, h * k * m)).unbind(2)  # [n,b,H*K*m,W,c]
            cells = delta.cells.unflatten(1, (2, h * k * m))[:, 0]
            jacobian = one_by_one(Windows((there - back).mul_(scale), cells, delta.grid), b * h)  # K*m each
            jacobian = self.boxes.within(jacobian) if self.boxes else jacobian
            gram, importance = self.precise(jacobian.gram_of_groups(m)), self.precise(part.importance)
            return jacobian, torch.einsum("n,nhij->hij", importance, gram).unflatten(0, (b, h))

        found = side_by_side(of, self.parts)
        self.jacobian = [jacobian for jacobian, _ in found]  # [n,b*H,K*m,W,c] of every part
        self.curvature = (
            torch.stack([curvature for _, curvature in found]).sum(0) / self.total.to(self.home) / self.pixels
        )

    def precise(self, tensor: Tensor) -> Tensor:
        """Returns a small tensor in double precision, on a device that supports it."""
        return tensor.to(self.home).double()

    def way_down(self, left: list[Tensor]) -> Tensor:
        """Returns half the negative gradient ``[b,H,K*m]``, float64."""

        def of(index: int) -> Tensor:
            pull = self.precise(self.jacobian[index].pull(left[index]))
            return torch.einsum("n,nhj->hj", self.precise(self.parts[index].importance), pull)

        down = torch.stack(side_by_side(of, range(len(self.parts)))).sum(0)
        return down.view(self.curvature.shape[:3]) / self.total.to(self.home) / self.pixels

    def step(self, at: _State, active: Tensor) -> _State:
        """Moves every hypothesis by one damped Gauss-Newton step, unless its error would not fall."""
        move = self.move(at)
        concepts, m = at.concepts.clone(), self.point.dim
        concepts[..., :m] = self.point.clamp(concepts[..., :m] + move.to(concepts))
        left, errors = self.left_over(concepts)
        better = (errors < at.errors) & active[:, None]
        little = (at.errors - errors).abs() < 1e-4 * at.errors
        short = ((move / self.extent).abs().amax((2, 3)) < 1e-4).to(little.device)
        which = better.flatten()[:, None, None]
        kept = [torch.where(which, new, old) for new, old in zip(left, at.left, strict=True)]
        return _State(
            torch.where(better[..., None, None], concepts, at.concepts),
            kept,
            torch.where(better, errors, at.errors),
            torch.where(better, at.damping / 4, at.damping * 8),
            torch.where(active[:, None], little | (better & short), at.settled),
        )

    def move(self, at: _State) -> Tensor:
        """Returns the moves ``[b,H,K,m]`` of a step, none longer than the reach."""
        down, diagonal = self.way_down(at.left), self.curvature.diagonal(dim1=2, dim2=3)
        damping = at.damping.to(self.home)[..., None]
        damped = self.curvature + torch.diag_embed(damping * (diagonal + 1e-12))
        solved = torch.linalg.solve_ex(damped, down[..., None]).result  # damped: it has a solution
        move = solved[..., 0].unflatten(-1, (-1, self.point.dim))
        longest = REACH * self.extent
        return torch.minimum(torch.maximum(move, -longest), longest)


@functools.cache
def _extent(point: Continuous, device: torch.device) -> Tensor:
    """Returns the range of every coordinate ``[m]``, copied to a device once."""
    return point.extent.to(device)


def one_by_one(delta: Windows, hypotheses: int) -> Windows:
    """Returns contributions of the concepts of hypotheses, each hypothesis as an image of its own."""
    n, w, c = delta.values.shape[0], *delta.values.shape[3:]
    return Windows(
        delta.values.view(n, hypotheses, -1, w, c), delta.cells.reshape(hypotheses, -1, w), delta.grid
    )
