"""``igm pull``: fetches a model from the Hugging Face hub for use without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igm_cli.commands import options as o
from igm_cli.commands.model_card import repository
from igm_cli.core.files import DESCRIPTION, HUB, PIPELINE
from igm_cli.errors import InputError
from igm_cli.output import Output


def pull(
    model: Annotated[str, typer.Argument(metavar="hf:USER/NAME", help="A model of the Hugging Face hub.")],
    variant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variant of the weights of a pipeline, such as fp16.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Fetch a model from the Hugging Face hub into its cache: one that igm trained, or a text-to-image pipeline.

    The JSON line follows the schema igm.models/1.
    """
    from igm_cli.commands.models import entry

    sink, name = Output(as_json=as_json), repository(model)
    if not model.startswith(HUB):  # otherwise it was announced before
        sink.note(f"igm: {name} is fetched from the Hugging Face hub")
    folder = _fetched(name, variant)
    record = entry(name, "cached", folder)
    if record["problem"]:
        raise InputError(record["problem"])
    sink.result(record)
    sink.say(
        f"{folder} has it: concepts {record['concepts']}, {record['size_mb']:.1f} MB; use it by --model {name}"
    )


def _fetched(name: str, variant: str | None) -> Path:
    """Fetches a model of either kind and returns its folder in the hub's cache."""
    from huggingface_hub import HfApi

    from igm_cli.core.hub import refusal, snapshot

    try:
        names = {each.rfilename for each in HfApi().model_info(name).siblings or ()}
    except Exception as error:  # from the hub's client, its transport or the system
        raise refusal(name, error) from error
    if DESCRIPTION in names:
        return snapshot(name, ("*.json", "*.safetensors", "*.txt", "*.model", "README.md"), fetch=True)
    if PIPELINE not in names:
        raise InputError(
            f"{name} is not a model that igm can use: it has neither igm.json nor model_index.json; choose another"
        )
    from igm_cli.core.models.pipeline_files import find_pipeline

    return find_pipeline(f"{HUB}{name}", variant)
