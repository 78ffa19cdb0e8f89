"""``igm zero-shot``: which of some labels are in images, by a pretrained text-to-image model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

_NAMED = 5  # up to so many unknown labels are named


def zero_shot(
    paths: o.Inputs,
    labels: Annotated[str | None, typer.Option(help="What may be there: dog,cat,polar bear.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="The same, one label per line; # comments.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A bundled name, a diffusers folder, a .safetensors file or a hub id.  Default: the bundled one."
        ),
    ] = None,
    k: Annotated[str, typer.Option(metavar="N|auto", help="Number of labels in an image, or auto.")] = "auto",
    k_max: Annotated[
        int | None, typer.Option(min=1, help="Most labels considered by auto.  Default: the model's, or 3.")
    ] = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Prompt, such as 'a photo of a {label}'; several are averaged.")
    ] = None,
    templates_file: Annotated[Path | None, typer.Option(help="The same, one prompt per line.")] = None,
    draws: o.Draws = None,
    max_draws: Annotated[int | None, typer.Option(min=1, help="Draws at most, if undecided.")] = None,
    timesteps: Annotated[
        str | None, typer.Option(metavar="LOW-HIGH", help="Noise levels, fractions of the schedule: 0.1-0.7.")
    ] = None,
    weighting: Annotated[
        float | None, typer.Option(min=-8, max=8, help="Weigh draws by (sigma/alpha)^POWER.", metavar="POWER")
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|4",
            help="Draws look by turns at the image; at its mirror image, too; at both enlarged, too.  "
            "Default: the model's, or 1.",
        ),
    ] = None,
    seed: o.Seed = None,
    variant: Annotated[str | None, typer.Option(help="Variant of the weights, such as fp16.")] = None,
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        typer.Option(help="What the U-Net computes in; auto: by device."),
    ] = "auto",
    attention: Annotated[
        Literal["auto", "sliced", "xformers"], typer.Option(help="sliced: less memory, slower.")
    ] = "auto",
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep on the GPU only the part that computes.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=8, help="Side of images in pixels.  Default: the model's.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Folder or hub id that describes a single file's parts.")
    ] = None,
    prediction: Annotated[
        Literal["auto", "epsilon", "v_prediction"],
        typer.Option(help="What the U-Net puts out, where its description is wrong."),
    ] = "auto",
    fit: o.Fit = "crop",
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Write the labels beside the image: a file for one image, a folder for several."),
    ] = None,
    output: o.Results = None,
) -> None:
    """Find which labels are in images, by a text-to-image model such as Stable Diffusion.

    JSON lines follow the schema igm.zero-shot/1.  On several processes or machines:
    accelerate launch -m igm_cli zero-shot FOLDER ...
    """
    from igm_cli.commands import zero_shot_options as given
    from igm_cli.commands import zero_shot_time
    from igm_cli.commands.runner import understand_images

    number = o.number_or_auto("--k", k)
    o.check_k_range(number, None, k_max)
    low, high = given.parse_timesteps(timesteps)
    chosen = given.read_labels(labels, labels_file)
    prompts = given.read_templates(template or [], templates_file)

    from igm_cli.label_models import open_pipeline
    from igm_cli.session import ImageSession

    how: dict[str, Any] = {"variant": variant, "dtype": dtype, "attention": attention, "offload": offload}
    how |= {"size": size, "config": config, "prediction": prediction}
    opened = open_pipeline(model, device, labels=chosen, templates=prompts, loading=how)
    settings = {"k_max": k_max, "draws": draws, "max_draws": max_draws, "low": low, "high": high}
    settings |= {"power": weighting, "views": views, "seed": seed}
    session = ImageSession(opened, k=number, fit=fit, batch_size=None, given=settings)
    sink = Output.of_process(as_json)

    def announce(images: int) -> None:
        """Says which labels the model was not trained on, and how long it will take, if that is long."""
        if opened.unknown:
            sink.note(_about_unknown(opened.name, opened.unknown))
        rank, world = process_rank()
        text = zero_shot_time.warning(session, images, world) if rank == 0 and images else None
        if text:
            sink.note(f"igm: {text}")

    how = {"announce": announce, "sources": [file for file in (labels_file, templates_file) if file]}
    understand_images(session, paths, "igm.zero-shot/1", sink, output, pictures=overlay, **how)


def _about_unknown(model: str, unknown: Sequence[str]) -> str:
    named = ", ".join(repr(label) for label in unknown[:_NAMED])
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"igm: {model} was not trained on {named}{more}; treat the result as a guess"
