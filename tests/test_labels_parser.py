"""The concept parser of labels, and its picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from igm_cli.commands.zero_shot import read_labels
from igm_cli.core.concepts import Text
from igm_cli.core.names import names_option
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.labels.parser import TEMPLATES, Labels
from igm_cli.plugins.overlays import DOUBTFUL, HEIGHT, LINE, SURE

FRAME = Frame.fit((40, 30), 1.0)
PETS = Labels(("dog", "cat", "polar bear"))

names = st.text(min_size=1, max_size=12).filter(str.strip)
vocabularies = st.lists(names, min_size=1, max_size=8, unique=True)


@st.composite
def chosen(draw: st.DrawFn) -> tuple[Labels, list[str]]:
    labels = draw(vocabularies)
    return Labels(labels), draw(st.lists(st.sampled_from(labels), max_size=8, unique=True))


def test_quotation_marks_keep_commas_within_a_label() -> None:
    assert PETS.configured({"labels": 'dog, "cat, grey"'}).labels == ("dog", "cat, grey")
    assert read_labels('dog,"cat, grey"', None) == ("dog", "cat, grey")
    assert names_option("labels", 'dog,"cat, grey"') == ("dog", "cat, grey")
    with pytest.raises(UsageError, match="quotation marks that enclose no whole name"):
        read_labels('dog,"cat', None)


def test_labels_with_control_characters_are_refused() -> None:
    with pytest.raises(InputError, match=r"'cat\\x1b' is not text"):
        PETS.configured({"labels": ["cat\x1b", "dog"]})


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="concepts labels need a column 'labels' with"):
        PETS.parse({"objects": []}, FRAME)


@given(chosen())
def test_decoding_undoes_encoding(case: tuple[Labels, list[str]]) -> None:
    parser, labels = case
    items = [{"label": label} for label in labels]
    concepts = parser.encode(items, FRAME)
    assert concepts.shape == (len(items), len(parser.labels))
    assert parser.decode(concepts, FRAME) == items
    assert torch.equal(parser.encode(parser.decode(concepts, FRAME), FRAME), concepts)
    assert torch.equal(parser.mirror(concepts), concepts)
    assert parser.score(concepts, concepts.flip(0)) == {"exact": 1.0, "recall": float(bool(labels))}


@given(chosen(), st.integers(0, 7))
def test_examples_are_sets(case: tuple[Labels, list[str]], repeated: int) -> None:
    parser, labels = case
    twice = [*labels, *labels[:repeated]]
    assert torch.equal(
        parser.parse({"labels": twice}, FRAME), parser.encode([{"label": x} for x in labels], FRAME)
    )


def test_scores() -> None:
    def score(found: list[str], true: list[str]) -> dict[str, float]:
        return PETS.score(PETS.parse({"labels": found}, FRAME), PETS.parse({"labels": true}, FRAME))

    assert score(["dog", "cat"], ["cat", "dog"]) == {"exact": 1.0, "recall": 1.0}
    assert score(["dog"], ["cat", "dog"]) == {"exact": 0.0, "recall": 0.5}
    assert score(["dog", "cat", "polar bear"], ["dog"]) == {"exact": 0.0, "recall": 1.0}
    assert score([], []) == {"exact": 1.0, "recall": 0.0}


def test_options_are_a_comma_list_or_a_list() -> None:
    for labels in ("dog, polar bear", ["dog", "polar bear"]):
        parser = PETS.configured({"labels": labels, "templates": "{label}!"})
        assert parser.space == Text(("dog", "polar bear"), ("{label}!",))
    assert PETS.configured({}).space == Text(PETS.labels, TEMPLATES)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"labels": "dog,,cat"}, "empty"),
        ({"labels": ["dog", "dog"]}, "differ"),
        ({"labels": 3}, "cannot be used"),
        ({"templates": ["a photo"]}, "{label}"),
        ({"templates": []}, "{label}"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PETS.configured(options)


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean polar bear"):
        PETS.encode([{"label": "polar bears"}], FRAME)


def test_it_is_a_plugin() -> None:
    parser = registry.configured(registry.concept_parser("labels"), {"labels": ["dog", "cat"]})
    assert isinstance(parser.space, Text) and parser.space.labels == ("dog", "cat")


@pytest.mark.parametrize("size", [(1, 1), (18, 22), (300, 100), (500, 600)])
@pytest.mark.parametrize(("count", "sure"), [(0, None), (1, float("nan")), (3, 0.0), (25, 1.0)])
def test_labels_are_written_beside_the_image(size: tuple[int, int], count: int, sure: float | None) -> None:
    image = Image.new("RGB", size, (200, 0, 0))
    items = [{"label": f"label {i}", "confidence": sure} for i in range(count)]
    drawn = PETS.draw(image, items)
    shown = max(HEIGHT, size[1])
    width = round(size[0] * shown / size[1])
    assert drawn.height == max(shown, LINE * count) and drawn.width > width
    assert drawn.crop((0, 0, width, shown)).getcolors() == [(width * shown, (200, 0, 0))]
    beside = drawn.crop((width, 0, *drawn.size)).getcolors(drawn.width * drawn.height)
    assert (len(beside) > 1) == (count > 0)


def test_the_bar_is_as_long_as_the_label_is_sure() -> None:
    def coloured(sure: float, color: tuple[int, int, int]) -> int:
        """Pixels of the row below the text that are of a colour."""
        drawn = PETS.draw(Image.new("L", (64, 64)), [{"label": "i", "confidence": sure}])
        row = drawn.height // 2 + round(drawn.height / 6 * 0.4)
        return sum(drawn.getpixel((x, row)) == color for x in range(drawn.width))

    half, whole = coloured(0.5, DOUBTFUL), coloured(1.0, SURE)
    assert whole > 100 and abs(half - whole / 2) < 2
    assert coloured(0.5, SURE) == coloured(1.0, DOUBTFUL) == 0
