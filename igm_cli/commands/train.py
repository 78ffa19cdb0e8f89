"""``igm train``: trains a model, so that its composed prediction fits a dataset."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.errors import UsageError, near_names, need
from igm_cli.interrupts import saying
from igm_cli.output import Output


def train(
    dataset: Annotated[
        str, typer.Argument(help="Dataset to train on: a name of igm plugins, or package.module:attribute.")
    ],
    concepts: Annotated[str | None, o.data("Concept parser.  Default: the dataset's.", "NAME")] = None,
    data_root: Annotated[
        Path | None, o.data("Folder of the real data.  Default: the dataset's own images.", "FOLDER")
    ] = None,
    pixel_range: o.Range = None,
    builtin: Annotated[
        bool,
        o.data(
            "Also train on images that the dataset makes itself, beside those of --data-root.",
            None,
            "--builtin",
        ),
    ] = False,
    preset: Annotated[str, o.training("A preset of the dataset, or a TOML file.", "NAME")] = "default",
    init: Annotated[
        str | None,
        o.training(
            "Start from the weights of this model: a bundled name, a folder, or hf:owner/name of the hub.",
            "MODEL",
        ),
    ] = None,
    companions: Annotated[
        list[str] | None,
        o.training(
            "Learn an addition to this model, which is frozen; several are composed.", "MODEL", "--with"
        ),
    ] = None,
    output: Annotated[
        Path | None, o.output("Run folder.  Default: runs/DATASET-CONCEPTS.", "FOLDER", "--output", "-o")
    ] = None,
    steps: Annotated[int | None, o.training("Optimizer steps in all.", "N", min=1, max=o.MAX_SEED)] = None,
    batch_size: Annotated[
        int | None, o.training("Images per step, over all processes.", "N", min=1, max=o.MOST_IMAGES)
    ] = None,
    precision: Annotated[
        Literal["no", "bf16", "fp16", "auto"] | None,
        o.training("no, bf16, fp16, or auto: bf16 where the processor has it.", "TYPE"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        o.training(
            "Any option of the preset, e.g. learning_rate=1e-4, model.blocks=1, data.objects=3-5.",
            "KEY=VALUE",
            "--set",
        ),
    ] = None,
    seed: Annotated[int | None, o.training("Random seed.", "N", min=0, max=o.MAX_SEED)] = None,
    device: o.Device = "auto",
    limit: Annotated[int | None, o.data("Most images of each part of the data.", "N", min=1)] = None,
    trackers: Annotated[
        list[str] | None, o.output("Also log to wandb, mlflow, ..., beside tensorboard.", "NAME", "--tracker")
    ] = None,
    dry_run: Annotated[
        bool,
        o.output(
            "Print every setting, draw twelve training samples, estimate time and memory, and stop.",
            None,
            "--dry-run",
        ),
    ] = False,
    list_presets: Annotated[
        bool, o.output("Print the presets of the dataset, and stop.", None, "--list-presets")
    ] = False,
) -> None:
    """Train a model; run the same command again to continue where it stopped.

    The run folder is a checkpoint that igm invert --model reads, and holds metrics.jsonl and
    tensorboard logs.  To use several processes or machines: accelerate launch -m igm_cli train ...
    """
    from igm_cli.bundled import resolve_model
    from igm_cli.commands.train_preset import Recipe, over, presets, read_preset
    from igm_cli.plugins import registry

    sink = Output.of_process(as_json=False)
    adapter = registry.dataset(dataset, typed=True)
    if list_presets:
        if found := presets(adapter):
            sink.table(f"presets of {adapter.name}", ("preset", "what it is"), found)
        else:
            sink.say(f"{adapter.name} has no presets; --dry-run prints the settings that are used then")
        return
    given = _changes(settings or [], steps=steps, batch_size=batch_size, precision=precision, seed=seed)
    o.check_data_range(pixel_range, data_root)
    given |= {} if pixel_range is None else {"data.range": pixel_range}
    if builtin and data_root is None:
        raise UsageError("--builtin is about images beside those of --data-root; add that or leave it out")
    tables = read_preset(adapter, preset)
    known = sorted(getattr(adapter, "presets", {}))
    if preset == "default" and known and preset not in known:
        sink.note(
            f"{adapter.name} has no preset called default, so settings are general; --preset has {', '.join(known)}"
        )
    named = tables.pop("parser", None)
    its_own = str(adapter.concepts if named is None else named)
    parser = registry.concept_parser(concepts or its_own, typed=concepts is not None or named is None)
    if parser.name != its_own:
        tables.pop("concepts", None)  # options of another parser
    if "model.architecture" in given:
        tables["model"] = over(tables.get("model"), {"architecture": given["model.architecture"]})
    recipe = Recipe(preset, tables, given)
    plan = recipe.preset()
    plan.check()
    from igm_cli.commands.train_run import Place, Training

    place = Place(
        dataset=dataset,
        concepts=concepts or its_own,
        output=output or Path("runs") / f"{adapter.name}-{parser.name}",
        data_root=data_root,
        builtin=builtin,
        limit=limit,
        device=device,
        init=resolve_model(init, None) if init else None,
        companions=[resolve_model(name, None) for name in companions or ()],
        trackers=_trackers(trackers or []),
        dry_run=dry_run,
    )
    with saying("a dry run keeps nothing; the same command starts anew") if dry_run else nullcontext():
        Training(adapter, registry.configured(parser, plan.concepts), recipe, place, sink).run()


def _changes(pairs: list[str], **direct: Any) -> dict[str, Any]:
    """Returns the changes of the preset by ``--set`` and by options of their own; one setting may not be given by both."""
    given = o.parse_settings(pairs)
    for key, value in direct.items():
        if value is not None and not given.keys().isdisjoint({key, f"train.{key}"}):
            raise UsageError(f"--set {key} and --{key.replace('_', '-')} are both given; leave one out")
    return given | {f"train.{key}": value for key, value in direct.items() if value is not None}


def _trackers(names: list[str]) -> list[str]:
    """Checks that trackers other than tensorboard are known to accelerate and installed; returns them."""
    if not names:
        return []
    need("train", "accelerate")
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    for name in names:
        if name not in known:
            raise UsageError(f"unknown tracker {name!r}; {near_names(name, known)}")
        if name not in map(str, get_available_trackers()):
            raise UsageError(f"the tracker {name} is not installed; install it, or leave out --tracker {name}")
    return [name for name in dict.fromkeys(names) if name != "tensorboard"]
