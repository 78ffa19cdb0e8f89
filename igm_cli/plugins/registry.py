"""Plugins by name: listed from package metadata without an import, loaded when used, in isolation."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from igm_cli.errors import IgmError, PluginError, UsageError, kind_and_message, near_names

if TYPE_CHECKING:
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter

Kind: TypeAlias = Literal["datasets", "concepts", "benchmarks"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NOUNS = {"datasets": "dataset", "concepts": "concept parser", "benchmarks": "benchmark"}
_NEEDS = {
    "datasets": ("name", "licence", "source", "splits", "image_size", "concepts", "load"),
    "concepts": ("name", "space", "parse", "encode", "decode", "mirror", "score", "draw"),
    "benchmarks": ("name", "methods", "splits", "options", "concepts", "default_splits", "open"),
}


@dataclass(frozen=True)
class Listing:
    """A plugin as package metadata names it; nothing of it is imported."""

    kind: Kind  # its group without the prefix
    name: str  # its name on the command line
    target: str  # ``package.module:attribute``
    packages: tuple[str, ...]  # distributions that offer the name; more than one is a conflict


def listings(kind: Kind) -> list[Listing]:
    """Returns all plugins of a kind, sorted by name, none of them imported."""
    return [_listing(kind, name, points) for name, points in sorted(_points(kind).items())]


def dataset(name: str, *, typed: bool = False) -> DatasetAdapter:
    """Returns the dataset adapter of a name, as :func:`load` takes it."""
    return cast("DatasetAdapter", load("datasets", name, typed=typed))


def concept_parser(name: str, *, typed: bool = False) -> ConceptParser:
    """Returns the concept parser of a name, as :func:`load` takes it."""
    return cast("ConceptParser", load("concepts", name, typed=typed))


def configured(parser: ConceptParser, options: Mapping[str, Any]) -> ConceptParser:
    """Returns a concept parser with options, as presets and checkpoints hold them; without any, the parser itself."""
    known = list(getattr(parser, "options", {}))
    for name in options:
        if name not in known:
            raise UsageError(f"the concepts {parser.name!r} have no option {name!r}; {near_names(name, known)}")
    if not options:
        return parser
    plugin: Any = parser.configured(options)  # type: ignore[attr-defined]
    if isinstance(parser, _Guarded):
        plugin = _Guarded(plugin, parser._label, parser._way_out)
    return cast("ConceptParser", plugin)


def load(kind: Kind, name: str, *, typed: bool = False) -> Any:
    """Imports a plugin; a class is instantiated.

    Args:
        kind: Its group without the prefix.
        name: A listed name, or ``package.module:attribute``.
        typed: Whether a user typed the name.  Only then may it be ``package.module:attribute``: a name that stands in
            a checkpoint or another file must not choose the code that is run.
    """
    if ":" in name:
        if not typed:
            raise PluginError(
                f"{name!r} is no name of an installed {_NOUNS[kind]}, and a file must not name code to run; "
                "if you trust it, install it as a plugin"
            )
        return _resolve(kind, EntryPoint(name, name, f"igm_cli.{kind}"), "")
    points = _points(kind)
    if name not in points:
        near = near_names(name, sorted(points))
        raise PluginError(
            f"unknown {_NOUNS[kind]} {name!r}; {near} (igm plugins lists all; package.module:attribute works too)"
        )
    found = _listing(kind, name, points[name])
    if len(found.packages) > 1:
        raise PluginError(
            f"the {_NOUNS[kind]} {name!r} is offered by two packages, {' and '.join(found.packages)}; "
            f"uninstall one, or name it as package.module:attribute"
        )
    return _resolve(kind, points[name][0], found.packages[0])


def _points(kind: Kind) -> dict[str, list[EntryPoint]]:
    """Returns entry points by name; the same target of the same package counts once.

    A package can be found twice (a checkout on the path beside its installation), which is no conflict.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"igm_cli.{kind}"):
        same = found.setdefault(point.name, [])
        if not any((p.value, _package(p)) == (point.value, _package(point)) for p in same):
            same.append(point)
    return found


def _package(point: EntryPoint) -> str:
    """Returns the distribution that an entry point belongs to."""
    if point.dist is not None:
        return str(point.dist.name)
    return point.value.partition(":")[0].partition(".")[0]


def _listing(kind: Kind, name: str, points: Sequence[EntryPoint]) -> Listing:
    targets = " and ".join(point.value for point in points)
    return Listing(kind, name, targets, tuple(sorted(_package(point) for point in points)))


def _resolve(kind: Kind, point: EntryPoint, package: str) -> Any:
    label = f"the {_NOUNS[kind]} {point.name!r}"
    owner = f"package {package}" if package else "that module"
    way_out = f"update or uninstall {package}" if package else "correct the module or its name"
    module, _, attribute = point.value.partition(":")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            plugin: Any = importlib.import_module(module.strip())
            for part in attribute.split("[")[0].strip().split("."):
                plugin = getattr(plugin, part)
            if isinstance(plugin, type):
                plugin = plugin()
        missing = [need for need in _NEEDS[kind] if not hasattr(plugin, need)]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a plugin does, SystemExit included, is its own problem
        raise PluginError(
            f"{label} of {owner} cannot be loaded ({kind_and_message(error)}); {way_out}"
        ) from error
    if missing:
        raise PluginError(f"{label} of {owner} is no {_NOUNS[kind]}: it has no {', '.join(missing)}; {way_out}")
    return _Guarded(plugin, f"{label} of {owner}", way_out)


class _Guarded:
    """A plugin whose methods fail with a :class:`PluginError` that names its package."""

    def __init__(self, plugin: Any, label: str, way_out: str) -> None:
        self._plugin, self._label, self._way_out = plugin, label, way_out

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_plugin", "_label", "_way_out"):  # being copied or pickled
            raise AttributeError(name)
        value = getattr(self._plugin, name)
        if not (inspect.isroutine(value) and callable(value)):
            return value

        @functools.wraps(value)
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return value(*arguments, **options)
            except (IgmError, MemoryError):
                raise
            except Exception as error:
                if type(error).__name__ == "OutOfMemoryError":
                    raise
                reason = f"{self._label} fails in {name} ({kind_and_message(error)})"
                raise PluginError(f"{reason}; {self._way_out}") from error

        return call
