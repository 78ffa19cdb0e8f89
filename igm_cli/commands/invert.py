"""``igm invert``: finds the concepts of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.commands.session import Session

SCHEMA = "igm.invert/1"
UNFAMILIAR = 0.5
"""Below it, people are warned; JSON has the figure."""

_DETAILED = 4  # up to so many images get a table each

K = Annotated[
    int | None,
    typer.Option(
        "--k",
        min=1,
        help="Number of concepts.  Default: it is estimated.  Of codebooks: products added up, or 1.",
    ),
]
Method = Annotated[
    Literal[
        "evidence", "sgd", "relax", "enumerate", "eliminate",
        "auto", "coupled", "attention", "resonator", "factorizer", "exhaustive",
    ]
    | None,
    typer.Option(
        "--method",
        help="evidence; the paper's sgd (positions), relax and enumerate (attributes); eliminate: "
        "configurations in stages.  Default: the model's, or evidence.  Of codebooks: auto (the default), "
        "coupled, attention, resonator, factorizer or exhaustive.",
    ),
]  # fmt: skip
Iterations = Annotated[
    int | None,
    typer.Option("--iterations", min=1, help="Of the iterative methods of codebooks.  Default: 100."),
]
Restarts = Annotated[int | None, typer.Option("--restarts", min=1, help="Starts of sgd.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of sgd or relax.")]
Overlay = Annotated[
    Path | None,
    typer.Option("--overlay", help="Draw the result: a file for one image, a folder for several."),
]


def invert(
    paths: o.Inputs,
    concepts: o.Concepts = None,
    model: o.Model = None,
    k: K = None,
    k_max: o.KMax = None,
    draws: o.Draws = None,
    seed: o.Seed = None,
    method: Method = None,
    restarts: Restarts = None,
    steps: Steps = None,
    codebooks: o.Codebooks = None,
    binding: o.Binding = None,
    iterations: Iterations = None,
    fit: o.Fit = "crop",
    device: o.Device = "auto",
    as_json: o.Json = False,
    overlay: Overlay = None,
    output: o.Results = None,
) -> None:
    """Find the concepts of images, such as where the objects are, or the codewords of bound vectors.

    JSON lines follow the schema igm.invert/1, of bound vectors igm.decompose/1.  On several processes or
    machines: accelerate launch -m igm_cli invert FOLDER ...
    """
    from igm_cli.commands.codebook_session import Asked, about_vectors, require_no_codebooks

    if about_vectors(concepts, codebooks):
        from igm_cli.commands.decompose import decompose_files

        asked = Asked(paths, concepts, codebooks, binding, seed, device, as_json, output)
        asked.refuse(model=model, k_max=k_max, draws=draws, restarts=restarts, steps=steps, overlay=overlay)
        asked.refuse(fit=None if fit == "crop" else fit)
        decompose_files(asked, k=k, method=method, iterations=iterations)
        return
    require_no_codebooks(binding=binding, iterations=iterations)
    from igm_cli.commands.batch import find_images
    from igm_cli.commands.session import check_k_range, open_session

    sink = Output(as_json=as_json, quiet=process_rank()[0] != 0)
    check_k_range(k, None, k_max)
    images, pictures = find_images(paths, o.expanded(overlay), "--overlay")
    sgd = {"restarts": restarts, "steps": steps}
    given = {"k_max": k_max, "draws": draws, "seed": seed, "method": method, **sgd}
    session = open_session(model=model, concepts=concepts, device=device, fit=fit, k=k, overrides=given)
    _understand(session, images, pictures, output, sink)


def _understand(
    session: Session, images: Sequence[Path], pictures: Mapping[str, Path], output: Path | None, sink: Output
) -> None:
    """Inverts every image, and shows, draws and keeps what is found."""
    from igm_cli.commands.batch import Batch, exit_if_failed
    from igm_cli.commands.results import open_results
    from igm_cli.imaging import read_image

    report = _Report(sink, detailed=len(images) <= _DETAILED)

    def work(path: Path) -> dict[str, Any]:
        understood = session.invert(path)
        return {
            **session.record(SCHEMA, understood),
            **session.familiarity(understood),
            "items": session.items(understood),
        }

    def draw(record: Mapping[str, Any]) -> Image:
        return session.parser.draw(read_image(Path(record["image"])), record["items"])

    store = open_results(output, SCHEMA, session.run)
    batch = Batch(images, pictures, store, work, draw, report.add, sink)
    failed = batch.run(on_cpu=session.device.type == "cpu")
    report.end()
    exit_if_failed(failed, len(images), sink)


class _Report:
    """For people: a table an image, or one table of many images."""

    def __init__(self, sink: Output, *, detailed: bool) -> None:
        self.sink, self.detailed = sink, detailed
        self.rows: list[list[str]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        if record.get("familiarity", 1.0) < UNFAMILIAR:
            self.sink.note(
                f"igm: {record['image']} is unlike what {record['model']} was trained on "
                f"(familiarity {record['familiarity']:.2f}); what is said of it is little more than a guess"
            )
        if self.detailed:
            self.sink.table(_title(record), _columns(record["items"]), _rows(record["items"]))
        else:
            counted = [] if _has_factors(record["items"]) else [str(record["k"])]
            self.rows.append([record["image"], *counted, _brief(record["items"])])

    def end(self) -> None:
        if self.rows:
            self.sink.table(
                "", ["image", "K", "found"] if len(self.rows[0]) == 3 else ["image", "found"], self.rows
            )


def _title(record: Mapping[str, Any]) -> str:
    if _has_factors(record["items"]):
        return f"{record['image']}: {record['seconds']:.2f} s"
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
        named = "factor" in item and "value" in item
        parts.append(": ".join(kept) if named else f"({', '.join(kept)})" if len(kept) > 1 else "".join(kept))
    return (", " if _has_factors(items) else " ").join(parts)


def _has_factors(items: Sequence[Mapping[str, Any]]) -> bool:
    """Whether items are values of factors, of which there is always the same number."""
    return any("factor" in item for item in items)
