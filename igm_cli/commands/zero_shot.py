"""``igm zero-shot``: which of some labels are in images, by a pretrained text-to-image model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.commands.results import ResultFile
    from igm_cli.commands.zero_shot_session import LabelSession

_DETAILED = 4  # up to so many images get a table each
_LISTED = 10  # up to so many labels are all listed in it
_NAMED = 5  # up to so many unknown labels are named

LabelList = Annotated[str | None, typer.Option("--labels", help="What may be there: dog,cat,polar bear.")]
LabelFile = Annotated[Path | None, typer.Option("--labels-file", help="The same, a label a line; # comments.")]
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
TemplateFile = Annotated[Path | None, typer.Option("--templates-file", help="The same, a prompt a line.")]
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
    from igm_cli.commands.batch import find_images
    from igm_cli.commands.session import check_k_range
    from igm_cli.commands.zero_shot_session import Asked, open_label_session

    sink = Output(as_json=as_json, quiet=process_rank()[0] != 0)
    number = given.parse_k(k)
    check_k_range(number, None, k_max)
    low, high = given.parse_timesteps(timesteps)
    settings = {"k_max": k_max, "draws": draws, "max_draws": max_draws, "low": low, "high": high}
    asked = Asked(
        model=model,
        labels=given.read_labels(labels, labels_file),
        templates=given.read_templates(template or [], templates_file),
        k=number,
        settings={**settings, "power": weighting, "views": views, "seed": seed},
        fit=fit,
        device=device,
        loading={
            "variant": variant,
            "dtype": dtype,
            "attention": attention,
            "offload": offload,
            "size": size,
            "config": config,
            "prediction": prediction,
        },
    )
    images, pictures = find_images(paths, o.expanded(overlay), "--overlay")
    session = open_label_session(asked)
    _warn_of_unknown(session, sink)
    _understand(session, images, pictures, output, sink)


def _understand(
    session: LabelSession,
    images: Sequence[Path],
    pictures: Mapping[str, Path],
    output: Path | None,
    sink: Output,
) -> None:
    """Asks about every image, and shows, draws and keeps what is found."""
    from igm_cli.commands.batch import Batch, exit_if_failed
    from igm_cli.commands.results import open_results
    from igm_cli.commands.zero_shot_session import SCHEMA
    from igm_cli.imaging import read_image

    report = _Report(sink, detailed=len(images) <= _DETAILED)

    def work(path: Path) -> dict[str, Any]:
        with sink.progress() as shown:
            return session.understand(path, lambda done, most: shown(f"U-Net calls: {path.name}", done, most))

    def draw(record: Mapping[str, Any]) -> Image:
        return session.parser.draw(read_image(Path(record["image"])), record["items"])

    store = open_results(output, SCHEMA, session.run)
    _warn_of_time(session, images, store, sink)
    batch = Batch(images, pictures, store, work, draw, report.add, sink)
    failed = batch.run(on_cpu=session.denoiser.device.type == "cpu")
    report.end()
    exit_if_failed(failed, len(images), sink)


def _warn_of_unknown(session: LabelSession, sink: Output) -> None:
    """Says which labels the model was not trained on."""
    if not session.unknown:
        return
    named = ", ".join(repr(label) for label in session.unknown[:_NAMED])
    more = f" and {len(session.unknown) - _NAMED} more" if len(session.unknown) > _NAMED else ""
    sink.note(
        f"igm: {session.name} was not trained on {named}{more}; what is said of that is little more than a guess"
    )


def _warn_of_time(
    session: LabelSession, images: Sequence[Path], store: ResultFile | None, sink: Output
) -> None:
    """Says how long it will take, if that is long."""
    from igm_cli.commands.zero_shot_time import estimate, warning

    rank, world = process_rank()
    left = [path for path in images if store is None or str(path) not in store.done]
    if rank == 0 and left:
        text = warning(session, len(left), estimate(session, -(-len(left) // world)))
        if text:
            sink.note(f"igm: {text}")


class _Report:
    """For people: a table an image, or one table of many images."""

    def __init__(self, sink: Output, *, detailed: bool) -> None:
        self.sink, self.detailed = sink, detailed
        self.rows: list[list[str]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Shows an image now, or keeps it for the table."""
        if self.detailed:
            how = "given" if record["k_source"] == "given" else "estimated"
            title = f"{record['image']}: K = {record['k']} ({how}), {record['seconds']:.2f} s"
            self.sink.table(title, ["#", "label", "probability"], _rows(record))
        else:
            found = ", ".join(item["label"] for item in record["items"])
            self.rows.append([record["image"], str(record["k"]), found])

    def end(self) -> None:
        """Shows the table of many images."""
        if self.rows:
            self.sink.table("", ["image", "K", "found"], self.rows)


def _rows(record: Mapping[str, Any]) -> list[list[str]]:
    """The labels found, numbered, and the others without a number if they are few."""
    items, labels = record["items"], record["labels"]
    rows = [[str(i), item["label"], f"{item['confidence']:.3f}"] for i, item in enumerate(items, 1)]
    found = {item["label"] for item in items}
    if len(labels) <= _LISTED:
        rows += [["", x["label"], f"{x['probability']:.3f}"] for x in labels if x["label"] not in found]
    return rows
