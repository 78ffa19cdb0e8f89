"""Presets of ``igm train``: their tables, and what the command line changes in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands import options as o
from igm_cli.errors import InputError, MissingError, UsageError

if TYPE_CHECKING:
    from igm_cli.plugins.base import DatasetAdapter

_TABLES = ("model", "concepts", "schedule", "train", "data", "inference", "info")


@dataclass
class Plan:
    """A preset as tables, with what the command line changes.

    Attributes:
        model: Architecture, composition and the architecture's options.
        concepts: Options of the concept parser.
        schedule: Of the noise, in diffusers' words.
        train: Fields of the trainer's configuration.
        data: Parts of the training data, each a table (split, data_root, limit, options).
        everywhere: Options of every part of the data that takes them.
        inference: Settings that igm invert takes by default with this model.
        info: Anything to keep with the checkpoint.
    """

    model: dict[str, Any] = field(default_factory=dict)
    concepts: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    everywhere: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_preset(cls, preset: Mapping[str, Any]) -> Plan:
        """Reads the tables of a preset.

        Raises:
            InputError: If there is a table it does not know.
        """
        unknown = sorted(set(preset) - set(_TABLES))
        if unknown:
            known = ", ".join(_TABLES)
            raise InputError(f"the preset has an unknown table [{unknown[0]}]; known are {known}")
        parts = preset.get("data", [])
        tables = [preset.get(name, {}) for name in _TABLES if name != "data"]
        if not (isinstance(parts, list) and all(isinstance(t, dict) for t in [*tables, *parts])):
            raise InputError("a preset holds tables [model], [schedule], [train] and [[data]]; correct it")
        copies = {name: dict(preset.get(name, {})) for name in _TABLES if name != "data"}
        return cls(data=[dict(part) for part in parts] or [{}], **copies)

    def override(self, settings: Mapping[str, Any]) -> Plan:
        """Applies ``table.key=value`` (a key without a table is the trainer's).

        ``data.key`` sets an option of every part of the data that takes it.

        Raises:
            UsageError: If the table is unknown.
        """
        for name, value in settings.items():
            table, dot, key = name.partition(".")
            if not dot:
                table, key = "train", name
            if table == "data":
                self.everywhere[key] = value
            elif table in _TABLES:
                getattr(self, table)[key] = value
            else:
                raise UsageError(f"--set knows no table {table!r}; use {', '.join(_TABLES)}")
        return self


def read_preset(adapter: DatasetAdapter, preset: str, *, extended_by: tuple[str, ...] = ()) -> dict[str, Any]:
    """A preset of the dataset by name, or a TOML file; no preset at all is an empty one.

    ``extends = "NAME"`` at the top of a preset takes another one first, whose tables are changed key by key;
    ``[[data]]`` is taken whole.

    Args:
        adapter: Of the dataset.
        preset: Its name, or the path of a file.
        extended_by: Presets that take this one.

    Raises:
        UsageError: If the name is unknown.
        MissingError: If the file does not exist.
        InputError: If it is no TOML, or extends itself.
    """
    tables = _load(adapter, preset)
    if "extends" not in tables:
        return tables
    base, seen = tables.pop("extends"), (*extended_by, preset)
    if not isinstance(base, str):
        raise InputError(f"the preset {preset} extends {base!r}; give the name of a preset, or a .toml file")
    if base in seen:
        raise InputError(f"the preset {preset} extends {base}, which leads back to it; take one of them out")
    return _merge(read_preset(adapter, base, extended_by=seen), tables)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with the keys of others in place of theirs; what is no table is replaced whole."""
    merged = dict(base)
    for name, table in changes.items():
        known = merged.get(name)
        merged[name] = {**known, **table} if isinstance(known, dict) and isinstance(table, dict) else table
    return merged


def _load(adapter: DatasetAdapter, preset: str) -> dict[str, Any]:
    """One preset's own tables."""
    presets = getattr(adapter, "presets", {})
    if preset in presets:
        path = Path(presets[preset])
    elif preset.endswith(".toml"):
        path = Path(preset).expanduser()
    elif preset == "default":
        return {}
    else:
        names = ", ".join(sorted(presets)) or "none"
        raise UsageError(f"{adapter.name} has no preset {preset!r}; it has {names}; a .toml file works too")
    if not path.is_file():
        raise MissingError(f"there is no preset file {path}; check the path")
    try:
        return o.load_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid TOML: {error}") from error
