"""``igm estimate-k``: estimates how many concepts explain an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from igm_cli.commands import options as o
from igm_cli.output import Output


def estimate_k(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k_min: Annotated[
        int | None, o.ask("Fewest concepts considered when K is estimated.", "N", min=0, max=10_000)
    ] = None,
    k_max: o.KMax = None,
    penalty: o.Penalty = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    fit: o.Fit = "crop",
    scale: o.Scale = None,
    pixel_range: o.Range = None,
    every: o.Every = None,
    batch_size: o.BatchSize = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    plot: Annotated[
        Path | None, o.output("Plot the error over K: a file for one image, a folder for several.", "PATH")
    ] = None,
    output: o.Results = None,
) -> None:
    """Estimate how many concepts an image holds, and show the error for every K.

    JSON lines follow the schema igm.estimate-k/1: igm.invert/1 without the items.  The chosen K minimises error + k_penalty * K.
    """
    sink = Output.of_process(as_json)
    o.check_k_range(None, k_min, k_max)
    number = o.number_or_auto("--batch-size", batch_size)

    from igm_cli.commands.runner import understand_images
    from igm_cli.model import open_checkpoint
    from igm_cli.session import ImageSession

    settings = {"k_min": k_min, "k_max": k_max, "penalty": penalty, "draws": draws, "seed": seed}
    opened = open_checkpoint(model, concepts, device)
    how: dict[str, Any] = {"scale": scale, "pixel_range": pixel_range, "note": sink.warn, "every": every}
    session = ImageSession(opened, fit=fit, batch_size=number, given=settings, **how)
    session.require_counting()
    understand_images(session, paths, "igm.estimate-k/1", sink, output, count=True, pictures=plot)
