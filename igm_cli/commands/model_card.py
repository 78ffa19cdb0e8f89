"""Writes a model's card, a README.md for the Hugging Face hub, from its igm.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from igm_cli.bundled import is_pipeline
from igm_cli.commands.report_files import markdown_table
from igm_cli.core.files import DESCRIPTION, HUB, HUB_ID, read_json
from igm_cli.errors import IgmError, InputError, UsageError, near_names

LICENCES = (
    "mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail", "creativeml-openrail-m", "unlicense", "other",
)  # fmt: skip
"""The hub's identifiers of licences."""

TOLD = {
    "dataset": "dataset plugin",
    "plugins": "packages of its plugins",
    "data": "data",
    "images": "images",
    "training": "training",
    "steps": "steps",
    "outcome": "how training ended",
    "not_learned": "whether it learned",
    "contrast": "weight of the contrast",
    "with": "trained with",
    "licence": "licence of data and weights",
}
"""The card's names for entries of igm.json's ``info``; other entries keep their names."""

_ELSEWHERE = ("calibrated", "default", "discriminative", "draws", "licence", "not_calibrated")


def card(folder: Path, name: str, licence: str | None = None) -> str:
    """Returns the card of a model in a folder; ``name`` is what ``--model`` takes, and the default licence is igm.json's.

    Raises:
        InputError: If igm.json is damaged.
        UsageError: If the hub does not know the licence.
    """
    from huggingface_hub import ModelCardData

    known = read_json(folder / DESCRIPTION)
    info, inference = (known.get(part) or {} for part in ("info", "inference"))
    if not (
        isinstance(info, Mapping) and isinstance(inference, Mapping) and isinstance(known.get("space"), Mapping)
    ):
        raise InputError(f"{folder / 'igm.json'} is not a complete description of a model; train it again")
    concepts = str(known.get("concepts", ""))
    head = ModelCardData(
        library_name="igm",
        license=licence_id(licence, info),
        tags=["igm", "diffusion", "compositional-generative-model", "scene-understanding", f"igm-{concepts}"],
    )
    told = [[str(TOLD.get(key, key)), _value(value)] for key, value in info.items() if key not in _ELSEWHERE]
    parts = [
        f"---\n{head.to_yaml().strip()}\n---",
        f"# {name.removeprefix(HUB).rstrip('/').rpartition('/')[2]}",
        f"A compositional diffusion model for `igm`, which understands an image by inverting it.  It finds {_summary(concepts)}.",
        "## How to use it",
        _usage(folder, name, known),
        "## What it knows",
        markdown_table(["", ""], [["concepts", concepts], *_space(known["space"]), *_images(known)]),
        "## Figures and calibration",
        *_calibration(info, inference, cut=bool(known.get("scale"))),
        "## Data and training",
        markdown_table(["", ""], told) if told else "igm.json does not say what it was trained on.",
        "## Licence",
        _sentence(info.get("licence"), licence),
        "## Limits",
        _limits(info, inference, known["space"]),
    ]
    return "\n\n".join(parts) + "\n"


def licence_id(asked: str | None, info: Mapping[str, Any]) -> str | None:
    """Returns the hub's identifier of the licence ``asked`` for or that of igm.json; ``other`` if the hub lacks the latter."""
    if asked is not None:
        if asked.lower() not in LICENCES:
            hint = near_names(asked.lower(), LICENCES)
            raise UsageError(f"the hub knows no licence {asked!r}; {hint}; or use other")
        return asked.lower()
    said = str(info.get("licence", "")).strip().lower().replace(" ", "-")
    if not said:
        return None
    return said if said in LICENCES else "other"


def _summary(concepts: str) -> str:
    """Returns the plugin's summary of its concepts."""
    from igm_cli.plugins import registry

    try:
        return str(getattr(registry.load("concepts", concepts), "summary", "")) or f"concepts of {concepts}"
    except IgmError:  # the plugin is not installed
        return f"concepts of the plugin {concepts}"


def _usage(folder: Path, name: str, known: Mapping[str, Any]) -> str:
    from igm_cli.plugins.registry import package_said

    pipeline = is_pipeline(folder)
    if companions := known.get("info", {}).get("with"):
        every = [*companions, name]
        commands = ['igm generate "…" ' + " ".join(f"--model {each}" for each in every)]
        python = f'images = igm.generate("…", model={every!r})'
    else:
        commands = [f"igm {'zero-shot' if pipeline else 'invert'} image.png --model {name}"]
        if not pipeline and known["space"].get("kind") != "categorical":
            commands += [f"igm estimate-k image.png --model {name}"]
        python = f'result = igm.load("{name}").invert("image.png")\nprint(result.items)'
    plugin = package_said(known.get("info") or {}, "concepts")
    igm = "'igm-cli[text]'" if pipeline else "igm-cli"
    lines = "\n".join([f"pip install {igm} {plugin}".rstrip(), *commands])
    return f"```sh\n{lines}\n```\n\n```python\nimport igm_cli as igm\n\n{python}\n```"


def _space(space: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields rows that describe a concept space: names of coordinates, factors with their values, labels."""
    for key, value in space.items():
        if isinstance(value, Mapping) and "kind" in value:
            yield from _space(value)
        elif isinstance(value, Mapping):
            yield from ([str(name), ", ".join(map(str, values))] for name, values in value.items())
        elif key in ("names", "labels") and isinstance(value, list):
            yield ["coordinates" if key == "names" else key, ", ".join(map(str, value))]


def _images(known: Mapping[str, Any]) -> Iterator[list[str]]:
    width, height = known.get("image_size") or ("?", "?")
    if scale := known.get("scale"):
        yield ["images", f"of any size, seen at {scale:g} pixels per pixel; trained on {width}×{height}"]
    else:
        yield ["images", f"brought to {width}×{height} pixels"]
    yield ["composition", str(known.get("composition", ""))]


def _calibration(info: Mapping[str, Any], inference: Mapping[str, Any], cut: bool) -> Iterator[str]:
    fitted = info.get("calibrated")
    if not isinstance(fitted, Mapping):
        yield (
            "It was not calibrated: its confidences rank answers and are not probabilities.  "
            "`igm evaluate --calibrate` does it."
        )
        if why := info.get("not_calibrated"):
            yield markdown_table(["why it was not"], [[str(why)]])
        return
    if cut and "windows" not in fitted and "images" in fitted:  # before images were counted, too
        fitted = {"windows": fitted["images"], **{key: fitted[key] for key in fitted if key != "images"}}
    rows = [[name.replace("_", " "), _value(value)] for name, value in fitted.items()]
    said = {"penalty": "what one more concept must explain (penalty)", "temperature": "temperature"}
    rows += [[text, _value(inference[name])] for name, text in said.items() if name in inference]
    yield "Fitted to annotated images:"
    yield markdown_table(["", ""], rows)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)


def _sentence(said: Any, asked: str | None) -> str:
    texts = [f"The author gives it the licence {asked}."] if asked else []
    texts += ["Of data and weights igm.json says:", markdown_table(["licence"], [[str(said)]])] if said else []
    return "\n\n".join(texts) or "Not stated."


def _limits(info: Mapping[str, Any], inference: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    from igm_cli.core.checkpoint import is_discriminative

    told = ["It hardly learned anything (see data and training): do not rely on its answers."] * bool(
        info.get("not_learned")
    )
    told += ["It knows images like those it was trained on; of others its answers are guesses."]
    if inference.get("typical") or space.get("nothing"):
        told.append(
            "Every answer says how typical the image is of what it knows (`typicality`); below 0.5, do not rely on it."
        )
    else:
        told.append(
            "It does not know what is typical, so it cannot tell an image that is unlike those it was trained on."
        )
    if not info.get("calibrated"):
        told.append("Its confidences were not checked against enough annotated images.")
    if is_discriminative(info):
        told.append(
            "It was also trained to tell concepts apart, not by the denoising objective alone (`discriminative` in answers)."
        )
    if info.get("draws") is False:
        told.append("It was trained to understand images; what it draws is not worth looking at.")
    return "\n".join(f"- {each}" for each in told)


def repository(text: str) -> str:
    """Returns the ``owner/name`` that a user gives, with or without ``hf:``.

    Raises:
        UsageError: If it has no owner or is not a valid name.
    """
    name = text.removeprefix(HUB)
    if not HUB_ID.fullmatch(name) or "--" in name or ".." in name or len(name) > 96:
        why = "has no owner" if "/" not in name else "names no place on the Hugging Face hub"
        raise UsageError(
            f"{text!r} {why}; write user/name, with your name on the hub or that of an organization"
        )
    return name
