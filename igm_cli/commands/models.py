"""``igm models``: lists the models that can be named, or shows the card of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from igm_cli.bundled import DEFAULT_CONCEPTS, bundled, cached, find_folder, is_pipeline, local
from igm_cli.commands import options as o
from igm_cli.commands.model_card import card
from igm_cli.core.files import DESCRIPTION, read_json
from igm_cli.errors import InputError
from igm_cli.output import Output


def models(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Print the card of this one.", show_default=False),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """List the models that --model takes: bundled, in runs/, or in the hub's cache; or show one.

    JSON lines follow the schema igm.models/1.
    """
    from igm_cli.plugins import registry

    sink = Output(as_json=as_json)
    if model is not None:
        if as_json:
            o.refuse("the list; leave out the model or --json", json=as_json)
        sink.markdown(card(find_folder(model), model))
        return
    found = {"bundled": bundled(), "local": local(), "cached": cached()}
    entries = [entry(name, source, path) for source, paths in found.items() for name, path in paths.items()]
    for each in entries:
        sink.result(each)
    parsers, rows = {listing.name for listing in registry.listings("concepts")}, []
    for each in entries:
        state = "calibrated" if each["calibrated"] else "" if each["problem"] else "not calibrated"
        if each["concepts"] and each["concepts"] not in parsers:
            state = "needs plugin"
        size = f"{each['size_mb']:.1f} MB"
        rows.append([each["name"], each["source"], each["concepts"] or "damaged", size, state])
    sink.table("", ["model", "from", "concepts", "size", "confidence"], rows)
    for each in entries:
        if each["problem"]:
            sink.say(f"damaged: {each['problem']}")


def entry(name: str, source: str, folder: Path) -> dict[str, Any]:
    """Returns the record of a model without reading its weights."""
    concepts, calibrated, problem = "", False, ""
    try:
        if (folder / DESCRIPTION).is_file():
            known = read_json(folder / DESCRIPTION)
            concepts, info = str(known.get("concepts", "")), known.get("info")
            calibrated = isinstance(info, dict) and bool(info.get("calibrated"))
            problem = "" if concepts else f"{folder / 'igm.json'} names no concepts; it is not a model of igm"
        else:
            concepts = DEFAULT_CONCEPTS["pipeline"]
    except InputError as error:
        problem = str(error)
    weights = folder.glob("*/*.safetensors" if is_pipeline(folder) else "*.safetensors")
    size = sum(path.stat().st_size for path in weights if path.is_file())
    return {
        "schema": "igm.models/1",
        "name": name,
        "source": source,
        "concepts": concepts,
        "size_mb": round(size / 1e6, 3),
        "calibrated": calibrated,
        "card": (folder / "README.md").is_file(),
        "path": str(folder),
        "problem": problem,
    }
