"""What people are told besides an answer: that it is a guess, that a model does not know what is asked, that things touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from igm_cli.errors import counted
from igm_cli.output import Record, called

if TYPE_CHECKING:
    from igm_cli.open_model import OpenModel


NAMED = 5
"""Up to so many unknown labels are named."""

TOUCHING = 0.3
"""Overlap of contributions from which on people are warned."""


def warning(record: Record, way_out: str = "raise --k-max") -> str:
    """Returns what people are warned about in an answer; nothing where there is no need to.

    ``way_out`` says what to do where as many concepts were found as were looked for.
    """
    from igm_cli.core.inference.typicality import is_untypical

    if is_untypical(record.get("typicality")):
        return (
            f"{called(record)} is unlike what {record['model']} was trained on "
            f"(typicality {record['typicality']:.2f}); what is said of it is little more than a guess"
        )
    if record.get("k_at_maximum"):
        return (
            f"in {called(record)} as many concepts were found as were looked for, {record['k']}; there may be more, "
            f"{way_out}"
        )
    return ""


def strangers(model: OpenModel, so: str = "treat the result as a guess") -> str:
    """Returns which labels a model was not trained on, and what follows, as a sentence; empty if there are none."""
    if not model.unknown:
        return ""
    named = ", ".join(repr(label) for label in model.unknown[:NAMED])
    more = f" and {len(model.unknown) - NAMED} more" if len(model.unknown) > NAMED else ""
    return f"{model.name} was not trained on {named}{more}; {so}"


def about_drawing(models: Sequence[OpenModel]) -> list[str]:
    """Returns what people should know of models before these draw."""
    said = []
    for each in models:
        if not each.draws:
            said.append(f"{each.name} was not trained to draw; its pictures are rough")
        said.append(strangers(each, "its pictures of it are a guess"))
    return [sentence for sentence in said if sentence]


def touching(models: Sequence[OpenModel], records: Sequence[Record]) -> str:
    """Returns in how many images concepts melt together, as a sentence; empty if in none."""
    local = any(getattr(model.parser.space, "local", False) for model in models)
    number = local * sum(record["overlap"] > TOUCHING for record in records)
    return (
        f"in {number} of {counted(len(records), 'image')} concepts touch, so that they may melt into one"
        if number
        else ""
    )
