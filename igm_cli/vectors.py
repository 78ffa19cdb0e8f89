"""Bound vectors: codebooks with settled settings, and what they make of vectors."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from igm_cli.bundled import DEFAULT_CONCEPTS
from igm_cli.errors import UsageError
from igm_cli.records import VectorCount, VectorResult
from igm_cli.session import Input, in_batches, process_device, run_fingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.plugins.base import Progress, VectorParser

MOST_PRODUCTS = 8
"""Most products of a vector that are looked for where nobody says how many."""


class VectorSession:
    """Codebooks with the settings of one call; the shape of :class:`igm_cli.session.ImageSession`.

    Args:
        parser: The parser of concepts of bound vectors.
        codebooks: On the device.
        source: What records call the codebooks.
        content: Fingerprint of the codebooks.
        settings: ``k`` (products that a vector is the sum of), ``method`` and ``iterations``; or ``k_max``.
        seed: Seed of everything random.

    Attributes:
        run: Fingerprint of everything that decides about a result but the vector.
    """

    key = ("input", "vector")
    suffixes = (".npy", ".npz", ".safetensors")
    noun = "file of vectors"
    together = True

    def __init__(
        self,
        parser: VectorParser,
        codebooks: Codebooks,
        source: str,
        content: str,
        settings: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.parser, self.codebooks, self.source, self.settings, self.seed = (
            parser,
            codebooks,
            source,
            settings,
            seed,
        )
        binding = codebooks.binding.name
        identity = {"codebooks": content, "concepts": parser.name, "binding": binding, "seed": seed}
        self.run = run_fingerprint({**identity, **settings})

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
        return self._inputs(self.parser.read_vectors(path, self.codebooks), str(path), file_hash(path))

    def each(self, work: Any, vectors: Any, progress: Progress | None) -> Any:
        """Results of vectors in whatever form, some worked out together; of one ``[D]`` without a list around it."""
        import torch

        from igm_cli.core.decomposition.decompose import check_vectors

        if isinstance(vectors, str | Path):
            inputs, alone = self.read(Path(vectors).expanduser()), False
        else:
            rows = torch.as_tensor(vectors)
            rows, alone = torch.atleast_2d(rows), rows.ndim == 1
            rows = rows.to(torch.complex64 if torch.is_complex(rows) else torch.float32)
            check_vectors(rows, self.codebooks)
            inputs = self._inputs(rows, "vectors", hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest())
        results = in_batches(work, inputs, self.batch_size, "vectors", progress)
        return results[0] if alone else results

    def invert(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorResult]:
        """The codewords of bound vectors that are one product each, or the sum of several."""
        import torch

        from igm_cli.core.decomposition.decompose import decompose
        from igm_cli.core.decomposition.superposition import superposition

        products, began, used = (
            self.settings["k"],
            time.perf_counter(),
            {"iterations": None, "operations": None},
        )
        results = []
        if products > 1:
            for each in vectors:
                began = time.perf_counter()
                sums = superposition(each.data, self.codebooks, k_max=products, seed=self.seed)
                known = (sums.indices, sums.similarity, sums.confidence, sums.ambiguous)
                similarity = max(0.0, 1 - float(sums.errors[-1])) ** 0.5  # of the vector and the best sum
                results.append(self._result(each, known, similarity, time.perf_counter() - began, used))
            return results
        stacked = torch.stack([each.data for each in vectors])
        how = {name: self.settings[name] for name in ("method", "iterations")}
        found = decompose(stacked, self.codebooks, **how, seed=self.seed)
        seconds = (time.perf_counter() - began) / len(vectors)
        for i, each in enumerate(vectors):
            row = slice(i, i + 1)
            known = (found.indices[row], found.similarity[row], found.confidence[row], found.ambiguous[row])
            spent = {"iterations": int(found.iterations[i]), "operations": float(found.operations[i])}
            results.append(self._result(each, known, float(found.similarity[i]), seconds, spent))
        return results

    def count(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorCount]:
        """How many products bound vectors are the sum of."""
        from igm_cli.core.decomposition.superposition import superposition

        results, most = [], self.settings["k_max"]
        for each in vectors:
            began = time.perf_counter()
            found = superposition(each.data, self.codebooks, k_max=most, seed=self.seed)
            record = self._record("igm.decompose-k/1", each, found.count, time.perf_counter() - began)
            curve = [{"k": k, "unexplained": round(share, 6)} for k, share in enumerate(found.errors.tolist())]
            results.append(VectorCount.model_validate({**record, "k_max": most, "k_curve": curve}))
        return results

    @staticmethod
    def _inputs(vectors: Tensor, name: str, digest: str) -> list[Input[Tensor]]:
        return [
            Input({"input": name, "vector": number}, digest, lambda vector=vector: vector)  # type: ignore[misc]
            for number, vector in enumerate(vectors)
        ]

    def _record(self, schema: str, vector: Input[Tensor], k: int, seconds: float) -> dict[str, Any]:
        """The fields that all records of vectors have."""
        return {
            "schema": schema,
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

    def _result(
        self, vector: Input[Tensor], known: tuple[Tensor, ...], similarity: float, seconds: float, used: Any
    ) -> VectorResult:
        """The result of products of indices ``[S,K]``, with their similarity ``[S]``, confidence and ties ``[S,K]``."""
        from igm_cli.imaging import Frame

        indices, alike, confidence, ambiguous = known
        decoded = self.parser.decode(
            indices.cpu(), Frame((1, 1), (0.0, 0.0, 1.0, 1.0))
        )  # a vector has no frame
        alike = alike.repeat_interleave(indices.shape[1])
        rows = zip(
            decoded, alike.tolist(), confidence.flatten().tolist(), ambiguous.flatten().tolist(), strict=True
        )
        items = [
            {
                **item,
                "similarity": round(s, 6),
                "confidence": round(p, 4),
                **({"ambiguous": True} if tied else {}),
            }
            for item, s, p, tied in rows
        ]
        record = self._record("igm.decompose/1", vector, len(indices), seconds)
        found = {"method": self.settings["method"], "items": items, "similarity": round(similarity, 6), **used}
        return VectorResult.model_validate({**record, **found})


def open_vectors(
    codebooks: Path | Codebooks | Sequence[Any],
    *,
    settings: Mapping[str, Any],
    concepts: str | None = None,
    binding: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> VectorSession:
    """A session of codebooks.

    Args:
        codebooks: A .safetensors file, codebooks made ready, or an array or tensor ``[n,D]`` per factor.
        settings: See :class:`VectorSession`.
        concepts: Name of a concept parser that reads bound vectors.
        binding: ``map``, ``hrr`` or ``fhrr``; None takes the file's, or what the codewords look like.
        seed: Seed of everything random.
        device: Where to compute.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.core.device import keep_freed_memory
    from igm_cli.plugins import registry

    default = DEFAULT_CONCEPTS["vectors"]
    parser = cast("VectorParser", registry.concept_parser(concepts or default, typed=True))
    if getattr(parser, "reads", "images") != "vectors":
        raise UsageError(f"--codebooks is none of --concepts {parser.name}; use --concepts {default}")
    target, source, content = process_device(device), "in memory", "in memory"
    if isinstance(codebooks, Path):
        books, source, content = parser.read_codebooks(codebooks, binding), str(codebooks), file_hash(codebooks)
    else:
        books = _codebooks(codebooks, binding)
    parser = cast("VectorParser", registry.configured(parser, {"sizes": list(books.sizes), "dim": books.dim}))
    if target.type == "cpu":
        keep_freed_memory()
    return VectorSession(parser, books.to(target), source, content, settings, seed)


def vector_settings(k: int | None, method: str | None, iterations: int | None) -> dict[str, Any]:
    """Settings of a search for codewords, None for those not given.

    Raises:
        UsageError: If they do not go together.
    """
    from igm_cli.core.decomposition.decompose import ITERATIONS, ITERATIVE, METHODS

    products, method = k or 1, method or "auto"
    if method not in METHODS:
        raise UsageError(f"the method {method!r} is none of codebooks; choose {', '.join(METHODS)}")
    if products > 1 and method != "auto":
        raise UsageError(
            f"several products (--k {products}) are found by auto alone; leave out --method {method}"
        )
    if iterations is not None and method not in ITERATIVE:
        raise UsageError(
            f"--iterations belongs to --method {', '.join(ITERATIVE)}; add one of them or leave it out"
        )
    return {"k": products, "method": method, "iterations": iterations or ITERATIONS}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _codebooks(books: Any, binding: str | None) -> Codebooks:
    """Codebooks in memory, made ready."""
    import torch

    from igm_cli.core.decomposition.codebooks import Codebooks, guess_binding

    if isinstance(books, Codebooks):
        return books
    tensors = [torch.as_tensor(book) for book in books]
    tensors = [each if torch.is_complex(each) else each.float() for each in tensors]
    return Codebooks(tensors, binding or guess_binding(tensors))
