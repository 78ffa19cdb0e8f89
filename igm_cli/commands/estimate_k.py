"""``igm estimate-k``: how many concepts explain an image, or how many products a bound vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output


def estimate_k(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k_min: o.KMin = None,
    k_max: o.KMax = None,
    penalty: o.Penalty = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    codebooks: o.Codebooks = None,
    binding: o.Binding = None,
    fit: o.Fit = "crop",
    scale: o.Scale = None,
    pixel_range: o.Range = None,
    every: o.Every = None,
    batch_size: o.BatchSize = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=o.OUTPUT,
            metavar="PATH",
            help="Draw error over K: a file for one image, a folder for several.",
        ),
    ] = None,
    output: o.Results = None,
) -> None:
    """Estimate how many concepts an image holds, with the error of every K, or how many products a vector.

    JSON lines follow the schema igm.estimate-k/1: those of igm.invert/1 without the items; of bound
    vectors igm.decompose-k/1.  The K chosen is that of the least error + k_penalty * K.
    """
    sink = Output.of_process(as_json)
    given = {"k_min": k_min, "penalty": penalty, "draws": draws}
    if o.about_vectors(concepts, codebooks):
        squashed = None if fit == "crop" else fit
        refused = {**given, "plot": plot, "fit": squashed, "scale": scale, "range": pixel_range, "every": every}
        o.refuse(o.ABOUT_IMAGES, model=model, **refused)
        from igm_cli.commands.vectors import understand_vectors
        from igm_cli.vectors import MOST_PRODUCTS

        how: dict[str, Any] = {"concepts": concepts, "binding": binding, "seed": seed or 0, "device": device}
        understand_vectors(paths, codebooks, {"k_max": k_max or MOST_PRODUCTS}, sink, output, **how)
        return
    o.refuse(o.ABOUT_VECTORS, binding=binding)
    o.check_k_range(None, k_min, k_max)
    number = o.number_or_auto("--batch-size", batch_size)

    from igm_cli.commands.runner import understand_images
    from igm_cli.model import open_checkpoint
    from igm_cli.session import ImageSession

    settings = {**given, "k_max": k_max, "seed": seed}
    opened = open_checkpoint(model, concepts, device)
    how = {"scale": scale, "pixel_range": pixel_range, "note": sink.warn, "every": every}
    session = ImageSession(opened, k=None, fit=fit, batch_size=number, given=settings, **how)
    session.require_counting()
    understand_images(
        session, paths, "igm.estimate-k/1", sink, output, count=True, pictures=plot, option="--plot"
    )
