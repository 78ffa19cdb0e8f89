"""``igm invert``: finds the concepts of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from igm_cli.commands import options as o
from igm_cli.output import Output


def invert(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k: Annotated[int | None, o.ask("Number of concepts.  Default: estimated.", "N", min=1)] = None,
    k_max: o.KMax = None,
    penalty: o.Penalty = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    method: Annotated[
        Literal["evidence", "sgd", "relax", "enumerate", "eliminate"] | None,
        o.search(
            "evidence; the paper's sgd (positions), relax and enumerate (attributes); eliminate: "
            "configurations in stages.  Default: the model's, or evidence.",
            "NAME",
        ),
    ] = None,
    restarts: Annotated[
        int | None, o.search("Restarts of sgd.  Default: the model's, or 20.", "N", min=1, max=10_000)
    ] = None,
    steps: Annotated[
        int | None, o.search("Steps of sgd (2000) or relax (200).", "N", min=1, max=10_000_000)
    ] = None,
    fit: o.Fit = "crop",
    scale: o.Scale = None,
    pixel_range: o.Range = None,
    every: o.Every = None,
    batch_size: o.BatchSize = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Annotated[
        Path | None, o.output("Draw the result: a file for one image, a folder for several.", "PATH")
    ] = None,
    labels: Annotated[
        bool, o.output("Label the objects of --overlay, where there is room.", None, "--labels")
    ] = False,
    map_: o.Map = None,
    shared: o.Shared = False,
    csv: o.Csv = None,
    coco: Annotated[
        Path | None, o.output("Write the objects to a COCO JSON file, a keypoint each.", "FILE")
    ] = None,
    output: o.Results = None,
) -> None:
    """Find the concepts in images, such as where the objects are.

    JSON lines follow the schema igm.invert/1, or igm.invert-shared/1 with --shared.
    To use several processes or machines: accelerate launch -m igm_cli invert FOLDER ...
    """
    sink = Output.of_process(as_json)
    o.check_k_range(k, None, k_max)
    number = o.number_or_auto("--batch-size", batch_size)
    if shared:
        o.refuse(o.ABOUT_SINGLE, map=map_, every=every)
    if overlay is None:
        o.refuse("the picture of --overlay; add that or leave it out", labels=labels or None)

    from igm_cli.commands.runner import understand_images
    from igm_cli.model import open_checkpoint
    from igm_cli.session import ImageSession

    settings = {"k_max": k_max, "penalty": penalty, "draws": draws, "seed": seed, "method": method}
    settings |= {"restarts": restarts, "steps": steps}
    opened = open_checkpoint(model, concepts, device)
    how: dict[str, Any] = {"scale": scale, "shared": shared, "pixel_range": pixel_range, "every": every}
    session = ImageSession(opened, k=k, fit=fit, batch_size=number, given=settings, note=sink.warn, **how)
    if labels:
        session.require_labels()
    more: dict[str, Any] = {"pictures": overlay, "labels": labels}
    if session.settings.method == "evidence":  # other methods give no confidence
        more["doubt"] = opened.not_calibrated()
    if csv or coco:
        from igm_cli.commands.exports import image_exports

        more["exports"] = image_exports(session, csv, coco)
    understand_images(session, paths, "igm.invert/1", sink, output, maps=map_, **more)
