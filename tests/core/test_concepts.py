"""Concept spaces: what they hold, what they refuse, and their JSON form."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from oracle import SQUARE, products

from igm_cli.core.concepts import Categorical, Codebook, ConceptSpace, Continuous, Product, Text

WHAT = Categorical({"a": ("no", "yes"), "b": ("1", "2", "3")})
SPACES = [
    SQUARE,
    Continuous(("z",), (-2.0,), (2.0,)),
    WHAT,
    Text(("dog", "cat"), ("a {label}", "one {label}")),
    Codebook((3, 4, 5), 64),
    Product(SQUARE, WHAT),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.kind)
def test_spaces_survive_json(space):
    data = space.to_dict()
    assert data["kind"] == space.kind
    assert ConceptSpace.from_dict(json.loads(json.dumps(data))) == space == ConceptSpace.from_dict(data)
    assert ConceptSpace.from_dict(data).dim == space.dim


def test_kinds_say_what_the_engine_needs():
    kinds = {space.kind: (space.constraint, space.countable, space.calls_per_concept) for space in SPACES}
    assert kinds == {
        "continuous": ("sparse-subset", True, 1),
        "categorical": ("one-of-each", False, 1),
        "text": ("any-set", True, 2),  # templates
        "codebook": ("", True, 1),
        "product": ("sparse-subset", True, 1),
    }
    assert [space.dim for space in SPACES] == [2, 1, 5, 2, 64, 7]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Categorical({"a": ("yes",)}), "two different values"),
        (lambda: Categorical({"a": ("yes", "yes")}), "two different values"),
        (lambda: Continuous(("x",), (1.0,), (0.0,)), "below"),
        (lambda: Continuous(("x",), (1.0,), (1.0,)), "below"),
        (lambda: Continuous(("x", "y"), (0.0,), (1.0,)), "one name, low and high"),
        (lambda: Continuous((), (), ()), "one name, low and high"),
        (lambda: Text(()), "must not be empty"),
        (lambda: Text(("dog", " ")), "must not be empty"),
        (lambda: Text(("dog", "dog")), "differ"),
        (lambda: Text(("dog",), ("a photo",)), "label"),
        (lambda: Text(("dog",), ()), "label"),
        (lambda: Codebook((3,), 8), "two or more"),
        (lambda: Codebook((3, 1), 8), "two or more"),
        (lambda: Codebook((3, 3), 0), "coordinate"),
        (lambda: ConceptSpace.from_dict({"kind": "fuzzy"}), "unknown concept space 'fuzzy'"),
        (lambda: ConceptSpace.from_dict({}), "unknown concept space"),
        (lambda: ConceptSpace.from_dict({"kind": "continuous", "names": ["x"]}), "low"),
        (lambda: ConceptSpace.from_dict({"kind": "continuous", "names": 3, "low": [0], "high": [1]}), "names"),
        (
            lambda: ConceptSpace.from_dict({"kind": "product", "where": {"kind": "nowhere"}, "what": {}}),
            "nowhere",
        ),
    ],
)
def test_impossible_spaces_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_grids_cover_the_box():
    space = Continuous(("x", "y"), (-1.0, 0.0), (1.0, 4.0))
    grid = space.grid((4, 2))
    assert grid.shape == (8, 2)
    assert grid[[0, 1, 4]].tolist() == [[-0.75, 1.0], [-0.25, 1.0], [-0.75, 3.0]]
    assert space.clamp(torch.tensor([[-3.0, 9.0], [0.5, 0.5]])).tolist() == [[-1.0, 4.0], [0.5, 0.5]]
    assert space.extent.tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="needs 2 counts"):
        space.grid((4,))


def test_halfway_lies_between_the_points_of_a_grid():
    space = Continuous(("x", "y"), (-1.0, 0.0), (1.0, 4.0))
    torch.testing.assert_close(
        space.between((4, 2)), space.clamp(space.grid((4, 2)) + torch.tensor([0.25, 1.0]))
    )
    assert space.between((4, 2))[-1].tolist() == [1.0, 4.0]  # the last ones end at the border
    assert SQUARE.between((1, 3)).shape == (3, 2)


def test_points_have_no_variants():
    assert SQUARE.variants(torch.rand(3, 4, 2)).shape == (3, 4, 0, 2) and SQUARE.variant_groups() == []
    assert SQUARE.point is SQUARE


def test_factors_have_groups_of_values():
    assert WHAT.groups() == [[0, 1], [2, 3, 4]] and torch.equal(WHAT.candidates(), torch.eye(5))


def test_labels_stand_in_templates():
    text = Text(("dog", "cat"), ("a {label}", "{label} and {label}"))
    assert text.prompts(1) == ("a cat", "cat and cat") and text.calls_per_concept == 2
    assert torch.equal(text.candidates(), torch.eye(2))


def test_products_are_points_with_one_value_of_each_factor():
    space = Product(SQUARE, WHAT)
    every = space.combinations()
    expected = [[0, 0, 0, 0, 0] for _ in range(6)]
    for row, (a, b) in zip(expected, itertools.product((0, 1), (2, 3, 4)), strict=True):
        row[a] = row[b] = 1
    assert every.tolist() == expected
    grid = space.grid((3, 2))
    assert grid.shape == (36, 7) and space.local
    for point, rows in zip(SQUARE.grid((3, 2)), grid.split(6), strict=True):
        assert torch.equal(rows[:, :2], point.expand(6, 2)) and torch.equal(rows[:, 2:], every)
    halfway = space.between((3, 2))
    assert torch.equal(halfway[::6, :2], SQUARE.between((3, 2))) and torch.equal(halfway[:6, 2:], every)
    moved = space.clamp(torch.tensor([[-1.0, 2.0, 0, 1, 0, 0, 1]]))
    assert moved.tolist() == [[0, 1, 0, 1, 0, 0, 1]]
    assert space.point is SQUARE


def test_variants_of_products_exchange_one_value():
    space = Product(SQUARE, WHAT)
    concept = torch.tensor([0.3, 0.6, 0, 1, 1, 0, 0])
    variants = space.variants(concept[None, None])[0, 0]
    torch.testing.assert_close(variants[:, :2], concept[:2].expand(5, 2))
    assert variants[:, 2:].tolist() == [
        [1, 0, 1, 0, 0], [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0, 1, 0, 0, 1],
    ]  # fmt: skip
    assert space.variant_groups() == [[0, 1], [2, 3, 4]]


def test_a_mixture_takes_the_place_of_values_that_are_not_known():
    space = Product(SQUARE, WHAT)
    concept = torch.tensor([0.3, 0.6, 0, 1, 1, 0, 0])
    found = space.mixed(concept.expand(2, 7), torch.tensor([[False, True], [True, False]]))
    third = 1 / 3
    torch.testing.assert_close(
        found, torch.tensor([[0.3, 0.6, 0, 1, third, third, third], [0.3, 0.6, 0.5, 0.5, 1, 0, 0]])
    )


def test_of_many_combinations_each_value_is_scanned_with_a_mixture_of_the_others():
    many = products(colours=6, stripes=3).space
    rows = many.combinations()
    assert many.mixes and rows.shape == (9, 9) and many.grid((3, 2)).shape == (54, 11)
    torch.testing.assert_close(rows[:6], torch.cat([torch.eye(6), torch.full((6, 3), 1 / 3)], 1))
    torch.testing.assert_close(rows[6:], torch.cat([torch.full((3, 6), 1 / 6), torch.eye(3)], 1))
    few = products(colours=8, stripes=2).space
    assert len(few.combinations()) == Product.MOST_SCANNED == 16 and not few.mixes
    huge = Product(SQUARE, Categorical({f"f{i}": tuple("0123456789") for i in range(12)}))
    assert huge.combinations().shape == (120, 120)


def test_an_image_holds_all_labels_at_most_and_any_number_of_points() -> None:
    assert Text(("a", "b", "none"), ("{label}",), "none").most == 2 and Text(("a", "b"), ("{label}",)).most == 2
    assert Continuous(("x",), (0.0,), (1.0,)).most is None
