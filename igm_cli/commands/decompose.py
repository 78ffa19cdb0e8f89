"""``igm decompose``: the codewords of bound vectors, or how many products they are the sum of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.errors import UsageError
from igm_cli.output import Output

MOST = 1000
"""Products of a vector at most."""


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
        int | None, o.ask("Most products that are counted.  Default: 8.", "N", min=1, max=MOST)
    ] = None,
    binding: Annotated[
        Literal["map", "hrr", "fhrr"] | None,
        o.ask("How the vectors are bound.  Default: as the file of codebooks says."),
    ] = None,
    method: Annotated[
        Literal["auto", "coupled", "attention", "resonator", "factorizer", "exhaustive"] | None,
        o.search(
            "How one product is taken apart: auto (the default), coupled, attention, resonator, factorizer or exhaustive.",
            "NAME",
        ),
    ] = None,
    iterations: Annotated[int | None, o.search("Of the iterative methods.  Default: 100.", "N", min=1)] = None,
    seed: o.FixedSeed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    csv: o.Csv = None,
    output: o.Results = None,
) -> None:
    """Take bound vectors apart into the codewords that they were bound from.

    JSON lines follow the schema igm.decompose/1, of --count igm.decompose-k/1.
    """
    from igm_cli.vectors import MOST_PRODUCTS, vector_settings

    sink = Output.of_process(as_json)
    if count:
        o.refuse(
            "taking apart; leave it out or leave out --count",
            k=k,
            method=method,
            iterations=iterations,
            csv=csv,
        )
        settings: dict[str, Any] = {"k_max": k_max or MOST_PRODUCTS}
    else:
        if k_max is not None:
            raise UsageError("--k-max belongs to --count; add that or leave it out")
        settings = vector_settings(k, method, iterations)
    from igm_cli.commands.vectors import understand_vectors

    how: dict[str, Any] = {"concepts": concepts, "binding": binding, "seed": seed, "device": device}
    understand_vectors(paths, codebooks, settings, sink, output, csv, **how)
