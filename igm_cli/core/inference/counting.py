"""Counting: the number of concepts is the one of least error plus cost of concepts.

K* = argmin_K  min_{|S| = K} error(S) + cost K
"""

from __future__ import annotations

from torch import Tensor


def choose_size(errors: Tensor, sizes: Tensor, cost: float) -> Tensor:
    """Returns the index of the size of least error plus cost ``[B]``.

    Args:
        errors: Errors of the best sets ``[B,S]``; infinite for sizes that may not be chosen.
        sizes: Their sizes ``[S]``.
        cost: Fall of the error that justifies one more concept.
    """
    return (errors + cost * sizes).argmin(1)
