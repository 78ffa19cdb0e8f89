"""Presets of ``igm train``: their tables, the command line's changes to them, and the model they describe."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from igm_cli.core.files import home_expanded, parse_toml
from igm_cli.core.validation import Natural, Positive, Table, validated
from igm_cli.errors import IgmError, InputError, MissingError, UsageError, near_names

if TYPE_CHECKING:
    import datasets
    import torch

    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.composition import Composition
    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.core.training.config import TrainConfig
    from igm_cli.core.types import InversionSettings
    from igm_cli.plugins.adapters import Adapter
    from igm_cli.plugins.base import (
        ConceptParser,
        DatasetAdapter,
        Note,
        Progress,
        RenderedBatches,
        RenderingAdapter,
    )
    from igm_cli.plugins.crops import Crops

ARCHITECTURE = "factored"
"""The architecture of a preset that names none."""


@validated("option of [[data]]")
class DataPart:
    """One part of the training data."""

    split: str = ""  # name of the split; empty for the dataset's first one
    # ``given`` needs ``--data-root``, ``builtin`` images are made by the dataset; None means ``given`` if
    # there is such a folder
    data_root: Literal["given", "builtin"] | None = None
    limit: Positive | None = None  # maximum number of images
    seed: Natural | None = None  # seed of images made by the dataset; None takes the training's
    options: Table = field(default_factory=dict)  # options of the dataset

    def describe(self, root: Path | None) -> dict[str, Any]:
        """Returns the part for the run's record, with only the name of the folder, so that it may be moved."""
        told = asdict(self)
        name = root.absolute().name if root and self.data_root == "given" else None
        return {"source": told.pop("data_root"), "root": name, **told}

    def load(
        self,
        adapter: DatasetAdapter,
        root: Path | None,
        progress: Progress | None,
        note: Note = lambda text: None,
    ) -> datasets.Dataset:
        """Returns the images of this part; notes the problems that the dataset finds."""
        from igm_cli.plugins.base import noted

        more = {"data_root": root if self.data_root == "given" else None, "seed": self.seed, **self.options}
        more |= noted(adapter, note)
        return adapter.load(self.split or adapter.splits[0], limit=self.limit, progress=progress, **more)

    def count(self, adapter: Adapter) -> int:
        """Returns the number of images of this part, which the dataset makes."""
        from igm_cli.plugins.adapters import SplitRequest

        split = self.split or adapter.splits[0]
        return int(adapter.requested(SplitRequest(split, self.limit, options=self.options))["count"])

    def render(self, adapter: RenderingAdapter, device: torch.device, progress: Progress) -> RenderedBatches:
        """Renders the training split of this part, which the dataset makes, on a device."""
        split = self.split or adapter.splits[0]
        asked = {"limit": self.limit, "seed": self.seed or 0, **self.options}
        return adapter.render(split, device=device, progress=progress, **asked)


@validated("table of the preset")
class Preset:
    """A preset with the command line's changes."""

    model: Table = field(default_factory=dict)  # architecture, composition and the architecture's options
    concepts: Table = field(default_factory=dict)  # options of the concept parser
    schedule: Table = field(default_factory=dict)  # noise schedule, in diffusers' words
    train: Table = field(default_factory=dict)  # fields of the trainer's configuration
    data: list[Table] = field(default_factory=lambda: [{}])  # parts of the training data
    # how training images are cut from larger ones; empty takes them whole
    crops: Table = field(default_factory=dict)
    inference: Table = field(default_factory=dict)  # default settings of igm invert with this model
    generation: Table = field(default_factory=dict)  # default settings of igm generate with this model
    info: Table = field(default_factory=dict)  # anything to keep with the checkpoint

    def __post_init__(self) -> None:
        for part in self.data:
            DataPart(**part)

    def cut(self) -> Crops | None:
        """Returns how training images are cropped; None if they are used whole."""
        from igm_cli.plugins.crops import Crops

        return Crops(**self.crops) if self.crops else None

    def check(self) -> None:
        """Raises an :class:`InputError` if there is an invalid value, before anything is read."""
        from igm_cli.core.checkpoint import GenerationDefaults
        from igm_cli.core.models import check_options
        from igm_cli.core.noise_schedule import ScheduleConfig

        self.config(), self.cut(), ScheduleConfig(**self.schedule)
        architecture, _, options = self.architecture()
        check_options(architecture, options)
        self.settings()
        GenerationDefaults(**self.generation)

    def architecture(self) -> tuple[str, Composition, dict[str, Any]]:
        """Returns the architecture, how its predictions compose, and its options."""
        options = {"architecture": ARCHITECTURE, "composition": "sum", **self.model}
        return options.pop("architecture"), options.pop("composition"), options

    def config(self) -> TrainConfig:
        """Returns the trainer's configuration."""
        from igm_cli.core.training.config import TrainConfig

        return TrainConfig(**self.train)

    def settings(self, space: ConceptSpace | None = None) -> InversionSettings:
        """Returns the model's default inversion settings, checked against a space if one is given.

        Raises:
            InputError: If the table ``[inference]`` cannot be used.
        """
        from igm_cli.core.inference.engine import constraint_of
        from igm_cli.core.types import InversionSettings

        try:
            settings = InversionSettings.from_dict(self.inference)
            if space is not None:
                constraint_of(space)(space, settings, None)
        except IgmError as error:
            raise InputError(f"the table [inference] cannot be used: {error}") from error
        return settings


def read_preset(adapter: DatasetAdapter, preset: str, *, extended_by: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the tables of a dataset's preset, named, or of a TOML file; a dataset without presets has an empty one.

    ``extends = "NAME"`` at the top of a preset starts from another one, whose tables are changed key by key, except that
    ``[[data]]`` is replaced whole, and ``[model]`` by one of another architecture.  ``parser = "NAME"`` names a concept parser other than the dataset's; then the other
    preset's ``[concepts]`` are not used.
    """
    tables = _load(adapter, preset)
    if "extends" not in tables:
        return tables
    base, seen = tables.pop("extends"), (*extended_by, preset)
    if not isinstance(base, str):
        raise InputError(f"the preset {preset} extends {base!r}; give the name of a preset, or a .toml file")
    if base in seen:
        raise InputError(f"the preset {preset} extends {base}, which leads back to it; take one of them out")
    merged = read_preset(adapter, base, extended_by=seen)
    if tables.get("parser", merged.get("parser")) != merged.get("parser"):
        merged.pop("concepts", None)
    return merged | {name: over(merged.get(name), table) for name, table in tables.items()}


def over(known: Any, table: Any) -> Any:
    """Returns a preset's table changed by another one, or that one if it is about another architecture."""
    if not (isinstance(known, dict) and isinstance(table, dict)):
        return table
    architecture = known.get("architecture", ARCHITECTURE)
    return {**known, **table} if table.get("architecture", architecture) == architecture else table


def _load(adapter: DatasetAdapter, preset: str) -> dict[str, Any]:
    """Returns one preset's own tables."""
    presets = getattr(adapter, "presets", {})
    if preset == "default" and preset not in presets:
        return {}
    if preset not in presets and not preset.endswith(".toml"):
        names = ", ".join(sorted(presets)) or "none"
        raise UsageError(f"{adapter.name} has no preset {preset!r}; it has {names}; a .toml file works too")
    path = home_expanded(presets.get(preset, preset))
    if not path.is_file():
        named = f", which {adapter.name} names as the preset {preset!r}" if preset in presets else ""
        raise MissingError(f"there is no preset file {path}{named}; check the path")
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error


@dataclass(frozen=True)
class Recipe:
    """All settings of a training with their origins: a preset, the command line's changes, and the dataset's advice."""

    name: str  # the preset's
    tables: Mapping[str, Any]  # the preset's
    # the command line's values by ``table.key``; a key without a table is the trainer's, and ``data.key``
    # is an option of every part of the data
    given: Mapping[str, Any] = field(default_factory=dict)
    # tables that the dataset advises, used where both are silent
    advised: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def preset(self) -> Preset:
        """Returns the preset with all changes.

        Raises:
            UsageError: If the command line names an unknown table.
            InputError: If a key or a value is invalid.
        """
        beside = {name: {**table, **self.tables.get(name, {})} for name, table in self.advised.items()}
        preset = Preset(**deepcopy({**self.tables, **beside}))
        names = [table.name for table in fields(Preset)]
        for name, value in self.given.items():
            table, key = _place(name)
            if table not in names:
                raise UsageError(f"--set knows no table {table!r}; {near_names(table, names)}")
            if table == "data":
                for part in preset.data:
                    part["options"] = {**part.get("options", {}), key: value}
            else:
                getattr(preset, table)[key] = value
        return preset

    def origin(self, table: str, key: str) -> str:
        """Returns the origin of a setting, in a few words."""
        if (table, key) in map(_place, self.given):
            return "command line"
        said = self.tables.get(table, {})
        if any(key in part.get("options", ()) for part in said) if table == "data" else key in said:
            return f"preset {self.name}"
        if key in self.advised.get(table, {}):
            return "the images"
        return "the dataset" if (table, key) == ("model", "image_size") else "default"

    def settings(self, parser: ConceptParser, image_size: tuple[int, int]) -> list[tuple[str, str, str]]:
        """Returns every setting but those of the data: its name, value and origin.

        The dataset determines the size (width, height) of the images unless it is set elsewhere.
        """
        from igm_cli.core.checkpoint import GenerationDefaults
        from igm_cli.core.models import architecture as of_name
        from igm_cli.core.noise_schedule import ScheduleConfig

        preset = self.preset()
        architecture, composition, options = preset.architecture()
        known = {each.name: each.default for each in fields(of_name(architecture)[0])}
        shape = {key: value for key, value in known.items() if value is not MISSING} | options
        if "image_size" in shape:
            shape["image_size"] = image_size
        cut = preset.cut()
        tables: dict[str, Mapping[str, Any]] = {
            "train": asdict(preset.config()),
            "model": {"architecture": architecture, "composition": composition, **shape},
            "concepts": {name: preset.concepts.get(name, "") for name in getattr(parser, "options", {})},
            "schedule": asdict(ScheduleConfig(**preset.schedule)),
            "crops": asdict(cut) if cut else {},
            "inference": preset.settings().to_dict(),
            "generation": asdict(GenerationDefaults(**preset.generation)),
        }
        return [
            (f"{table}.{key}", _told(value), self.origin(table, key))
            for table, values in tables.items()
            for key, value in values.items()
        ]


def _place(name: str) -> tuple[str, str]:
    """Returns the table and the key that a name on the command line means."""
    table, _, key = name.partition(".") if "." in name else ("train", "", name)
    return table, key


def _told(value: Any) -> str:
    """Returns a value as written in a preset."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else "" if value is None else str(value)


def presets(adapter: DatasetAdapter) -> list[tuple[str, str]]:
    """Returns the presets of a dataset, each with the first sentence of its description."""
    found = []
    for name, path in sorted(getattr(adapter, "presets", {}).items()):
        lines = itertools.takewhile(lambda line: line.startswith("# "), path.read_text("utf-8").splitlines())
        said = " ".join(line.removeprefix("# ") for line in lines)
        found.append((name, re.split(r"(?<=\.)\s", said)[0]))
    return found


def data_parts(
    preset: Preset,
    data_root: Path | None,
    limit: int | None,
    own: frozenset[str] = frozenset(),
    *,
    of_folders: frozenset[str] = frozenset(),
    builtin: bool = False,
) -> list[DataPart]:
    """Returns the parts of a preset's data that apply, fully specified.

    Without ``--data-root``, parts of ``data_root = "given"`` are left out; if none is left, the dataset makes the
    images of the first one.  With it, images made by the dataset are left out unless ``builtin`` asks for them.
    ``own`` are options that only images made by the dataset take, and ``of_folders`` those that only given images take; the
    others ignore them.
    """
    tables, seed = [DataPart(**table) for table in preset.data], preset.config().seed
    left_out = "given" if data_root is None else None if builtin else "builtin"
    kept = [table for table in tables if not left_out or table.data_root != left_out]
    if not kept:  # the first part, applied to the other kind of images
        shared = {k: v for k, v in tables[0].options.items() if data_root is None or k not in own}
        kept = [replace(tables[0], data_root=None, options=shared)]
    tables = kept
    built = [data_root is None or table.data_root == "builtin" for table in tables]
    # If no part can take them, the dataset refuses its own options.
    skipped = own if any(built) else frozenset[str]()
    real = of_folders if not all(built) else frozenset[str]()
    return [
        replace(
            table,
            data_root="builtin" if made else "given",
            limit=min((n for n in (limit, table.limit) if n), default=None),
            seed=seed if table.seed is None else table.seed,
            options={k: v for k, v in table.options.items() if k not in (real if made else skipped)},
        )
        for table, made in zip(tables, built, strict=True)
    ]


def model_spec(
    adapter: DatasetAdapter, parser: ConceptParser, preset: Preset, parts: Sequence[DataPart]
) -> ModelSpec:
    """Returns the specification of the model to train, with the data as its provenance."""
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.noise_schedule import ScheduleConfig
    from igm_cli.plugins.registry import package_of

    preset.settings(parser.space)
    architecture, composition, options = preset.architecture()
    options = {"image_size": adapter.image_size, **options}
    config = preset.config()
    crops = preset.cut()
    if crops and architecture != ARCHITECTURE:
        raise InputError(
            f"only a {ARCHITECTURE} model can be trained on crops; use model.architecture = {ARCHITECTURE}, not {architecture}"
        )
    if crops and options.get("coordinates", True):
        raise InputError(
            "a model that is trained on crops is not told where it looks; use model.coordinates = false"
        )
    tells_apart = config.contrast or config.reading_steps
    sources = sorted({"given" if part.data_root == "given" else "built-in" for part in parts}, reverse=True)
    plugins = {
        "concepts": package_of("concepts", parser.name),
        "datasets": package_of("datasets", adapter.name),
    }
    plugins = {kind: package for kind, package in plugins.items() if package}
    licences = {"given": adapter.licence, "built-in": getattr(adapter, "own_licence", adapter.licence)}
    return ModelSpec(
        architecture=architecture,
        composition=composition,
        options=options,
        space=parser.space.to_dict(),
        schedule=ScheduleConfig(**preset.schedule).to_dict(),
        image_size=options["image_size"],
        scale=crops.scale if crops else 0.0,
        margin=crops.margin if crops else 0,
        concepts=parser.name,
        concept_options=preset.concepts,
        inference=preset.inference,
        generation=preset.generation,
        info={
            "dataset": adapter.name,
            "data": " and ".join(sources),
            "steps": config.steps,
            **({"contrast": config.contrast} if config.contrast else {}),
            **({"discriminative": True} if tells_apart else {}),
            **({"crops": preset.crops} if crops else {}),
            **({"plugins": plugins} if plugins else {}),
            "licence": "; ".join(dict.fromkeys(licences[source] for source in sources)),
            **preset.info,
        },
    )
