"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.core.files import home_expanded, parse_toml
from igm_cli.errors import UsageError

ABOUT_SINGLE = "single images; leave it out or leave out --shared"

ASK, IMAGES, MODEL, SEARCH = "What to ask", "How images are read", "Model", "Search"
OUTPUT, DATA, TRAINING = "Output", "Data", "Training"
"""Headings that --help groups options under."""

Device = Annotated[
    str,
    typer.Option(
        rich_help_panel=MODEL, metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", show_default=True
    ),
]
MAX_SEED = 2**32 - 1
MOST_IMAGES = 1_000_000
FixedSeed = Annotated[
    int,
    typer.Option(
        min=0, max=MAX_SEED, rich_help_panel=SEARCH, metavar="N", help="Same seed and device: same result."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MAX_SEED,
        rich_help_panel=SEARCH,
        metavar="N",
        help="Same seed and device: same result.  Default: the model's, or 0.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", rich_help_panel=OUTPUT, help="One JSON object per line on stdout, nothing else there."
    ),
]
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
    typer.Option(
        min=1,
        max=MOST_IMAGES,
        metavar="N",
        rich_help_panel=IMAGES,
        help="Look at each Nth frame of videos (MP4, MKV, WebM, AVI, MOV); a folder is searched for them, too.",
    ),
]
Concepts = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=ASK,
        metavar="NAME",
        help="Concept parser; igm plugins lists them.  Default: the model's.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=MODEL,
        metavar="MODEL",
        help="A bundled name, a checkpoint folder or hf:owner/name of the hub.  Default: the bundled one of --concepts.",
    ),
]
Fit = Annotated[
    Literal["crop", "squash"],
    typer.Option(
        rich_help_panel=IMAGES, help="crop or squash an image of another aspect ratio than the model's."
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=IMAGES,
        metavar="X",
        help="Pixels that the model sees per pixel of the image, where it takes images of any size.  Default: as "
        "trained; half of it for an image enlarged twice as much.",
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        rich_help_panel=IMAGES,
        help="Values of black and white in images, e.g. 0,4095.  Default: by their kind (docs/pixels.md).",
    ),
]
KMax = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=ASK, metavar="N", help="Most concepts considered when K is estimated."),
]
KMin = Annotated[
    int | None,
    typer.Option(
        min=0, rich_help_panel=ASK, metavar="N", help="Fewest concepts considered when K is estimated."
    ),
]
Draws = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=SEARCH, metavar="N", help="Noise draws to begin with.")
]
Penalty = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=SEARCH,
        metavar="X",
        help="Fall of the error, times 1e-4, that justifies one more concept: larger finds fewer.  Default: the model's.",
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        metavar="N|auto", rich_help_panel=MODEL, help="Images worked out together; results do not depend on it."
    ),
]
Overlay = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        metavar="PATH",
        help="Draw the result: a file for one image, a folder for several.",
    ),
]
OverlayLabels = Annotated[
    bool,
    typer.Option(
        "--labels",
        rich_help_panel=OUTPUT,
        help="Write beside every object of --overlay what it is, where there is room.",
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="Write what is found into one table, a row for each item: for spreadsheets, napari, ImageJ.",
    ),
]
Coco = Annotated[
    Path | None,
    typer.Option(
        "--coco",
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="Write the objects into one file of COCO's JSON, a keypoint each.",
    ),
]
Shared = Annotated[
    bool,
    typer.Option(
        "--shared",
        rich_help_panel=ASK,
        help="Find what all images have in common; --k is the number of common concepts.",
    ),
]
Map = Annotated[
    Path | None,
    typer.Option(
        "--map",
        rich_help_panel=OUTPUT,
        metavar="PATH",
        help="Draw how much each concept by itself explains, a file for one image, a folder for several; the values "
        "go into a .npy beside it.  Maps of high noise levels melt together.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="Keep results as JSON lines; the same command goes on there.",
    ),
]


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Returns ``key=value`` pairs as settings; values are read as TOML where they are TOML, else as text."""
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
    """Refuses a range of pixels that is none, or that is about no folder of images."""
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
    """Refuses contradictory counts before anything is loaded."""
    if k_min is not None and k_max is not None and k_min > k_max:
        raise UsageError(f"--k-min {k_min} is above --k-max {k_max}; lower one or raise the other")
    if k is not None and (k_min is not None or k_max is not None):
        raise UsageError("--k gives the number of concepts, so leave out --k-max")


def refuse(why: str, **given: Any) -> None:
    """Refuses options that have no meaning here (those not None); ``why`` is what they are about, and the way out."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name.replace('_', '-')} is about {why}")


def expanded(path: Path | None) -> Path | None:
    """Returns a path with ``~`` resolved."""
    return home_expanded(path) if path else None
