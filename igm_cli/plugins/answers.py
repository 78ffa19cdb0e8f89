"""Checks the answers of other packages' plugins before they enter a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.errors import counted


def fault_of(kind: str, name: str, arguments: Sequence[Any], answer: Any, plugin: Any) -> str:
    """Returns what is wrong with an attribute of a plugin, or with what a method answered to arguments; empty if nothing is.

    Only ``datasets`` and ``concepts`` are checked.
    """
    look = ATTRIBUTES.get((kind, name)) or _METHODS.get((kind, name))
    return look(answer, arguments, plugin) if look else ""


def _unless(right: Any, verb: str, answer: Any, wanted: str) -> str:
    """Returns that an answer is, or a method returned, something else than wanted; empty if it is right."""
    return "" if right else f"{verb} {_shown(answer)}, not {wanted}"


def _is_text(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    return _unless(isinstance(answer, str) and answer, "is", answer, "a name")


def _is_splits(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    right = isinstance(answer, list | tuple) and answer and all(isinstance(each, str) for each in answer)
    return _unless(right, "is", answer, "the names of splits")


def _is_size(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    right = (
        isinstance(answer, list | tuple)
        and len(answer) == 2
        and all(type(each) is int and 1 <= each <= 2**14 for each in answer)
    )
    return _unless(right, "is", answer, "(width, height)")


def _is_space(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    return _unless(hasattr(answer, "to_dict") and hasattr(answer, "dim"), "is", answer, "a concept space")


def _is_dataset(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    if not (hasattr(answer, "column_names") and hasattr(answer, "__len__")):
        return f"returned {_shown(answer)}, not a datasets.Dataset"
    if not {"image", "vector"} & {*answer.column_names}:
        return f"returned a dataset without a column 'image'; it has {', '.join(answer.column_names)}"
    if "image" in answer.column_names and len(answer) and not hasattr(image := answer[0]["image"], "convert"):
        kind = type(image).__name__
        return f"returned images that are not decoded ({kind}); cast the column to datasets.Image(), or give PIL images"
    return ""


def _is_rows(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    dim = plugin.space.dim
    if not hasattr(answer, "isfinite") or answer.ndim != 2 or answer.shape[1] != dim:
        empty = hasattr(answer, "numel") and answer.numel() == 0
        return f"returned {_shown(answer)}, not a tensor [{0 if empty else 'K'}, {dim}]"
    if not answer.is_floating_point():
        return f"returned numbers of the type {str(answer.dtype).removeprefix('torch.')}, not float32"
    return "" if bool(answer.isfinite().all()) else "returned numbers that are not finite"


def _is_asked(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    if fault := _is_rows(answer, arguments, plugin):
        return fault
    inside = plugin.space.clamp(answer) if hasattr(plugin.space, "clamp") else answer
    outside = answer[answer != inside].tolist()
    return f"returned a concept outside its space: {outside[0]:g} is not within its bounds" if outside else ""


def _is_alike(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    shape = tuple(arguments[0].shape)
    if not hasattr(answer, "isfinite") or tuple(answer.shape) != shape:
        return f"returned {_shown(answer)}, not a tensor {list(shape)}"
    return "" if bool(answer.isfinite().all()) else "returned numbers that are not finite"


def _is_right(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    values = len(plugin.space.variant_groups()) if hasattr(plugin.space, "variant_groups") else 0
    shape = [len(arguments[0]), 1 + values]
    right = hasattr(answer, "isfinite") and [*answer.shape] == shape
    return _unless(
        right, "returned", answer, f"a tensor {shape}: whether each is right, and each of its values"
    )


def _is_items(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    if not isinstance(answer, list) or not all(isinstance(item, Mapping) for item in answer):
        return f"returned {_shown(answer)}, not a list of items"
    if getattr(plugin, "reads", "images") == "images" and len(answer) != len(arguments[0]):
        return f"returned {counted(len(answer), 'item')} for {counted(len(arguments[0]), 'concept')}"
    wrong = next((fault for item in answer if (fault := _no_json(item))), "")
    return f"returned an item with {wrong}" if wrong else ""


def _is_scores(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    if not isinstance(answer, Mapping) or not all(isinstance(name, str) for name in answer):
        return f"returned {_shown(answer)}, not scores by name"
    for name, value in answer.items():
        if not (value is None or (isinstance(value, int | float) and math.isfinite(value))):
            return f"returned {_shown(value)} as {name!r}, not a number"
    return ""


def _is_picture(answer: Any, arguments: Sequence[Any], plugin: Any) -> str:
    return _unless(hasattr(answer, "save") and hasattr(answer, "size"), "returned", answer, "a picture")


def _no_json(value: Any) -> str:
    """Returns what part of a value JSON cannot hold; empty if there is none."""
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            return f"the key {_shown(wrong[0])}, which is not text"
        return next((fault for each in value.values() if (fault := _no_json(each))), "")
    if isinstance(value, list | tuple):
        return next((fault for each in value if (fault := _no_json(each))), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"the number {value}"
    plain = value is None or isinstance(value, str | bool | int | float)
    return "" if plain else f"{_shown(value)}, which JSON cannot hold"


def _shown(value: Any) -> str:
    """Returns what kind of value it is, briefly."""
    if hasattr(value, "isfinite") and hasattr(value, "shape"):
        return f"a tensor {list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {str(value)[:30]}"
    text = str(value) if isinstance(value, str | bool | int | float | type(None)) else ""
    return f"{type(value).__name__} {text[:30]}".strip()


ATTRIBUTES = {
    ("datasets", "name"): _is_text, ("datasets", "concepts"): _is_text, ("datasets", "splits"): _is_splits,
    ("datasets", "image_size"): _is_size, ("concepts", "name"): _is_text, ("concepts", "space"): _is_space,
}  # fmt: skip
_METHODS = {
    ("datasets", "load"): _is_dataset, ("concepts", "parse"): _is_rows, ("concepts", "encode"): _is_rows,
    ("concepts", "ask"): _is_asked, ("concepts", "mirror"): _is_alike, ("concepts", "decode"): _is_items,
    ("concepts", "score"): _is_scores, ("concepts", "right"): _is_right, ("concepts", "draw"): _is_picture, ("concepts", "draw_labels"): _is_picture,
    ("concepts", "turn"): _is_alike, ("concepts", "draw_map"): _is_picture,
}  # fmt: skip
