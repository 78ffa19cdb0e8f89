"""Options shared by several commands, and the reading of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.core.files import home_expanded, parse_toml
from igm_cli.errors import InputError, UsageError

ABOUT_SINGLE = "single images; leave it out or leave out --shared"


def expanded(value: Any) -> Any:
    """Returns an option's value, a path or paths with ``~`` resolved."""
    if isinstance(value, list):
        return [expanded(each) for each in value]
    return home_expanded(value) if isinstance(value, Path) else value


def _panel(title: str) -> Callable[..., Any]:
    """Returns a function that declares options under a heading of ``--help``; in paths ``~`` is resolved."""

    def option(help: str, metavar: str | None = None, *names: str, **more: Any) -> Any:
        more |= {"rich_help_panel": title, "metavar": metavar, "callback": expanded}
        return typer.Option(*names, help=help, **more)

    return option


ask, images, model, search = map(_panel, ("What to ask", "How images are read", "Model", "Search"))
output, data, training, page = map(_panel, ("Output", "Data", "Training", "Page"))

Device = Annotated[str, model("auto, cpu, cuda, cuda:N or mps.", "DEVICE")]
MAX_SEED = 2**32 - 1
MOST_IMAGES = 1_000_000
FixedSeed = Annotated[int, search("Same seed and device: same result.", "N", min=0, max=MAX_SEED)]
Seed = Annotated[
    int | None,
    search("Same seed and device: same result.  Default: the model's, or 0.", "N", min=0, max=MAX_SEED),
]
Json = Annotated[bool, output("Print one JSON object per line on stdout, and nothing else.", None, "--json")]
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="PATHS...",
        help="Images (PNG, JPEG, TIFF, WebP and others), folders, quoted patterns, http(s) addresses, videos with --every, "
        "or - for standard input.",
        show_default=False,
    ),
]
Every = Annotated[
    int | None,
    images(
        "Read every Nth frame of videos (MP4, MKV, WebM, AVI, MOV), also of those in folders.",
        "N",
        min=1,
        max=MOST_IMAGES,
    ),
]
Concepts = Annotated[str | None, ask("Concept parser; igm plugins lists them.  Default: the model's.", "NAME")]
Model = Annotated[
    str | None,
    model(
        "A bundled name, a checkpoint folder or hf:owner/name of the hub.  Default: the bundled one of --concepts, else "
        "clevr-pos.",
        "MODEL",
    ),
]
Fit = Annotated[
    Literal["crop", "squash"],
    images("Crop or squash images whose aspect ratio is not the model's (models of one image size)."),
]
Scale = Annotated[
    float | None,
    images(
        "Model pixels per image pixel, for models that take images of any size.  Default: as in training; halve it "
        "for images enlarged twofold.",
        "X",
    ),
]
Range = Annotated[
    str | None,
    images(
        "Pixel values of black and white, e.g. 0,4095.  Default: by the type of the image (docs/pixels.md).",
        "LOW,HIGH",
        "--range",
    ),
]
MOST_DRAWS = 100_000
KMax = Annotated[int | None, ask("Most concepts considered when K is estimated.", "N", min=1, max=10_000)]
Draws = Annotated[
    int | None, search("Noise draws to start with.  Default: the model's.", "N", min=1, max=MOST_DRAWS)
]
Penalty = Annotated[
    float | None,
    search(
        "How much one more concept must lower the error, in units of 1e-4; larger values find fewer.  Default: the model's.",
        "X",
        min=0,
        max=10**9,
    ),
]
BatchSize = Annotated[str, model("Images processed together; results do not depend on it.", "N|auto")]
Csv = Annotated[
    Path | None,
    output("Write a table with a row for each item found, for spreadsheets, napari or ImageJ.", "FILE"),
]
Shared = Annotated[
    bool, ask("Find what all images have in common; --k is the number of common concepts.", None, "--shared")
]
Map = Annotated[
    Path | None,
    output(
        "Draw how much each concept alone explains: a file for one image, a folder for several.  The values go into "
        "a .npy file beside it.  Maps of high noise levels are blurred.",
        "PATH",
        "--map",
    ),
]
Results = Annotated[
    Path | None,
    output("Write results as JSON lines; the same command continues there.", "FILE", "--output", "-o"),
]
Template = Annotated[
    list[str] | None, ask("Prompt, such as 'a photo of a {label}'; several are averaged.", "TEXT")
]
Variant = Annotated[str | None, model("Variant of the weights, such as fp16.", "NAME")]
Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    model("Precision of the network: auto (by device), float32, float16 or bfloat16.", "TYPE"),
]
Quantize = Annotated[
    Literal["no", "int8", "nf4"],
    model(
        "Keep the network's weights in 8 bits (int8), or on a GPU in 4 (nf4): less memory, but close "
        "decisions may differ.",
        "KIND",
    ),
]
Network = Annotated[
    str | None,
    model(
        "File of the denoising network's weights (.gguf or .safetensors), instead of those in the folder.",
        "FILE",
    ),
]
Offload = Annotated[bool, model("Keep only the part that is computing on the GPU.", None, "--offload")]
Size = Annotated[int | None, model("Side of images in pixels.  Default: the model's.", "N", min=8, max=8192)]


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Returns ``key=value`` pairs as settings; values are read as TOML if possible, otherwise as text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes key=value, not {pair!r}")
        settings[key.strip()] = _value(text.strip())
    return settings


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def check_data_range(text: str | None, data_root: Path | None) -> None:
    """Refuses a pixel range that is invalid or given without a folder of images."""
    from igm_cli.pixels import check_range

    check_range(text)
    if text is not None and data_root is None:
        raise UsageError("--range is about the images of --data-root; add that or leave it out")


def number_or_auto(option: str, text: str) -> int | None:
    """Returns a number, or None for ``auto``."""
    if text.strip().lower() == "auto":
        return None
    if not text.strip().isdecimal() or len(text) > 9 or int(text) < 1:
        raise UsageError(f"{option} takes auto or a number of 1 or more, below a billion, not {text!r}")
    return int(text)


def check_k_range(k: int | None, k_min: int | None, k_max: int | None) -> None:
    """Refuses contradictory numbers of concepts before anything is loaded."""
    if k_min is not None and k_max is not None and k_min > k_max:
        raise UsageError(f"--k-min {k_min} is above --k-max {k_max}; lower one or raise the other")
    if k is not None and (k_min is not None or k_max is not None):
        raise UsageError("--k gives the number of concepts, so leave out --k-max")


def refuse(why: str, **given: Any) -> None:
    """Refuses options that have no meaning here (those not None); ``why`` says what they apply to, and what to do."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name.replace('_', '-')} is about {why}")


def read_text(path: Path) -> str:
    """Returns the content of a text file that a user names."""
    from igm_cli.imaging import read_bytes

    try:
        return read_bytes(home_expanded(path)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as that") from error
