"""``igm zero-shot``: which of some labels are in images, by a pretrained text-to-image model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

_NAMED = 5  # up to so many unknown labels are named

LabelList = Annotated[str | None, typer.Option("--labels", help="What may be there: dog,cat,polar bear.")]
LabelFile = Annotated[
    Path | None, typer.Option("--labels-file", help="The same, one label per line; # comments.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A bundled name, a diffusers folder, a .safetensors file or a hub id.  Default: the bundled one.",
    ),
]
K = Annotated[str, typer.Option("--k", metavar="N|auto", help="Number of labels in an image, or auto.")]
KMax = Annotated[
    int | None,
    typer.Option("--k-max", min=1, help="Most labels considered by auto.  Default: the model's, or 3."),
]
Template = Annotated[
    list[str] | None,
    typer.Option("--template", help="Prompt, such as 'a photo of a {label}'; several are averaged."),
]
TemplateFile = Annotated[Path | None, typer.Option("--templates-file", help="The same, one prompt per line.")]
MaxDraws = Annotated[int | None, typer.Option("--max-draws", min=1, help="Draws at most, if undecided.")]
Timesteps = Annotated[
    str | None,
    typer.Option("--timesteps", metavar="LOW-HIGH", help="Noise levels, fractions of the schedule: 0.1-0.7."),
]
Weighting = Annotated[
    float | None,
    typer.Option("--weighting", min=-8, max=8, help="Weigh draws by (sigma/alpha)^POWER.", metavar="POWER"),
]
Views = Annotated[
    int | None,
    typer.Option(
        "--views",
        metavar="1|2|4",
        help="Draws look by turns at the image; at its mirror image, too; at both enlarged, too.  Default: the model's, or 1.",
    ),
]
Variant = Annotated[str | None, typer.Option("--variant", help="Variant of the weights, such as fp16.")]
Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option("--dtype", help="What the U-Net computes in; auto: by device."),
]
Attention = Annotated[
    Literal["auto", "sliced", "xformers"], typer.Option("--attention", help="sliced: less memory, slower.")
]
Offload = Annotated[bool, typer.Option("--offload", help="Keep on the GPU only the part that computes.")]
Size = Annotated[
    int | None, typer.Option("--size", min=8, help="Side of images in pixels.  Default: the model's.")
]
Config = Annotated[
    str | None, typer.Option("--config", help="Folder or hub id that describes a single file's parts.")
]
Prediction = Annotated[
    Literal["auto", "epsilon", "v_prediction"],
    typer.Option("--prediction", help="What the U-Net puts out, where its description is wrong."),
]
Overlay = Annotated[
    Path | None,
    typer.Option(
        "--overlay", help="Write the labels beside the image: a file for one image, a folder for several."
    ),
]


def zero_shot(
    paths: o.Inputs,
    labels: LabelList = None,
    labels_file: LabelFile = None,
    model: Model = None,
    k: K = "auto",
    k_max: KMax = None,
    template: Template = None,
    templates_file: TemplateFile = None,
    draws: o.Draws = None,
    max_draws: MaxDraws = None,
    timesteps: Timesteps = None,
    weighting: Weighting = None,
    views: Views = None,
    seed: o.Seed = None,
    variant: Variant = None,
    dtype: Dtype = "auto",
    attention: Attention = "auto",
    offload: Offload = False,
    size: Size = None,
    config: Config = None,
    prediction: Prediction = "auto",
    fit: o.Fit = "crop",
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Overlay = None,
    output: o.Results = None,
) -> None:
    """Find which labels are in images, by a text-to-image model such as Stable Diffusion.

    JSON lines follow the schema igm.zero-shot/1.  On several processes or machines:
    accelerate launch -m igm_cli zero-shot FOLDER ...
    """
    from igm_cli.commands import zero_shot_options as given
    from igm_cli.commands import zero_shot_time
    from igm_cli.commands.show import understand_images

    number = o.number_or_auto("--k", k)
    o.check_k_range(number, None, k_max)
    low, high = given.parse_timesteps(timesteps)
    chosen = given.read_labels(labels, labels_file)
    prompts = given.read_templates(template or [], templates_file)

    from igm_cli.pipelines import open_pipeline
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
