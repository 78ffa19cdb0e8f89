"""``igm zero-shot``: finds which labels are in images, with a pretrained text-to-image model."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from igm_cli.commands import options as o
from igm_cli.errors import InputError, UsageError, counted
from igm_cli.output import Output, process_rank, span

if TYPE_CHECKING:
    from igm_cli.commands.schemas import ZeroShotEstimate
    from igm_cli.session import ImageSession

LONG = 30.0
"""Expected seconds above which the user is told."""

_QUICK = 1.0
"""If the first batch on a CPU takes less than this many seconds, a second one is timed; elsewhere a second one always is."""

_RANGE = re.compile(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*")
_TABLES = (".csv", ".tsv", ".json", ".jsonl")
_T = 1000
"""Timesteps that Stable Diffusion is trained on; ranges in timesteps are divided by it."""


def zero_shot(
    paths: o.Inputs,
    labels: Annotated[str | None, o.ask("Labels to look for: dog,cat,polar bear.", "LABEL,...")] = None,
    labels_file: Annotated[
        Path | None, o.ask("File of the labels, one per line; # begins a comment.", "FILE")
    ] = None,
    model: Annotated[
        str | None,
        o.model(
            "A bundled name, a diffusers folder, a .safetensors file or hf:owner/name of the hub.  Default: the bundled one.",
            "MODEL",
        ),
    ] = None,
    k: Annotated[str, o.ask("Number of labels in an image, or auto.", "N|auto")] = "auto",
    k_max: Annotated[
        int | None,
        o.ask("Most labels considered by auto.  Default: the model's, or 3.", "N", min=1, max=10_000),
    ] = None,
    template: o.Template = None,
    templates_file: Annotated[
        Path | None, o.ask("File of the prompts, one per line; # begins a comment.", "FILE")
    ] = None,
    draws: o.Draws = None,
    max_draws: Annotated[
        int | None, o.search("Most draws, while an answer is undecided.", "N", min=1, max=o.MOST_DRAWS)
    ] = None,
    coarse: Annotated[
        int | None,
        o.search(
            "After N draws, 2 or more, keep only the likeliest labels: for hundreds of labels.",
            "N",
            min=0,
            max=o.MOST_DRAWS,
        ),
    ] = None,
    timesteps: Annotated[
        str | None, o.search("Noise levels, fractions of the schedule (0.1-0.7) or steps of 1000.", "LOW-HIGH")
    ] = None,
    weighting: Annotated[
        float | None, o.search("Weigh draws by (sigma/alpha)^POWER.", "POWER", min=-8, max=8)
    ] = None,
    views: Annotated[
        int | None,
        o.search(
            "Views that draws alternate between: 1 the image, 2 also its mirror image, 4 also both enlarged.  Default: the "
            "model's, or 1.",
            "1|2|4",
        ),
    ] = None,
    seed: o.Seed = None,
    variant: o.Variant = None,
    dtype: o.Dtype = "auto",
    attention: Annotated[
        Literal["auto", "sliced", "xformers"],
        o.model("auto; sliced takes less memory and more time; or xformers.", "KIND"),
    ] = "auto",
    quantize: o.Quantize = "no",
    network: o.Network = None,
    offload: o.Offload = False,
    compile_: Annotated[
        bool,
        o.model(
            "Compile the network by torch.compile: takes minutes; calls may then be faster.", None, "--compile"
        ),
    ] = False,
    size: o.Size = None,
    config: Annotated[
        str | None, o.model("Folder or hf:owner/name with the configuration of a single file.", "PATH")
    ] = None,
    prediction: Annotated[
        Literal["auto", "epsilon", "v_prediction"],
        o.model("What the network predicts, if its configuration is wrong: epsilon or v_prediction.", "KIND"),
    ] = "auto",
    fit: o.Fit = "crop",
    pixel_range: o.Range = None,
    every: o.Every = None,
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Annotated[
        Path | None,
        o.output("Write the labels beside the image: a file for one image, a folder for several.", "PATH"),
    ] = None,
    map_: o.Map = None,
    shared: o.Shared = False,
    output: o.Results = None,
    estimate: Annotated[
        bool,
        o.output("Print the calls, time and memory that the images would take, and stop.", None, "--estimate"),
    ] = False,
) -> None:
    """Find which labels are in images, with a text-to-image model such as Stable Diffusion.

    JSON lines follow the schema igm.zero-shot/1, or igm.invert-shared/1 with --shared.
    To use several processes or machines: accelerate launch -m igm_cli zero-shot FOLDER ...
    """
    from igm_cli.commands.runner import understand_images

    if shared:
        o.refuse(o.ABOUT_SINGLE, map=map_, every=every, coarse=coarse)
    number = o.number_or_auto("--k", k)
    o.check_k_range(number, None, k_max)
    low, high = parse_timesteps(timesteps)
    chosen = read_labels(labels, labels_file)
    prompts = read_templates(template or [], templates_file)

    from igm_cli.label_models import open_pipeline
    from igm_cli.session import ImageSession

    how: dict[str, Any] = {"variant": variant, "dtype": dtype, "attention": attention, "offload": offload}
    how |= {"size": size, "config": config, "prediction": prediction, "compile": compile_}
    how |= {"quantize": quantize, "network": network}
    sink = Output.of_process(as_json)
    opened = open_pipeline(model, device, labels=chosen, templates=prompts, loading=how, note=sink.note)
    settings = {"k_max": k_max, "draws": draws, "max_draws": max_draws, "low": low, "high": high}
    settings |= {"coarse": coarse, "power": weighting, "views": views, "seed": seed}
    how = {"shared": shared, "pixel_range": pixel_range, "note": sink.warn, "every": every}
    session = ImageSession(opened, k=number, fit=fit, given=settings, **how)
    if estimate:
        _estimate(session, sink, paths)
        return
    how = {"announce": partial(_announce, session, sink, model is None)}
    how |= {"doubt": opened.not_calibrated()}
    how |= {"sources": [file for file in (labels_file, templates_file) if file]}
    understand_images(session, paths, "igm.zero-shot/1", sink, output, pictures=overlay, maps=map_, **how)


def _announce(session: ImageSession, sink: Output, default: bool, images: int) -> None:
    """Reports what a default model knows, which labels it was not trained on, and the time needed if it is long."""
    if default and session.model.knows:
        sink.warn(f"no --model is given: {session.model.name} answers, which knows {session.model.knows}")
    if about := session.model.not_trained_on():
        sink.warn(about)
    if session.k == session.parser.space.most:
        sink.warn(f"--k {session.k} is the number of labels, so all are taken and nothing is decided")
    rank, world = process_rank()
    if rank or not images:
        return
    expected, device = estimated(session, images, world), session.device.type
    if expected.most_seconds > LONG:
        time = span(expected.least_seconds, expected.most_seconds)
        what = f"{counted(images, 'image')}, {counted(expected.labels, 'label')} and {between(expected)} draws"
        faster = "fewer --labels or --draws" + (", or a GPU," if device == "cpu" else "")
        sink.warn(f"about {time} for {what} on {device}; {faster} are faster")


def _estimate(session: ImageSession, sink: Output, paths: Sequence[str]) -> None:
    """Reports the calls, time and memory that the images would take, without inverting any."""
    from igm_cli.commands.runner import find_inputs
    from igm_cli.core.models.pipeline_files import PUBLISHED

    if about := session.model.not_trained_on():
        sink.warn(about)
    count = sum(session.expected(source) for source in find_inputs(session, paths, sink))
    expected = estimated(session, count, process_rank()[1])
    sink.result(expected.model_dump(by_alias=True))
    settings, own = session.settings, session.model.inference
    tuned = any(own.get(name) != PUBLISHED[name] for name in ("draws", "low", "high"))
    whose = "as suits the model" if tuned else "of the literature: nothing was tuned to this model"
    least, most = expected.least_calls, expected.calls_per_draw * expected.max_draws
    each, images = expected.seconds_per_call, counted(expected.images, "image")
    memory = "not known" if expected.memory_gb is None else f"{expected.memory_gb:.1f} GB"
    rows = [
        ("labels", f"{expected.labels}, {counted(expected.templates, 'prompt')} each"),
        ("draws", f"{between(expected)}, {whose}"),
        ("noise levels", f"{settings.low:g} to {settings.high:g} of the schedule"),
        ("network calls per image", f"{least}" if least == most else f"{least} to {most}"),
        ("seconds per call", f"{each:.3g}"),
        ("time per image", span(each * least, each * most)),
        (f"time of {images}", span(expected.least_seconds, expected.most_seconds)),
        ("memory", memory),
    ]
    sink.table(f"{session.model.name} on {session.device.type}", ("", "estimate"), rows)


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


def seconds_per_call(denoiser: Any, most: int) -> float:
    """Returns the seconds per network call, in a batch as used in inversion but no larger than ``most``."""
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


def read_labels(text: str | None, file: Path | None) -> tuple[str, ...]:
    """Returns the labels of ``--labels`` or ``--labels-file``; none if neither is given."""
    if text is not None and file is not None:
        raise UsageError("--labels and --labels-file exclude each other; leave one out")
    from igm_cli.core.names import parts_of
    from igm_cli.label_models import check_labels

    if file is not None:
        lines = _lines(file, "labels")
        if file.suffix.lower() in _TABLES and any(re.search(r"[,;\t{}\[\]]", line) for line in lines):
            raise InputError(
                f"{file} looks like a table; a file of labels holds one per line and nothing else, such as labels.txt"
            )
        return check_labels(lines, str(file), InputError)
    return () if text is None else check_labels(parts_of(text), "--labels", UsageError)


def read_templates(texts: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Returns the prompts of ``--template`` or ``--templates-file``; none if neither is given."""
    if texts and file is not None:
        raise UsageError("--template and --templates-file exclude each other; leave one out")
    from igm_cli.label_models import check_templates

    if file is not None:
        return check_templates(_lines(file, "templates"), str(file), InputError)
    return check_templates(texts, "--template", UsageError)


def _lines(file: Path, what: str) -> list[str]:
    """Returns the lines of a text file without blank lines and comments; at least one must remain."""
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in o.read_text(file).splitlines()]
    kept = list(filter(None, lines))
    if not kept:
        raise InputError(f"{file} holds no {what}; write one per line")
    return kept


def parse_timesteps(text: str | None) -> tuple[float | None, float | None]:
    """Returns ``LOW-HIGH`` as fractions of the schedule; values above 1 are timesteps out of a thousand."""
    if text is None:
        return None, None
    match = _RANGE.fullmatch(text)
    low, high = (float(match[1]), float(match[2])) if match else (1.0, 0.0)
    if high > 1 and low.is_integer() and high.is_integer():
        low, high = low / _T, high / _T
    if not low < high <= 1:
        raise UsageError(f"--timesteps takes LOW-HIGH within 0-1 (or 0-{_T}), such as 0.1-0.7, not {text!r}")
    return low, high
