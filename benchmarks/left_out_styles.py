"""How a text-to-image model of animals does in a style that it was not trained on: each of six left out in turn.

    python benchmarks/fetch_pictograms.py PICTOGRAMS
    python benchmarks/left_out_styles.py BASE PICTOGRAMS OUT [OPTIONS OF igm train]

BASE is a model that was trained on none of the six.  For every style it is trained further without that style, by the
bundled model's preset, and then igm and the other methods see scenes of two of cat, dog and rabbit in the style.  Confidence is
judged as users get it: the temperature is fitted to the five other styles' scenes, each answered by the model not trained on it.
Existing files in OUT stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from statistics import mean
from typing import NamedTuple, cast

import torch
from torch import Tensor

from igm_cli.benchmarks.baselines.label_methods import compound_prompts, labels_alone
from igm_cli.benchmarks.frame import AnnotatedImages
from igm_cli.benchmarks.suites.zero_shot_splits import TRIO
from igm_cli.commands.train_preset import read_preset
from igm_cli.core.calibration import expected_calibration_error, fitted_temperature
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.posterior import posterior, posteriors, shrink_to_chance
from igm_cli.core.inference.statistics import PairedDifference
from igm_cli.core.inference.views import encoded_views
from igm_cli.core.models.pipeline_files import read_description
from igm_cli.core.models.pipelines import Loading, load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.types import Evidence, InversionSettings
from igm_cli.plugins import registry

IGM = [sys.executable, "-m", "igm_cli"]
LEFT_OUT = {
    "noto-v1": ("noto-v1",),
    "emojione": ("emojione", "emojione-monotone"),
    "fxemoji": ("fxemoji",),
    "twemoji": ("twemoji",),
    "streamline": ("streamline",),
    "openmoji": ("openmoji",),
}
"""Styles shown, and the styles then left out of training: also the same drawings in one colour, and always openmoji."""
METHODS = {"igm": "igm", "dc-compound": "Diffusion Classifier", "dc-variant": "labels alone"}


def main() -> None:
    """Prints a row per style, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("pictograms", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--styles", nargs="+", choices=LEFT_OUT, default=list(LEFT_OUT), help="default: all")
    parser.add_argument("--scenes", type=int, default=100, help="of a style that are shown")
    parser.add_argument("--train-only", action="store_true")
    given, options = parser.parse_known_args()  # the rest goes to igm train
    if options and all((given.out / style / "igm.json").exists() for style in given.styles):
        parser.error(f"nothing is left to train with {options[0]}; leave it out")
    for style in given.styles:
        train(given.base, given.pictograms, given.out / style, style, options)
    if not given.train_only:
        report(
            {style: shown(given.pictograms, given.out / style, style, given.scenes) for style in given.styles}
        )


def train(base: Path, pictograms: Path, out: Path, style: str, options: list[str]) -> None:
    """Trains the base further without a style, unless this was done before."""
    if (out / "igm.json").exists():
        return
    print(f"without {style}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        preset = Path(folder) / "preset.toml"
        preset.write_text(preset_without(LEFT_OUT[style]), encoding="utf-8")
        command = [*IGM, "train", "animals", "--preset", str(preset), "--data-root", str(pictograms)]
        command += ["--builtin", "--init", str(base), "-o", str(out), *options]
        subprocess.run(command, check=True)


def preset_without(styles: Sequence[str]) -> str:
    """Returns the preset of the bundled model, TOML, without the scenes in some styles."""
    parts = read_preset(registry.dataset("animals"), "finetune")["data"]
    kept = [part for part in parts if part["options"].get("styles") not in styles]
    tables = [json.dumps(part, separators=(", ", " = ")) for part in kept]  # as TOML writes tables
    return "\n".join(['extends = "finetune"', "data = [", *(f"  {table}," for table in tables), "]\n"])


class Seen(NamedTuple):
    """The answers about one scene."""

    right: dict[str, bool]  # whether both labels are right, by method
    rivals: list[PairedDifference]  # one per label that igm names
    nothing: PairedDifference | None  # how much worse the answer without labels is
    true: list[bool]  # whether the label is right


def shown(pictograms: Path, model: Path, style: str, scenes: int) -> list[Seen]:
    """Returns a model's answers about scenes in a style: two of three labels, all methods with the same draws."""
    described = read_description(model)
    assert described.space is not None
    parts = load_pipeline(str(model), torch.device("cpu"), Loading(dtype="auto"))
    denoiser = TextToImageDenoiser(parts, Text(TRIO, described.space.templates[:1]))
    with_nothing = denoiser.with_labels(TRIO, nothing=described.space.nothing)  # as users get it
    settings = InversionSettings.from_dict(described.inference)
    few = replace(settings, max_draws=settings.draws)
    adapter, parser = registry.dataset("animals"), registry.concept_parser("labels")
    options = {"styles": style, "animals": ",".join(TRIO), "count": "2"}
    data = adapter.load("test", data_root=pictograms, size=scenes, **options)
    scene_of = AnnotatedImages(data, registry.configured(parser, {"labels": list(TRIO)}), parts.image_size)
    every = []
    for item in scene_of.rows:
        scene = scene_of[item]
        views = encoded_views(denoiser.encode, scene.x0, settings.views)
        truth = set(scene.truth.argmax(1).tolist())
        found = {
            "igm": invert(cast(Denoiser, with_nothing), views, few, k=2, composition="mean"),
            "dc-compound": compound_prompts(cast(Denoiser, denoiser), views, few, 2),
            "dc-variant": labels_alone(cast(Denoiser, denoiser), views, few, 2),
        }
        named = {method: each.concepts.argmax(1).tolist() for method, each in found.items()}
        right = {method: set(labels) == truth for method, labels in named.items()}
        evidence = cast(Evidence, found["igm"].evidence)
        every.append(
            Seen(right, list(evidence.rivals), evidence.nothing, [label in truth for label in named["igm"]])
        )
    print(
        f"{style}: " + ", ".join(f"{METHODS[m]} {mean(s.right[m] for s in every):.1%}" for m in METHODS),
        flush=True,
    )
    return every


def report(seen: dict[str, list[Seen]]) -> None:
    """Prints a row per style, and the mean of their rows."""
    print(f"\n| style left out | {' | '.join(METHODS.values())} | confidence of a label | labels right | ECE |")
    print("|---|" + "--:|" * (len(METHODS) + 3))
    rows = []
    for style, scenes in seen.items():
        others = [scene for other, part in seen.items() if other != style for scene in part]
        temperature = fitted_temperature(*_labels(others))
        confidence = torch.cat([sure(scene, temperature) for scene in scenes])
        hits = torch.tensor([hit for scene in scenes for hit in scene.true])
        right = [mean(scene.right[method] for scene in scenes) for method in METHODS]
        error = expected_calibration_error(confidence, hits)
        rows.append([*right, float(confidence.mean()), float(hits.double().mean()), error])
        print(f"| {style} | " + " | ".join(f"{value:.1%}" for value in rows[-1]) + " |")
    print("| mean | " + " | ".join(f"{mean(column):.1%}" for column in zip(*rows, strict=True)) + " |")
    print(
        f"\ntemperature of all: {fitted_temperature(*_labels([s for part in seen.values() for s in part])):.6f}"
    )


def sure(scene: Seen, temperature: float) -> Tensor:
    """Returns the confidence of both labels ``[2]``, closer to a guess's the more the scene resembles none of them."""
    confidence = posteriors(scene.rivals, temperature)
    typical = posterior(scene.nothing, temperature) if scene.nothing else nan
    return shrink_to_chance(confidence, torch.full_like(confidence, len(confidence) / len(TRIO)), typical)


def _labels(scenes: list[Seen]) -> tuple[list[PairedDifference], list[bool]]:
    return [each for scene in scenes for each in scene.rivals], [hit for scene in scenes for hit in scene.true]


if __name__ == "__main__":
    main()
