"""Plugins by name: listed from package metadata without importing them, loaded on use, in isolation.

Faults of another package's plugin are contained and reported with its name: any exception, ``SystemExit`` included, output
to stdout, and invalid answers (:mod:`igm_cli.plugins.answers`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from igm_cli.errors import IgmError, PluginError, UsageError, kind_and_message, near_names
from igm_cli.interrupts import Interrupted

if TYPE_CHECKING:
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter

Kind: TypeAlias = Literal["datasets", "concepts", "benchmarks"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NOUNS = {"datasets": "dataset", "concepts": "concept parser", "benchmarks": "benchmark"}
_NEEDS = {
    "datasets": ("name", "licence", "source", "splits", "image_size", "concepts", "load"),
    "concepts": ("name", "space", "parse", "encode", "decode", "mirror", "score", "draw"),
    "benchmarks": ("name", "summary", "methods", "splits", "options", "concepts", "default_splits", "open"),
}
_OF_LOAD = ("data_root", "limit", "seed", "progress", "note")
"""What ``load`` of every dataset takes besides the dataset's own options."""

_DISTRIBUTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,60}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Listing:
    """A plugin as package metadata lists it, not imported."""

    kind: Kind  # its group without the prefix
    name: str  # its name on the command line
    target: str  # ``package.module:attribute``
    packages: tuple[str, ...]  # distributions that offer the name; more than one is a conflict


def listings(kind: Kind) -> list[Listing]:
    """Returns all plugins of a kind, sorted by name, without importing them."""
    return [_listing(kind, name, points) for name, points in sorted(_points(kind).items())]


def dataset(name: str, *, typed: bool = False) -> DatasetAdapter:
    """Returns the dataset adapter of a name, as :func:`load` takes it."""
    return cast("DatasetAdapter", load("datasets", name, typed=typed))


def concept_parser(name: str, *, typed: bool = False) -> ConceptParser:
    """Returns the concept parser of a name, as :func:`load` takes it."""
    return cast("ConceptParser", load("concepts", name, typed=typed))


def configured(parser: ConceptParser, options: Mapping[str, Any]) -> ConceptParser:
    """Returns a concept parser with options, as presets and checkpoints hold them; without any, the parser itself."""
    refuse_unknown(options, list(getattr(parser, "options", {})), f"the concepts {parser.name!r} have")
    if not options:
        return parser
    plugin: Any = parser.configured(options)  # type: ignore[attr-defined]
    if isinstance(parser, _Guarded):
        plugin = _Guarded(plugin, parser._kind, parser._label, parser._way_out, parser._foreign)
    return cast("ConceptParser", plugin)


def load(kind: Kind, name: str, *, typed: bool = False) -> Any:
    """Imports a plugin; a class is instantiated.

    Args:
        kind: Its group without the prefix.
        name: A listed name, or ``package.module:attribute``.
        typed: Whether a user typed the name.  Only then may it be ``package.module:attribute``: a name in a checkpoint
            or another file must not choose the code that is run.
    """
    points = _points(kind)
    if ":" in name and name not in points:
        if not typed:
            raise PluginError(
                f"{name!r} is not the name of an installed {_NOUNS[kind]}, and a file must not name code to run; "
                "if you trust it, install it as a plugin"
            )
        return _resolve(kind, EntryPoint(name, name, f"igm_cli.{kind}"), "")
    if name not in points:
        near = near_names(name, sorted(points))
        raise PluginError(
            f"unknown {_NOUNS[kind]} {name!r}; {near} (igm plugins lists all; package.module:attribute works too)"
        )
    found = _listing(kind, name, points[name])
    if len(found.packages) > 1:
        raise PluginError(
            f"the {_NOUNS[kind]} {name!r} is offered by several packages, {' and '.join(found.packages)}; "
            f"uninstall one, or name it as package.module:attribute"
        )
    return _resolve(kind, points[name][0], found.packages[0])


def package_of(kind: Kind, name: str) -> str:
    """Returns the distribution that a listed plugin belongs to; empty for igm's own plugins, and if there is no such plugin."""
    others = [point for point in _points(kind).get(name, ()) if not _built_in(point)]
    return _package(others[0]) if others else ""


def package_said(info: Mapping[str, Any], kind: Kind) -> str:
    """Returns the distribution of a plugin that a model's description names; empty if none, or if that is not a valid name."""
    said = info.get("plugins")
    name = said.get(kind) if isinstance(said, Mapping) else None
    return name if isinstance(name, str) and _DISTRIBUTION.fullmatch(name) else ""


def _points(kind: Kind) -> dict[str, list[EntryPoint]]:
    """Returns entry points by name; the same target of the same package counts once.

    A package can be found twice (a checkout on the path and its installation), which is no conflict.  If another package
    claims the name of a built-in plugin, the built-in one keeps it, and the other is listed by its target,
    ``package.module:attribute``.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"igm_cli.{kind}"):
        same = found.setdefault(point.name, [])
        if not any((p.value, _package(p)) == (point.value, _package(point)) for p in same):
            same.append(point)
    for points in list(found.values()):
        if any(map(_built_in, points)):
            for other in [point for point in points if not _built_in(point)]:
                points.remove(other)
                found.setdefault(other.value, []).append(other)
    return found


def _built_in(point: EntryPoint) -> bool:
    """Returns whether an entry point is one of igm's own."""
    return point.value.startswith("igm_cli.")


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
    module, _, attribute = (part.strip() for part in point.value.partition("[")[0].partition(":"))
    if not (module and attribute):
        raise PluginError(
            f"{label} of {owner} is said to be at {point.value!r}; write package.module:attribute"
        )
    foreign = not _built_in(point)
    try:
        with _quiet(foreign):
            plugin: Any = importlib.import_module(module)
            for part in attribute.split("."):
                plugin = getattr(plugin, part)
            if isinstance(plugin, type):
                plugin = plugin()
            missing = [need for need in _NEEDS[kind] if not hasattr(plugin, need)]
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # whatever a plugin does, SystemExit included, is its own problem
        raise PluginError(f"{label} of {owner} cannot be loaded ({_told(error, module)}); {way_out}") from error
    if missing:
        raise PluginError(
            f"{label} of {owner} is not a {_NOUNS[kind]}: it has no {', '.join(missing)}; {way_out}"
        )
    return _Guarded(plugin, kind, f"{label} of {owner}", way_out, foreign)


class _Guarded:
    """A plugin whose methods and attributes fail with a :class:`PluginError` that names its package.

    Plugins of other packages cannot write to stdout, which is for results, and their answers are checked.
    """

    def __init__(self, plugin: Any, kind: Kind, label: str, way_out: str, foreign: bool) -> None:
        self._plugin, self._kind, self._label = plugin, kind, label
        self._way_out, self._foreign = way_out, foreign

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_plugin", "_kind", "_label", "_way_out", "_foreign"):
            raise AttributeError(name)  # it is being copied or pickled
        with self._contained(name):
            value = getattr(self._plugin, name)
        if not (inspect.isroutine(value) and callable(value)) or (self._foreign and self._is_attribute(name)):
            self._look_at(name, (), value)
            return value

        @functools.wraps(value)
        def call(*arguments: Any, **options: Any) -> Any:
            if (
                self._foreign
                and (self._kind, name) == ("datasets", "load")
                and hasattr(self._plugin, "options")
            ):
                given = [each for each in options if each not in _OF_LOAD]
                refuse_unknown(given, [*self._plugin.options], f"{self._plugin.name} has")
            with self._contained(name):
                answer = value(*arguments, **options)
            self._look_at(name, arguments, answer)
            return self._each(name, answer) if inspect.isgenerator(answer) else answer

        return call

    def _each(self, name: str, answers: Iterator[Any]) -> Iterator[Any]:
        """Yields what a generator of the plugin does, whose code runs only now."""
        while True:
            with self._contained(name):
                answer = next(answers, answers)
            if answer is answers:
                return
            yield answer

    @contextlib.contextmanager
    def _contained(self, name: str) -> Iterator[None]:
        try:
            with _quiet(self._foreign):
                yield
        except (IgmError, MemoryError, KeyboardInterrupt, Interrupted):
            raise
        except BaseException as error:
            absent = isinstance(error, AttributeError) and not hasattr(type(self._plugin), name)
            if (absent and name not in vars(self._plugin)) or type(error).__name__ == "OutOfMemoryError":
                raise
            reason = f"{self._label} fails in {name} ({_told(error, type(self._plugin).__module__)})"
            raise PluginError(f"{reason}; {self._way_out}") from error

    def _is_attribute(self, name: str) -> bool:
        """Returns whether a name is not to be called: a method of that name is a mistake, which :meth:`_look_at` tells."""
        from igm_cli.plugins.answers import ATTRIBUTES

        return (self._kind, name) in ATTRIBUTES

    def _look_at(self, name: str, arguments: Sequence[Any], answer: Any) -> None:
        if not self._foreign:
            return
        from igm_cli.plugins.answers import fault_of

        if fault := fault_of(self._kind, name, arguments, answer, self._plugin):
            raise PluginError(f"{self._label} fails: its {name} {fault}; {self._way_out}")


def refuse_unknown(options: Iterable[str], known: Sequence[str], whose: str) -> None:
    """Refuses an option that a dataset or a concept parser does not have; ``whose`` is it with "has" or "have"."""
    for name in options:
        if name not in known:
            raise UsageError(f"{whose} no option {name!r}; {near_names(name, known)}")


def _told(error: BaseException, module: str) -> str:
    """Returns what an error says, and the last line of a plugin's package that it went through."""
    told = kind_and_message(error)
    package = module.partition(".")[0]
    own = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if {package, f"{package}.py"} & {*Path(f.filename).parts}
    ]
    return f"{told}, in line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else told


@contextlib.contextmanager
def _quiet(foreign: bool) -> Iterator[None]:
    """Sends what another package writes to stdout, by any means, to stderr."""
    if not foreign:
        yield
        return
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # there is no such stream
        kept = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)
