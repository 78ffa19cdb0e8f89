"""``igm invert`` and ``igm estimate-k`` of bound vectors: their codewords, and how many products they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands.batch import exit_if_failed
from igm_cli.commands.codebook_files import VectorFiles, store_of
from igm_cli.commands.codebook_report import CountReport, ProductReport, note_duplicates
from igm_cli.commands.codebook_session import Asked, CodebookSession, open_codebooks
from igm_cli.errors import UsageError
from igm_cli.output import Output

if TYPE_CHECKING:
    from torch import Tensor

    from igm_cli.core.decomposition.superposition import Superposition

SCHEMA = "igm.decompose/1"
COUNT_SCHEMA = "igm.decompose-k/1"
K_MAX = 8
"""Most products of a vector that are looked for."""


def decompose_files(asked: Asked, *, k: int | None, method: str | None, iterations: int | None) -> None:
    """Finds the codewords of bound vectors.

    Args:
        asked: The options.
        k: Products whose sum a vector is.
        method: As ``--method`` has it.
        iterations: As ``--iterations`` has it.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    asked.source()  # a mistake is told before torch is loaded
    from igm_cli.core.decomposition.decompose import AT_ONCE, ITERATIONS

    products, method = k or 1, method or "auto"
    _check_method(method, products, iterations)
    steps = iterations or ITERATIONS
    sink = Output(as_json=asked.as_json)
    session = open_codebooks(asked, k=products, method=method, iterations=steps)
    note_duplicates(session, sink)

    def take_apart(path: Path, vectors: Tensor, first: int) -> list[dict[str, Any]]:
        return products_of(session, path, vectors, first, method=method, iterations=steps)

    def unmix(path: Path, vectors: Tensor, first: int) -> list[dict[str, Any]]:
        return [summands_of(session, path, vectors[0], first, products)]

    store = store_of(asked, SCHEMA, session)
    report = ProductReport(session.codebooks, products, sink)
    work, at_once = (take_apart, AT_ONCE) if products == 1 else (unmix, 1)
    failed = VectorFiles(session, store, work, at_once, report, sink).run()
    exit_if_failed(failed, len(session.files), sink, "files")


def count_products(asked: Asked, *, k_max: int | None) -> None:
    """Finds how many products bound vectors are the sum of.

    Args:
        asked: The options.
        k_max: As ``--k-max`` has it.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    sink = Output(as_json=asked.as_json)
    most = k_max or K_MAX
    session = open_codebooks(asked, k_max=most)
    note_duplicates(session, sink)

    def count(path: Path, vectors: Tensor, first: int) -> list[dict[str, Any]]:
        found, seconds = _superposition(session, vectors[0], most)
        curve = [{"k": k, "unexplained": round(share, 6)} for k, share in enumerate(found.errors.tolist())]
        line = session.line(COUNT_SCHEMA, path, first)
        return [{**line, "k": found.count, "k_max": most, "k_curve": curve, **session.end(seconds)}]

    store = store_of(asked, COUNT_SCHEMA, session)
    failed = VectorFiles(session, store, count, 1, CountReport(sink), sink).run()
    exit_if_failed(failed, len(session.files), sink, "files")


def products_of(
    session: CodebookSession, path: Path, vectors: Tensor, first: int, *, method: str, iterations: int
) -> list[dict[str, Any]]:
    """Records of vectors ``[B,D]`` that are one product each."""
    from igm_cli.core.decomposition.decompose import decompose

    began = time.perf_counter()
    found = decompose(vectors, session.codebooks, method, iterations=iterations, seed=session.seed)
    similarity, operations = found.similarity.tolist(), found.operations.tolist()
    seconds = (time.perf_counter() - began) / len(vectors)
    records = []
    for row, (alike, used) in enumerate(zip(similarity, found.iterations.tolist(), strict=True)):
        marks = [{"ambiguous": True} if each else {} for each in found.ambiguous[row].tolist()]
        sure = found.confidence[row : row + 1]
        items = items_of(session, found.indices[row : row + 1], [alike], sure, [marks])
        records.append(
            {
                **session.line(SCHEMA, path, first + row),
                "k": 1,
                "method": method,
                "items": items,
                "similarity": round(alike, 6),
                "iterations": used,
                "operations": operations[row],
                **session.end(seconds),
            }
        )
    return records


def summands_of(
    session: CodebookSession, path: Path, vector: Tensor, number: int, products: int
) -> dict[str, Any]:
    """The record of a vector ``[D]`` that is the sum of several products."""
    found, seconds = _superposition(session, vector, products)
    marks = [[{"ambiguous": True} if each else {} for each in row] for row in found.ambiguous.tolist()]
    explained = max(0.0, 1 - float(found.errors[-1]))
    return {
        **session.line(SCHEMA, path, number),
        "k": found.count,
        "method": "auto",
        "items": items_of(session, found.indices, found.similarity.tolist(), found.confidence, marks),
        "similarity": round(explained**0.5, 6),  # cosine of the vector and the best sum of the products
        "iterations": None,
        "operations": None,
        **session.end(seconds),
    }


def items_of(
    session: CodebookSession,
    indices: Tensor,
    similarity: list[float],
    confidence: Tensor,
    marks: list[list[dict[str, bool]]],
) -> list[dict[str, Any]]:
    """Indices ``[S,K]`` as items, each with what is known of it."""
    from igm_cli.plugins.base import Frame

    decoded = session.parser.decode(indices.cpu(), Frame((1, 1), (0.0, 0.0, 1.0, 1.0)))  # no image, no frame
    factors = indices.shape[1]
    sure = confidence.flatten().tolist()
    return [
        {
            **item,
            "similarity": round(similarity[place // factors], 6),
            "confidence": round(sure[place], 4),
            **marks[place // factors][place % factors],
        }
        for place, item in enumerate(decoded)
    ]


def _check_method(method: str, products: int, iterations: int | None) -> None:
    """Refuses what does not go together.

    Raises:
        UsageError: Saying what.
    """
    from igm_cli.core.decomposition.decompose import ITERATIVE, METHODS

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


def _superposition(session: CodebookSession, vector: Tensor, most: int) -> tuple[Superposition, float]:
    """The products of a vector ``[D]``, and how long it took."""
    from igm_cli.core.decomposition.superposition import superposition

    began = time.perf_counter()
    found = superposition(vector, session.codebooks, k_max=most, seed=session.seed)
    return found, time.perf_counter() - began
