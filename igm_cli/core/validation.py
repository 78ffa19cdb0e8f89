"""Validates options from users and files: refuses what does not fit in one sentence that names the field."""

from __future__ import annotations

import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from igm_cli.errors import IgmError, InputError, UsageError, close_names, near_names

T = TypeVar("T")

LARGEST = 2**32 - 1
"""Largest whole number allowed anywhere; seeds up to it are the same on all machines."""

Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e9)]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Guidance = Annotated[float, Field(ge=1e-6, le=1000)]
"""Factor of contributions in generation."""
Sampler = Literal["ancestral", "ddim"]
"""How images are drawn from noise: ``core/sampling/reverse.py``."""
Side = Annotated[int, Field(ge=1, le=2**14)]
Size = Annotated[tuple[Side, Side], Strict(False)]
"""(width, height) in pixels; lists of JSON and TOML are accepted as well."""
Width = Annotated[int, Field(ge=1, le=2**14)]
"""Channels of a layer."""
Depth = Annotated[int, Field(ge=1, le=100)]
"""Layers one after another."""
Channels = Annotated[tuple[Width, ...], Strict(False), Field(min_length=1, max_length=16)]
Table = dict[str, Any]


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def validated(noun: str, out_of_range: type[IgmError] = InputError) -> Callable[[type[T]], type[T]]:
    """Returns a decorator that makes a frozen pydantic dataclass, which refuses values of other types.

    It only converts whole numbers to floats and lists to tuples; nan and infinity are refused.

    Args:
        noun: What users call a field, such as ``training option``.
        out_of_range: Raised for a value of the right type that is too small, too large or not a choice; anything else
            raises an :class:`InputError`.
    """

    def decorate(cls: type[T]) -> type[T]:
        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        made: Any = dataclass(cls, frozen=True, config=config)
        names = [field.name for field in dataclasses.fields(made)]
        initialise = made.__init__

        @functools.wraps(initialise)
        def init(self: Any, *values: Any, **named: Any) -> None:
            try:
                initialise(self, *values, **named)
            except ValidationError as error:
                refused = out_of_range if error.errors()[0]["type"] in _RANGE else InputError
                raise refused(sentence(error, noun, names, made)) from error

        made.__init__ = init
        return made  # type: ignore[no-any-return]

    return decorate


_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error")
_PLAINER = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid tuple": "a list",
    "a valid list": "a list",
    "a valid dictionary": "a table",
}


def sentence(error: ValidationError, noun: str, names: Sequence[str], of: Any = None) -> str:
    """Returns one sentence about the first thing that is wrong.

    ``noun`` is what users call a field, ``names`` are the known ones, ``of`` is their dataclass, if any.
    """
    first = error.errors(include_url=False)[0]
    name, kind, message = ".".join(map(str, first["loc"])), first["type"], first["msg"]
    if kind == "unexpected_keyword_argument":
        if near := close_names(name, names):
            meant = " or ".join(f"{each}{_kind(of, each)}" for each in near)
            return f"unknown {noun} {name!r}; did you mean {meant}?"
        return f"unknown {noun} {name!r}; {near_names(name, names)}"
    if kind == "missing" and isinstance(first["loc"][-1], int):
        return f"the {noun} {first['loc'][0]!r} must have {first['loc'][-1] + 1} values or more, not {shown(first['input'])}"
    if kind == "missing":
        return f"the {noun} {name!r} is missing; add it"
    if kind == "value_error":  # from a check of our own, which says everything
        return str(first["ctx"]["error"])
    if not message.startswith("Input should be "):
        return f"the {noun} {name!r} cannot be {shown(first['input'])}: {message}"
    return f"the {noun} {name!r} must be {wanted(message)}, not {shown(first['input'])}"


def wanted(message: str) -> str:
    """Returns what pydantic says an input should be, in plain words."""
    plain = re.sub(r", (got|unable) .*", "", message.removeprefix("Input should be "))
    for theirs, ours in _PLAINER.items():
        plain = plain.replace(theirs, ours)
    return plain


def _kind(of: Any, name: str) -> str:
    """Returns in parentheses what the values of a field are, if few words can say it."""
    try:
        field = TypeAdapter(of).json_schema()["properties"][name]
    except Exception:  # pydantic has no schema for every type
        return ""
    what = _KINDS.get(field.get("type", ""), "")
    if "enum" in field:
        what = f"one of {', '.join(map(str, field['enum']))}"
    return f" ({what})" if what else ""


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
}


def shown(value: Any, most: int = 60) -> str:
    """Returns a value as Python writes it, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def whole_number(name: str, value: Any, least: int | None = None) -> int | None:
    """Returns an argument as an int; numpy's integers are numbers, too, and None stays."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UsageError(f"{name} must be a whole number, not {shown(value, 40)}") from error
    if isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, not {value}")
    if least is not None and number < least:
        raise UsageError(f"{name} must be {least} or more, not {number}")
    return number


def reporter(progress: Any) -> Callable[[str, int, int], None]:
    """Returns what is called with progress: the function given, or one that does nothing."""
    if progress and not callable(progress):
        raise UsageError(f"progress is a function of (what, done, total), such as print, not {shown(progress)}")
    return progress or (lambda what, done, total: None)


def texts(name: str, value: Any) -> list[str]:
    """Returns an argument that is a list of text; raises a :class:`UsageError` if it is not, or text itself."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        listed = list(value)
        if all(isinstance(each, str) for each in listed):
            return listed
    raise UsageError(f"{name} must be a list of text, such as ['cat', 'dog'], not {shown(value)}")


def of_python(value: Any) -> Any:
    """Returns a number of numpy as one of Python; all else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
