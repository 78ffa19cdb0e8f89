"""The local head as Triton kernels; imported on a GPU only.

Layer by layer, a contribution would pass through memory a dozen times with hardly any arithmetic per pass.  Here one
program takes some rows, each a cell of the square around a position, from the features to the contribution.  The equations
are those of :class:`igm_cli.core.models.local_head.LocalHead`; tests compare the two.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

ROWS = 128
"""Rows of a program."""


def pointed_at(there: Tensor, at: Tensor, corner: Tensor, steps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns the features that positions point at ``[n,b,M,d]``: a mean of the cells close by, weighted by nearness.

    Args:
        there: Features of n*b images ``[n*b,G,d]``.
        at: Positions in cells ``[b,M,2]``.
        corner: First cell of the square around each ``[b,M,2]``, int32.
        steps: Steps from that corner to the cells of the square ``[W,2]``, int32.
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
    """Returns contributions ``[n,b,M,W,c]`` float32, and the indices of their cells ``[b,M,W]``, G for one outside.

    Args:
        here: Features of n*b images ``[n*b,G,d]``.
        query: Queries of the positions ``[n,b,M,d]``, from the features they point at.
        at: Positions in cells ``[b,M,2]``.
        corner: First cell of the square around each ``[b,M,2]``, int32.
        steps: Steps from that corner to the cells of the square ``[W,2]``, int32.
        gain: Factor of the contributions to each image ``[n*b]``.
        c: Numbers per cell.
        weights: Those of the layers, from :func:`padded`.
        grid: Number of cells along the width and the height.
        radius: Radius of the window in cells.
    """
    (n, b, m, d), w = query.shape, len(steps)
    number = torch.empty(b, m, w, dtype=torch.long, device=here.device)
    height = torch.empty(b, m, w, device=here.device)
    where = here.new_empty(b, m, w, d)
    _squares[(triton.cdiv(b * m * w, ROWS),)](
        at, corner, steps, *weights[:2], number, height, where, b * m * w, w, *grid, radius,
        D=d, BR=ROWS, BD=weights[0].shape[1], num_warps=8,
    )  # fmt: skip
    values = torch.empty(n, b, m, w, c, device=here.device)
    rows = n * b * m * w
    programs = torch.cuda.get_device_properties(here.device).multi_processor_count if here.is_cuda else 2
    _contributions[(min(programs, triton.cdiv(rows, ROWS)),)](
        here, query, number, height, where, gain, *weights[2:], values, rows, m, b, w, grid[0] * grid[1],
        D=d, C=c, LAYERS=len(weights[2]), BR=ROWS, BD=weights[0].shape[1], BC=weights[-1].shape[0],
        num_warps=8, num_stages=1,
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
    """Passes x ``[R,I]`` through a linear layer ``[I,O]``, in float32."""
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
def _squares(
    at, corner, steps, w_where, b_where, number, height, where, rows, W, GW, GH, radius,
    D: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Stores the index, window height and offset embedding of the cells of the squares around positions."""
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    there = row < rows
    place, step = row // W, row % W
    x = tl.load(corner + 2 * place, mask=there, other=0) + tl.load(steps + 2 * step, mask=there, other=0)
    y = tl.load(corner + 2 * place + 1, mask=there, other=0) + tl.load(
        steps + 2 * step + 1, mask=there, other=0
    )
    inside = there & (x >= 0) & (x < GW) & (y >= 0) & (y < GH)
    tl.store(number + row, tl.where(inside, y * GW + x, GW * GH).to(tl.int64), mask=there)

    # The smooth window: 1 at the position, 0 from its rim on.
    across = x + 0.5 - tl.load(at + 2 * place, mask=there, other=0.0)
    along = y + 0.5 - tl.load(at + 2 * place + 1, mask=there, other=0.0)
    square = tl.minimum((across * across + along * along) / ((radius - 0.5) * (radius - 0.5)), 1.0)
    bump = (1 - square * square) * (1 - square * square)
    tl.store(height + row, tl.where(inside, bump, 0.0), mask=there)

    # Fourier features of the offset u in radii: u, |u|², sines and cosines of u times pi 2^f.
    ux, uy = (across / radius)[:, None], (along / radius)[:, None]
    f = tl.arange(0, 32)[None, :]
    wave = (f - 3) % 10
    turns = tl.where(wave < 5, ux, uy) * tl.exp2((wave % 5).to(tl.float32)) + tl.where(f < 13, 0.0, 0.5)
    features = tl.where(f < 23, _sine_of_half_turns(turns), 0.0)
    features = tl.where(f == 0, ux, tl.where(f == 1, uy, tl.where(f == 2, ux * ux + uy * uy, features)))
    d = tl.arange(0, BD)
    dtype = where.dtype.element_ty
    result = _linear(features.to(dtype), w_where, b_where, 32, BD).to(dtype)
    tl.store(where + row[:, None] * D + d[None, :], result, mask=there[:, None] & (d < D)[None, :])


@triton.jit
def _contributions(
    here, query, number, height, where, gain, w_first, b_first, w_second, b_second, w_out, b_out,
    values, rows, M, B, W, G,
    D: tl.constexpr, C: tl.constexpr, LAYERS: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Passes the inputs of each cell through the layers, whose weights stay in fast memory while rows pass."""
    dtype = here.dtype.element_ty
    d, c = tl.arange(0, BD), tl.arange(0, BC)
    square = d[:, None] * BD + d[None, :]
    if LAYERS > 0:
        first_0, second_0 = tl.load(w_first + square), tl.load(w_second + square)
    if LAYERS > 1:
        first_1, second_1 = tl.load(w_first + BD * BD + square), tl.load(w_second + BD * BD + square)
    out = tl.load(w_out + d[:, None] * BC + c[None, :])
    out_bias = tl.load(b_out + c).to(tl.float32)[None, :]
    for block in range(tl.program_id(0), tl.cdiv(rows, BR), tl.num_programs(0)):
        row = block * BR + tl.arange(0, BR)
        there = row < rows
        pair = row // W  # which of n*b images and M positions
        image = pair // M
        place = (image % B * M + pair % M) * W + row % W
        cell = tl.load(number + place, mask=there, other=G).to(tl.int32)
        known = there[:, None] & (d < D)[None, :]
        own = image * G + tl.where(cell < G, cell, 0)
        z = tl.load(here + own[:, None] * D + d[None, :], mask=known, other=0.0).to(tl.float32)
        z += tl.load(where + place[:, None] * D + d[None, :], mask=known, other=0.0).to(tl.float32)
        z += tl.load(query + pair[:, None] * D + d[None, :], mask=known, other=0.0).to(tl.float32)
        z = _silu(z).to(dtype)
        if LAYERS > 0:
            z = _residual(z, first_0, b_first, second_0, b_second, d)
        if LAYERS > 1:
            z = _residual(z, first_1, b_first + BD, second_1, b_second + BD, d)
        result = (tl.dot(z, out, input_precision="ieee") + out_bias).to(dtype).to(tl.float32)
        factor = tl.load(height + place, mask=there, other=0.0) * tl.load(gain + image, mask=there, other=0.0)
        target = values + row.to(tl.int64)[:, None] * C + c[None, :]
        tl.store(target, result * factor[:, None], mask=there[:, None] & (c < C)[None, :])


@triton.jit
def _residual(z, first, b_first, second, b_second, d):
    """A residual layer: z + second(silu(first(z)))."""
    h = tl.dot(z, first, input_precision="ieee") + tl.load(b_first + d).to(tl.float32)[None, :]
    h = _silu(h.to(z.dtype).to(tl.float32)).to(z.dtype)
    h = tl.dot(h, second, input_precision="ieee") + tl.load(b_second + d).to(tl.float32)[None, :]
    return (h + z.to(tl.float32)).to(z.dtype)
