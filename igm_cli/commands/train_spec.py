"""The model that a preset of ``igm train`` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from igm_cli.errors import IgmError, InputError, UsageError

if TYPE_CHECKING:
    from igm_cli.commands.train_data import DataPart
    from igm_cli.commands.train_preset import Plan
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.plugins.base import ConceptParser, DatasetAdapter


def model_spec(
    adapter: DatasetAdapter,
    parser: ConceptParser,
    plan: Plan,
    steps: int,
    parts: Sequence[DataPart],
) -> ModelSpec:
    """What is to be trained, from a plan.

    Args:
        adapter: The dataset.
        parser: Of its concepts.
        plan: The preset with what the command line changes.
        steps: Optimizer steps in all, kept with the model as its provenance.
        parts: Of the data, likewise.

    Raises:
        InputError: If the plan says something that no model can be.
    """
    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.concepts import space_to_dict
    from igm_cli.core.noise_schedule import ScheduleConfig

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
    sources = sorted({"given" if part.root else "built-in" for part in parts}, reverse=True)
    return ModelSpec(
        architecture=architecture,
        options={**model, "image_size": [width, height]},
        space=space_to_dict(parser.space),
        schedule=schedule.to_dict(),
        composition=composition,
        image_size=(width, height),
        concepts=parser.name,
        concept_options=plan.concepts,
        inference=plan.inference,
        info={
            "dataset": adapter.name,
            "data": " and ".join(sources),
            "steps": steps,
            **({"contrast": plan.train["contrast"]} if plan.train.get("contrast") else {}),
            "licence": adapter.licence,
            **plan.info,
        },
    )


def check_trainable(adapter: DatasetAdapter, parser: ConceptParser) -> None:
    """Refuses what there is nothing to learn of.

    Raises:
        UsageError: If the concepts are codewords, or the dataset has no images.
    """
    from igm_cli.core.concepts import Codebook

    if isinstance(parser.space, Codebook):
        raise UsageError(
            "codebooks need no training, their denoiser is known exactly; use igm invert with --codebooks"
        )
    if min(adapter.image_size) < 1:
        raise UsageError(
            f"the dataset {adapter.name!r} has no images to train on; choose one of igm plugins that has"
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
    from igm_cli.core.inference.inversion import InversionSettings

    try:
        InversionSettings.from_dict(inference)
    except IgmError as error:
        raise InputError(f"the table [inference] cannot be used: {error}") from error
