"""Counts what an inversion asks of a network, in samples rather than in calls from Python."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.noised_batch import Whole
from igm_cli.core.inference.windows import Local

T = TypeVar("T")


@dataclass
class Use:
    """Use of a denoiser, in samples.

    Attributes:
        passes: Noised images seen: rows of ``features``, each one pass of a trunk or, if nothing is shared,
            one unconditional pass of a U-Net.
        contributions: Pairs of a noised image and a concept: one pass of a head or of a conditional U-Net each.
    """

    passes: int = 0
    contributions: int = 0

    @property
    def whole_calls(self) -> int:
        """Passes of a whole network that the same work would take if nothing were factored."""
        return self.passes + self.contributions


class CallCounter:
    """Wraps a denoiser and counts its use; it offers the methods that the wrapped one does."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.space, self.schedule = denoiser.space, denoiser.schedule
        self.image_size: tuple[int, int] | None = getattr(denoiser, "image_size", None)
        self.any_size: bool = getattr(denoiser, "any_size", False)
        self.dtype: torch.dtype = getattr(denoiser, "dtype", torch.float32)
        self.used = Use()
        self._lock = threading.Lock()
        self.contributions = self._counted(denoiser.contributions)
        if isinstance(denoiser, Whole):
            self.predictions = self._counted(denoiser.predictions)
        if isinstance(denoiser, Local):
            self.to_patches = denoiser.to_patches
            self.grid = denoiser.grid
            self.windows = self._counted(denoiser.windows, before=1)
            self.products = self._counted(denoiser.products)

    def features(self, x_t: Tensor, t: Tensor) -> Any:
        """Counts a pass for each of the noised images ``[N,C,H,W]``."""
        with self._lock:
            self.used.passes += len(x_t)
        return self.denoiser.features(x_t, t)

    def base(self, features: Any) -> Tensor:
        """Returns eps_u ``[N,C,H,W]``; it belongs to the pass of its features."""
        return self.denoiser.base(features)

    def _counted(self, evaluate: Callable[..., T], before: int = 0) -> Callable[..., T]:
        """Wraps a function to count the N*M contributions of a result ``[N,M,...]``, N as ``1 + before`` dimensions."""

        def count(features: Any, concepts: Tensor, *others: Any) -> T:
            result = evaluate(features, concepts, *others)
            rows: Tensor = result[0] if isinstance(result, tuple) else result  # type: ignore[assignment]
            with self._lock:
                self.used.contributions += math.prod(rows.shape[: 2 + before])
            return result

        return count
