"""Suite ``zero-shot``: finds the labels in a picture with a text-to-image model (IGM, Wang et al. 2025, section 5.3)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor

from igm_cli.benchmarks import report
from igm_cli.benchmarks.baselines import label_methods
from igm_cli.benchmarks.frame import DeclaredBench, DeclaredSuite, inversion_row
from igm_cli.benchmarks.intervals import Estimate, mean, proportion, rate
from igm_cli.benchmarks.scores import Labels, Rows, ScoredSplits, Scores, agreement, paired_with, same_answers
from igm_cli.benchmarks.suite import Figure, Infos, Method, Plot, Record, Report, Request, Row
from igm_cli.benchmarks.suites import zero_shot_splits as splits
from igm_cli.benchmarks.suites.zero_shot_splits import SPLITS, LabelledSplit, counts
from igm_cli.benchmarks.timing import timed
from igm_cli.bundled import name_of
from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.views import encoded_views
from igm_cli.core.models.pipeline_files import find_pipeline, pipeline_fingerprint, read_description
from igm_cli.core.models.pipelines import Loading, load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.types import Inversion, InversionSettings
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins.labels.parser import TEMPLATES

ENUMERATE, IGM, ADAPTIVE, WEIGHTS = "enumerate", "igm", "igm-adaptive", "prompt-weights"
TESTED, COARSE = "igm-tested", "igm-coarse"
"""Methods that see igm's draws, most of them only for few labels."""
COUNTING = (IGM, ADAPTIVE, TESTED, COARSE)
"""Methods that also find the number of labels."""

SLOW = 100
"""A method is slow if its network calls per image exceed this many times the draws that all methods see."""


def most_calls(method: str, labels: int, k: int, draws: int, settings: InversionSettings) -> int:
    """Returns the maximum number of network calls per image; most methods see ``draws`` draws."""
    sets = math.comb(labels, k)
    each = {ENUMERATE: k * sets, "dc-compound": sets}.get(method, labels)
    own = {WEIGHTS: label_methods.BATCH * settings.relax_steps, ADAPTIVE: settings.max_draws}
    return each * own.get(method, draws)


class ZeroShotBench(DeclaredBench):
    """The suite opened for one request; ``request.model`` is a folder, a single file or hf:owner/name on the hub."""

    def __init__(self, suite: DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        dtype = str(self.options.get("dtype", "auto"))
        self.loading = Loading(variant=self.options.get("variant"), dtype=dtype)
        self.path = find_pipeline(str(request.model), self.loading.variant)
        options, own = self.options, read_description(self.path)
        if own.composition != "mean":  # like all of the paper's methods
            raise InputError(
                f"{name_of(self.path)} composes by {own.composition}; give a model that does by mean"
            )
        views = self.whole_number("views", 1) if "views" in options else None
        settings = InversionSettings.from_dict(own.inference, seed=request.seed, views=views)
        first = self.whole_number("first", settings.draws)
        self.settings = replace(  # for ``igm-adaptive``
            settings, relax_steps=self.numbers["relax_steps"], k_min=1, k_max=3,
            draws=first, max_draws=max(first, settings.max_draws),
        )  # fmt: skip
        template = str(options.get("template", own.space.templates[0] if own.space else TEMPLATES[0]))
        if "{label}" not in template:
            raise UsageError(f"--set template must hold {{label}}, where the label goes, not {template!r}")
        stages = options.get("stages", "off")
        if stages not in ("on", "off", True, False):
            raise UsageError(f"--set stages takes on or off, not {stages!r}")
        self.templates, self.stages = (template,), stages in ("on", True)
        self.nothing = own.space.nothing if own.space else ""
        self.draws = self.whole_number("draws", settings.draws)
        parts = load_pipeline(str(self.path), request.device, self.loading)
        self.denoiser = TextToImageDenoiser(parts, Text(("thing",)))
        size = self.denoiser.image_size
        self.cells = {name: splits.load_split(name, request, size) for name in request.splits}
        self.scenes = {name: cell.scenes for name, cell in self.cells.items()}
        for cell in self.cells.values():  # refuses prompts that are too long before anything is measured
            space = self._asked(IGM, cell).space
            self.denoiser.embed([prompt for label in range(space.dim) for prompt in space.prompts(label)])

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity; methods, splits and limit are free between two calls."""
        model = pipeline_fingerprint(self.path, self.loading.variant)
        run = {"settings": self.settings.to_dict(), "templates": list(self.templates), "draws": self.draws}
        return self.image_identity(splits.DATASET, model=model, **run)

    def method(self, name: str) -> Method:
        """Returns a method for all splits, without training; slow methods have a limit of their own in every split."""
        find, s = self._finder(name), self.settings
        models = {
            split: self._asked(name, cell)
            for split, cell in self.cells.items()
            if cell.k or cell.given or name in COUNTING
        }

        def rows(split: str, item: str) -> list[Row]:
            cell = self.cells[split]
            if split not in models or (
                self._is_slow(name, cell) and cell.scenes.rows[item] >= self.numbers["slow_limit"]
            ):
                return []
            scene, model = cell.scenes[item], models[split]
            k = len(scene.truth) if cell.given else cell.k
            with torch.no_grad():
                found, (seconds, _) = timed(
                    lambda: find(model, encoded_views(model.encode, scene.x0, s.views), k), self.device
                )
            concepts = found.concepts[:, : len(cell.labels)]
            row = inversion_row(name, cell.names(scene, concepts), found, seconds)
            return [{**row, "truth": cell.names(scene, scene.truth)}]

        own = {ADAPTIVE: f"{s.draws} to {s.max_draws}", WEIGHTS: f"{s.relax_steps} steps of four"}
        stages = {"stages": "on"} if name == "dc-compound" and self.stages else {}
        info = {"how": self.suite.methods[name], "draws": own.get(name, str(self.draws)), **stages}
        return Method(rows, info)

    def _asked(self, name: str, cell: LabelledSplit) -> TextToImageDenoiser:
        """Returns the model with a split's labels; igm also considers the model's ``nothing``, as it does for users."""
        nothing = self.nothing if name in COUNTING and self.nothing not in cell.labels else ""
        return self.denoiser.with_labels(cell.labels, self.templates, nothing)

    def _is_slow(self, name: str, cell: LabelledSplit) -> bool:
        if name in COUNTING:
            return False
        return most_calls(name, len(cell.labels), cell.most, self.draws, self.settings) > SLOW * self.draws

    def _finder(self, name: str) -> Callable[[TextToImageDenoiser, Tensor, int | None], Inversion]:
        """Returns a method as a function from a latent to an inversion."""
        equal = replace(self.settings, draws=self.draws, max_draws=self.draws)
        if name in COUNTING:
            coarse = self.numbers["coarse"] if name == COARSE else 0
            settings = self.settings if name == ADAPTIVE else equal
            settings = replace(settings, give_up=name != IGM, coarse=coarse)
            return lambda model, x, k: invert(cast(Denoiser, model), x, settings, k=k, composition="mean")
        methods: Mapping[str, Any] = {
            ENUMERATE: label_methods.enumerate_sets,
            "dc-compound": partial(label_methods.compound_prompts, stages=self.stages),
            "dc-variant": label_methods.labels_alone,
            WEIGHTS: label_methods.prompt_weights,
        }
        return lambda model, x, k: methods[name](model, x, equal, k)

    def model_info(self) -> dict[str, Any]:
        """Returns the facts about the model for the report."""
        parts, settings = self.denoiser.parts, self.settings
        return {
            "model": name_of(self.path),
            "parameters": sum(p.numel() for p in parts.network.parameters()),
            "dtype": str(parts.dtype).removeprefix("torch."),
            "image": "{} x {}".format(*parts.image_size),
            "timesteps": f"{settings.low:g} to {settings.high:g}",
            "power": settings.power,
            "views": settings.views,
            "templates": list(self.templates),
        }

    def columns(self, split: str, scores: Sequence[Scores]) -> Mapping[str, str]:
        """Returns the columns of accuracy and cost, and of the number of labels if unknown, otherwise of published figures."""
        unsaid = ["published"] if counts(split) or not self.published(split) else []
        unsaid += [] if counts(split) else ["number right"]
        every = super().columns(split, scores)
        return {head: cell for head, cell in every.items() if head not in unsaid}

    def published(self, split: str) -> Mapping[str, str]:
        """Returns the published figures of a task, for any style of pictures."""
        return self.suite.published.get(split.rpartition("-")[0], {})

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables, plots and pictures."""
        scored = ScoredSplits(records, self.cells, metrics)
        pairs = scored.each(lambda labels: paired_with(IGM, labels, right))
        sureness = scored.sureness(hits)
        compared = (IGM, ENUMERATE)
        agreed = scored.each(lambda labels: agreement(labels, compared, predicted))
        spared, early = scored.each(spared_calls), scored.each(stopped_early)
        tables = report.declared_tables(
            "zero-shot",
            paired=report.paired_rows(pairs),
            calibration=report.calibration_rows(sureness),
            agreement=report.agreement_rows(agreed, compared),
            spared=[
                [split, name, f"{len(self.cells[split].labels)}", *report.same_cells(held),
                 *(f"{held[what][each]:.0f}" for what in ("calls", "right") for each in (IGM, name))]
                for split, part in spared.items() for name, held in part.items()
            ],
            early=[
                [split, f"{held['draws']}", *report.same_cells(held),
                 f"{held['median']:g}", f"{held['low']:g} to {held['high']:g}"]
                for split, held in early.items()
            ],
        )  # fmt: skip
        figures: list[Figure] = [_over_cost(name, s) for name, s in scored.scores.items()]
        figures += [_confusion(name, s) for name, s in scored.scores.items() if counts(name)]
        unseen = (ADAPTIVE, ENUMERATE)
        figures += report.answer_grids(
            scored, self.scenes, unseen, right, lambda row: [{"label": name} for name in row["predicted"]]
        )
        names = ("images", "both", "ours", "theirs")
        paired = {
            split: {other: p.to_dict(*names, other=other) for other, p in part.items()}
            for split, part in pairs.items()
        }
        for one in agreed.values():
            del one["agree"]
        told = {
            "model": self.model_info(),
            "paired": paired,
            "calibration": sureness,
            "agreement": agreed,
            "early": early,
            "spared": spared,
        }
        return report.scored_report(self, scored, infos, tables, figures, told)


def stopped_early(labels: Labels) -> dict[str, Any]:
    """Returns how often drawing until decided gives the answer of all draws, and with how many draws."""
    held, columns = same_answers(labels, (IGM, ADAPTIVE), predicted)
    if not held:
        return {}
    draws = sorted(few["draws"] for few in columns[ADAPTIVE])
    spread = {"median": statistics.median(draws), "low": draws[0], "high": draws[-1]}
    return {**held, "draws": columns[IGM][0]["draws"], **spread}


def spared_calls(labels: Labels) -> dict[str, dict[str, Any]]:
    """Returns how often methods that try few labels give igm's answer, and the calls and right pictures of both."""
    found = {}
    for name in (TESTED, COARSE):
        held, columns = same_answers(labels, (IGM, name), predicted)
        if held:
            calls = {each: statistics.fmean(row["calls"] for row in rows) for each, rows in columns.items()}
            rights = {each: sum(map(right, rows)) for each, rows in columns.items()}
            found[name] = {**held, "calls": calls, "right": rights}
    return found


def predicted(row: Mapping[str, Any]) -> set[str]:
    """Returns the labels that a row names."""
    return set(row["predicted"])


def hits(row: Mapping[str, Any]) -> list[bool]:
    """Returns which of the labels that a row names are present."""
    return [label in row["truth"] for label in row["predicted"]]


def right(row: Mapping[str, Any]) -> bool:
    """Returns whether a row names exactly the labels that are present."""
    return predicted(row) == set(row["truth"])


def metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns how often the whole set and the number of labels are right, how many labels are found, and costs."""
    found = [len(set(r["predicted"]) & set(r["truth"])) for r in rows]
    return {
        "exact": proportion(list(map(right, rows))),
        "number": proportion([len(r["predicted"]) == len(r["truth"]) for r in rows]),
        "recall": rate(found, [len(r["truth"]) for r in rows]),
        "calls_a_draw": mean(r["calls"] / r["draws"] for r in rows),
        **{name: mean(r[name] for r in rows) for name in ("calls", "seconds", "draws")},
    }


def _over_cost(split: str, scores: Sequence[Scores]) -> Plot:
    """Returns a plot of accuracy over cost, with a point per method."""
    curves = [report.curve(s.label, [(s["calls"].value, s["exact"])]) for s in scores]
    title = report.capitalised(SPLITS[split])
    return Plot(f"cost-{split}", title, "network calls per picture", "exact sets", curves, log_x=True)


def _confusion(split: str, scores: Sequence[Scores]) -> Figure:
    """Returns the confusion of true and estimated numbers of labels."""
    pairs = {s.label: [(len(r["truth"]), len(r["predicted"])) for r in s.rows] for s in scores}
    sizes = sorted({size for part in pairs.values() for pair in part for size in pair})
    return report.confusion(f"numbers-{split}", f"Numbers of labels: {SPLITS[split]}", pairs, sizes, sizes)


SUITE = DeclaredSuite("zero-shot", ZeroShotBench)
