"""``igm zero-shot``: which of some labels are in images, by a pretrained text-to-image model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from igm_cli.commands import options as o
from igm_cli.commands import zero_shot_options as z
from igm_cli.commands.show import strangers
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from igm_cli.session import ImageSession


def zero_shot(
    paths: o.Inputs,
    labels: z.Labels = None,
    labels_file: z.LabelsFile = None,
    model: z.Model = None,
    k: z.K = "auto",
    k_max: z.KMax = None,
    template: z.Template = None,
    templates_file: z.TemplatesFile = None,
    draws: o.Draws = None,
    max_draws: z.MaxDraws = None,
    coarse: z.Coarse = None,
    timesteps: z.Timesteps = None,
    weighting: z.Weighting = None,
    views: z.Views = None,
    seed: o.Seed = None,
    variant: z.Variant = None,
    dtype: z.Dtype = "auto",
    attention: z.Attention = "auto",
    quantize: z.Quantize = "no",
    network: z.Network = None,
    offload: z.Offload = False,
    compile_: z.Compile = False,
    size: z.Size = None,
    config: z.Config = None,
    prediction: z.Prediction = "auto",
    fit: o.Fit = "crop",
    pixel_range: o.Range = None,
    every: o.Every = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: z.Overlay = None,
    map_: o.Map = None,
    shared: o.Shared = False,
    output: o.Results = None,
    estimate: z.Estimate = False,
) -> None:
    """Find which labels are in images, by a text-to-image model such as Stable Diffusion.

    JSON lines follow the schema igm.zero-shot/1, of --shared igm.invert-shared/1.
    On several processes or machines: accelerate launch -m igm_cli zero-shot FOLDER ...
    """
    from igm_cli.commands.understand import understand_images, understand_shared

    if shared:
        o.refuse(o.ABOUT_SINGLE, map=map_, every=every, coarse=coarse)
    number = o.number_or_auto("--k", k)
    o.check_k_range(number, None, k_max)
    low, high = z.parse_timesteps(timesteps)
    chosen = z.read_labels(labels, labels_file)
    prompts = z.read_templates(template or [], templates_file)

    from igm_cli.label_models import open_pipeline
    from igm_cli.session import ImageSession

    how: dict[str, Any] = {"variant": variant, "dtype": dtype, "attention": attention, "offload": offload}
    how |= {"size": size, "config": config, "prediction": prediction, "compile": compile_}
    how |= {"quantize": quantize, "network": network}
    opened = open_pipeline(model, device, labels=chosen, templates=prompts, loading=how)
    settings = {"k_max": k_max, "draws": draws, "max_draws": max_draws, "low": low, "high": high}
    settings |= {"coarse": coarse, "power": weighting, "views": views, "seed": seed}
    sink = Output.of_process(as_json)
    how = {"shared": shared, "pixel_range": pixel_range, "note": sink.warn, "every": every}
    session = ImageSession(opened, k=number, fit=fit, batch_size=None, given=settings, **how)
    if estimate:
        _estimate(session, sink, paths)
        return
    how = {"announce": partial(_announce, session, sink, model is None)}
    how |= {"sources": [file for file in (labels_file, templates_file) if file]}
    if shared:
        understand_shared(session, paths, sink, output, pictures=overlay, **how)
        return
    understand_images(session, paths, "igm.zero-shot/1", sink, output, pictures=overlay, maps=map_, **how)


def _announce(session: ImageSession, sink: Output, default: bool, images: int) -> None:
    """Says what a model that nobody chose knows, which labels it was not trained on, and how long it will take, if that is long."""
    from igm_cli.commands import zero_shot_time

    if default and session.model.knows and process_rank()[0] == 0:
        sink.warn(f"no --model is given: {session.model.name} answers, which knows {session.model.knows}")
    if about := strangers(session.model):
        sink.warn(about)
    rank, world = process_rank()
    if rank == 0 and images and (text := zero_shot_time.warning(session, images, world)):
        sink.warn(text)


def _estimate(session: ImageSession, sink: Output, paths: Sequence[str]) -> None:
    """Says what the images would take, of calls, time and memory; none of them is looked at."""
    from igm_cli.commands import zero_shot_time
    from igm_cli.commands.runner import find_inputs
    from igm_cli.core.models.pipeline_files import PUBLISHED

    if about := strangers(session.model):
        sink.warn(about)
    expected = zero_shot_time.estimate(session, len(find_inputs(session, paths, sink)), process_rank()[1])
    sink.result(expected.model_dump(by_alias=True))
    settings, own = session.settings, session.model.inference
    tuned = any(own.get(name) != PUBLISHED[name] for name in ("draws", "low", "high"))
    sink.table(
        f"{session.model.name} on {session.device.type}",
        ("", "estimate"),
        zero_shot_time.rows(expected, (settings.low, settings.high), tuned),
    )
