"""Suite ``zero-shot``: which labels are in a picture, by a text-to-image model (IGM, Wang et al. 2025, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from igm_cli.benchmarks.frame.images import drawn_version, portable
from igm_cli.benchmarks.frame.tables import whole_number
from igm_cli.benchmarks.suite import Record, Report, Request
from igm_cli.benchmarks.suites.zero_shot.methods import ADAPTIVE, METHODS, WEIGHTS, LabelMethod, Plan
from igm_cli.benchmarks.suites.zero_shot.report import summarise
from igm_cli.benchmarks.suites.zero_shot.splits import DATASET, LOOKS, SPLITS, defaults, load_split
from igm_cli.core.concepts import Text
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.core.models.pipeline_files import find_pipeline, pipeline_fingerprint, read_description
from igm_cli.core.models.pipelines import Loading, load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins.labels.parser import TEMPLATES

RELAX_STEPS = 100

OPTIONS = {
    "draws": "noise draws that all methods but igm-adaptive see (default: the model's first)",
    "slow_limit": "images of a split that slow methods run on: those of more than 100 U-Net calls for each of the "
    "draws (default 50)",
    "relax_steps": f"steps of prompt-weights, of four draws each (default {RELAX_STEPS})",
    "stages": "whether dc-compound leaves captions out in stages: on or off (default)",
    "views": "views of a picture that draws look at by turns: 1, 2 or 4 (default: the model's)",
    "template": "prompt with {label} in it (default: the model's first)",
    "animals": "comma list of the animals of tasks of 25 (default: all)",
    **{name: f"styles of {name} (default {look.styles})" for name, look in LOOKS.items()},
    "pictures": "folder of labelled pictures, for the split pictures",
    "labels": "comma list of their labels (default: all that occur)",
    "dtype": "what the U-Net computes in: float32, float16 or bfloat16 (default: by device)",
    "variant": "variant of the weights, e.g. fp16",
}


class ZeroShot:
    """Which of some labels are in a picture, and how many."""

    name = "zero-shot"
    summary = "which labels are in a picture, by a text-to-image model: igm, enumeration, Diffusion Classifier"
    concepts = "labels"
    methods: Mapping[str, str] = METHODS
    splits: Mapping[str, str] = SPLITS
    options: Mapping[str, str] = OPTIONS

    def default_splits(self, data_root: Path | None) -> tuple[str, ...]:
        """Pictograms of the folder in styles seen and unseen, if there is one, else our own drawings."""
        return defaults(data_root)

    def open(self, request: Request) -> ZeroShotBench:
        """Loads the model and the pictures of all splits.

        Raises:
            IgmError: If the model, a split or an option cannot be used.
        """
        return ZeroShotBench(request)


class ZeroShotBench:
    """The suite opened for one request; ``request.model`` is a folder, a single file or a hub id."""

    def __init__(self, request: Request) -> None:
        self.request = request
        options, source = request.options, str(request.model)
        self.loading = Loading(variant=options.get("variant"), dtype=str(options.get("dtype", "auto")))
        self.path = find_pipeline(source, self.loading.variant)
        self.description = read_description(self.path)
        self.plan = self._plan()
        parts = load_pipeline(str(self.path), request.device, self.loading)
        self.denoiser = TextToImageDenoiser(parts, Text(("thing",)))
        self.cells = {name: load_split(name, request, self.denoiser.image_size) for name in request.splits}
        for cell in self.cells.values():  # a prompt that is too long is refused before anything is measured
            space = Text(cell.labels, self.plan.templates)
            self.denoiser.embed([prompt for label in range(space.dim) for prompt in space.prompts(label)])

    @property
    def identity(self) -> Mapping[str, Any]:
        """Methods, splits and limit may differ between two calls."""
        request = self.request
        return {
            "model": pipeline_fingerprint(self.path, self.loading.variant),
            "data_root": request.data_root.absolute().name if request.data_root else None,
            "seed": request.seed,
            "scenes": drawn_version(DATASET),
            "settings": self.plan.settings.to_dict(),
            "templates": list(self.plan.templates),
            "draws": self.plan.draws,
            "options": portable(request.options),
        }

    def items(self, split: str) -> Sequence[str]:
        """File names of a split's pictures."""
        return list(self.cells[split].scenes.rows)

    def method(self, name: str) -> LabelMethod:
        """A method made ready; none of them is trained."""
        settings = self.plan.settings
        draws = {
            ADAPTIVE: f"{settings.draws} to {settings.max_draws}",
            WEIGHTS: f"{settings.relax_steps} steps of four",
        }
        info: dict[str, Any] = {"how": METHODS[name], "draws": draws.get(name, str(self.plan.draws))}
        if name == "dc-compound" and self.plan.stages:
            info["stages"] = "on"
        return LabelMethod(name, self.plan, self.denoiser, self.cells, info)

    def report(self, records: Sequence[Record], infos: Mapping[str, Mapping[str, Any]]) -> Report:
        """Tables, plots and pictures."""
        return summarise(records, infos, self.cells, self.about)

    @property
    def about(self) -> Mapping[str, Any]:
        """Of the model, for the report."""
        parts, settings = self.denoiser.parts, self.plan.settings
        return {
            "model": self.path.name,
            "parameters": sum(p.numel() for p in parts.pipe.unet.parameters()),
            "dtype": str(parts.dtype).removeprefix("torch."),
            "image": "{} x {}".format(*parts.image_size),
            "timesteps": f"{settings.low:g} to {settings.high:g}",
            "power": settings.power,
            "views": settings.views,
            "templates": list(self.plan.templates),
        }

    def _plan(self) -> Plan:
        options, own = self.request.options, self.description
        if own.composition != "mean":  # as all of the paper's methods compose
            raise InputError(f"{self.path.name} composes by {own.composition}; give a model that does by mean")
        views = whole_number(options, "views", 1) if "views" in options else None
        settings = InversionSettings.from_dict(own.inference, seed=self.request.seed, views=views)
        steps = whole_number(options, "relax_steps", RELAX_STEPS)
        settings = replace(settings, relax_steps=steps, k_min=1, k_max=3)
        template = options.get("template", own.space.templates[0] if own.space else TEMPLATES[0])
        if "{label}" not in str(template):
            raise UsageError(f"--set template must hold {{label}}, where the label goes, not {template!r}")
        stages = options.get("stages", "off")
        if stages not in ("on", "off", True, False):
            raise UsageError(f"--set stages takes on or off, not {stages!r}")
        return Plan(
            settings=settings,
            draws=whole_number(options, "draws", settings.draws),
            stages=stages in ("on", True),
            slow_limit=whole_number(options, "slow_limit", 50),
            templates=(str(template),),
        )
