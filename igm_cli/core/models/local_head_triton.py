"""The local head in two kernels, in Triton; imported on a GPU only.

Step by step a contribution passes through memory a dozen times, with hardly any arithmetic on each way.  Here a program
takes some rows, each a cell of the square around a position, from the features to the contribution.  The equations are
those of :class:`igm_cli.core.models.local_head.LocalHead`, to which tests hold this.
"""

# mypy: ignore-errors
# ruff: noqa: N803

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

ROWS = 64
"""Rows of a program."""


def pointed_at(there: Tensor, at: Tensor, corner: Tensor, steps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns what positions point at ``[n,b,M,d]``: a mean of the cells close by, weighted by their nearness.

    Args:
        there: Features of n*b images ``[n*b,G,d]``.
        at: Positions in cells ``[b,M,2]``.
        corner: First cell of the square around each ``[b,M,2]``, int32.
        steps: Steps from there through the square ``[W,2]``, int32.
        grid: Number of cells along the width and the height.
    """
    (b, m, _), d = at.shape, there.shape[2]
    result = there.new_empty(len(there) // b, b, m, d)
    _pointed_at[(len(there) * m,)](
        there, at, corner, steps, result, m, b, *grid, len(steps),
        D=d, BW=triton.next_power_of_2(len(steps)), BD=triton.next_power_of_2(d), num_warps=4,
    )  # fmt: skip
    return result


def contributions(
    here: Tensor,
    query: Tensor,
    at: Tensor,
    corner: Tensor,
    steps: Tensor,
    gain: Tensor,
    c: int,
    weights: tuple[Tensor, ...],
    grid: tuple[int, int],
    radius: int,
) -> tuple[Tensor, Tensor]:
    """Returns contributions ``[n,b,M,W,c]`` float32, and the numbers of their cells ``[b,M,W]``; G for one outside.

    Args:
        here: Features of n*b images ``[n*b,G,d]``.
        query: What the layers make of what positions point at ``[n,b,M,d]``.
        at: Positions in cells ``[b,M,2]``.
        corner: First cell of the square around each ``[b,M,2]``, int32.
        steps: Steps from there through the square ``[W,2]``, int32.
        gain: Factor of the contributions to each image ``[n*b]``.
        c: Numbers of a cell.
        weights: Those of the layers, from :func:`padded`.
        grid: Number of cells along the width and the height.
        radius: Radius of the window in cells.
    """
    (n, b, m, d), w = query.shape, len(steps)
    values = torch.empty(n, b, m, w, c, device=here.device)
    number = torch.empty(b, m, w, dtype=torch.long, device=here.device)
    rows = n * b * m * w
    _contributions[(triton.cdiv(rows, ROWS),)](
        here, query, at, corner, steps, gain, *weights, values, number, rows, m, b, w, *grid, radius,
        D=d, C=c, LAYERS=len(weights[2]), BR=ROWS, BD=weights[0].shape[1], BC=weights[-1].shape[0], num_warps=4,
    )  # fmt: skip
    return values, number


def padded(where: nn.Linear, layers: nn.ModuleList, out: nn.Linear) -> tuple[Tensor, ...]:
    """Returns the weights of the layers as the kernel reads them: ``[in,out]``, of sizes that are powers of two."""
    pairs = [[layer[index] for layer in layers] for index in (0, 2)]
    wide = max(16, triton.next_power_of_2(out.in_features))

    def of(linears: list[nn.Linear], inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        weight = out.weight.new_zeros(len(linears), inputs, outputs)
        bias = out.weight.new_zeros(len(linears), outputs)
        for number, linear in enumerate(linears):
            weight[number, : linear.in_features, : linear.out_features] = linear.weight.T
            bias[number, : linear.out_features] = linear.bias
        return weight, bias

    narrow = max(16, triton.next_power_of_2(out.out_features))
    first = of([where], 32, wide)
    last = of([out], wide, narrow)
    return (
        first[0][0], first[1][0], *of(pairs[0], wide, wide), *of(pairs[1], wide, wide), last[0][0], last[1][0],
    )  # fmt: skip


@triton.jit
def _pointed_at(
    there, at, corner, steps, result, M, B, GW, GH, W, D: tl.constexpr, BW: tl.constexpr, BD: tl.constexpr
):
    pair = tl.program_id(0).to(tl.int64)  # which of n*b images, and of M positions
    image = pair // M
    place = ((image % B) * M + pair % M) * 2
    j, d = tl.arange(0, BW), tl.arange(0, BD)
    x = tl.load(corner + place) + tl.load(steps + 2 * j, mask=j < W, other=0)
    y = tl.load(corner + place + 1) + tl.load(steps + 2 * j + 1, mask=j < W, other=0)
    across, along = x + 0.5 - tl.load(at + place), y + 0.5 - tl.load(at + place + 1)
    nearness = tl.where(j < W, -2.0 * (across * across + along * along), float("-inf"))
    nearness = tl.exp(nearness - tl.max(nearness, 0))
    nearness = nearness / tl.sum(nearness, 0)
    inside = (j < W) & (x >= 0) & (x < GW) & (y >= 0) & (y < GH)
    weight = tl.where(inside, nearness, 0.0).to(there.dtype.element_ty).to(tl.float32)
    cell = (image * GW * GH + tl.where(inside, y * GW + x, 0)) * D
    seen = tl.load(there + cell[:, None] + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
    mean = tl.sum(weight[:, None] * seen.to(tl.float32), 0)
    tl.store(result + pair * D + d, mean.to(there.dtype.element_ty), mask=d < D)


@triton.jit
def _silu(x):
    return x / (1 + tl.exp(-x))


@triton.jit
def _linear(x, weight, bias, BI: tl.constexpr, BO: tl.constexpr):
    """x ``[R,I]`` through a linear layer ``[I,O]``, in float32."""
    i, o = tl.arange(0, BI), tl.arange(0, BO)
    matrix = tl.load(weight + i[:, None] * BO + o[None, :])
    return tl.dot(x, matrix, input_precision="ieee") + tl.load(bias + o).to(tl.float32)[None, :]


@triton.jit
def _sine_of_half_turns(v):
    """sin(pi v), by its series within a quarter turn."""
    v = v - 2 * tl.floor(v / 2 + 0.5)
    v = tl.where(v > 0.5, 1 - v, tl.where(v < -0.5, -1 - v, v))
    x = 3.141592653589793 * v
    s = x * x
    return x * (1 + s * (-1 / 6 + s * (1 / 120 + s * (-1 / 5040 + s * (1 / 362880 - s / 39916800)))))


@triton.jit
def _contributions(
    here, query, at, corner, steps, gain, w_where, b_where, w_first, b_first, w_second, b_second, w_out, b_out,
    values, number, rows, M, B, W, GW, GH, radius,
    D: tl.constexpr, C: tl.constexpr, LAYERS: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    dtype = here.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    there = row < rows
    pair, step = row // W, row % W  # which of n*b images and M positions, and which cell of the square
    image = pair // M
    place = (image % B) * M + pair % M
    x = tl.load(corner + 2 * place, mask=there, other=0) + tl.load(steps + 2 * step, mask=there, other=0)
    y = tl.load(corner + 2 * place + 1, mask=there, other=0) + tl.load(steps + 2 * step + 1, mask=there, other=0)
    inside = there & (x >= 0) & (x < GW) & (y >= 0) & (y < GH)
    cell = tl.where(inside, y * GW + x, GW * GH)
    tl.store(number + place * W + step, cell.to(tl.int64), mask=there & (image < B))

    # Fourier features of the offset in radii: u, |u|², sines and cosines of u times pi 2^f.
    across = x + 0.5 - tl.load(at + 2 * place, mask=there, other=0.0)
    along = y + 0.5 - tl.load(at + 2 * place + 1, mask=there, other=0.0)
    ux, uy = (across / radius)[:, None], (along / radius)[:, None]
    f = tl.arange(0, 32)[None, :]
    wave = (f - 3) % 10
    turns = tl.where(wave < 5, ux, uy) * tl.exp2((wave % 5).to(tl.float32)) + tl.where(f < 13, 0.0, 0.5)
    features = tl.where(f < 23, _sine_of_half_turns(turns), 0.0)
    features = tl.where(f == 0, ux, tl.where(f == 1, uy, tl.where(f == 2, ux * ux + uy * uy, features)))

    d = tl.arange(0, BD)
    z = _linear(features.to(dtype), w_where, b_where, 32, BD).to(dtype).to(tl.float32)
    known = inside[:, None] & (d < D)[None, :]
    own = (image * GW * GH + tl.where(inside, cell, 0)) * D
    z += tl.load(here + own[:, None] + d[None, :], mask=known, other=0.0).to(tl.float32)
    z += tl.load(query + (pair * D)[:, None] + d[None, :], mask=known, other=0.0).to(tl.float32)
    z = _silu(z).to(dtype)
    for layer in tl.static_range(LAYERS):
        h = _linear(z, w_first + layer * BD * BD, b_first + layer * BD, BD, BD)
        h = _silu(h.to(dtype).to(tl.float32)).to(dtype)
        h = _linear(h, w_second + layer * BD * BD, b_second + layer * BD, BD, BD)
        z = (h + z.to(tl.float32)).to(dtype)
    result = _linear(z, w_out, b_out, BD, BC).to(dtype).to(tl.float32)

    # The smooth window: 1 at the position, 0 from its rim on.
    square = tl.minimum((across * across + along * along) / ((radius - 0.5) * (radius - 0.5)), 1.0)
    bump = (1 - square * square) * (1 - square * square)
    height = tl.where(inside, bump * tl.load(gain + image, mask=there, other=0.0), 0.0)
    c = tl.arange(0, BC)
    tl.store(
        values + (row * C)[:, None] + c[None, :], result * height[:, None],
        mask=there[:, None] & (c < C)[None, :],
    )  # fmt: skip
