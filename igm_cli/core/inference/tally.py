"""What an inversion asks of a network, counted in samples rather than in calls from Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.look import Local

T = TypeVar("T")


@dataclass
class Use:
    """Use of a denoiser, in samples.

    Attributes:
        passes: Noised images looked at: rows of ``features``, each one pass of a trunk or, where nothing
            is shared, one unconditional pass of a U-Net.
        contributions: Pairs of a noised image and a concept: one head or one conditional U-Net each.
    """

    passes: int = 0
    contributions: int = 0

    @property
    def whole_calls(self) -> int:
        """Passes of a whole network that the same questions cost if nothing is factored."""
        return self.passes + self.contributions


class Tally:
    """A denoiser that counts how much it is used; it offers what :class:`Local` adds only if the one inside does.

    Args:
        denoiser: The one that works.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.space, self.schedule = denoiser.space, denoiser.schedule
        self.used = Use()
        if isinstance(denoiser, Local):
            self.lay = denoiser.lay
            self.laid_contributions = self._counted(denoiser.laid_contributions)
            self.products = self._counted(denoiser.products)

    def features(self, x_t: Tensor, t: Tensor) -> Any:
        """Counts a pass for each of the noised images ``[N,C,H,W]``."""
        self.used.passes += len(x_t)
        return self.denoiser.features(x_t, t)

    def base(self, features: Any) -> Tensor:
        """eps_u ``[N,C,H,W]``; belongs to the pass of its features."""
        return self.denoiser.base(features)

    def contributions(self, features: Any, concepts: Tensor) -> Tensor:
        """Counts N*M contributions ``[N,M,C,H,W]``."""
        delta = self.denoiser.contributions(features, concepts)
        self.used.contributions += delta.shape[0] * delta.shape[1]
        return delta

    def _counted(self, evaluate: Callable[..., T]) -> Callable[..., T]:
        """The same, but counts N*M contributions of its result ``[N,M,...]``."""

        def count(features: Any, concepts: Tensor, *others: Tensor) -> T:
            result = evaluate(features, concepts, *others)
            rows: Tensor = result[0] if isinstance(result, tuple) else result  # type: ignore[assignment]
            self.used.contributions += rows.shape[0] * rows.shape[1]
            return result

        return count


def with_gflop(run: Callable[[], T]) -> tuple[T, float]:
    """Runs something and counts its arithmetic, backward passes included.

    Slows it down: not for what is timed.

    Returns:
        What it returned, and 1e9 floating-point operations of matrix products, convolutions and
        attention (a multiplication and an addition are two); nothing else is counted.
    """
    counter = FlopCounterMode(display=False)
    with counter:
        result = run()
    return result, counter.get_total_flops() / 1e9
