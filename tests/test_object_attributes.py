"""Concept parser ``object-attributes``, and presets of clevr that name their parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from igm_cli.commands.train_preset import Recipe, data_parts, model_spec, read_preset
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.attributes import Attributes, parse_factors
from igm_cli.plugins.base import Frame
from igm_cli.plugins.clevr.object_attributes import VALUES, ObjectAttributes
from igm_cli.plugins.object_concepts import ObjectConcepts

FRAME = Frame.fit((96, 64), 1.5)
THING = {"color": "cyan", "shape": "sphere", "size": "large", "material": "metal"}


def parsed(options: dict[str, Any], *things: dict[str, str]) -> list[dict[str, Any]]:
    parser = ObjectAttributes().configured(options)
    return parser.decode(parser.parse({"objects": list(things)}, FRAME), FRAME)


def test_what_the_only_object_is() -> None:
    assert parsed({}, THING) == [{"factor": factor, "value": THING[factor]} for factor in VALUES]
    assert parsed({"factors": "shape"}, THING) == [{"factor": "shape", "value": "sphere"}]


def test_some_factors_and_fewer_values() -> None:
    parser = ObjectAttributes().configured({"factors": "color,shape=cube|sphere"})
    assert parser.space.factors == {"color": VALUES["color"], "shape": ("cube", "sphere")}
    assert torch.equal(ObjectAttributes().configured({"factors": ["color"]}).space.candidates(), torch.eye(8))
    with pytest.raises(InputError, match="shape cannot be 'cylinder'"):
        parsed({"factors": "shape=cube|sphere"}, {**THING, "shape": "cylinder"})


@pytest.mark.parametrize("things", [(), (THING, THING)])
def test_images_of_no_or_more_objects_are_refused(things: tuple[dict[str, str], ...]) -> None:
    with pytest.raises(InputError, match="need images of one object"):
        parsed({}, *things)


def test_factors_may_be_a_table_of_their_values() -> None:
    factors = {"color": ["red", "blue"]}
    assert ObjectAttributes().configured({"factors": factors}).space.factors == {"color": ("red", "blue")}


def test_plain_factors_come_first() -> None:
    """The columns of models are in this order."""
    found = (
        ObjectAttributes().configured({"factors": "shape=cube|sphere,material,shape=cube|sphere"}).space.factors
    )
    assert list(found.items()) == [("material", ("rubber", "metal")), ("shape", ("cube", "sphere"))]


def test_factors_are_names() -> None:
    assert parse_factors(5) == {"5": ("no", "yes")}
    for parser in (Attributes(), ObjectAttributes(), ObjectConcepts()):
        with pytest.raises(UsageError, match="factors must be names with commas between them, not"):
            parser.configured({"factors": [None]})


def test_an_unknown_factor_names_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no factor 'colour'; choose from color, shape, size, material"):
        ObjectAttributes().configured({"factors": "colour"})


@pytest.mark.parametrize(
    ("preset", "parser", "values"),
    [
        ("object-position", "pos", 0),
        ("object-color", "object-attributes", 8),
        ("continual-position", "pos", 0),
        ("continual-shape", "object-attributes", 2),
        ("continual-color", "object-attributes", 8),
    ],
)
def test_presets_of_models_trained_apart_can_be_composed(preset: str, parser: str, values: int) -> None:
    """They agree on the size of images and on the schedule, and only those that stand alone leave concepts out."""
    clevr = registry.dataset("clevr")
    tables, first = read_preset(clevr, preset), read_preset(clevr, "object-position")
    assert tables.pop("parser", "pos") == parser
    first.pop("parser")
    plan, base = Recipe("p", tables, {}).preset(), Recipe("p", first, {}).preset()
    configured = registry.configured(registry.concept_parser(parser), plan.concepts)
    spec = model_spec(clevr, configured, plan, data_parts(plan, None, None))
    assert (spec.image_size, spec.schedule) == (tuple(base.model["image_size"]), model_spec(
        clevr, registry.configured(registry.concept_parser("pos"), base.concepts), base, data_parts(base, None, None)
    ).schedule)  # fmt: skip
    assert not values or configured.space.dim == values
    assert bool(plan.config().drop) == (preset == "object-color")


def test_concepts_of_another_parser_are_not_inherited(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "object-color"\nparser = "pos"\n')
    assert "concepts" not in read_preset(registry.dataset("clevr"), str(mine))
    mine.write_text('extends = "object-color"\n[train]\nsteps = 2\n')
    assert read_preset(registry.dataset("clevr"), str(mine))["concepts"] == {"factors": "color"}
