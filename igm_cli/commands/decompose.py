"""``igm decompose``: finds the codewords of bound vectors, or counts the products in them."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.commands.show import VectorReport
from igm_cli.errors import UsageError, some
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from igm_cli.core.decomposition.codebooks import Codebooks

MOST = 1000
"""Maximum number of products of a vector."""


def decompose(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...",
            help="Bound vectors (.npy, .npz, .safetensors), folders of them or quoted patterns.",
        ),
    ],
    codebooks: Annotated[Path, o.ask("A .safetensors file of codebooks.", "FILE")],
    concepts: Annotated[str | None, o.ask("Concept parser of vectors.  Default: codebook.", "NAME")] = None,
    k: Annotated[
        int | None, o.ask("Number of products that were added up.  Default: 1.", "N", min=1, max=MOST)
    ] = None,
    count: Annotated[bool, o.ask("Count the products, instead of taking them apart.", None, "--count")] = False,
    k_max: Annotated[
        int | None, o.ask("Most products that --count considers.  Default: 8.", "N", min=1, max=MOST)
    ] = None,
    binding: Annotated[
        Literal["map", "hrr", "fhrr"] | None,
        o.ask("How the vectors are bound.  Default: what the file of codebooks says."),
    ] = None,
    method: Annotated[
        Literal["auto", "coupled", "attention", "resonator", "factorizer", "exhaustive"] | None,
        o.search(
            "How one product is taken apart: auto (the default), coupled, attention, resonator, factorizer or exhaustive.",
            "NAME",
        ),
    ] = None,
    iterations: Annotated[
        int | None, o.search("Iterations of the iterative methods.  Default: 100.", "N", min=1)
    ] = None,
    seed: o.FixedSeed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    csv: o.Csv = None,
    output: o.Results = None,
) -> None:
    """Take bound vectors apart into the codewords that they were bound from.

    JSON lines follow the schema igm.decompose/1, or igm.decompose-k/1 with --count.
    """
    from igm_cli.commands.runner import Runner
    from igm_cli.vectors import MOST_PRODUCTS, open_vectors, vector_settings

    sink = Output.of_process(as_json)
    if count:
        why = "taking apart; leave it out or leave out --count"
        o.refuse(why, k=k, method=method, iterations=iterations, csv=csv)
        settings: dict[str, Any] = {"k_max": k_max or MOST_PRODUCTS}
    else:
        if k_max is not None:
            raise UsageError("--k-max belongs to --count; add that or leave it out")
        settings = vector_settings(k, method, iterations)
    if process_rank()[1] > 1:
        raise UsageError("bound vectors are taken apart by one process; start igm without accelerate launch")
    how: dict[str, Any] = {"concepts": concepts, "binding": binding, "seed": seed, "device": device}
    session = open_vectors(codebooks, settings=settings, **how)

    def announce(_: int) -> None:
        if session.codebooks.guessed:
            name = session.codebooks.binding.name
            sink.note(
                f"igm: {codebooks} does not name a binding; {name} is assumed, since its codewords look like those of {name}, "
                "and --binding names another"
            )
        note_duplicates(session.codebooks, sink)

    report = VectorReport(sink, session)
    schema = "igm.decompose-k/1" if count else "igm.decompose/1"
    how = {"count": count, "sources": [codebooks], "announce": announce}
    if csv:
        from igm_cli.commands.exports import table

        how["exports"] = [table(csv, session.key)]
    Runner(session, paths, schema, report, sink, output, **how).run()


def note_duplicates(codebooks: Codebooks, sink: Output) -> None:
    """Reports codewords that are identical and so cannot be told apart, or their order."""
    books = [Counter(book.tolist()) for book in codebooks.numbers]
    for number, (book, times) in enumerate(zip(codebooks.numbers, books, strict=True)):
        same = [str(place) for place, word in enumerate(book.tolist()) if times[word] > 1]
        if same:
            sink.note(
                f"igm: codebook {number} has codewords that occur more than once ({some(same, 6)}); "
                "which of them was bound cannot be told"
            )
    pairs = combinations(enumerate(books), 2)
    if sharing := [f"{i} and {j}" for (i, one), (j, other) in pairs if one.keys() & other.keys()]:
        sink.note(
            f"igm: codebooks {some(sharing, 6)} share codewords; if such codewords were bound, their order cannot be told"
        )
