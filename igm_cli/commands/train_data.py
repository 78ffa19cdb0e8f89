"""The images ``igm train`` learns from and validates on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError
from igm_cli.output import Output, ProgressReport

if TYPE_CHECKING:
    from igm_cli.commands.train_preset import Plan
    from igm_cli.commands.validation import Validation
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.training.trainer import Samples
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter


@dataclass(frozen=True)
class DataPart:
    """One part of the training data, ready to be loaded."""

    split: str
    root: Path | None
    limit: int | None
    seed: int
    options: Mapping[str, Any]

    def describe(self) -> dict[str, Any]:
        """For the run's record; of a folder only the name, so that it may be moved."""
        return {
            "split": self.split,
            "source": "given" if self.root else "builtin",
            "root": self.root.absolute().name if self.root else None,
            "limit": self.limit,
            "seed": self.seed,
            "options": dict(self.options),
        }


def data_parts(
    plan: Plan, data_root: Path | None, limit: int | None, seed: int, own: frozenset[str] = frozenset()
) -> list[DataPart]:
    """The parts of a plan that apply.

    A part of ``data_root = "given"`` needs ``--data-root``; without it that part is left out, and
    if none is left, the first one is made by the dataset itself.

    Args:
        plan: The preset with what the command line changes.
        data_root: As ``--data-root`` has it.
        limit: As ``--limit`` has it.
        seed: Of parts that say none.
        own: Options that only images made by the dataset itself take.

    Raises:
        InputError: If a part says something unknown.
    """
    tables = plan.data
    if data_root is None:
        without = [table for table in tables if table.get("data_root") != "given"]
        tables = without or [{**tables[0], "data_root": "builtin"}]
    sources = [table.get("data_root", "given" if data_root else "builtin") for table in tables]
    parts = []
    for table, source in zip(tables, sources, strict=True):
        _check_table(table, source)
        # Without a part that could take them, the dataset itself refuses its own options.
        skipped = own if source == "given" and "builtin" in sources else ()
        everywhere = {key: value for key, value in plan.everywhere.items() if key not in skipped}
        part = DataPart(
            split=str(table.get("split", "")),
            root=data_root if source == "given" else None,
            limit=min((n for n in (limit, table.get("limit")) if n), default=None),
            seed=int(table.get("seed", seed)),
            options={**table.get("options", {}), **everywhere},
        )
        parts.append(part)
    return parts


def _check_table(table: Mapping[str, Any], source: Any) -> None:
    unknown = sorted(set(table) - {"split", "data_root", "limit", "options", "seed"})
    if unknown or source not in ("given", "builtin"):
        raise InputError(
            f"a [[data]] table cannot say {unknown[0] if unknown else f'data_root = {source!r}'}; "
            'it has split, data_root ("given" or "builtin"), limit, seed and options'
        )


def load_samples(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    parts: Sequence[DataPart],
    image_size: tuple[int, int],
    progress: ProgressReport,
) -> Samples:
    """All parts of the training data, decoded."""
    from igm_cli.plugins.samples import DatasetSamples, JoinedSamples

    loaded = []
    for number, part in enumerate(parts, 1):

        def show(what: str, done: int, total: int, number: int = number) -> None:
            label = f"{what} ({number} of {len(parts)})" if len(parts) > 1 else what
            progress(label, done, total)

        data = adapter.load(
            part.split or adapter.splits[0],
            data_root=part.root,
            limit=part.limit,
            seed=part.seed,
            progress=show,
            **part.options,
        )
        loaded.append(DatasetSamples(data, parser, image_size, progress=show))
    return loaded[0] if len(loaded) == 1 else JoinedSamples(loaded)


def load_validation(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    part: DataPart,
    spec: ModelSpec,
    folder: Path,
    sink: Output,
) -> Validation | None:
    """A few images of the second split; None if the dataset or the given folder has only one."""
    from igm_cli.commands.validation import COUNT, Validation

    if len(adapter.splits) < 2:
        return None
    if spec.architecture == "text-to-image":
        sink.note("text-to-image models are not validated while they are trained; see igm benchmark zero-shot")
        return None
    try:
        data = adapter.load(
            adapter.splits[1], data_root=part.root, limit=COUNT, seed=part.seed, progress=None, **part.options
        )
    except InputError as error:
        if part.root is None:
            raise
        sink.note(f"training goes on without validation: {error}")
        return None
    return Validation(data, parser, spec, folder)
