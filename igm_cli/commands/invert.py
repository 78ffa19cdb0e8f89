"""``igm invert``: finds the concepts of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

SCHEMA = "igm.invert/1"
_DETAILED = 4  # up to so many images get a table each


def invert(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Number of concepts.  Default: it is estimated.")
    ] = None,
    k_max: o.KMax = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    method: Annotated[
        Literal["evidence", "sgd"] | None,
        typer.Option("--method", help="evidence, or the paper's sgd.  Default: the model's, or evidence."),
    ] = None,
    restarts: Annotated[int | None, typer.Option("--restarts", min=1, help="Starts of sgd.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of sgd.")] = None,
    fit: o.Fit = "crop",
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Annotated[
        Path | None,
        typer.Option("--overlay", help="Draw the result: a file for one image, a folder for several."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Keep results as JSON lines; the same command goes on there."),
    ] = None,
) -> None:
    """Find the concepts of images, such as where the objects are.

    JSON lines follow the schema igm.invert/1.  On several processes or machines:
    accelerate launch -m igm_cli invert FOLDER ...
    """
    from igm_cli.commands.results import ResultFile, picture_targets, run_all, save_picture
    from igm_cli.commands.session import check_k_range, open_session
    from igm_cli.imaging import expand_inputs, read_image

    sink = Output(as_json=as_json, quiet=process_rank()[0] != 0)
    check_k_range(k, None, k_max)
    images = expand_inputs(paths)
    if len(images) == 1:
        read_image(images[0])  # a mistake is told before the model is loaded
    pictures = picture_targets(images, o.expanded(overlay), "--overlay")
    session = open_session(
        model=model,
        concepts=concepts,
        device=device,
        fit=fit,
        k=k,
        overrides={
            "k_max": k_max,
            "draws": draws,
            "seed": seed,
            "method": method,
            "restarts": restarts,
            "steps": steps,
        },
    )
    target = o.expanded(output)
    store = ResultFile(target, SCHEMA, session.run) if target else None

    def work(path: Path) -> dict[str, Any]:
        understood = session.invert(path)
        items = session.items(understood)
        if str(path) in pictures:
            save_picture(session.parser.draw(understood.image, items), pictures[str(path)])
        return {**session.record(SCHEMA, understood), "items": items}

    shown: list[Mapping[str, Any]] = []

    def finished(record: Mapping[str, Any]) -> None:
        picture = pictures.get(record["image"])
        if picture and not picture.exists():  # kept from an earlier call that drew nothing
            save_picture(session.parser.draw(read_image(Path(record["image"])), record["items"]), picture)
        sink.result(record)
        if len(images) <= _DETAILED:
            sink.table(_title(record), _columns(record["items"]), _rows(record["items"]))
        else:
            shown.append(record)

    on_cpu = session.device.type == "cpu"
    failed = run_all(images, work, finished=finished, store=store, sink=sink, on_cpu=on_cpu)
    if shown:
        rows = [[r["image"], str(r["k"]), _brief(r["items"])] for r in shown]
        sink.table("", ["image", "K", "found"], rows)
    if failed:
        sink.note(f"igm: {failed} of {len(images)} images could not be used; the others are done")
        raise typer.Exit(3)


def _title(record: Mapping[str, Any]) -> str:
    how = "given" if record["k_source"] == "given" else "estimated"
    return f"{record['image']}: K = {record['k']} ({how}), {record['seconds']:.2f} s"


def _columns(items: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["#", *(items[0] if items else ())]


def _rows(items: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[str(i), *(_cell(k, v) for k, v in item.items())] for i, item in enumerate(items, 1)]


def _cell(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if key.endswith("_px") else f"{value:.3f}"
    return "" if value is None else str(value)


def _brief(items: Sequence[Mapping[str, Any]]) -> str:
    """Items on a line: what they say, less pixels and confidence, which JSON has."""
    parts = []
    for item in items:
        kept = [_cell(k, v) for k, v in item.items() if k != "confidence" and not k.endswith("_px")]
        parts.append(f"({', '.join(kept)})" if len(kept) > 1 else "".join(kept))
    return " ".join(parts)
