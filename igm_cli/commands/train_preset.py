"""Presets of ``igm train``: their tables, what the command line changes in them, and the model they describe."""

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
    from igm_cli.plugins.base import (
        ConceptParser,
        DatasetAdapter,
        Note,
        Progress,
        RenderedBatches,
        RenderingAdapter,
    )
    from igm_cli.plugins.crops import Crops

RANGE = "range"  # an option that only images in a folder take


@validated("option of [[data]]")
class DataPart:
    """One part of the training data."""

    split: str = ""  # name of the split; empty for the dataset's first one
    # ``given`` needs ``--data-root``, ``builtin`` images are made by the dataset itself; None is given where
    # there is such a folder
    data_root: Literal["given", "builtin"] | None = None
    limit: Positive | None = None  # at most so many images
    seed: Natural | None = None  # seed of what the dataset makes; None takes the training's
    options: Table = field(default_factory=dict)  # options of the dataset

    def describe(self, root: Path | None) -> dict[str, Any]:
        """For the run's record; of a folder only the name, so that it may be moved."""
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
        """The images of this part; what the dataset finds amiss is noted."""
        from igm_cli.plugins.base import noted

        more = {"data_root": root if self.data_root == "given" else None, "seed": self.seed, **self.options}
        more |= noted(adapter, note)
        return adapter.load(self.split or adapter.splits[0], limit=self.limit, progress=progress, **more)

    def render(self, adapter: RenderingAdapter, device: torch.device, progress: Progress) -> RenderedBatches:
        """The training split of this part, which the dataset makes, rendered on a device."""
        split = self.split or adapter.splits[0]
        asked = {"limit": self.limit, "seed": self.seed or 0, **self.options}
        return adapter.render(split, device=device, progress=progress, **asked)


@validated("table of the preset")
class Preset:
    """A preset, with what the command line changes."""

    model: Table = field(default_factory=dict)  # architecture, composition and the architecture's options
    concepts: Table = field(default_factory=dict)  # options of the concept parser
    schedule: Table = field(default_factory=dict)  # noise schedule, in diffusers' words
    train: Table = field(default_factory=dict)  # fields of the trainer's configuration
    data: list[Table] = field(default_factory=lambda: [{}])  # parts of the training data
    # how training images are cut from larger ones; empty takes them whole
    crops: Table = field(default_factory=dict)
    inference: Table = field(default_factory=dict)  # settings that igm invert takes by default with this model
    info: Table = field(default_factory=dict)  # anything to keep with the checkpoint

    def __post_init__(self) -> None:
        for part in self.data:
            DataPart(**part)

    def cut(self) -> Crops | None:
        """Returns how training images are cut, None if they are taken whole."""
        from igm_cli.plugins.crops import Crops

        return Crops(**self.crops) if self.crops else None

    def check(self) -> None:
        """Refuses values that can be none, before anything is read.

        Raises:
            InputError: If there is one.
        """
        from igm_cli.core.models import check_options
        from igm_cli.core.noise_schedule import ScheduleConfig

        self.config(), self.cut(), ScheduleConfig(**self.schedule)
        architecture, _, options = self.architecture()
        check_options(architecture, options)
        self.settings()

    def architecture(self) -> tuple[str, Composition, dict[str, Any]]:
        """Returns the architecture, how its predictions compose, and its options."""
        options = {"architecture": "factored", "composition": "sum", **self.model}
        return options.pop("architecture"), options.pop("composition"), options

    def config(self) -> TrainConfig:
        """Returns how to train."""
        from igm_cli.core.training.config import TrainConfig

        return TrainConfig(**self.train)

    def settings(self, space: ConceptSpace | None = None) -> InversionSettings:
        """Returns how the model is inverted by default; with a space, only if its concepts can be found so.

        Raises:
            InputError: If the table ``[inference]`` cannot be used.
        """
        from igm_cli.core.inference.engine import constraint_of
        from igm_cli.core.types import InversionSettings

        try:
            settings = InversionSettings.from_dict(self.inference)
            if space is not None:
                constraint_of(space)(space, settings, None, 1)
        except IgmError as error:
            raise InputError(f"the table [inference] cannot be used: {error}") from error
        return settings


def read_preset(adapter: DatasetAdapter, preset: str, *, extended_by: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the tables of a preset of the dataset by name, or of a TOML file; no preset at all is an empty one.

    ``extends = "NAME"`` at the top of a preset takes another one first, whose tables are changed key by key;
    ``[[data]]`` is taken whole.  ``parser = "NAME"`` names the concept parser where it is not the dataset's; the other
    preset's ``[concepts]`` are not taken then.
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
    for name, table in tables.items():
        known = merged.get(name)
        merged[name] = {**known, **table} if isinstance(known, dict) and isinstance(table, dict) else table
    return merged


def _load(adapter: DatasetAdapter, preset: str) -> dict[str, Any]:
    """One preset's own tables."""
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
        raise InputError(f"{path} is not valid TOML: {error}") from error


@dataclass(frozen=True)
class Recipe:
    """How to train, and who said so: a preset, what the command line changes in it, what the dataset advises beside it."""

    name: str  # of the preset
    tables: Mapping[str, Any]  # of the preset
    # ``table.key`` to the values of the command line; a key without a table is the trainer's, and ``data.key``
    # is an option of every part of the data
    given: Mapping[str, Any] = field(default_factory=dict)
    # tables that the dataset advises where neither says anything
    advised: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def preset(self) -> Preset:
        """Returns the preset as it is used.

        Raises:
            UsageError: If the command line names a table that there is not.
            InputError: If a key or a value is none.
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
        """Returns who says a setting, in a few words."""
        if (table, key) in map(_place, self.given):
            return "command line"
        said = self.tables.get(table, {})
        if any(key in part.get("options", ()) for part in said) if table == "data" else key in said:
            return f"preset {self.name}"
        if key in self.advised.get(table, {}):
            return "the images"
        return "the dataset" if (table, key) == ("model", "image_size") else "default"

    def settings(self, parser: ConceptParser, image_size: tuple[int, int]) -> list[tuple[str, str, str]]:
        """Returns every setting but those of the data: its name, its value, and who says it.

        The dataset says the size (width, height) of the images unless somebody else does.
        """
        from igm_cli.core.models import config_class
        from igm_cli.core.noise_schedule import ScheduleConfig

        preset = self.preset()
        architecture, composition, options = preset.architecture()
        known = {each.name: each.default for each in fields(config_class(architecture))}
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
        }
        return [
            (f"{table}.{key}", _told(value), self.origin(table, key))
            for table, values in tables.items()
            for key, value in values.items()
        ]


def _place(name: str) -> tuple[str, str]:
    """Returns the table and the key that a name on the command line stands for."""
    table, _, key = name.partition(".") if "." in name else ("train", "", name)
    return table, key


def _told(value: Any) -> str:
    """Returns a value as a preset has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else "" if value is None else str(value)


def presets(adapter: DatasetAdapter) -> list[tuple[str, str]]:
    """Returns the presets of a dataset, and the first sentence of what each says of itself."""
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
    builtin: bool = False,
) -> list[DataPart]:
    """Returns the parts of a preset's data that apply, with nothing left open.

    A part of ``data_root = "given"`` needs ``--data-root``; without it that part is left out, and
    if none is left, the first one is made by the dataset itself.  With it, images that the dataset makes itself are
    left out unless ``builtin`` asks for them.  ``own`` are options that only images made by the dataset itself take;
    given ones beside those do without.
    """
    tables, seed = [DataPart(**table) for table in preset.data], preset.config().seed
    left_out = "given" if data_root is None else None if builtin else "builtin"
    kept = [table for table in tables if not left_out or table.data_root != left_out]
    if not kept:  # the first one as it would be of the other images
        shared = {k: v for k, v in tables[0].options.items() if data_root is None or k not in own}
        kept = [replace(tables[0], data_root=None, options=shared)]
    tables = kept
    built = [data_root is None or table.data_root == "builtin" for table in tables]
    # Without a part that could take them, the dataset itself refuses its own options.
    skipped = own if any(built) else frozenset[str]()
    real = {RANGE} if not all(built) else set[str]()
    return [
        replace(
            table,
            data_root="builtin" if builtin else "given",
            limit=min((n for n in (limit, table.limit) if n), default=None),
            seed=seed if table.seed is None else table.seed,
            options={k: v for k, v in table.options.items() if k not in (real if builtin else skipped)},
        )
        for table, builtin in zip(tables, built, strict=True)
    ]


def model_spec(
    adapter: DatasetAdapter, parser: ConceptParser, preset: Preset, parts: Sequence[DataPart]
) -> ModelSpec:
    """Returns what is to be trained, with the data as its provenance."""
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.noise_schedule import ScheduleConfig

    preset.settings(parser.space)
    architecture, composition, options = preset.architecture()
    options = {"image_size": adapter.image_size, **options}
    config = preset.config()
    crops = preset.cut()
    if crops and options.get("coordinates", True):
        raise InputError(
            "a model that is trained on crops is not told where it looks; use model.coordinates = false"
        )
    sources = sorted({"given" if part.data_root == "given" else "built-in" for part in parts}, reverse=True)
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
        info={
            "dataset": adapter.name,
            "data": " and ".join(sources),
            "steps": config.steps,
            **({"contrast": config.contrast} if config.contrast else {}),
            **({"crops": preset.crops} if crops else {}),
            "licence": adapter.licence,
            **preset.info,
        },
    )
