"""Results: the return values of library calls, which commands print as JSON lines.

Their JSON schemas are under ``igm_cli/schemas`` (:mod:`igm_cli.commands.schemas`).
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, with_config
from typing_extensions import NotRequired, TypedDict

from igm_cli.core.validation import Sampler
from igm_cli.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Count = Annotated[int, Field(ge=0)]
OneOrMore = Annotated[int, Field(ge=1)]
Pixels = Annotated[list[OneOrMore], Field(min_length=2, max_length=2)]
Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1.000001, le=1.000001)]
Confidence = Annotated[
    Probability | None,
    Field(description="Probability that the item belongs there; null where the method gives none (sgd)."),
]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Root = Annotated[str | None, Field(description="Folder that a relative path starts from; absent of others.")]
Discriminative = Annotated[
    Literal[True] | None,
    Field(
        description="True if the model was also trained to tell concepts apart (a contrast, a read-out), not by the denoising "
        "objective alone.",
    ),
]
Run = Annotated[
    str,
    Field(
        pattern="^[0-9a-f]{16}$",
        description="Fingerprint of the model and the settings; results of the same configuration share it.",
    ),
]

NO_IMAGE = (
    "a result from another process or a file has no image to draw on; draw it where the image was inverted"
)

SHOWN = (
    "image", "frame", "input", "vector", "expression", "index", "model", "k", "k_source", "typicality", "similarity", "items",
)  # fmt: skip
"""Fields that the repr of a result shows."""

MOST_SHOWN = 5
"""Items that it shows."""


class CurvePoint(TypedDict):
    """The error under the best k concepts."""

    k: Count
    error: float | None
    stderr: Annotated[float | None, Field(description="Standard error of the difference to the chosen K.")]


class Position(TypedDict):
    """Where something is in the image as given."""

    x: Annotated[float, Field(description="0..1 of the width of the image as given.")]
    y: float
    x_px: float
    y_px: float
    confidence: Confidence


class PositionWithValues(Position):
    """Where something is in the image as given, and what."""

    values: Annotated[dict[str, str], Field(description="Name of every factor to its value.")]
    value_confidence: NotRequired[
        Annotated[
            dict[str, Probability],
            Field(description="Probability of each value among those of its factor, all else held."),
        ]
    ]


class Attribute(TypedDict):
    """One value of a factor."""

    factor: str
    value: str
    confidence: Confidence


class Label(TypedDict):
    """A label that is true of the image."""

    label: str
    confidence: Confidence


@with_config(
    ConfigDict(
        extra="allow",
        json_schema_extra={"not": {"anyOf": [{"required": [name]} for name in ("x_px", "factor", "label")]}},
    )
)
class OtherItem(TypedDict):
    """An item of a third-party concept parser."""

    confidence: Confidence


if TYPE_CHECKING:
    Item: TypeAlias = dict[str, Any]  # so that result.items[0]["x"] needs no cast
else:
    Item = PositionWithValues | Position | Attribute | Label | OtherItem


class Codeword(TypedDict):
    """The codeword of one factor of a product."""

    product: NotRequired[Annotated[Count, Field(description="Which of several products; 0 if it is absent.")]]
    factor: Annotated[Count, Field(description="Number of the codebook.")]
    index: Annotated[Count, Field(description="Number of the codeword.")]
    similarity: Annotated[
        Cosine, Field(description="Cosine of the product and what the other products leave of the vector.")
    ]
    confidence: Annotated[
        Probability,
        Field(
            description="Probability that the product is more similar than chance and this codeword better than "
            "the factor's others."
        ),
    ]
    ambiguous: NotRequired[
        Annotated[Literal[True], Field(description="Another codeword of the factor would do as well.")]
    ]


class LabelProbability(TypedDict):
    """How probable a label is."""

    label: str
    probability: Probability


class Unexplained(TypedDict):
    """What the best k products leave of a vector."""

    k: Count
    unexplained: Annotated[Amount, Field(description="Share of the vector's square that they leave.")]


class Closed(BaseModel):
    """A record, and the tables in it, without fields other than these."""

    model_config = ConfigDict(extra="forbid")


class Result(Closed):
    """What was found in one image or vector; its fields are those of the JSON line."""

    model_config = ConfigDict(serialize_by_alias=True)

    schema_id: str = Field(alias="schema")

    @property
    def confidence(self) -> list[float | None]:
        """The confidence of every item, in their order."""
        return [item["confidence"] for item in getattr(self, "items", [])]

    def __getstate__(self) -> dict[Any, Any]:
        """Returns what a copy in another process or a file holds: all fields, but not the image that was given."""
        state = super().__getstate__()
        if "_draw" in (state["__pydantic_private__"] or {}):
            state = {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_draw": None}}
        return state

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Returns the fields worth reading at a prompt; :meth:`to_dict` has all of them."""
        for name in SHOWN:
            value = getattr(self, name, None)
            if isinstance(value, list) and len(value) > MOST_SHOWN:
                shown = ", ".join(map(repr, value[:MOST_SHOWN]))
                yield name, _Verbatim(f"[{shown}, ... {len(value) - MOST_SHOWN} more]")
            elif value is not None:
                yield name, value

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON record that the command prints, with the same fields."""
        return self.model_dump(exclude_unset=True)

    def _repr_html_(self) -> str:
        """Returns the pictures that the result holds, above a table of its items, for notebooks."""
        items: list[dict[str, Any]] = getattr(self, "items", None) or getattr(self, "k_curve", [])
        names = list(dict.fromkeys(name for item in items for name in item))
        rows = [[_cell(item.get(name)) for name in names] for item in items]
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f"<th>{_cell(name)}</th>" for name in names)
        return f"{self._above()}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _above(self) -> str:
        """Returns what notebooks show above the table: the pictures that the result holds."""
        return ""


class _OfImage(Result):
    """What the records of all commands about images have in common."""

    image: str = Field(description="Path or address as given; - is standard input.")
    root: Root = None
    frame: Count | None = Field(
        default=None, description="Number of the frame in a video, from 0; absent of images."
    )
    time: Amount | None = Field(
        default=None, description="When the frame is shown, in seconds from the video's beginning."
    )
    size: Pixels = Field(description="[width, height] of the image as given, in pixels.")
    sha256: Sha256 = Field(description="Of the image file, or the video; of an image in memory, of its pixels.")
    model: str
    concepts: str = Field(description="Name of the concept parser.")
    k: Count
    k_source: Literal["given", "estimated"]
    denoising_error: float | None = Field(description="Mean squared error of the composed noise prediction.")
    k_penalty: Amount = Field(
        description="Error that a concept must save: where K is estimated, it is the k of the least error + k_penalty * k."
    )
    k_curve: list[CurvePoint]
    network_calls: Count = Field(description="Evaluations of the denoiser.")
    typicality: Probability | None = Field(
        default=None,
        description="How much the image is like those the model was trained on; below 0.5 the answer is a guess. Null if "
        "the model does not know what is typical.",
    )
    k_at_maximum: Literal[True] | None = Field(
        default=None, description="True if all the concepts looked for were found: there may be more."
    )
    discriminative: Discriminative = None
    guidance_told: float | None = Field(
        default=None,
        description="What a network that was distilled from guided predictions is told of the guidance, which is fixed; "
        "missing where a network is not told.",
    )
    seconds: Amount = Field(description="For this image; the mean over those processed together.")
    device: str
    run: Run


class ImageCount(_OfImage):
    """How many concepts an image holds."""

    schema_id: Literal["igm.estimate-k/1"] = Field(alias="schema")


class ImageResult(_OfImage):
    """The concepts of an image."""

    schema_id: Literal["igm.invert/1"] = Field(alias="schema")
    items: list[Item]

    _draw: Callable[[], Image] | None = PrivateAttr(default=None)

    def overlay(self) -> Image:
        """Returns a copy of the image as given with the items drawn on it, as by ``--overlay``.

        Raises:
            UsageError: If the result comes from another process or a file, and so without its image.
        """
        if self._draw is None:
            raise UsageError(NO_IMAGE)
        return self._draw()

    def _above(self) -> str:
        if self._draw is None:
            return ""
        guess = "<p>A guess: the image is unlike those that the model was trained on.</p>" * self.is_guess
        return _as_html(self.overlay()) + guess

    @property
    def is_guess(self) -> bool:
        """Whether the answer is little more than a guess, because the image is unlike those trained on."""
        from igm_cli.core.inference.typicality import is_untypical

        return is_untypical(self.typicality)


class Check(TypedDict):
    """What the model itself finds in an image that it drew; it is known to be kind to its own pictures."""

    k: Count
    items: list[Item]
    scores: Annotated[
        dict[str, float], Field(description="Metrics of what was found against what was asked for.")
    ]


class GeneratedImage(Result):
    """An image that was drawn, and what was asked for."""

    schema_id: Literal["igm.generate/1"] = Field(alias="schema")
    image: str = Field(description="Path of the picture; of one in memory its number.")
    expression: str = Field(description="What was asked for, as given.")
    index: Count = Field(
        description="Number of the image; the seed and this number decide what is left to chance."
    )
    clause: str = Field(description="The concepts joined by AND that were drawn from the expression.")
    size: Pixels = Field(description="[width, height] in pixels.")
    sha256: Sha256 = Field(description="Of the pixels.")
    model: str = Field(description="Several models are joined by ' + '.")
    concepts: str = Field(description="Names of the concept parsers, in the order of the models.")
    items: list[Item] = Field(description="What the image was asked to show, as igm.invert/1 has it.")
    weights: list[float] = Field(description="Of every item, and then of what NOT keeps away.")
    seed: Count
    steps: Count
    sampler: Sampler
    guidance: float | list[float] = Field(description="Of each model, in the order given, where they differ.")
    correct: Count = Field(description="Corrector steps at every noise level.")
    corrector: Literal["ula", "mala", "hmc"]
    particles: Count
    branches: Literal["draw", "mix"]
    overlap: float = Field(
        description="Sum of the inner products of different contributions over that of each with itself, at half of the "
        "noise levels: 0 where concepts do not meet; well above 0 they may melt into one."
    )
    network_calls: Count = Field(description="Evaluations of the denoiser.")
    seconds: Amount = Field(description="For this image; of those drawn together the mean.")
    device: str
    run: Run
    check: Check | None = None

    _picture: Image | None = PrivateAttr(default=None)

    @property
    def picture(self) -> Image:
        """The image itself.

        Raises:
            UsageError: If the result comes from a file, and so without its image.
        """
        if self._picture is None:
            raise UsageError("a result from a file has no picture; open the file of the picture itself")
        return self._picture

    def _above(self) -> str:
        return _as_html(self._picture) if self._picture else ""


class LabelResult(ImageResult):
    """The labels of an image, and the probability of every label asked about."""

    schema_id: Literal["igm.zero-shot/1"] = Field(alias="schema")  # type: ignore[assignment]
    draws: OneOrMore = Field(description="Noise draws of the decision.")
    items: list[Label] = Field(min_length=1, description="The labels found, the surest first.")  # type: ignore[assignment]
    labels: list[LabelProbability] = Field(
        min_length=2, description="All labels asked about, the most probable first."
    )


class SharedImage(Closed):
    """One of several images, and what they have in common as it is in this one."""

    image: str = Field(description="Path as given.")
    size: Pixels = Field(description="[width, height] of the image as given, in pixels.")
    sha256: Sha256 = Field(description="Of the image file; of an image in memory, of its pixels.")
    items: list[Item] = Field(
        description="The common items, in their order; the confidence is that of this image by itself."
    )
    typicality: Probability | None = Field(
        default=None,
        description="How much the image is like those the model was trained on, 0..1; null if unknown.",
    )


class SharedResult(Result):
    """What several images have in common."""

    schema_id: Literal["igm.invert-shared/1"] = Field(alias="schema")
    images: list[SharedImage] = Field(min_length=2)
    root: Root = None
    sha256: Sha256 = Field(description="Of the paths and hashes of the images, in their order.")
    model: str
    concepts: str = Field(description="Name of the concept parser.")
    k: Count = Field(description="Number of concepts in common.")
    k_source: Literal["given", "estimated"]
    denoising_error: float | None = Field(
        description="Mean squared error of the noise predicted under the common concepts and the rest of each image."
    )
    k_penalty: Amount = Field(description="Error that a concept of an image must save.")
    items: list[Item] = Field(
        description="The common items, as they are in the first image; the confidence is that of all images together."
    )
    network_calls: Count = Field(description="Evaluations of the denoiser, for all images.")
    discriminative: Discriminative = None
    seconds: Amount = Field(description="For all images.")
    device: str
    run: Run

    _draw: Callable[[], list[Image]] | None = PrivateAttr(default=None)

    def overlays(self) -> list[Image]:
        """Returns copies of the images as given with the common items drawn on them, as by ``--overlay``.

        Raises:
            UsageError: If the result comes from another process or a file, and so without its images.
        """
        if self._draw is None:
            raise UsageError(NO_IMAGE)
        return self._draw()

    def _above(self) -> str:
        return "".join(map(_as_html, self.overlays())) if self._draw else ""


class _OfVector(Result):
    """What the records of all commands about bound vectors have in common."""

    input: str = Field(description="Path of the file of vectors as given.")
    root: Root = None
    vector: Count = Field(description="Number of the vector in its file.")
    sha256: Sha256 = Field(description="Of the file of vectors; of vectors in memory, of their values.")
    concepts: str = Field(description="Name of the concept parser.")
    codebooks: str = Field(description="Path of the file of codebooks as given.")
    binding: Literal["map", "hrr", "fhrr"]
    k: Count = Field(description="Number of products found.")
    seconds: Amount = Field(description="For this vector; the mean over those processed together.")
    device: str
    run: Run


class VectorResult(_OfVector):
    """The codewords that a bound vector is made of."""

    schema_id: Literal["igm.decompose/1"] = Field(alias="schema")
    method: Literal["auto", "coupled", "attention", "resonator", "factorizer", "exhaustive"]
    items: list[Codeword]
    similarity: Cosine = Field(
        description="Cosine of the vector and the product, or the best sum of the products."
    )
    iterations: Count | None = Field(
        description="Of the method, 0 where it has none; null for several products."
    )
    operations: Amount | None = Field(description="Multiplications and additions; null for several products.")


class VectorCount(_OfVector):
    """How many products a bound vector is the sum of."""

    schema_id: Literal["igm.decompose-k/1"] = Field(alias="schema")
    k_max: OneOrMore = Field(description="Most products looked for.")
    k_curve: list[Unexplained] = Field(min_length=1)


def _as_html(picture: Image) -> str:
    """Returns a picture as an element of a page, which holds its PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


class _Verbatim(str):
    """Text that a repr shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else html.escape(str(value))
