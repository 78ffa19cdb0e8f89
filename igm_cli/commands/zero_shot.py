"""``igm zero-shot``: finds which labels are in images, with a pretrained text-to-image model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from igm_cli.commands import options as o
from igm_cli.commands import zero_shot_options as z
from igm_cli.errors import counted
from igm_cli.output import Output, process_rank, span

if TYPE_CHECKING:
    from igm_cli.commands.schemas import ZeroShotEstimate
    from igm_cli.session import ImageSession

LONG = 30.0
"""Expected seconds above which the user is told."""

_QUICK = 1.0
"""If the first batch on a CPU takes less than this many seconds, a second one is timed; elsewhere a second one always is."""


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
    """Find which labels are in images, with a text-to-image model such as Stable Diffusion.

    JSON lines follow the schema igm.zero-shot/1, or igm.invert-shared/1 with --shared.
    To use several processes or machines: accelerate launch -m igm_cli zero-shot FOLDER ...
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
    """Reports what a default model knows, which labels it was not trained on, and the time needed if it is long."""
    if default and session.model.knows and process_rank()[0] == 0:
        sink.warn(f"no --model is given: {session.model.name} answers, which knows {session.model.knows}")
    if about := session.model.not_trained_on():
        sink.warn(about)
    rank, world = process_rank()
    if rank == 0 and images and (text := long_run(session, images, world)):
        sink.warn(text)


def _estimate(session: ImageSession, sink: Output, paths: Sequence[str]) -> None:
    """Reports the calls, time and memory that the images would take, without inverting any."""
    from igm_cli.commands.runner import find_inputs
    from igm_cli.core.models.pipeline_files import PUBLISHED

    if about := session.model.not_trained_on():
        sink.warn(about)
    expected = estimated(session, len(find_inputs(session, paths, sink)), process_rank()[1])
    sink.result(expected.model_dump(by_alias=True))
    settings, own = session.settings, session.model.inference
    tuned = any(own.get(name) != PUBLISHED[name] for name in ("draws", "low", "high"))
    sink.table(
        f"{session.model.name} on {session.device.type}",
        ("", "estimate"),
        rows(expected, (settings.low, settings.high), tuned),
    )


def estimated(session: ImageSession, images: int, processes: int = 1) -> ZeroShotEstimate:
    """Returns the estimated cost of some images in a session, from a timed batch of calls."""
    from igm_cli.commands.schemas import ZeroShotEstimate
    from igm_cli.core.device import peak_memory
    from igm_cli.core.inference.engine import constraint_of

    denoiser, settings = session.model.denoiser, session.settings
    space = denoiser.space
    base = session.model.composition == "sum"
    calls = space.dim * space.calls_per_concept + base
    search: Any = constraint_of(space)(space, settings, session.k)
    least = search.least_calls + base * settings.draws
    seconds = seconds_per_call(denoiser, calls * settings.draws)
    each = seconds * -(-images // processes)
    return ZeroShotEstimate(
        schema="igm.zero-shot-estimate/1", model=session.model.name, device=session.device.type,
        images=images, labels=space.dim - (space.nothing_place is not None), templates=len(space.templates),
        calls_per_draw=calls, draws=settings.draws, max_draws=settings.max_draws, least_calls=least,
        seconds_per_call=seconds, memory_gb=peak_memory(session.device), processes=processes,
        least_seconds=each * least, most_seconds=each * calls * settings.max_draws,
    )  # fmt: skip


def between(expected: ZeroShotEstimate) -> str:
    """Returns the minimum and maximum number of draws in words."""
    fixed = expected.draws == expected.max_draws
    return f"{expected.draws}" if fixed else f"{expected.draws} to {expected.max_draws}"


def rows(expected: ZeroShotEstimate, levels: tuple[float, float], tuned: bool) -> list[tuple[str, str]]:
    """Returns the readable rows; ``levels`` are noise levels, ``tuned`` says whether these and the draws suit the model."""
    least, most = expected.least_calls, expected.calls_per_draw * expected.max_draws
    each, images = expected.seconds_per_call, expected.images
    whose = "as suits the model" if tuned else "of the literature: nothing was tuned to this model"
    memory = "not known" if expected.memory_gb is None else f"{expected.memory_gb:.1f} GB"
    in_all = span(expected.least_seconds, expected.most_seconds)
    return [
        ("labels", f"{expected.labels}, {counted(expected.templates, 'prompt')} each"),
        ("draws", f"{between(expected)}, {whose}"),
        ("noise levels", f"{levels[0]:g} to {levels[1]:g} of the schedule"),
        ("network calls per image", f"{least}" if least == most else f"{least} to {most}"),
        ("seconds per call", f"{each:.3g}"),
        ("time per image", span(each * least, each * most)),
        (f"time of {counted(images, 'image')}", in_all),
        ("memory", memory),
    ]


def long_run(session: ImageSession, images: int, world: int = 1) -> str | None:
    """Returns the notice before a long run of some images by ``world`` processes; None if the run is short."""
    expected = estimated(session, images, world)
    least, most = expected.least_seconds, expected.most_seconds
    if most <= LONG:
        return None
    device = session.device.type
    faster = "fewer --labels or --draws" + (", or a GPU," if device == "cpu" else "")
    return (
        f"about {span(least, most)} for {counted(images, 'image')}, "
        f"{counted(expected.labels, 'label')} and {between(expected)} draws on {device}; {faster} are faster"
    )


def seconds_per_call(denoiser: Any, most: int) -> float:
    """Returns the seconds per U-Net call, in a batch as used in inversion but no larger than ``most``."""
    import torch

    batch = min(denoiser.batch, most)
    shape = (batch, *denoiser.latent_shape)
    steps = torch.full((batch,), denoiser.schedule.steps // 2, dtype=torch.long, device=denoiser.device)
    features = denoiser.features(torch.zeros(shape, device=denoiser.device), steps)
    prompt = [denoiser.space.prompts(0)[0]]
    for _ in range(2):
        started = time.monotonic()
        denoiser.predictions_of_prompts(features, prompt)
        seconds = time.monotonic() - started
        if denoiser.device.type == "cpu" and seconds > _QUICK:
            break
    return float(seconds / batch)
