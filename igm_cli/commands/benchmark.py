"""``igm benchmark``: measures methods side by side on the same images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igm_cli.commands import options as o
from igm_cli.errors import IgmError, UsageError, near_names
from igm_cli.output import Output

if TYPE_CHECKING:
    from igm_cli.benchmarks.baselines.fit import Budget
    from igm_cli.benchmarks.suite import Suite

MOST_MINUTES, MOST_STEPS = 10**6, 10**9
"""Maximum training budget."""

Name = Annotated[str | None, typer.Argument(metavar="SUITE", help="Leave it out to list the suites.")]
Methods = Annotated[str | None, o.ask("Comma-separated.  Default: all of the suite.", "NAME,...")]
Splits = Annotated[str | None, o.ask("Comma-separated, or all.  Default: the suite's.", "NAME,...")]
DataRoot = Annotated[Path | None, o.data("Folder of the real data.  Default: rendered images.", "FOLDER")]
Limit = Annotated[int | None, o.data("Most items of each split.", "N", min=1, max=o.MOST_IMAGES)]
TrainBudget = Annotated[
    str, o.training("Training of each baseline: minutes (20m) or steps (4000steps).", "TIME")
]
Seed = Annotated[int, o.search("Random seed.", "N", min=0, max=o.MAX_SEED)]
Out = Annotated[
    Path | None,
    o.output(
        "Folder for the results; the same command continues there.  Default: runs/benchmark-SUITE.",
        "FOLDER",
        "--out",
        "-o",
    ),
]
About = Annotated[
    bool, o.output("Print the methods, splits and options of the suite, and stop.", None, "--about")
]
Model = Annotated[
    str | None,
    o.model("A bundled name, a checkpoint folder or hf:owner/name of the hub.  Default: the suite's.", "MODEL"),
]
Settings = Annotated[list[str] | None, o.ask("An option of the suite.", "KEY=VALUE", "--set")]


def benchmark(
    suite: Name = None,
    methods: Methods = None,
    splits: Splits = None,
    data_root: DataRoot = None,
    pixel_range: o.Range = None,
    limit: Limit = None,
    train_budget: TrainBudget = "20m",
    seed: Seed = 0,
    model: Model = None,
    settings: Settings = None,
    device: o.Device = "auto",
    out: Out = None,
    as_json: o.Json = False,
    about: About = False,
) -> None:
    """Measure methods side by side: one record per image, tables, plots and pictures.

    Baselines are trained first, once, each within the budget, and are kept in the cache
    folder ($IGM_CACHE, or igm in the user's cache).  --json prints the summary as one JSON object.
    """
    from igm_cli.benchmarks.suite import Request, find_suite

    sink = Output(as_json=as_json)
    if suite is None:
        _list_suites(sink)
        return
    plugin = find_suite(suite, typed=True)
    if about:
        _tell_suite(plugin, sink)
        return
    chosen = _choose("method", methods, list(plugin.methods), list(plugin.methods))
    root = o.expanded(data_root)
    o.check_data_range(pixel_range, root)
    parts = _choose("split", splits, list(plugin.splits), list(plugin.default_splits(root)))
    budget = parse_budget(train_budget)
    asked = o.parse_settings(settings or [])
    _check_known("option", asked, list(plugin.options))

    from igm_cli.bundled import find_model
    from igm_cli.commands.benchmark_run import cache_folder, run_benchmark
    from igm_cli.core.device import resolve_device

    request = Request(
        splits=tuple(parts),
        data_root=root,
        limit=limit,
        budget=budget,
        seed=seed,
        device=resolve_device(device),
        model=find_model(model, plugin.concepts),
        cache=cache_folder() / "baselines",
        options=asked,
        pixel_range=pixel_range,
        note=cache(sink.note),
    )
    run_benchmark(plugin, chosen, request, o.expanded(out) or Path("runs") / f"benchmark-{plugin.name}", sink)


def parse_budget(text: str) -> Budget:
    """Returns the budget of ``20m``, ``20`` (minutes) or ``4000steps``; raises UsageError for anything else."""
    from igm_cli.benchmarks.baselines.fit import Budget

    minutes = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(m|min|minutes?)?\s*", text.lower())
    steps = re.fullmatch(r"\s*(\d+)\s*steps?\s*", text.lower())
    if not (found := minutes or steps):
        raise UsageError(f"--train-budget takes 20m or 4000steps, not {text!r}")
    if not 0 < float(found[1]) <= (MOST_MINUTES if minutes else MOST_STEPS):
        raise UsageError(
            f"--train-budget is above 0, and {MOST_MINUTES}m or {MOST_STEPS}steps at most, not {text!r}"
        )
    return Budget(minutes=float(found[1])) if minutes else Budget(steps=int(found[1]))


def _list_suites(sink: Output) -> None:
    """Lists the suites that can be run."""
    from igm_cli.benchmarks.suite import find_suite
    from igm_cli.plugins import registry

    rows: list[list[str]] = []
    for listing in registry.listings("benchmarks"):
        try:
            plugin = find_suite(listing.name)
        except IgmError as error:
            rows.append([listing.name, f"broken: {error}"])
            continue
        rows.append([listing.name, plugin.summary])
        sink.result(_record(listing.name, plugin))
    sink.table("", ["suite", "what it measures"], rows)
    sink.say("igm benchmark SUITE runs one; with --about it prints its methods, splits and options")


def _record(name: str, plugin: Suite) -> dict[str, Any]:
    """Returns what a suite declares, by the name that it is installed under, as a record."""
    about = {part: dict(getattr(plugin, part)) for part in ("methods", "splits", "options")}
    return {"schema": "igm.benchmarks/1", "name": name, "summary": plugin.summary, **about}


def _tell_suite(plugin: Suite, sink: Output) -> None:
    """Describes a suite: its methods, splits and options."""
    sink.result(record := _record(plugin.name, plugin))
    words = {"methods": "--methods", "splits": "--splits", "options": "--set"}
    rows = [
        [f"{words[kind]} {name}{'=...' if kind == 'options' else ''}", said]
        for kind in words
        for name, said in record[kind].items()
    ]
    sink.table(f"{plugin.name}: {plugin.summary}", ["", "what it is"], rows)


def _choose(noun: str, text: str | None, known: list[str], default: list[str]) -> list[str]:
    """Returns comma-separated names, each of which must be known, in the suite's order."""
    if text is None:
        return default
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return known
    if not names:
        raise UsageError(f"no {noun} named; known are {', '.join(known)}")
    _check_known(noun, names, known)
    return [name for name in known if name in names]


def _check_known(noun: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises UsageError for unknown names, suggesting similar ones."""
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {noun} {name!r}; {near_names(name, known)}")
