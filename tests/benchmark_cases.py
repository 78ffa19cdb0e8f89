"""Every built-in suite on tiny models and data: what its tests share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import tiny_pipelines
import torch
from PIL import Image, ImageDraw
from test_celeba import write_celeba
from test_clevr import write_clevr
from tiny_models import PLACES, spec_of, write

from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.frame import declared
from igm_cli.benchmarks.suite import Request, find_suite
from igm_cli.benchmarks.suites import composition, objects
from igm_cli.bundled import bundled
from igm_cli.commands import figures
from igm_cli.commands.benchmark_run import run_benchmark
from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.models.pipeline_files import quiet
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.output import Output
from igm_cli.plugins import registry
from igm_cli.plugins.clevr.object_attributes import VALUES

objects.HELD_CROPS = 24  # fewer crops to choose a threshold on
composition.SHOWN = 1  # fewer pictures, each of which is drawn anew

EASY, NOISY = "K3-n6-D200", "hrr-K2-n6-D128-noise0.5"
FOUR = "cat,dog,rabbit,fox"
PAPERS = ("Black_Hair", "Eyeglasses", "Smiling")


@dataclass(frozen=True)
class Case:
    """A suite as its tests run it.

    Attributes:
        methods: Those that are run.
        splits: Those that are run.
        options: Options of the suite; ``{folder}`` in a text is the folder of models and data.
        model: Makes its model in a folder; None where it needs none.
        data: Makes its data in a folder; None where it needs none.
        files: What a run leaves besides the report, the summary and the records.
        other: An option that makes another configuration, as ``(name, value)``.
        limit: Items per split.
    """

    methods: Sequence[str]
    splits: Sequence[str]
    options: Mapping[str, Any]
    model: Callable[[Path], object] | None
    data: Callable[[Path], object] | None
    files: Sequence[str]
    other: tuple[str, Any]
    limit: int = 2

    def request(self, folder: Path, **changes: Any) -> Request:
        """Returns a request on models and data in a folder, which are made there once."""
        model, data = folder / "model", folder / "data"
        if self.model and not model.exists():
            self.model(model)
        if self.data and not data.exists():
            self.data(data)
        request = Request(
            splits=tuple(self.splits),
            data_root=data if self.data else None,
            limit=self.limit,
            budget=Budget(steps=2),
            seed=0,
            device=torch.device("cpu"),
            model=model if self.model else Path(),
            cache=folder / "cache",
            options={k: v.format(folder=folder) if isinstance(v, str) else v for k, v in self.options.items()},
        )
        return replace(request, **changes)


def attribute_spec(*factors: str) -> ModelSpec:
    """Returns a tiny model of binary attributes."""
    return spec_of(
        "attributes",
        Categorical(dict.fromkeys(factors, ("no", "yes"))),
        {"draws": 2, "max_draws": 6, "relax_steps": 3},
        schedule=ScheduleConfig(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction").to_dict(),
        concept_options={"factors": ",".join(factors)},
        info={"contrast": 0.03},
    )


def valued_spec(
    concepts: str, name: str, values: Sequence[str], inference: dict[str, Any], **more: Any
) -> ModelSpec:
    """Returns a tiny model of objects that have a value of one kind."""
    options = {"factors": f"{name}={'|'.join(values)}"}
    space = registry.configured(registry.concept_parser(concepts), options).space
    return spec_of(concepts, space, inference, (48, 32), concept_options=options, **more)


def write_pipeline(folder: Path) -> Path:
    """Writes a tiny random text-to-image model."""
    with quiet():
        tiny_pipelines.build(folder, "sd1")
    space = {
        "kind": "text",
        "labels": ["cat", "dog", "rabbit"],
        "templates": ["a photo of a {label}", "a {label}"],
    }
    description = {"space": space, "inference": {"draws": 2, "max_draws": 8}}
    (folder / "igm.json").write_text(json.dumps(description))
    return folder


def write_positions(folder: Path, image_size: tuple[int, int] = (48, 32), scale: float = 0.0) -> Path:
    """Writes a tiny random model of positions; with a scale, of images of any size."""
    space = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    shape = {"window": 3, "coordinates": not scale}
    return write(folder, spec_of("pos", space, PLACES, image_size, shape, scale=scale))


def write_discs(folder: Path) -> None:
    """Writes photographs of discs 20 pixels apart, with a file of points each, in three splits."""
    folder.mkdir()
    for split, count in (("train", 3), ("val", 2)):
        names = [f"{split}-{number}" for number in range(count)]
        (folder / f"{split}.txt").write_text("".join(f"{name}.png\n" for name in names))
        for name in names:
            image = Image.new("RGB", (160, 128), (210, 200, 205))
            pen, places = (
                ImageDraw.Draw(image),
                [(x, y) for x in range(14, 150, 20) for y in range(14, 120, 20)],
            )
            for x, y in places:
                pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(120, 30, 60))
            image.save(folder / f"{name}.png")
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{name}.txt").write_text("".join(f"{x + 0.5} {y + 0.5}\n" for x, y in places))


def write_composed(folder: Path) -> Path:
    """Writes a tiny random model of positions, and beside it those that learn to add to others."""
    models = folder.parent / "models" / "continual"
    radii = tuple(f"{0.25 + 0.05 * number:.2f}" for number in range(20))
    for name, values in (("color", VALUES["color"]), ("shape", VALUES["shape"]), ("size", radii)):
        inference = {"draws": 2, "max_draws": 6, "relax_steps": 3}
        spec = valued_spec("object-attributes", name, values, inference, info={"contrast": 0.03})
        write(models / name, spec)
    write_positions(models / "position")
    for name in ("color", "position"):
        shutil.copytree(models / name, models.parent / name)
    for name, crossed in (("position", "position"), ("size", "size-5")):
        shutil.copytree(models / name, models.parent / "crossed" / crossed)
    shutil.copytree(bundled()["animals-tiny"], models.parent / "animals")
    return write_positions(folder)


CASES: dict[str, Case] = {
    "attributes": Case(
        methods=tuple(declared("attributes")["methods"]),
        splits=("folder-female", "folder-male", "factors"),
        options={"exact_images": 2, "relax_images": 1},
        model=lambda folder: write(folder, attribute_spec(*PAPERS)),
        data=lambda folder: write_celeba(folder, range(1, 81)),  # 73 to 80 are tested on; 76 to 79 are male
        files=("pictures-1.png", "pictures-2.png", "factors-seconds.png", "factors-calls.png"),
        other=("relax_steps", 5),
        limit=3,
    ),
    "composition": Case(
        methods=("real", "igm", "ddim", "ula", "particles", "conditional"),
        splits=(
            "and-1",
            "and-3",
            "or-of-ands",
            "pos-and-not-color",
            "continual-3",
            "crossed-5",
            "faces",
            "animal",
        ),
        options={
            "steps": 3,
            "correct": 1,
            "particles": 2,
            "renders": 4,
            "inverted": 1,
            "twins": 1,
            "train_steps": 2,
            "train_images": 4,
            "models": "{folder}/models",
        },
        model=write_composed,
        data=None,
        files=("pictures.png",),
        other=("steps", 4),
    ),
    "decomposition": Case(
        methods=("auto", "coupled", "resonator", "exhaustive"),
        splits=("points",),
        options={"problems": 4, "iterations": 20, "points": f"{EASY},{NOISY}"},
        model=None,
        data=None,
        files=(),
        other=("problems", 3),
    ),
    "zero-shot": Case(
        methods=tuple(declared("zero-shot")["methods"]),
        splits=("pairs-3-drawn", "pairs-25-drawn", "count-drawn"),
        options={"draws": 2, "relax_steps": 2, "slow_limit": 1, "animals": FOUR},
        model=write_pipeline,
        data=None,
        files=("pictures-1.png", "pictures-2.png", "numbers-count-drawn.png", "cost-count-drawn.png"),
        other=("draws", 3),
    ),
    "cost": Case(
        methods=("igm", "igm-sgd"),
        splits=("k", "batch"),
        options={
            "images": 1,
            "repeats": 1,
            "sgd_steps": 2,
            "steps": 50,
            "restarts": 2,
            "batch": 2,
            "workers": 1,
        },
        model=write_positions,
        data=None,
        files=("cost-k-seconds.png", "cost-k-passes.png"),
        other=("repeats", 2),
        limit=1,
    ),
    "objects": Case(
        methods=("igm", "slot-attention", "density", "centre-point", "watershed"),
        splits=("1-6", "21-60"),
        options={"most": 16},
        model=lambda folder: write_positions(folder, (32, 32), 0.5),
        data=write_discs,
        files=("pictures-1.png", "pictures-2.png", "objects-f1.png", "objects-mape.png", "objects-seconds.png"),
        other=("radius", 4),
    ),
    "object-discovery": Case(
        methods=("igm", "igm-sgd", "slot-attention"),
        splits=("folder", "folder-3-5"),
        options={"renders": 4, "sgd_steps": 1},
        model=write_positions,
        data=lambda folder: write_clevr(folder, count=5),
        files=("pictures.png", "perception-folder.png", "counts-folder.png", "time-folder-3-5.png"),
        other=("sgd_steps", 2),
    ),
}


def recorded(split: str, item: str, *rows: dict[str, Any]) -> dict[str, Any]:
    """Returns a record of known rows."""
    return {"method": "any", "split": split, "item": item, "rows": list(rows)}


def work(name: str, request: Request, out: Path, methods: Sequence[str] = ()) -> dict[str, Any]:
    """Runs a suite into a folder and returns its summary."""
    with mock.patch.object(figures, "DPI", 60):  # whose pictures are drawn sooner
        run_benchmark(find_suite(name), methods or CASES[name].methods, request, out, Output(as_json=True))
    return summary_of(out)


def summary_of(out: Path) -> dict[str, Any]:
    """Returns the summary of a result folder."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())["summary"]
    return summary


def records_of(out: Path) -> list[dict[str, Any]]:
    """Returns the records of a result folder."""
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def without_times(value: Any) -> Any:
    """Returns rows without what differs between two runs."""
    if isinstance(value, Mapping):
        timed = ("seconds", "runs", "nonlinearity", "images_per_second", "_mb", "measured")
        return {k: without_times(v) for k, v in value.items() if not any(part in k for part in timed)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


class Run(NamedTuple):
    """A finished run of a suite."""

    name: str
    request: Request
    out: Path
    summary: dict[str, Any]

    @property
    def case(self) -> Case:
        """What was run."""
        return CASES[self.name]

    def opened(self, *splits: str, **changes: Any) -> Any:
        """Opens the suite again, on other splits or with other changes of the request."""
        request = replace(self.request, splits=splits or self.request.splits)
        return find_suite(self.name).open(replace(request, **changes))
