"""The search of :func:`igm_cli.core.inference.sparse_subset.pursuit` as one kernel: a program per image, on a GPU.

Step by step from the host, the search would start thousands of tiny kernels and wait after each round of exchanges.
Here every image searches to its end by itself.  It needs Triton, which torch brings along where there is CUDA.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from igm_cli.core.composition import weight
from igm_cli.core.inference.statistics import QuadraticForm

MOST_MEMBERS = 32
MOST_CANDIDATES = 128
"""What a program holds in its registers."""


def fits(form: QuadraticForm, top: int) -> bool:
    """Whether the kernel can search sets of up to ``top`` candidates; else the CPU does."""
    small = top < MOST_MEMBERS and 0 < form.linear.shape[1] <= MOST_CANDIDATES
    return small and form.gram.device.type == "cuda" and importlib.util.find_spec("triton") is not None


def search(
    form: QuadraticForm, k_max: int, beyond: int, *, swaps: int, exchanges: int
) -> tuple[Tensor, Tensor]:
    """Returns the best sets found ``[B,k_max+1,k_max]``, -1 for no candidate, and which were found ``[B,k_max+1]``.

    Args:
        form: Expected errors of B images.
        k_max: Largest set asked for.
        beyond: How many concepts more the way down begins with.
        swaps: Exchanges of one member in a row at most.
        exchanges: Rounds of exchanges of one and of two members at most.
    """
    import triton

    from igm_cli.core.inference import pursuit_triton

    b, m = form.linear.shape
    device, t = form.gram.device, MOST_MEMBERS
    sets = torch.full((b, k_max + 1, k_max), -1, dtype=torch.int64, device=device)
    found = torch.zeros(b, k_max + 1, dtype=torch.int8, device=device)
    w = weight(form.composition, torch.arange(t + 1, device=device)).double()
    inputs = (form.constant, form.linear, form.gram, form.usable.to(torch.int8))
    block = max(16, triton.next_power_of_2(m))
    pursuit_triton.pursuit[(b,)](
        *(tensor.contiguous() for tensor in inputs),
        w,
        sets,
        found,
        m,
        k_max,
        k_max + beyond,
        BM=block,
        BT=t,
        SWAPS=swaps,
        EXCHANGES=exchanges,
        num_warps=16 if block > 64 else 8,
    )
    return sets, found.bool()
