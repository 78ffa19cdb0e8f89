"""``igm train``: fits the composed prediction to a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igm_cli.commands import options as o
from igm_cli.errors import IgmError, InputError, MissingError, UsageError
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
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=o.MAX_SEED, help="Of everything random.")
    ] = None,
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
        everywhere: Options of every part of the data that takes them.
        inference: Settings that igm invert takes by default with this model.
        info: Anything to keep with the checkpoint.
    """

    model: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    everywhere: dict[str, Any] = field(default_factory=dict)
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

        ``data.key`` sets an option of every part of the data that takes it.

        Raises:
            UsageError: If the table is unknown.
        """
        for name, value in settings.items():
            table, dot, key = name.partition(".")
            if not dot:
                table, key = "train", name
            if table == "data":
                self.everywhere[key] = value
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
    import torch

    from igm_cli.core.device import keep_freed_memory, resolve_device
    from igm_cli.core.training import TrainConfig, TrainObserver
    from igm_cli.core.training import train as train_model

    target = resolve_device(device)
    if target.type == "cuda" and target.index is not None:
        torch.cuda.set_device(target)  # accelerate takes the current one
    config = TrainConfig.from_dict(plan.train)
    own = frozenset(getattr(adapter, "rendered_options", ()))
    parts, described = data_parts(plan, data_root, limit, config.seed, own)
    spec = model_spec(adapter, parser, plan, config, parts)
    check_inference(plan.inference)
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

        validation = None
        if config.picture_every:
            validation = load_validation(adapter, parser, parts[0], spec, output, sink)

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

    from igm_cli.core.checkpoint import WEIGHTS
    from igm_cli.core.training import RUN, STATE

    try:
        run = json.loads((folder / RUN).read_text(encoding="utf-8"))
        asked = json.loads(json.dumps({"model": asdict(spec), "train": config.to_dict(), "data": data}))
        same = all(asked["model"][key] == value for key, value in run["model"].items())
        same &= asked["train"] == run["train"]
        same &= asked["data"] == {key: run["data"][key] for key in asked["data"]}
        same &= (folder / WEIGHTS).is_file() and (folder / "igm.json").is_file()
        state = torch.load(folder / STATE, map_location="meta", weights_only=True) if same else {"step": -1}
        return bool(state["step"] >= config.steps)
    except Exception:
        return False


def model_spec(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    plan: Plan,
    config: TrainConfig,
    parts: Sequence[DataPart],
) -> ModelSpec:
    """What is to be trained, from a plan.

    Raises:
        InputError: If the plan says something that no model can be.
    """
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.core.schedule import ScheduleConfig

    model = dict(plan.model)
    architecture = str(model.pop("architecture", "factored"))
    composition = model.pop("composition", "sum")
    if composition not in ("sum", "mean"):
        raise InputError(f"unknown composition {composition!r}; choose sum or mean")
    width, height = _image_size(model.get("image_size", adapter.image_size))
    try:
        schedule = ScheduleConfig(**plan.schedule)
    except TypeError as error:
        raise InputError(f"the schedule has an option that is unknown: {error}") from error
    return ModelSpec(
        architecture=architecture,
        options={**model, "image_size": [width, height]},
        space=space_to_dict(parser.space),
        schedule=schedule.to_dict(),
        composition=composition,
        image_size=(width, height),
        concepts=parser.name,
        inference=plan.inference,
        info={
            "dataset": adapter.name,
            "data": " and ".join(sorted({"given" if p.root else "built-in" for p in parts}, reverse=True)),
            "steps": config.steps,
            "licence": adapter.licence,
            **plan.info,
        },
    )


def _image_size(value: Any) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in value)
    except (TypeError, ValueError) as error:
        raise InputError(f"image_size must be [width, height], such as [96, 64], not {value!r}") from error
    if min(width, height) < 1:
        raise InputError(f"image_size must be at least [1, 1], not {value!r}")
    return width, height


def check_inference(inference: Mapping[str, Any]) -> None:
    """Refuses before the training what would fail after it.

    Raises:
        InputError: If the preset's table ``[inference]`` is none of an inversion.
    """
    from igm_cli.core.inversion import InversionSettings

    try:
        InversionSettings.from_dict(inference)
    except IgmError as error:
        raise InputError(f"the table [inference] cannot be used: {error}") from error


@dataclass(frozen=True)
class DataPart:
    """One part of the training data, ready to be loaded."""

    split: str
    root: Path | None
    limit: int | None
    seed: int
    options: Mapping[str, Any]


def data_parts(
    plan: Plan, data_root: Path | None, limit: int | None, seed: int, own: frozenset[str] = frozenset()
) -> tuple[list[DataPart], list[dict[str, Any]]]:
    """The parts of a plan that apply, and their description for the run's record.

    A part of ``data_root = "given"`` needs ``--data-root``; without it that part is left out, and
    if none is left, the first one is made by the dataset itself.

    Args:
        plan: The preset with what the command line changes.
        data_root: As ``--data-root`` has it.
        limit: As ``--limit`` has it.
        seed: Of parts that say none.
        own: Options that only images made by the dataset itself take.

    Raises:
        InputError: If a part says something unknown.
    """
    parts, described = [], []
    tables = plan.data
    if data_root is None:
        tables = [t for t in tables if t.get("data_root") != "given"] or [{**tables[0], "data_root": "builtin"}]
    sources = [table.get("data_root", "given" if data_root else "builtin") for table in tables]
    for table, source in zip(tables, sources, strict=True):
        unknown = sorted(set(table) - {"split", "data_root", "limit", "options", "seed"})
        if unknown or source not in ("given", "builtin"):
            raise InputError(
                f"a [[data]] table cannot say {unknown[0] if unknown else f'data_root = {source!r}'}; "
                'it has split, data_root ("given" or "builtin"), limit, seed and options'
            )
        # Without a part that could take them, the dataset itself refuses its own options.
        skipped = own if source == "given" and "builtin" in sources else ()
        everywhere = {key: value for key, value in plan.everywhere.items() if key not in skipped}
        limits = [n for n in (limit, table.get("limit")) if n]
        part = DataPart(
            split=str(table.get("split", "")),
            root=data_root if source == "given" else None,
            limit=min(limits) if limits else None,
            seed=int(table.get("seed", seed)),
            options={**table.get("options", {}), **everywhere},
        )
        parts.append(part)
        described.append(
            {
                "split": part.split,
                "source": source,
                "root": part.root.absolute().name if part.root else None,
                "limit": part.limit,
                "seed": part.seed,
                "options": dict(part.options),
            }
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
    adapter: DatasetAdapter, parser: ConceptParser, part: DataPart, spec: ModelSpec, folder: Path, sink: Output
) -> Validation | None:
    """A few images of the second split; None if the dataset or the given folder has only one."""
    from igm_cli.commands.validation import COUNT, Validation

    if len(adapter.splits) < 2:
        return None
    try:
        data = adapter.load(
            adapter.splits[1], data_root=part.root, limit=COUNT, seed=part.seed, progress=None, **part.options
        )
    except InputError as error:
        if part.root is None:
            raise
        sink.note(f"training goes on without validation: {error}")
        return None
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
