"""``igm estimate-k``: how many concepts explain an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

SCHEMA = "igm.estimate-k/1"

Plot = Annotated[
    Path | None,
    typer.Option("--plot", help="Draw error over K: a file for one image, a folder for several."),
]


def estimate_k(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k_min: o.KMin = None,
    k_max: o.KMax = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    codebooks: o.Codebooks = None,
    binding: o.Binding = None,
    fit: o.Fit = "crop",
    device: o.Device = "auto",
    as_json: o.Json = False,
    plot: Plot = None,
    output: o.Results = None,
) -> None:
    """Estimate how many concepts an image holds, with the error of every K, or how many products a vector.

    JSON lines follow the schema igm.estimate-k/1: those of igm.invert/1 without the items; of bound
    vectors igm.decompose-k/1.  The K chosen is that of the least error + k_penalty * K.
    """
    from igm_cli.commands.codebook_session import Asked, about_vectors, require_no_codebooks

    if about_vectors(concepts, codebooks):
        from igm_cli.commands.decompose import count_products

        asked = Asked(paths, concepts, codebooks, binding, seed, device, as_json, output)
        asked.refuse(model=model, k_min=k_min, draws=draws, plot=plot, fit=None if fit == "crop" else fit)
        count_products(asked, k_max=k_max)
        return
    require_no_codebooks(binding=binding)
    from igm_cli.commands.batch import Batch, exit_if_failed, find_images
    from igm_cli.commands.results import open_results
    from igm_cli.commands.session import check_k_range, open_session

    sink = Output(as_json=as_json, quiet=process_rank()[0] != 0)
    check_k_range(None, k_min, k_max)
    images, pictures = find_images(paths, o.expanded(plot), "--plot")
    given = {"k_min": k_min, "k_max": k_max, "draws": draws, "seed": seed}
    session = open_session(model=model, concepts=concepts, device=device, fit=fit, k=None, overrides=given)

    session.require_counting()

    def work(path: Path) -> dict[str, Any]:
        return session.record(SCHEMA, session.invert(path))

    def show(record: Mapping[str, Any]) -> None:
        title = f"{record['image']}: K = {record['k']}, {record['seconds']:.2f} s"
        sink.table(title, *curve_table(record))

    store = open_results(output, SCHEMA, session.run)
    batch = Batch(images, pictures, store, work, draw_curve, show, sink)
    failed = batch.run(on_cpu=session.device.type == "cpu")
    exit_if_failed(failed, len(images), sink)


def curve_table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the error over K, the chosen K circled.

    Where a concept costs something, the sum that the choice minimises has a column too.
    """
    cost = record["k_penalty"]
    columns = ["K", "error", "standard error", *(["error + cost of K"] if cost else []), ""]
    rows = []
    for point in record["k_curve"]:
        error, deviation = _figure(point["error"]), _figure(point["stderr"])
        whole = [_figure(None if point["error"] is None else point["error"] + cost * point["k"])]
        chosen = "◯" if point["k"] == record["k"] else ""
        rows.append([str(point["k"]), error, f"± {deviation}", *(whole if cost else []), chosen])
    return columns, rows


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.6f}"


def draw_curve(record: Mapping[str, Any]) -> Image:
    """Error over K with its error bars, as a picture."""
    from igm_cli.commands.figures import new_figure, to_picture

    curve = record["k_curve"]
    ks = [p["k"] for p in curve]
    errors = [math.nan if p["error"] is None else p["error"] for p in curve]
    bars = [0.0 if p["stderr"] is None else max(0.0, p["stderr"]) for p in curve]
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.errorbar(ks, errors, yerr=bars, marker="o", markersize=4, capsize=3, color="#1f5fa8")
    for k, error in zip(ks, errors, strict=True):
        if k == record["k"]:
            axes.plot([k], [error], "o", markersize=11, fillstyle="none", color="#c0392b")
    if record["k_penalty"]:
        text = f"circled: least error + {record['k_penalty']:.1e} · K"
        style: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 8, "color": "#666666"}
        axes.text(0.98, 0.96, text, transform=axes.transAxes, **style)
    axes.set_xticks(ks)
    axes.set_xlabel("number of concepts K")
    axes.set_ylabel("denoising error under the best K concepts")
    axes.set_title(f"{Path(record['image']).name}: K = {record['k']}")
    axes.grid(alpha=0.3)
    return to_picture(figure)
