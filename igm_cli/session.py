"""Sessions: a model with settled settings, and what it makes of images; codebooks, and what they make of vectors.

The library face and the commands are built on them.  Both sessions have the same shape: :meth:`read` turns a file into
inputs, each with the fields that name it and the hash of its content; :meth:`invert` and :meth:`count` turn inputs that
are worked out together into results.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from igm_cli.errors import UsageError
from igm_cli.imaging import SUFFIXES, decode_image, read_bytes
from igm_cli.records import ImageCount, ImageResult, LabelResult, VectorCount, VectorResult

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.composition import Composition
    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.core.denoiser import Denoiser
    from igm_cli.core.inference.inversion import Inversion, InversionSettings
    from igm_cli.plugins.base import ConceptParser, Frame, Progress, VectorParser

Data = TypeVar("Data")

BATCH_PIXELS = {"cpu": 8 * 96 * 64, "cuda": 64 * 96 * 64, "mps": 16 * 96 * 64}
"""Pixels of the images that are inverted together, by device, where nobody says how many."""


@dataclass
class Input(Generic[Data]):
    """An image or a bound vector, as a file or a program gives it.

    Attributes:
        about: The fields of its record that say which it is.
        sha256: Hash of its content.
        load: Decodes it; called at most once.
    """

    about: Mapping[str, Any]
    sha256: str
    load: Callable[[], Data]

    @cached_property
    def data(self) -> Data:
        """The image or vector itself."""
        return self.load()


@dataclass
class ImageModel:
    """A denoiser and the parser of its concepts; its weights are loaded when they are first needed.

    Attributes:
        name: What users call it.
        parser: Of its concepts.
        composition: How its predictions compose.
        inference: Inversion settings tuned to its weights.
        device: Where it computes.
        open: Loads the denoiser.
        size: (width, height) in pixels of the images it sees; None asks the denoiser.
        identity: What of the model decides about a result.
        unknown: Concepts asked for that it says it was not trained on.
        is_pipeline: Whether it is a text-to-image pipeline.
    """

    name: str
    parser: ConceptParser
    composition: Composition
    inference: Mapping[str, Any]
    device: torch.device
    open: Callable[[], Any]
    size: tuple[int, int] | None
    identity: Mapping[str, Any]
    unknown: tuple[str, ...] = ()
    is_pipeline: bool = False

    @cached_property
    def denoiser(self) -> Any:
        """The denoiser with its weights."""
        if self.device.type == "cpu":
            from igm_cli.core.device import keep_freed_memory

            keep_freed_memory()
        return self.open()

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels of the images it sees."""
        return self.size or self.denoiser.image_size  # type: ignore[no-any-return]

    def settings(self, given: Mapping[str, Any]) -> InversionSettings:
        """The model's own settings under those given.

        Args:
            given: Fields of :class:`InversionSettings`; None for those not given.

        Raises:
            UsageError: If they contradict each other or the method.
        """
        from igm_cli.core.inference.inversion import InversionSettings

        given, own = dict(given), InversionSettings.from_dict(self.inference)
        method = given.get("method") or own.method
        if method == "relax":
            given["relax_steps"] = given.pop("steps", None)
        for name, owners in (("restarts", "sgd"), ("steps", "sgd or relax")):
            if method != "sgd" and given.get(name) is not None:
                raise UsageError(f"--{name} belongs to --method {owners}; add that or leave it out")
        draws, most = given.get("draws"), given.get("max_draws")
        if draws is not None and most is not None and draws > most:
            raise UsageError(f"--draws {draws} is above --max-draws {most}; lower one or raise the other")
        if draws is None and most is not None:
            given["draws"] = min(own.draws, most)
        return InversionSettings.from_dict(self.inference, **given)

    def frame(self, image: Image, fit: str) -> Frame:
        """The part of an image that the model sees."""
        from igm_cli.plugins.base import Frame

        width, height = self.image_size
        return Frame.fit(image.size, width / height, fit)

    def see(self, image: Image, frame: Frame, views: int) -> Tensor:
        """What the denoiser is given of an image: ``[C,H,W]``, or latents of several views ``[V,C,h,w]``."""
        from igm_cli.imaging import to_model

        seen = to_model(image, frame, self.image_size)
        if not self.is_pipeline:
            return seen.to(self.device)
        from igm_cli.core.inference.views import encoded_views

        return encoded_views(self.denoiser.encode, seen, views)


class ImageSession:
    """A model with the settings of one call.

    Args:
        model: Of concepts of images.
        k: Number of concepts; None estimates it.
        fit: ``crop`` or ``squash`` images of another aspect ratio.
        batch_size: Images worked out together; None takes what suits the device.
        given: Inversion settings above the model's own; None for those not given.

    Attributes:
        run: Fingerprint of everything that decides about a result but the image.

    Raises:
        UsageError: If something asked for does not fit the model.
    """

    key = ("image",)
    suffixes: Sequence[str] = SUFFIXES
    noun = "image"
    together = False

    def __init__(
        self, model: ImageModel, *, k: int | None, fit: str, batch_size: int | None, given: Mapping[str, Any]
    ) -> None:
        from igm_cli.core.inference.inversion import check_request

        if fit not in ("crop", "squash"):
            raise UsageError(f"unknown fit {fit!r}; choose crop or squash")
        self.model, self.parser, self.k, self.fit, self._batch_size = model, model.parser, k, fit, batch_size
        self._refuse_count(given)
        self.settings = model.settings(given)
        check_request(self.parser.space, self.settings, k)
        identity = {"concepts": self.parser.name, "settings": self.settings.to_dict(), "k": k, "fit": fit}
        self.run = run_fingerprint({**model.identity, **identity})

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def batch_size(self) -> int:
        """Images that are worked out together."""
        if self._batch_size:
            return self._batch_size
        if self.model.is_pipeline:  # its network is busy with the labels of one image
            return 1
        width, height = self.model.image_size
        return max(1, BATCH_PIXELS.get(self.device.type, 0) // (width * height))

    def require_counting(self) -> None:
        """Raises a :class:`UsageError` if every image has the same number of concepts."""
        if self.parser.space.fixed_k is not None:
            raise UsageError(
                f"the model {self.model.name!r} finds one value of every factor, so there is nothing to count; "
                "use igm invert, or a model of positions"
            )

    def _refuse_count(self, given: Mapping[str, Any]) -> None:
        fixed = self.parser.space.fixed_k
        asked = [f"--{n.replace('_', '-')}" for n in ("k_min", "k_max") if given.get(n) is not None]
        if fixed is not None and (self.k not in (None, fixed) or asked):
            option = asked[0] if asked else f"--k {self.k}"
            raise UsageError(
                f"the model {self.model.name!r} has {fixed} factors and finds a value of each; leave out {option}"
            )

    @staticmethod
    def read(path: Path) -> list[Input[Image]]:
        """An image file, not decoded yet.

        Raises:
            InputError: If there is no such file, or it cannot be read.
        """
        data = read_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        return [Input({"image": str(path)}, digest, lambda: decode_image(data, str(path)))]

    def invert(self, images: Sequence[Input[Image]], progress: Progress | None = None) -> list[ImageResult]:
        """The concepts of images.

        Args:
            images: Of any size, worked out together.
            progress: Called with what is being done, network calls made and to be made at most.

        Raises:
            InputError: If an image cannot be used.
        """
        results = []
        for image, frame, found, seconds in self._understood(images, progress):
            shared = self._record(image, found, seconds)
            sure = [None if math.isnan(p) else round(p, 4) for p in found.confidence.tolist()]
            decoded = self.parser.decode(found.concepts, frame)
            items = [{**_rounded(item), "confidence": p} for item, p in zip(decoded, sure, strict=True)]
            if not math.isnan(found.familiarity):
                shared["familiarity"] = round(found.familiarity, 4)
            if found.marginals is None:
                result = ImageResult(schema="igm.invert/1", **shared, items=items)
            else:
                extra = {self.parser.space.plural: self._probabilities(found, frame)}
                result = LabelResult(schema="igm.zero-shot/1", **shared, draws=found.draws, items=items, **extra)
            result._draw = lambda image=image, items=items: self.parser.draw(image.data, items)  # type: ignore[misc]
            results.append(result)
        return results

    def count(self, images: Sequence[Input[Image]], progress: Progress | None = None) -> list[ImageCount]:
        """How many concepts images hold; see :meth:`invert`."""
        return [
            ImageCount(schema="igm.estimate-k/1", **self._record(image, found, seconds))
            for image, _, found, seconds in self._understood(images, progress)
        ]

    def _understood(
        self, images: Sequence[Input[Image]], progress: Progress | None
    ) -> list[tuple[Input[Image], Frame, Inversion, float]]:
        """The one call of the engine: images with their frames, what was found, and the seconds for each."""
        from igm_cli.core.inference.inversion import invert

        denoiser: Denoiser = self.model.denoiser
        found, started = [], time.monotonic()
        frames = [self.model.frame(image.data, self.fit) for image in images]
        for image, frame in zip(images, frames, strict=True):
            seen = self.model.see(image.data, frame, self.settings.views)
            what = f"network calls: {Path(str(image.about['image'])).name}"
            tell = (lambda done, most, what=what: progress(what, done, most)) if progress else None  # type: ignore[misc]
            found.append(
                invert(
                    denoiser, seen, self.settings, k=self.k, composition=self.model.composition, progress=tell
                )
            )
        seconds = (time.monotonic() - started) / max(1, len(images))
        return [(*each, seconds) for each in zip(images, frames, found, strict=True)]

    def _record(self, image: Input[Image], found: Inversion, seconds: float) -> dict[str, Any]:
        """The fields that all records of images have."""
        curve = [{"k": p.k, "error": _finite(p.error), "stderr": _finite(p.stderr)} for p in found.k_curve]
        return {
            **image.about,
            "size": list(image.data.size),
            "sha256": image.sha256,
            "model": self.model.name,
            "concepts": self.parser.name,
            "k": found.k,
            "k_source": found.k_source,
            "denoising_error": _finite(found.denoising_error),
            "k_penalty": self.settings.cost,
            "k_curve": curve,
            "network_calls": found.network_calls,
            "seconds": round(seconds, 4),
            "device": str(self.device),
            "run": self.run,
        }

    def _probabilities(self, found: Inversion, frame: Frame) -> list[dict[str, Any]]:
        """Every candidate with its probability, the most probable first."""
        import torch

        assert found.marginals is not None
        every = self.parser.decode(torch.eye(len(found.marginals)), frame)
        order = found.marginals.argsort(descending=True, stable=True).tolist()
        return [{**every[i], "probability": round(float(found.marginals[i]), 4)} for i in order]


class VectorSession:
    """Codebooks with the settings of one call.

    Args:
        parser: Of concepts of bound vectors.
        codebooks: On the device.
        source: What records call the codebooks.
        content: Fingerprint of the codebooks.
        settings: ``k`` (products that a vector is the sum of), ``method`` and ``iterations``, or ``k_max``.
        seed: Of everything random.

    Attributes:
        run: Fingerprint of everything that decides about a result but the vector.
    """

    key = ("input", "vector")
    suffixes = (".npy", ".npz", ".safetensors")
    noun = "file of vectors"
    together = True
    """What is found of a vector may depend on the vectors that are worked out with it."""

    def __init__(
        self,
        parser: VectorParser,
        codebooks: Codebooks,
        *,
        source: str,
        content: str,
        settings: Mapping[str, Any],
        seed: int = 0,
    ) -> None:
        self.parser, self.codebooks, self.source, self.settings, self.seed = parser, codebooks, source, settings, seed
        binding = codebooks.binding.name
        identity = {"codebooks": content, "concepts": parser.name, "binding": binding, "seed": seed, **settings}
        self.run = run_fingerprint(identity)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.codebooks.device

    @property
    def batch_size(self) -> int:
        """Vectors that are worked out together."""
        from igm_cli.core.decomposition.decompose import AT_ONCE

        return AT_ONCE if self.settings.get("k") == 1 else 1

    def read(self, path: Path) -> list[Input[Tensor]]:
        """The bound vectors ``[D]`` of a file.

        Raises:
            InputError: If they cannot be read, or are none of these codebooks.
        """
        return self.inputs(self.parser.read_vectors(path, self.codebooks), str(path), file_hash(path))

    def inputs(self, vectors: Tensor, name: str, digest: str) -> list[Input[Tensor]]:
        """Bound vectors ``[B,D]`` as inputs."""
        return [
            Input({"input": name, "vector": number}, digest, lambda vector=vector: vector)  # type: ignore[misc]
            for number, vector in enumerate(vectors)
        ]

    def invert(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorResult]:
        """The codewords of bound vectors that are one product each, or of one vector that is the sum of several."""
        import torch

        from igm_cli.core.decomposition.decompose import decompose
        from igm_cli.core.decomposition.superposition import superposition

        began, products = time.perf_counter(), self.settings["k"]
        if products > 1:
            return [self._sum_of_products(each, products, superposition) for each in vectors]
        stacked = torch.stack([each.data for each in vectors])
        method, iterations = self.settings["method"], self.settings["iterations"]
        found = decompose(stacked, self.codebooks, method, iterations=iterations, seed=self.seed)
        seconds = (time.perf_counter() - began) / len(vectors)
        return [
            VectorResult(
                schema="igm.decompose/1",
                **self._record(each, 1, seconds),
                method=method,
                items=self._items(
                    found.indices[i : i + 1], found.similarity[i : i + 1], found.confidence[i], found.ambiguous[i]
                ),
                similarity=round(float(found.similarity[i]), 6),
                iterations=int(found.iterations[i]),
                operations=float(found.operations[i]),
            )
            for i, each in enumerate(vectors)
        ]

    def count(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorCount]:
        """How many products bound vectors are the sum of."""
        from igm_cli.core.decomposition.superposition import superposition

        results, most = [], self.settings["k_max"]
        for each in vectors:
            began = time.perf_counter()
            found = superposition(each.data, self.codebooks, k_max=most, seed=self.seed)
            record = self._record(each, found.count, time.perf_counter() - began)
            curve = [{"k": k, "unexplained": round(share, 6)} for k, share in enumerate(found.errors.tolist())]
            results.append(VectorCount(schema="igm.decompose-k/1", **record, k_max=most, k_curve=curve))
        return results

    def _sum_of_products(self, vector: Input[Tensor], most: int, superposition: Any) -> VectorResult:
        began = time.perf_counter()
        found = superposition(vector.data, self.codebooks, k_max=most, seed=self.seed)
        seconds, explained = time.perf_counter() - began, max(0.0, 1 - float(found.errors[-1]))
        return VectorResult(
            schema="igm.decompose/1",
            **self._record(vector, found.count, seconds),
            method="auto",
            items=self._items(found.indices, found.similarity, found.confidence, found.ambiguous),
            similarity=round(explained**0.5, 6),  # cosine of the vector and the best sum of the products
            iterations=None,
            operations=None,
        )

    def _record(self, vector: Input[Tensor], k: int, seconds: float) -> dict[str, Any]:
        """The fields that all records of vectors have."""
        return {
            **vector.about,
            "sha256": vector.sha256,
            "concepts": self.parser.name,
            "codebooks": self.source,
            "binding": self.codebooks.binding.name,
            "k": k,
            "seconds": round(seconds, 6),
            "device": str(self.device),
            "run": self.run,
        }

    def _items(
        self, indices: Tensor, similarity: Tensor, confidence: Tensor, ambiguous: Tensor
    ) -> list[dict[str, Any]]:
        """Items of the products ``[S,K]``, each with what is known of it.

        Args:
            indices: ``[S,K]``.
            similarity: Of the products ``[S]``.
            confidence: Of the indices, S·K of them.
            ambiguous: Whether another codeword would do as well, S·K of them.
        """
        from igm_cli.plugins.base import Frame

        decoded = self.parser.decode(indices.cpu(), Frame((1, 1), (0.0, 0.0, 1.0, 1.0)))  # a vector has no frame
        alike = similarity.repeat_interleave(indices.shape[1]).tolist()
        known = zip(decoded, alike, confidence.flatten().tolist(), ambiguous.flatten().tolist(), strict=True)
        return [
            {**item, "similarity": round(s, 6), "confidence": round(p, 4), **({"ambiguous": True} if tied else {})}
            for item, s, p, tied in known
        ]


def run_fingerprint(identity: Mapping[str, Any]) -> str:
    """Of everything that decides about a result but the image or vector."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _finite(value: float) -> float | None:
    """A figure as JSON may hold it."""
    return float(value) if math.isfinite(value) else None


def _rounded(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in item.items()}
