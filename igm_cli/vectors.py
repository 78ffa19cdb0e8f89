"""Bound vectors: decomposes them with codebooks and the settings of one call."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from igm_cli.bundled import DEFAULT_CONCEPTS
from igm_cli.core.decomposition.codebooks import FACTOR, Codebooks, factor_names, guess_binding, numbers
from igm_cli.core.decomposition.decompose import (
    AT_ONCE,
    ITERATIONS,
    ITERATIVE,
    METHODS,
    check_vectors,
    decompose,
)
from igm_cli.core.decomposition.result import BEYOND_CHANCE, beyond_chance
from igm_cli.core.decomposition.superposition import REPRODUCED, superposition
from igm_cli.core.device import keep_freed_memory
from igm_cli.core.files import file_hash, fingerprint_of, home_expanded
from igm_cli.core.validation import shown, whole_number
from igm_cli.errors import UsageError
from igm_cli.folders import Source
from igm_cli.imaging import Frame
from igm_cli.inputs import Input, fields_of
from igm_cli.open_model import process_device
from igm_cli.pixels import warn
from igm_cli.plugins import registry
from igm_cli.records import VectorCount, VectorResult
from igm_cli.session import Session

if TYPE_CHECKING:
    from igm_cli.plugins.base import Progress, VectorParser

MOST_PRODUCTS = 8
"""Default maximum number of products of a vector."""

UNSURE = 0.5
"""A codeword with less confidence than this causes a warning."""

WHOLE = 0.9
"""Below this similarity the user is told that part of the vector is unexplained; without noise it is 1."""

REST = "the rest is noise or further products, which --count tells"

UNTOLD = "the rest is noise, or products that are no more similar to it than chance allows"

MEANING = {
    "chance": "not found to be products of these codewords, what similarity there is comes by chance",
    "fewer": "fewer products explain them whole",
    "ambiguous": "another codeword would do as well for a factor",
    "unsure": "a factor could well be another codeword",
    "unexplained": f"what was found explains less than {100 * WHOLE**2:.0f} % of the vector; {UNTOLD}",
    "partly": f"what was found explains less than {100 * WHOLE**2:.0f} % of the vector; {REST}",
}
"""What the kinds of doubt about an answer mean, said of several vectors."""


class VectorSession(Session[Tensor]):
    """Codebooks with the settings of one call: ``k`` (products per vector), ``method`` and ``iterations``, or ``k_max``.

    ``source`` is the codebooks' name in records, ``content`` their fingerprint.
    """

    key = ("input", "vector")
    each_is = "vector"
    suffixes = (".npy", ".npz", ".safetensors")
    noun = "file of vectors"
    reads, together = "vectors", True
    parser: VectorParser

    def __init__(
        self,
        parser: VectorParser,
        codebooks: Codebooks,
        source: str,
        content: str,
        settings: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.parser, self.codebooks, self.device = parser, codebooks, codebooks.device
        self.settings, self.seed = settings, seed
        self.products: int | None = settings.get("k")  # None counts them
        self.batch_size = AT_ONCE if self.products == 1 else 1
        self._about = {"codebooks": source, "binding": codebooks.binding.name}
        identity = {**self._about, "codebooks": content, "concepts": parser.name, "seed": seed}
        self.run = fingerprint_of({**identity, **settings})

    def read(self, source: Source) -> list[Input[Tensor]]:
        """Returns the bound vectors ``[D]`` of a file."""
        return self._inputs(*self._read(source))

    def _read(self, source: Source) -> tuple[Tensor, dict[str, str], str]:
        """Returns the bound vectors ``[B,D]`` or ``[D]`` of a file, the fields that name it, and its hash."""
        assert source.path is not None  # vectors are read only from files
        vectors = self.parser.read_vectors(source.path, self.codebooks)
        return vectors, fields_of(source, "input"), file_hash(source.path)

    def each(self, work: Any, vectors: Any, progress: Progress | None) -> Any:
        """Returns the results of vectors in any form, and warns of doubtful ones: a list, or for one ``[D]`` its result."""
        if isinstance(vectors, str | Path):
            rows, about, digest = self._read(Source.of(home_expanded(vectors)))
        else:
            rows, about = numbers(vectors, "the array of vectors"), {"input": "vectors"}
            check_vectors(torch.atleast_2d(rows), self.codebooks)
            digest = hashlib.sha256(rows.cpu().numpy().tobytes()).hexdigest()
        inputs = self._inputs(rows, about, digest)
        results = self.in_batches(work, inputs, progress)
        doubts = [self.doubt(result.to_dict()) for result in results]
        for kind, count in Counter(kind for kind, _ in doubts if kind).items():
            many = f"{count} of {len(results)} vectors: {MEANING.get(kind, kind)}"
            warn(many if len(results) > 1 else f"vector 0: {doubts[0][1]}")
        return results[0] if rows.ndim == 1 else results

    def invert(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorResult]:
        """Returns the codewords of bound vectors, each a product or a sum of several."""
        search: dict[str, float | None]
        results, began, settings = [], time.perf_counter(), self.settings
        if self.products == 1:
            stacked = torch.stack([each.data for each in vectors])
            how = {name: settings[name] for name in ("method", "iterations")}
            found = decompose(stacked, self.codebooks, **how, seed=self.seed)
            seconds = (time.perf_counter() - began) / len(vectors)
            for i, each in enumerate(vectors):
                search = {"iterations": int(found.iterations[i]), "operations": float(found.operations[i])}
                similarity = float(found.similarity[i])
                results.append(self._result(each, found, slice(i, i + 1), similarity, seconds, search))
            return results
        for each in vectors:
            began = time.perf_counter()
            sums = superposition(each.data, self.codebooks, k_max=settings["k"], seed=self.seed)
            similarity = max(0.0, 1 - float(sums.errors[-1])) ** 0.5  # of the vector and the best sum
            search = {"iterations": None, "operations": None}
            seconds = time.perf_counter() - began
            results.append(self._result(each, sums, slice(None), similarity, seconds, search))
        return results

    def count(self, vectors: Sequence[Input[Tensor]], progress: Progress | None = None) -> list[VectorCount]:
        """Returns the number of products in each bound vector."""
        results, most = [], self.settings["k_max"]
        for each in vectors:
            began = time.perf_counter()
            found = superposition(each.data, self.codebooks, k_max=most, seed=self.seed)
            seconds = round(time.perf_counter() - began, 6)
            curve = [{"k": k, "unexplained": round(share, 6)} for k, share in enumerate(found.errors.tolist())]
            what = {**self._about, "k": found.count, "k_max": most, "k_curve": curve}
            results.append(VectorCount.model_validate(self.record("igm.decompose-k/1", each, seconds, **what)))
        return results

    def doubt(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Returns the kind of doubt about a record, and a sentence about it; both empty if there is none."""
        if self.products is None:
            says, rest = "", record["k_curve"][-1]["unexplained"]
            if record["k"] == 0:
                says = "no product of these codewords is in it as far as can be told"
            elif record["k"] == record["k_max"] and rest > REPRODUCED:
                says = f"as many products as --k-max {record['k_max']} lets be found; raise it"
            elif rest > 1 - WHOLE**2:
                return (
                    "unexplained",
                    f"what was found explains {100 * (1 - rest):.0f} % of the vector; {UNTOLD}",
                )
            return says, says
        if self.products > 1 and record["k"] < self.products:
            found = f"{record['k']} of {self.products} products found"
            if record["similarity"] ** 2 > 1 - REPRODUCED:
                return "fewer", f"{found}, and nothing is left to explain"
            return "chance", f"{found}; what is left is no product of these codewords as far as can be told"
        similarity = torch.tensor([record["similarity"]])
        if self.products == 1 and float(beyond_chance(self.codebooks, similarity)[0]) < BEYOND_CHANCE:
            way_out = "" if record["method"] in ("auto", "exhaustive") else "; --method auto may find one"
            says = f"similarity {record['similarity']:.2f} is what chance gives"
            return "chance", f"no product of these codewords as far as can be told, {says}{way_out}"
        items = record["items"]
        if tied := [_place(item) for item in items if item.get("ambiguous")]:
            return "ambiguous", f"another codeword would do as well for {', '.join(tied)}"
        if unsure := [_place(item) for item in items if item["confidence"] < UNSURE]:
            return "unsure", f"{', '.join(unsure)} could well be another codeword"
        if record["similarity"] < WHOLE:
            share = f"{100 * record['similarity'] ** 2:.0f} %"
            return "partly", f"what was found explains {share} of the vector; {REST}"
        return "", ""

    @staticmethod
    def _inputs(vectors: Tensor, about: Mapping[str, str], digest: str) -> list[Input[Tensor]]:
        return [
            Input({**about, "vector": number}, digest, lambda vector=vector: vector)  # type: ignore[misc]
            for number, vector in enumerate(torch.atleast_2d(vectors))
        ]

    def _result(
        self, vector: Input[Tensor], found: Any, rows: slice, similarity: float, seconds: float, search: Any
    ) -> VectorResult:
        """Returns a vector's result: the products in these rows of what was found, whose sum has this similarity."""
        indices, confidence, ambiguous = found.indices[rows], found.confidence[rows], found.ambiguous[rows]
        alike = found.similarity[rows].repeat_interleave(indices.shape[1])
        no_frame = Frame((1, 1), (0.0, 0.0, 1.0, 1.0))
        decoded = self.parser.decode(indices.cpu(), no_frame)
        figures = (x.flatten().tolist() for x in (alike, confidence, ambiguous))
        items = []
        for item, s, p, tied in zip(decoded, *figures, strict=True):
            items.append({**item, "similarity": round(s, 6), "confidence": round(p, 4)})
            if tied:
                items[-1]["ambiguous"] = True
        what = {**self._about, "k": len(indices), "method": self.settings["method"], "items": items}
        what |= {"similarity": round(similarity, 6), **search}
        return VectorResult.model_validate(self.record("igm.decompose/1", vector, round(seconds, 6), **what))


def open_vectors(
    codebooks: Any,
    *,
    settings: Mapping[str, Any],
    concepts: str | None = None,
    binding: str | None = None,
    seed: int = 0,
    device: str = "auto",
) -> VectorSession:
    """Returns a session of codebooks: a .safetensors file, a ``Codebooks``, or an array or tensor ``[n,D]`` per factor.

    Of a mapping the values are the codebooks; like a file, it may hold more than factor_0, factor_1, ...
    """
    default = DEFAULT_CONCEPTS["vectors"]
    parser = cast("VectorParser", registry.concept_parser(concepts or default, typed=True))
    if getattr(parser, "reads", "images") != "vectors":
        raise UsageError(f"--concepts {parser.name} takes no codebooks; use --concepts {default}")
    target, source, content = process_device(device), "in memory", "in memory"
    if isinstance(codebooks, str | Path):
        path = home_expanded(codebooks)
        books, source, content = parser.read_codebooks(path, binding), str(path), file_hash(path)
    elif isinstance(codebooks, Codebooks):
        books = codebooks
    else:
        if isinstance(codebooks, Mapping):
            named = [
                name for name in codebooks if FACTOR.fullmatch(str(name))
            ]  # as in a file, in which more may be
            codebooks = [codebooks[name] for name in (factor_names(named, "codebooks") if named else codebooks)]
        if not isinstance(codebooks, Iterable):
            what = "a .safetensors file, or an array or tensor [n,D] of each factor"
            raise UsageError(f"codebooks are {what}, not {shown(codebooks)}")
        tensors = [numbers(book, f"codebook {number}") for number, book in enumerate(codebooks)]
        books = Codebooks(tensors, binding or guess_binding(tensors))
    parser = cast("VectorParser", registry.configured(parser, {"sizes": list(books.sizes), "dim": books.dim}))
    if target.type == "cpu":
        keep_freed_memory()
    return VectorSession(parser, books.to(target), source, content, settings, seed)


def vector_settings(k: int | None, method: str | None, iterations: int | None) -> dict[str, Any]:
    """Returns the settings of a search for codewords; None takes a default.  Raises an error if they do not fit each other."""
    products, method = whole_number("k", k, 1) or 1, method or "auto"
    iterations = whole_number("iterations", iterations, 1)
    if method not in METHODS:
        raise UsageError(f"method {method!r} does not support codebooks; choose {', '.join(METHODS)}")
    if products > 1 and method != "auto":
        raise UsageError(
            f"several products (--k {products}) are found by auto alone; leave out --method {method}"
        )
    if iterations is not None and method not in ITERATIVE:
        raise UsageError(
            f"--iterations belongs to --method {', '.join(ITERATIVE)}; add one of them or leave it out"
        )
    return {"k": products, "method": method, "iterations": iterations or ITERATIONS}


def _place(item: Mapping[str, Any]) -> str:
    return f"factor {item['factor']}" + (f" of product {item['product']}" if "product" in item else "")
