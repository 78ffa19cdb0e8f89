"""The library's face (stable): load a model, find the concepts of images, count them, take bound vectors apart.

    import igm_cli as igm

    model = igm.load("clevr-pos")
    result = model.invert("photo.png")
    print(result.k, result.items)
    result.overlay().save("found.png")

Everything here keeps its names and meaning from one minor version to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, overload

from igm_cli import loading
from igm_cli.bundled import names_pipeline
from igm_cli.errors import IgmError, UsageError
from igm_cli.imaging import from_array
from igm_cli.records import ImageCount, ImageResult, LabelResult, Result, VectorCount, VectorResult
from igm_cli.session import ImageModel, ImageSession, Input, VectorSession

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.plugins.base import Progress

    Picture: TypeAlias = str | Path | Image | np.ndarray[Any, Any] | Tensor
    Vectors: TypeAlias = str | Path | np.ndarray[Any, Any] | Tensor

__all__ = [
    "IgmError",
    "ImageCount",
    "ImageResult",
    "LabelResult",
    "Model",
    "Result",
    "VectorCount",
    "VectorResult",
    "count",
    "decompose",
    "invert",
    "load",
]


class Model:
    """A model ready for images; :func:`load` makes it.

    Attributes:
        name: What it is called.
    """

    def __init__(self, model: ImageModel) -> None:
        self._model = model
        self.name = model.name

    def __repr__(self) -> str:
        return f"<igm model {self.name!r}: {self.concepts} on {self.device}>"

    @property
    def concepts(self) -> str:
        """Name of its concept parser."""
        return self._model.parser.name

    @property
    def device(self) -> str:
        """Where it computes."""
        return str(self._model.device)

    @overload
    def invert(self, images: Picture, **options: Any) -> ImageResult: ...

    @overload
    def invert(self, images: list[Any] | tuple[Any, ...], **options: Any) -> list[ImageResult]: ...

    def invert(
        self,
        images: Picture | Sequence[Picture],
        *,
        k: int | None = None,
        fit: Literal["crop", "squash"] = "crop",
        progress: Progress | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> ImageResult | list[ImageResult]:
        """Finds the concepts of an image, or of several.

        Args:
            images: A path, a PIL image, an array ``[H,W,3]`` or a tensor ``[3,H,W]`` of 0..255 or 0..1, or a list of them.
            k: Number of concepts; None estimates it.
            fit: ``crop`` or ``squash`` images of another aspect ratio than the model's.
            progress: Called with what is being done, done so far, and in all.
            batch_size: Images worked out together; None takes what suits the device.
            **settings: ``draws``, ``k_max``, ``seed``, ``method`` and the other inversion settings.

        Returns:
            One result per image; without a list around it for a single image.

        Raises:
            IgmError: If an image or a setting cannot be used, with the way out.
        """
        session = self._session(k, fit, batch_size, settings)
        return _each(session.invert, images, session.batch_size, progress)

    @overload
    def count(self, images: Picture, **options: Any) -> ImageCount: ...

    @overload
    def count(self, images: list[Any] | tuple[Any, ...], **options: Any) -> list[ImageCount]: ...

    def count(
        self,
        images: Picture | Sequence[Picture],
        *,
        fit: Literal["crop", "squash"] = "crop",
        progress: Progress | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> ImageCount | list[ImageCount]:
        """Estimates how many concepts an image holds, or each of several; see :meth:`invert`."""
        session = self._session(None, fit, batch_size, settings)
        session.require_counting()
        return _each(session.count, images, session.batch_size, progress)

    def _session(
        self, k: int | None, fit: str, batch_size: int | None, settings: Mapping[str, Any]
    ) -> ImageSession:
        return ImageSession(self._model, k=k, fit=fit, batch_size=batch_size, given=settings)


def load(
    model: str | Path | None = None,
    *,
    concepts: str | None = None,
    device: str = "auto",
    labels: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    **how: Any,
) -> Model:
    """Loads a model.

    Args:
        model: A bundled name such as ``clevr-pos``, a checkpoint or pipeline folder, a .safetensors file or a hub id;
            None takes the bundled one of ``concepts``.
        concepts: Name of a concept parser, or ``package.module:attribute``; None takes the model's own.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        labels: What may be in an image, for text-to-image models; None takes those the model was trained on.
        templates: Prompts with ``{label}`` in them, for text-to-image models.
        **how: How a text-to-image model is loaded: ``variant``, ``dtype``, ``attention``, ``offload``, ``size``,
            ``config``, ``prediction``.

    Raises:
        IgmError: If there is no such model or it cannot be used, with the way out.
    """
    name = None if model is None else str(model)
    about_text = labels is not None or templates is not None or bool(how)
    if about_text or names_pipeline(name, concepts):
        chosen = loading.check_labels(labels, "labels", UsageError) if labels is not None else ()
        opened = loading.open_pipeline(name, device, labels=chosen, templates=templates or (), loading=how)
    else:
        opened = loading.open_checkpoint(name, concepts, device)
    _ = opened.denoiser  # what is wrong with the weights is said now
    return Model(opened)


def invert(images: Any, model: str | Path | None = None, *, concepts: str | None = None, **options: Any) -> Any:
    """Finds the concepts of an image, or of several; loads the model for this one call.

    Args:
        images: See :meth:`Model.invert`.
        model: See :func:`load`.
        concepts: See :func:`load`.
        **options: Those of :func:`load` and of :meth:`Model.invert`.
    """
    opened, rest = _loaded(model, concepts, options)
    return opened.invert(images, **rest)


def count(images: Any, model: str | Path | None = None, *, concepts: str | None = None, **options: Any) -> Any:
    """Estimates how many concepts an image holds, or each of several; or products a bound vector, with ``codebooks=``.

    Args:
        images: See :meth:`Model.invert`; bound vectors, see :func:`decompose`.
        model: See :func:`load`.
        concepts: See :func:`load`.
        **options: Those of :func:`load` and of :meth:`Model.count`; of vectors ``codebooks``, ``binding``, ``k_max``, ``seed``.
    """
    if "codebooks" in options:
        most = {"k_max": options.pop("k_max", None) or loading.MOST_PRODUCTS}
        session = _vector_session(concepts=concepts, settings=most, **options)
        return _vectors(session, session.count, images)
    opened, rest = _loaded(model, concepts, options)
    return opened.count(images, **rest)


def decompose(
    vectors: Vectors,
    codebooks: str | Path | Codebooks | Sequence[Any],
    *,
    binding: Literal["map", "hrr", "fhrr"] | None = None,
    k: int = 1,
    method: str = "auto",
    iterations: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> VectorResult | list[VectorResult]:
    """Finds the codewords that bound vectors are made of.

    Args:
        vectors: A path (.npy, .npz, .safetensors), or an array or tensor ``[D]`` or ``[B,D]``.
        codebooks: A .safetensors file, or an array or tensor ``[n,D]`` per factor.
        binding: How codewords are bound; None takes the file's, or what the codewords look like.
        k: Products that each vector is the sum of.
        method: ``auto``, ``coupled``, ``attention``, ``resonator``, ``factorizer`` or ``exhaustive``.
        iterations: At most, of an iterative method.
        seed: Of everything random.
        device: Where to compute.
        progress: Called with what is being done, done so far, and in all.

    Returns:
        One result per vector; without a list around it for a single ``[D]``.

    Raises:
        IgmError: If the vectors, the codebooks or the settings cannot be used, with the way out.
    """
    settings = loading.vector_settings(k, method, iterations)
    session = _vector_session(codebooks, binding=binding, settings=settings, seed=seed, device=device)
    return cast("VectorResult | list[VectorResult]", _vectors(session, session.invert, vectors, progress))


def _loaded(model: str | Path | None, concepts: str | None, options: dict[str, Any]) -> tuple[Model, dict[str, Any]]:
    """A model and the options that are not about loading it."""
    about_loading = ("device", "labels", "templates", "variant", "dtype", "attention", "offload", "config", "prediction")
    given = {name: options.pop(name) for name in about_loading if name in options}
    return load(model, concepts=concepts, **given), options


def _each(work: Any, images: Any, at_once: int, progress: Progress | None) -> Any:
    """The results of images, some worked out together."""
    alone = not isinstance(images, list | tuple)
    inputs = [_input(image, place, alone=alone) for place, image in enumerate([images] if alone else images)]
    results: list[Any] = []
    for first in _steps(len(inputs), at_once, "images", None if alone else progress):
        results += work(inputs[first : first + at_once], progress)
    return results[0] if alone else results


def _input(image: Any, place: int, *, alone: bool) -> Input[Image]:
    """An image in whatever form as an input."""
    if isinstance(image, str | Path):
        (found,) = ImageSession.read(Path(image).expanduser())
        return found
    name = getattr(image, "filename", "") or ("image" if alone else f"image {place + 1}")
    picture = from_array(image, name)
    digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
    return Input({"image": name}, digest, lambda: picture)


def _vector_session(codebooks: Any, *, settings: Mapping[str, Any], **options: Any) -> VectorSession:
    """A session of codebooks in whatever form."""
    if isinstance(codebooks, str | Path):
        codebooks = Path(codebooks).expanduser()
    return loading.open_vectors(codebooks, settings=settings, **options)


def _vectors(session: VectorSession, work: Any, vectors: Any, progress: Progress | None = None) -> Any:
    """The results of bound vectors in whatever form, some worked out together."""
    import torch

    if isinstance(vectors, str | Path):
        inputs, alone = session.read(Path(vectors).expanduser()), False
    else:
        from igm_cli.core.decomposition.decompose import check_vectors

        rows = torch.as_tensor(vectors)
        rows, alone = torch.atleast_2d(rows), rows.ndim == 1
        rows = rows.to(torch.complex64 if torch.is_complex(rows) else torch.float32)
        check_vectors(rows, session.codebooks)
        inputs = session.inputs(rows, "vectors", hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest())
    results: list[Any] = []
    for first in _steps(len(inputs), session.batch_size, "vectors", progress):
        results += work(inputs[first : first + session.batch_size])
    return results[0] if alone else results


def _steps(total: int, at_once: int, what: str, progress: Progress | None) -> Iterator[int]:
    """Where the batches begin; progress is told on the way."""
    for first in range(0, total, at_once):
        if progress:
            progress(what, first, total)
        yield first
    if progress:
        progress(what, total, total)
