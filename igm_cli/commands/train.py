"""``igm train``: fits the composed prediction to a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igm_cli.commands import options as o
from igm_cli.errors import InputError, MissingError, UsageError
from igm_cli.output import Output, ProgressReport, process_rank

if TYPE_CHECKING:
    from torch import nn

    from igm_cli.commands.validation import Validation
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.training import Samples, TrainConfig
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter

_TABLES = ("model", "schedule", "train", "data", "inference", "info")


def train(
    dataset: Annotated[
        str, typer.Argument(help="Dataset to train on: a name of igm plugins, or package.module:attribute.")
    ],
    concepts: Annotated[
        str | None, typer.Option("--concepts", help="Concept parser.  Default: the dataset's.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", help="Folder of the real data.  Default: the dataset's own images."),
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", help="A preset of the dataset, or a TOML file.")
    ] = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder.  Default: runs/DATASET-CONCEPTS.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Optimizer steps in all.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images a step, over all processes.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="no, bf16 or fp16.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any option of the preset, e.g. learning_rate=1e-4, model.blocks=1, data.objects=3-5.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything random.")] = None,
    device: o.Device = "auto",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many images of each part of the data.")
    ] = None,
) -> None:
    """Train a model; the same command again goes on where it stopped.

    The run folder is a checkpoint that igm invert --model reads, and holds metrics.jsonl and
    tensorboard logs.  On several processes or machines: accelerate launch -m igm_cli train ...
    """
    from igm_cli.plugins import registry

    overrides = o.parse_settings(settings or [])
    if precision is not None and precision not in ("no", "bf16", "fp16"):
        raise UsageError(f"unknown precision {precision!r}; choose no, bf16 or fp16")
    direct = {"steps": steps, "batch_size": batch_size, "precision": precision, "seed": seed}
    overrides |= {f"train.{key}": value for key, value in direct.items() if value is not None}
    adapter = registry.dataset(dataset)
    parser = registry.concept_parser(concepts or adapter.concepts)
    plan = Plan.from_preset(read_preset(adapter, preset)).override(overrides)
    run_training(
        adapter,
        parser,
        plan,
        output=o.expanded(output) or Path("runs") / f"{adapter.name}-{parser.name}",
        data_root=o.expanded(data_root),
        limit=limit,
        device=device,
        sink=Output(quiet=process_rank()[0] != 0),
    )


@dataclass
class Plan:
    """A preset as tables, with what the command line changes.

    Attributes:
        model: Architecture, composition and the architecture's options.
        schedule: Of the noise, in diffusers' words.
        train: Fields of the trainer's configuration.
        data: Parts of the training data, each a table (split, data_root, limit, options).
        inference: Settings that igm invert takes by default with this model.
        info: Anything to keep with the checkpoint.
    """

    model: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    inference: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_preset(cls, preset: Mapping[str, Any]) -> Plan:
        """Reads the tables of a preset.

        Raises:
            InputError: If there is a table it does not know.
        """
        unknown = sorted(set(preset) - set(_TABLES))
        if unknown:
            raise InputError(f"the preset has an unknown table [{unknown[0]}]; known are {', '.join(_TABLES)}")
        parts = preset.get("data", [])
        tables = [preset.get(name, {}) for name in _TABLES if name != "data"]
        if not (isinstance(parts, list) and all(isinstance(t, dict) for t in [*tables, *parts])):
            raise InputError("a preset holds tables [model], [schedule], [train] and [[data]]; correct it")
        copies = {name: dict(preset.get(name, {})) for name in _TABLES if name != "data"}
        return cls(data=[dict(part) for part in parts] or [{}], **copies)

    def override(self, settings: Mapping[str, Any]) -> Plan:
        """Applies ``table.key=value`` (a key without a table is the trainer's).

        ``data.key`` sets an option of every part of the data.

        Raises:
            UsageError: If the table is unknown.
        """
        for name, value in settings.items():
            table, dot, key = name.partition(".")
            if not dot:
                table, key = "train", name
            if table == "data":
                for part in self.data:
                    part["options"] = {**part.get("options", {}), key: value}
            elif table in _TABLES:
                getattr(self, table)[key] = value
            else:
                raise UsageError(f"--set knows no table {table!r}; use {', '.join(_TABLES)}")
        return self


def read_preset(adapter: DatasetAdapter, preset: str) -> dict[str, Any]:
    """A preset of the dataset by name, or a TOML file; no preset at all is an empty one.

    Raises:
        UsageError: If the name is unknown.
        MissingError: If the file does not exist.
        InputError: If it is no TOML.
    """
    presets = getattr(adapter, "presets", {})
    if preset in presets:
        path = Path(presets[preset])
    elif preset.endswith(".toml"):
        path = Path(preset).expanduser()
    elif preset == "default":
        return {}
    else:
        names = ", ".join(sorted(presets)) or "none"
        raise UsageError(f"{adapter.name} has no preset {preset!r}; it has {names}; a .toml file works too")
    if not path.is_file():
        raise MissingError(f"there is no preset file {path}; check the path")
    try:
        return o.load_toml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no valid TOML: {error}") from error


def run_training(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    plan: Plan,
    *,
    output: Path,
    data_root: Path | None,
    limit: int | None,
    device: str,
    sink: Output,
) -> None:
    """Loads the data and trains, showing progress."""
    _check_writable(output)
    from igm_cli.core.device import keep_freed_memory, resolve_device
    from igm_cli.core.training import TrainConfig, TrainObserver
    from igm_cli.core.training import train as train_model

    target = resolve_device(device)
    config = TrainConfig.from_dict(plan.train)
    spec = model_spec(adapter, parser, plan, config, data_root)
    parts, described = data_parts(plan, data_root, limit, config.seed)
    if is_finished(output, spec, config, {"dataset": adapter.name, "parts": described}):
        sink.note(
            f"{output} already holds all {config.steps} steps of this run; "
            f"use it with igm invert IMAGE --model {output}, or go on with more --steps"
        )
        return
    spec.build()  # wrong options are reported before the data is loaded
    keep_freed_memory()
    with sink.progress() as progress:
        samples = load_samples(adapter, parser, parts, spec.image_size, progress)

        validation = load_validation(adapter, parser, parts[0], spec, output) if config.picture_every else None

        class Observer(TrainObserver):
            def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
                shown = " ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k in ("loss", "learning_rate"))
                if shown:
                    progress(f"training: {shown}", step, config.steps)

            def on_validation(self, step: int, denoiser: nn.Module) -> Mapping[str, float]:
                return validation(step, denoiser) if validation else {}

        sink.note(f"training on {len(samples)} images of {adapter.name} for {config.steps} steps in {output}")
        train_model(
            spec,
            samples,
            config,
            output,
            data={"dataset": adapter.name, "images": len(samples), "parts": described},
            observer=Observer(),
            device_is_cpu=target.type == "cpu",
        )
    sink.note(f"done; use it with: igm invert IMAGE --model {output}")


def is_finished(folder: Path, spec: ModelSpec, config: TrainConfig, data: Mapping[str, Any]) -> bool:
    """Whether the folder holds this very run with all its steps, told without loading the data.

    Whatever is missing, different or damaged there is for the training itself to say.
    """
    import torch

    from igm_cli.core.training import RUN, STATE

    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        asked = json.loads(json.dumps({"model": asdict(spec), "train": config.to_dict(), "data": data}))
        same = all(asked["model"][key] == value for key, value in run["model"].items())
        same &= asked["train"] == run["train"]
        same &= asked["data"] == {key: run["data"][key] for key in asked["data"]}
        state = torch.load(folder / STATE, map_location="meta", weights_only=True) if same else {"step": -1}
        return bool(state["step"] >= config.steps)
    except Exception:
        return False


def model_spec(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    plan: Plan,
    config: TrainConfig,
    data_root: Path | None,
) -> ModelSpec:
    """What is to be trained, from a plan."""
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.core.schedule import ScheduleConfig

    model = dict(plan.model)
    architecture = str(model.pop("architecture", "factored"))
    composition = model.pop("composition", "sum")
    if composition not in ("sum", "mean"):
        raise InputError(f"unknown composition {composition!r}; choose sum or mean")
    width, height = model.get("image_size", adapter.image_size)
    try:
        schedule = ScheduleConfig(**plan.schedule)
    except TypeError as error:
        raise InputError(f"the schedule has an option that is unknown: {error}") from error
    return ModelSpec(
        architecture=architecture,
        options={**model, "image_size": [int(width), int(height)]},
        space=space_to_dict(parser.space),
        schedule=schedule.to_dict(),
        composition=composition,
        image_size=(int(width), int(height)),
        concepts=parser.name,
        inference=plan.inference,
        info={
            "dataset": adapter.name,
            "data": "given and built-in" if data_root else "built-in",
            "steps": config.steps,
            "licence": adapter.licence,
            **plan.info,
        },
    )


@dataclass(frozen=True)
class DataPart:
    """One part of the training data, ready to be loaded."""

    split: str
    root: Path | None
    limit: int | None
    seed: int
    options: Mapping[str, Any]


def data_parts(
    plan: Plan, data_root: Path | None, limit: int | None, seed: int
) -> tuple[list[DataPart], list[dict[str, Any]]]:
    """The parts of a plan that apply, and their description for the run's record.

    A part of ``data_root = "given"`` needs ``--data-root``; without it that part is left out, and
    if none is left, the first one is made by the dataset itself.

    Raises:
        InputError: If a part says something unknown.
    """
    parts, described = [], []
    tables = plan.data
    if data_root is None:
        tables = [t for t in tables if t.get("data_root") != "given"] or [{**tables[0], "data_root": "builtin"}]
    for table in tables:
        unknown = sorted(set(table) - {"split", "data_root", "limit", "options", "seed"})
        source = table.get("data_root", "given" if data_root else "builtin")
        if unknown or source not in ("given", "builtin"):
            raise InputError(
                f"a [[data]] table cannot say {unknown[0] if unknown else f'data_root = {source!r}'}; "
                'it has split, data_root ("given" or "builtin"), limit, seed and options'
            )
        limits = [n for n in (limit, table.get("limit")) if n]
        part = DataPart(
            split=str(table.get("split", "")),
            root=data_root if source == "given" else None,
            limit=min(limits) if limits else None,
            seed=int(table.get("seed", seed)),
            options=dict(table.get("options", {})),
        )
        parts.append(part)
        described.append(
            {"split": part.split, "source": source, "limit": part.limit, "options": dict(part.options)}
        )
    return parts, described


def load_samples(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    parts: list[DataPart],
    image_size: tuple[int, int],
    progress: ProgressReport,
) -> Samples:
    """All parts of the training data, decoded."""
    from igm_cli.plugins.samples import DatasetSamples, JoinedSamples

    loaded = []
    for number, part in enumerate(parts, 1):

        def show(what: str, done: int, total: int, number: int = number) -> None:
            label = f"{what} ({number} of {len(parts)})" if len(parts) > 1 else what
            progress(label, done, total)

        data = adapter.load(
            part.split or adapter.splits[0],
            data_root=part.root,
            limit=part.limit,
            seed=part.seed,
            progress=show,
            **part.options,
        )
        loaded.append(DatasetSamples(data, parser, image_size, progress=show))
    return loaded[0] if len(loaded) == 1 else JoinedSamples(loaded)


def load_validation(
    adapter: DatasetAdapter, parser: ConceptParser, part: DataPart, spec: ModelSpec, folder: Path
) -> Validation | None:
    """A few images of the second split; None if the dataset has only one."""
    from igm_cli.commands.validation import COUNT, Validation

    if len(adapter.splits) < 2:
        return None
    data = adapter.load(
        adapter.splits[1], data_root=part.root, limit=COUNT, seed=part.seed, progress=None, **part.options
    )
    return Validation(data, parser, spec, folder)


def _check_writable(folder: Path) -> None:
    """Fails before the long work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot write to {folder} ({reason}); choose another --output") from error
