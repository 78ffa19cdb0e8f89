"""The base of igm's own dataset adapters: checks requests, and generates images once or reads them from a folder."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from igm_cli.core.names import names_option as names_option
from igm_cli.errors import InputError, MissingError, UsageError, cause, near_names, need
from igm_cli.pixels import Scaling, check_range
from igm_cli.plugins.base import Note, Progress
from igm_cli.plugins.registry import refuse_unknown

Dataset: TypeAlias = "datasets.Dataset"  # type: ignore[name-defined]  # noqa: F821
Options: TypeAlias = Mapping[str, Any]

RANGE = "range"
"""The option of every dataset in a folder that gives the values of black and white in its images."""

SPLIT_SEEDS = {"train": 0, "val": 1_000_003, "test": 2_000_003}
"""Added to the seed, so that every split has its own seed and no two share an example."""


SPLITS = tuple(SPLIT_SEEDS)

ALL = "all"
"""What stands for all images of a folder, whatever their split, where the adapter allows it."""

SPLIT_NAMES = {
    "train": "train", "training": "train", "trainval": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The split meant by the name of a user's folder or list."""


@dataclass(frozen=True)
class SplitRequest:
    """A request to a dataset.

    Attributes:
        split: Name of the split.
        limit: Most images; None takes all.
        seed: Seed of everything random.
        options: The dataset's own options.
        progress: Receives progress.
        note: Receives problems of a folder.
    """

    split: str
    limit: int | None = None
    seed: int = 0
    options: Options = field(default_factory=dict)
    progress: Progress | None = None
    note: Note = lambda text: None


class Adapter:
    """A base class with the ``load`` of :class:`igm_cli.plugins.base.DatasetAdapter`.

    A subclass has that protocol's attributes, and makes a split, reads it from a folder, or both.
    """

    name: str
    splits: tuple[str, ...] = SPLITS
    whole = False  # whether the split ALL of a folder may be asked for
    options: Mapping[str, str]
    rendered_options: frozenset[str] = frozenset()  # those of generated images only
    folder_options: frozenset[str] = frozenset()  # those of images in a folder only, besides the range
    drawn = "rendered scenes"  # what generated images are called
    sizes: Mapping[str, int]  # how many images a split has without the option size
    version = 0  # raised whenever generated images change, to renew caches

    @property
    def presets(self) -> Mapping[str, Path]:
        """The TOML files next to the adapter's module."""
        folder = Path(inspect.getfile(type(self))).parent / "presets"
        return {path.stem: path for path in sorted(folder.glob("*.toml"))}

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        note: Note | None = None,
        **options: Any,
    ) -> Dataset:
        """Returns a split, generated if there is no data root; ``note`` receives problems of a folder."""
        need("train", "datasets")
        self.check(split, data_root, options)
        values, told = options.pop(RANGE, None), note or (lambda text: None)
        request = SplitRequest(split, limit, seed, options, progress, told)
        if data_root is None:
            return self.make(request)
        from igm_cli.plugins.image_column import ImageColumn

        scaling = Scaling(check_range(values), told)
        return self.read(data_root, request).cast_column("image", ImageColumn(scaling))

    def check(self, split: str, data_root: Path | None, options: Options) -> None:
        """Refuses a split or an option that the dataset, generated or real, does not have."""
        splits = (*self.splits, ALL) if self.whole else self.splits
        if split not in splits:
            raise UsageError(f"{self.name} has no split {split!r}; choose {' or '.join(splits)}")
        if data_root is None and (wrong := sorted(set(options) & {RANGE, *self.folder_options})):
            raise UsageError(
                f"option {wrong[0]!r} is about images in a folder; give one with --data-root FOLDER"
            )
        refuse_unknown([name for name in options if name != RANGE], list(self.options), f"{self.name} has")
        if data_root is not None and (wrong := sorted(set(options) & self.rendered_options)):
            raise UsageError(
                f"option {wrong[0]!r} works on {self.drawn} only, not on {data_root}; leave it out"
            )

    def make(self, request: SplitRequest) -> Dataset:
        """Returns a split of generated images, if the dataset has any."""
        raise MissingError(f"{self.name} has no images of its own; give your folder with --data-root FOLDER")

    def read(self, root: Path, request: SplitRequest) -> Dataset:
        """Returns a split of the images in a folder, if the dataset reads any."""
        raise InputError(f"{self.name} makes its own images; leave out --data-root, or use another dataset")

    def requested(self, request: SplitRequest) -> dict[str, Any]:
        """Returns the number, seed and version of the images to generate."""
        size = int(number_option("size", request.options.get("size", self.sizes[request.split]), 1))
        count = min(size, request.limit) if request.limit else size
        return {"count": count, "seed": request.seed + SPLIT_SEEDS[request.split], "version": self.version}


def choice(option: str, value: Any, known: Iterable[str]) -> str:
    """Returns the value of an option, which must be a known one."""
    names = list(known)
    if value not in names:
        raise UsageError(f"unknown {option} {value!r}; {near_names(str(value), names)}")
    return str(value)


def number_range(option: str, text: Any, least: int = 1) -> tuple[int, int] | None:
    """Returns ``"3-5"``, ``4``, ``[3, 5]`` or None, of ``least`` or more, as two numbers."""
    if text is None:
        return None
    try:
        parts = str(text).split("-") if isinstance(text, str | int) else [str(part) for part in text]
        low, high = int(parts[0]), int(parts[-1])
        if not least <= low <= high or len(parts) > 2:
            raise ValueError("the smaller one comes first")
    except (TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{option} must be a number such as 2 or a range such as 1-3, not {text!r}") from error
    return low, high


def number_option(option: str, value: Any, least: float, whole: bool = True) -> float:
    """Returns the value of an option that is a number, an int if it is a whole one."""
    try:
        found = float(value)
        if not least <= found < math.inf or (whole and found % 1):
            raise ValueError(f"{found} is none")
    except (TypeError, ValueError) as error:
        kind = "whole number" if whole else "number"
        raise UsageError(f"{option} must be a {kind} of at least {least}, not {value!r}") from error
    return int(found) if whole else found


def image_dataset(columns: Mapping[str, Any]) -> Dataset:
    """Returns a dataset of columns; files in the column ``image`` are decoded by what :meth:`Adapter.load` makes of it."""
    import datasets

    return datasets.Dataset.from_dict(columns)


class Generator:
    """A base class of functions that yield examples; the hash by which ``datasets`` caches them excludes progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def report(self, what: str, index: int, count: int) -> None:
        """Reports progress after example ``index`` of ``count``."""
        if self.progress:
            self.progress(what, index + 1, count)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.progress = None


def generated(generator: Callable[..., Iterator[dict[str, Any]]], columns: Options, kwargs: Options) -> Dataset:
    """Returns the examples of a generator, from the cache if it ran before with the same arguments.

    Args:
        generator: Called with ``kwargs``; the pickles of both name the cache, so they must contain everything
            that shapes the examples.
        columns: Type of each column: ``"image"``, a name of pyarrow's, a list of one type, or a table of types.
        kwargs: Arguments of the generator.
    """
    import datasets

    def feature(kind: Any) -> Any:
        if isinstance(kind, Mapping):
            return {name: feature(inner) for name, inner in kind.items()}
        if isinstance(kind, list):
            return [feature(inner) for inner in kind]
        return datasets.Image() if kind == "image" else datasets.Value(kind)

    cache = str(datasets.config.HF_DATASETS_CACHE)
    if cache.startswith("~"):
        raise InputError(
            f"generated images are kept in {cache}, and there is no such home; set HF_HOME to a folder"
        )
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()  # progress is reported by callback
    try:
        features = datasets.Features(feature(columns))
        return datasets.Dataset.from_generator(generator, features=features, gen_kwargs=dict(kwargs))
    except (datasets.exceptions.DatasetGenerationError, OSError) as error:
        inner = error if isinstance(error, OSError) else error.__cause__
        if isinstance(inner, OSError):
            raise InputError(
                f"generated images cannot be kept in {cache} ({cause(inner)}); free space, or set HF_HOME to a folder "
                "that can be written to"
            ) from error
        if inner is not None:
            raise inner from None
        raise
    finally:
        if shown:
            datasets.enable_progress_bars()
