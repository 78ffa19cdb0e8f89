"""The options of ``igm zero-shot``; they are read and checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from igm_cli.commands import options as o
from igm_cli.errors import InputError, UsageError

_RANGE = re.compile(r"\s*(\d*\.?\d+)\s*-\s*(\d*\.?\d+)\s*")
_T = 1000
"""Timesteps that Stable Diffusion is trained on; ranges in timesteps are divided by it."""


Labels = Annotated[str | None, o.ask("Labels to look for: dog,cat,polar bear.", "LABEL,...")]
LabelsFile = Annotated[Path | None, o.ask("File of the labels, one per line; # begins a comment.", "FILE")]
Model = Annotated[
    str | None,
    o.model(
        "A bundled name, a diffusers folder, a .safetensors file or hf:owner/name of the hub.  Default: the bundled one.",
        "MODEL",
    ),
]
K = Annotated[str, o.ask("Number of labels in an image, or auto.", "N|auto")]
KMax = Annotated[int | None, o.ask("Most labels considered by auto.  Default: the model's, or 3.", "N", min=1)]
Template = Annotated[
    list[str] | None, o.ask("Prompt, such as 'a photo of a {label}'; several are averaged.", "TEXT")
]
TemplatesFile = Annotated[Path | None, o.ask("File of the prompts, one per line; # begins a comment.", "FILE")]
MaxDraws = Annotated[int | None, o.search("Most draws, while an answer is undecided.", "N", min=1)]
Coarse = Annotated[
    int | None,
    o.search("After N draws (2, say), keep only the likeliest labels: for hundreds of labels.", "N", min=0),
]
Timesteps = Annotated[
    str | None, o.search("Noise levels, fractions of the schedule (0.1-0.7) or steps of 1000.", "LOW-HIGH")
]
Weighting = Annotated[float | None, o.search("Weigh draws by (sigma/alpha)^POWER.", "POWER", min=-8, max=8)]
Views = Annotated[
    int | None,
    o.search(
        "Views that draws alternate between: 1 the image, 2 also its mirror image, 4 also both enlarged.  Default: the "
        "model's, or 1.",
        "1|2|4",
    ),
]
Variant = Annotated[str | None, o.model("Variant of the weights, such as fp16.", "NAME")]
Dtype = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    o.model("Precision of the network: auto (by device), float32, float16 or bfloat16.", "TYPE"),
]
Attention = Annotated[
    Literal["auto", "sliced", "xformers"],
    o.model("auto; sliced takes less memory and more time; or xformers.", "KIND"),
]
Quantize = Annotated[
    Literal["no", "int8", "nf4"],
    o.model(
        "Keep the network's weights in 8 bits (int8), or on a GPU in 4 (nf4): less memory, but close "
        "decisions may differ.",
        "KIND",
    ),
]
Network = Annotated[
    str | None,
    o.model(
        "File of the denoising network's weights (.gguf or .safetensors), instead of those in the folder.",
        "FILE",
    ),
]
Offload = Annotated[bool, o.model("Keep only the part that is computing on the GPU.", None, "--offload")]
Compile = Annotated[
    bool,
    o.model(
        "Compile the network by torch.compile: takes minutes; calls may then be faster.", None, "--compile"
    ),
]
Estimate = Annotated[
    bool, o.output("Print the calls, time and memory that the images would take, and stop.", None, "--estimate")
]
Size = Annotated[int | None, o.model("Side of images in pixels.  Default: the model's.", "N", min=8, max=8192)]
Config = Annotated[
    str | None, o.model("Folder or hf:owner/name with the configuration of a single file.", "PATH")
]
Prediction = Annotated[
    Literal["auto", "epsilon", "v_prediction"],
    o.model("What the network predicts, if its configuration is wrong: epsilon or v_prediction.", "KIND"),
]
Overlay = Annotated[
    Path | None,
    o.output("Write the labels beside the image: a file for one image, a folder for several.", "PATH"),
]


def read_labels(text: str | None, file: Path | None) -> tuple[str, ...]:
    """Returns the labels of ``--labels`` or ``--labels-file``; none if neither is given."""
    if text is not None and file is not None:
        raise UsageError("--labels and --labels-file exclude each other; leave one out")
    if file is None and text is None:
        return ()
    from igm_cli.label_models import check_labels

    if file is not None:
        return check_labels(_lines(file, "labels"), str(file), InputError)
    return check_labels((text or "").split(","), "--labels", UsageError)


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
