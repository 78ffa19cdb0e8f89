"""Datasets that are drawn or rendered by ourselves: made once, kept by ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, cause, need
from igm_cli.plugins.base import Progress

if TYPE_CHECKING:
    import datasets

SPLIT_SEEDS = {"train": 0, "val": 1_000_003, "test": 2_000_003}
"""Added to the seed: every split draws from its own, so that no example of one is in another."""


class Generator:
    """A base of generator functions of a stable hash, by which ``datasets`` caches: progress is no part of it."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def report(self, what: str, index: int, count: int) -> None:
        """Tells of progress after example ``index`` of ``count``, now and then and at the end."""
        if self.progress and (index % 64 == 0 or index + 1 == count):
            self.progress(what, index + 1, count)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.progress = None


def generated(
    generator: Callable[..., Iterator[dict[str, Any]]], features: datasets.Features, kwargs: Mapping[str, Any]
) -> datasets.Dataset:
    """Returns the examples of a generator, from the cache if it ran before with the same arguments.

    Args:
        generator: Called with ``kwargs``; its pickled form and theirs name the cache, so everything that
            shapes the examples must be among them, and a progress bar must not be.
        features: Columns and types.
        kwargs: Arguments of the generator.
    """
    need("train", "datasets")
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # progress is reported by callback
    try:
        dataset: datasets.Dataset = datasets.Dataset.from_generator(
            generator, features=features, gen_kwargs=dict(kwargs)
        )
    except datasets.exceptions.DatasetGenerationError as error:
        inner = error.__cause__
        if isinstance(inner, OSError):
            raise InputError(
                f"generated images cannot be kept ({cause(inner)}); free space or set HF_HOME"
            ) from error
        if inner is not None:
            raise inner from None
        raise
    finally:
        if shown:
            datasets.enable_progress_bars()
    return dataset
