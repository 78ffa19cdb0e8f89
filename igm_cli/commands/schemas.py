"""The JSON lines that commands print: those of the library's results, and those that only commands print.

``python -m igm_cli.commands.schemas`` writes their schemas into ``igm_cli/schemas``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from igm_cli.records import (
    Amount,
    Closed,
    Count,
    GeneratedImage,
    ImageCount,
    ImageResult,
    LabelResult,
    OneOrMore,
    Probability,
    Run,
    SharedResult,
    VectorCount,
    VectorResult,
)

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
"""Folder of the schemas."""


class Interval(TypedDict):
    """A proportion with its 95 % interval."""

    value: Probability
    low: Probability | None
    high: Probability | None


class EvaluationRecord(Closed):
    """How well a model finds the concepts of annotated images."""

    schema_id: Literal["igm.evaluate/1"] = Field(alias="schema")
    model: str
    dataset: str
    split: str
    images: OneOrMore
    windows: OneOrMore | None = Field(None, description="Of these images, by a model of images of any size.")
    figures: dict[str, Interval] = Field(
        description="true_of_those_found, found_of_those_true, all_right, number_exact, typical; of points with values "
        "place_right_of_those_found, and FACTOR_right_of_those_in_place of every factor.  Proportions of nothing are left out.  "
        "Intervals are over images; if all or none are right, objects count as independent.  If only one image has objects, low and high are null."
    )
    calibration_error: dict[str, Amount] = Field(
        description="Expected calibration error of the confidences of concepts, and of values of those that are there."
    )
    fitted: dict[str, Amount] | None = Field(
        None,
        description="With --calibrate: penalty, temperature and value_temperature, as stored with the model.",
    )
    seconds: Amount = Field(description="For an image or window, on average.")


class ModelRecord(Closed):
    """A model that can be named; its problem is empty if its description can be read."""

    schema_id: Literal["igm.models/1"] = Field(alias="schema")
    name: str = Field(description="What --model takes.")
    source: Literal["bundled", "local", "cached"] = Field(
        description="It comes with igm, is in runs of the folder one is in, or in the cache of the Hugging Face hub."
    )
    concepts: str = Field(description="Name of the concept parser; empty if it has a problem.")
    size_mb: Amount = Field(description="Of the files of weights.")
    calibrated: bool = Field(description="Whether its confidences were fitted to enough annotated images.")
    card: bool = Field(description="Whether there is a model card in its folder.")
    path: str
    problem: str


class PushRecord(Closed):
    """A model that was shared, or would be."""

    schema_id: Literal["igm.push/1"] = Field(alias="schema")
    model: str
    repository: str = Field(description="owner/name on the hub.")
    address: str = Field(description="Of its page.")
    private: bool
    files: dict[str, Count] = Field(description="Name of every file to its size in bytes.")
    card: str | None = Field(description="Path of the card that --dry-run wrote; null if it was uploaded.")
    uploaded: bool


class ZeroShotEstimate(Closed):
    """What igm zero-shot would take."""

    schema_id: Literal["igm.zero-shot-estimate/1"] = Field(alias="schema")
    images: OneOrMore
    labels: OneOrMore = Field(description="Without one that stands for none of the others.")
    templates: OneOrMore = Field(description="Prompts that are averaged for each label.")
    calls_per_draw: OneOrMore = Field(description="Calls of the network under one noise draw.")
    draws: OneOrMore
    max_draws: OneOrMore
    least_calls: OneOrMore = Field(
        description="Calls of the network per image if labels are given up early and the first draws decide."
    )
    seconds_per_call: Amount
    memory_gb: Amount | None = Field(description="Most memory taken so far; null where that is not known.")
    processes: OneOrMore = Field(description="Among how many the images are shared.")
    least_seconds: Amount
    most_seconds: Amount
    model: str
    device: str


class PluginState(Closed):
    """One plugin, and whether it loads; its problem is empty if it does."""

    kind: Literal["datasets", "concepts", "benchmarks"]
    name: str
    target: str = Field(description="package.module:attribute")
    packages: list[str] = Field(description="Distributions that offer the name; more than one is a conflict.")
    ok: bool
    summary: str
    problem: str


class PluginRecord(PluginState):
    """A line of igm plugins."""

    schema_id: Literal["igm.plugins/1"] = Field(alias="schema")


class CheckpointState(Closed):
    """A bundled checkpoint; its problem is empty if it can be used."""

    name: str
    concepts: str
    problem: str


class GpuState(Closed):
    """One CUDA device; its problem is empty if it can be used."""

    device: str
    name: str
    memory_gb: float | None
    free_gb: float | None
    capability: str | None = Field(description="Compute capability, e.g. 9.0.")
    bf16: bool = Field(description="Whether it multiplies bfloat16 in hardware.")
    tf32: bool = Field(description="Whether it multiplies TF32, which training uses.")
    problem: str


class DoctorRecord(Closed):
    """What igm finds on this machine."""

    schema_id: Literal["igm.doctor/1"] = Field(alias="schema")
    igm: str
    python: str
    platform: str
    packages: dict[str, str | None] = Field(description="Versions of libraries; null where one is missing.")
    extras: dict[str, list[str]] = Field(description="The libraries that each extra of igm-cli lacks.")
    xformers: str | None
    devices: list[str]
    gpus: list[GpuState]
    cuda: str | None = Field(description="Version of CUDA (or ROCm) that torch is built with.")
    driver: str | None = Field(description="Version of NVIDIA's driver.")
    bf16: dict[str, bool]
    threads: OneOrMore
    checkpoints: list[CheckpointState]
    plugins: list[PluginState]
    caches: dict[str, str]
    ok: bool


class SuiteRecord(Closed):
    """A benchmark, and what can be named for it: each with a line of help."""

    schema_id: Literal["igm.benchmarks/1"] = Field(alias="schema")
    name: str
    summary: str
    methods: dict[str, str] = Field(description="What --methods takes.")
    splits: dict[str, str] = Field(description="What --splits takes.")
    options: dict[str, str] = Field(description="Keys that --set takes.")


class BenchmarkSummary(BaseModel):
    """The summary of a benchmark: its figures are those of the suite."""

    model_config = ConfigDict(extra="allow")

    schema_id: Literal["igm.benchmark/1"] = Field(alias="schema")
    suite: str
    failed: dict[str, str] = Field(description="Methods that failed, and why.")


class BenchmarkRecord(Closed):
    """What a method of a benchmark made of an item, as its results folder keeps it."""

    schema_id: Literal["igm.benchmark-record/1"] = Field(alias="schema")
    run: Run
    method: str
    split: str
    item: str
    rows: list[dict[str, Any]]


PRINTED_BY: dict[type[BaseModel], str] = {
    ImageResult: "igm invert",
    ImageCount: "igm estimate-k",
    LabelResult: "igm zero-shot",
    SharedResult: "igm invert --shared",
    GeneratedImage: "igm generate",
    VectorResult: "igm decompose",
    VectorCount: "igm decompose --count",
    EvaluationRecord: "igm evaluate",
    ZeroShotEstimate: "igm zero-shot --estimate",
    ModelRecord: "igm models",
    PushRecord: "igm push",
    PluginRecord: "igm plugins",
    DoctorRecord: "igm doctor",
    BenchmarkSummary: "igm benchmark",
    SuiteRecord: "igm benchmark --about",
}
"""Models of the lines printed with ``--json``, and the commands that print them."""

_BY_SCHEMA = {
    get_args(model.model_fields["schema_id"].annotation)[0]: model
    for model in PRINTED_BY | {BenchmarkRecord: ""}
}


def is_record(line: dict[str, Any]) -> bool:
    """Returns whether a line has the fields and types of its schema; False if the schema is unknown."""
    try:
        _BY_SCHEMA[line["schema"]].model_validate(line)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    return True


def schemas() -> dict[str, dict[str, Any]]:
    """Returns the JSON schema of every kind of line, by file name."""
    found = {}
    for model, command in PRINTED_BY.items():
        schema = model.model_json_schema()
        name = schema["properties"]["schema"]["const"]
        head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name}
        title = {"title": f"One line of {command} --json"}
        found[f"{name.replace('/', '-')}.json"] = {**head, **schema, **title}
    return found


if __name__ == "__main__":
    for file, content in schemas().items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (SCHEMAS / file).write_text(text, encoding="utf-8")
