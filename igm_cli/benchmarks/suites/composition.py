"""Suite ``composition``: whether samples of a composed model show what was requested, by judges that never saw the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any, cast

from igm_cli.benchmarks import frame, report
from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.baselines.object_diffusion import ObjectDenoiser, ObjectDiffusion
from igm_cli.benchmarks.intervals import Estimate
from igm_cli.benchmarks.scores import Rows, ScoredSplits, Scores
from igm_cli.benchmarks.suite import Infos, Method, PictureGrid, Record, Report, Request, Row
from igm_cli.benchmarks.suites.composition_expressions import Expressions, expression_metrics
from igm_cli.benchmarks.suites.composition_judges import DescribedObjects, Judges, training_images
from igm_cli.benchmarks.suites.composition_sets import CONDITIONAL, MORE, TOLD, Sets, set_metrics
from igm_cli.bundled import named, names_pipeline
from igm_cli.core.concepts import Continuous
from igm_cli.core.files import home_expanded
from igm_cli.errors import InputError, MissingError, percentage
from igm_cli.imaging import from_model
from igm_cli.label_models import open_pipeline
from igm_cli.model import Model, open_checkpoint
from igm_cli.plugins import registry

IMAGES = 200  # images per split by default
SHOWN = 2  # images of a split in the picture


class CompositionBench(frame.CheckpointBench):
    """The suite opened for one request."""

    dataset, called = "clevr-render", "positions"

    def __init__(self, suite: frame.DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        if request.data_root is not None:
            raise InputError("composition renders the images that it compares with; leave out --data-root")
        if not isinstance(self.checkpoint.denoiser.space, Continuous):
            raise InputError("composition measures models of positions")
        self._judges = cache(self._make_judges)
        self.models: dict[str, Model] = {}  # of expressions
        self.parts: dict[str, Sets | Expressions] = {}
        for name in request.splits:
            declared = suite.images[name]
            self.parts[name] = self._expressions(name, declared) if declared.asked else self._sets(name)
        self.scenes = {name: part.scenes for name, part in self.parts.items()}

    def _sets(self, name: str) -> Sets:
        data = self.load("test", name, self.request.limit or IMAGES, "")  # a scene depends only on its number
        scenes = frame.AnnotatedImages(data, self.parser, self.image_size)
        judges, seed = self._judges("judged", self.image_size), self.request.seed
        return Sets(scenes, judges, self.numbers, seed, self.device, self.checkpoint, self.settings)

    def _make_judges(self, declared: str, image_size: tuple[int, int]) -> Judges:
        """Returns the judges of rendered scenes that the suite's file declares."""
        rendered = self.suite.words[declared]
        return Judges(self.request, self.numbers["renders"], image_size, rendered, self.fitted)

    def _expressions(self, name: str, declared: frame.Split) -> Expressions:
        models = [self._model(name, each) for each in declared.asked["models"]]
        request, dataset = self.request, declared.asked.get("dataset", self.dataset)
        # Splits differ in scenes and noise, so that their rows are independent.
        seed = request.seed + list(self.suite.images).index(name)
        data = registry.dataset(dataset).load(
            "test", seed=seed, progress=request.progress, size=request.limit or IMAGES, **declared.options
        )
        scenes = frame.AnnotatedImages(data, models[-1].parser, models[0].image_size)
        conditional = cache(partial(self._conditional, name)) if "after" in declared.asked else None
        judges = self._judges(declared.asked.get("judged", "judged_alone"), models[0].image_size)
        shared = scenes, judges, self.numbers, seed, self.device
        return Expressions(*shared, models, declared.asked, conditional=conditional)

    def _conditional(self, split: str) -> ObjectDenoiser:
        """Trains one conditional model on the images of the earlier splits, then on images like this split's.

        Its steps equal the total of the composed models.
        """
        asked, kinds = self.suite.images[split].asked, self.parts[split].kinds  # type: ignore[union-attr]
        stages, earlier, model = [*asked["after"], split], None, None
        steps = self.numbers["train_steps"] * len(asked["models"]) // len(stages)
        count, budget = self.numbers["train_images"], Budget(steps=steps)
        for number, name in enumerate(stages):
            shape: Any = self._model(split, asked["models"][number]).denoiser
            baseline = ObjectDiffusion(
                config=shape.config, values=tuple(map(len, kinds.values())), earlier=earlier
            )
            shown = self.suite.images[name]
            data = training_images(
                self.dataset, DescribedObjects(kinds), shape.image_size, count, 0, self.request.progress,
                {**shown.options, **shown.asked.get("trained", {})},
            )  # fmt: skip
            model = self.fitted(baseline, data, budget=budget).model
            earlier = self.folder_of(baseline, data, 0, budget)
        return cast(ObjectDenoiser, model)

    def _model(self, split: str, name: str) -> Model:
        """Returns an expression's model: from the folder of models if the suite declares its training, or a bundled one."""
        root = home_expanded(str(self.options.get("models", "runs")))
        path = root / name
        if name in (training := self.suite.words["models"]) and not path.is_dir():
            command = training[name].format(root=root)
            raise MissingError(
                f"the split {split} needs a model in {path}; train it with: igm train {command} --output {path}"
            )
        if name not in self.models:
            opened, device = named(path if name in training else name), str(self.device)
            whole = names_pipeline(opened, None)
            self.models[name] = (
                open_pipeline(opened, device) if whole else open_checkpoint(opened, None, device)
            )
        return self.models[name]

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The identity of a checkpoint suite, extended by the models of the splits: splits of other models go elsewhere."""
        found = dict(super().identity)
        if self.models:
            found["models"] = {name: dict(model.identity) for name, model in sorted(self.models.items())}
        asked = [part.asked for part in self.parts.values() if isinstance(part, Expressions)]
        if others := {each["dataset"] for each in asked if "dataset" in each}:
            found["other_scenes"] = {name: frame.version_of(name) for name in sorted(others)}
        return found

    def method(self, name: str) -> Method:
        """Prepares a method; trains the judges first."""
        info: dict[str, Any] = {"images": "rendered"}
        if name == CONDITIONAL:
            info = {
                "steps for each model beside it": self.numbers["train_steps"],
                "images": self.numbers["train_images"],
            }
        elif name != "real":
            info = {**frame.checkpoint_info(self.checkpoint), "steps": self.numbers["steps"]}
            if name in MORE:
                option, counted = MORE[name]
                info[counted] = self.numbers[option]
        if self.models and name not in ("real", CONDITIONAL):
            info["models of expressions"] = ", ".join(self.models)
        errors = {judge: error for part in self.parts.values() for judge, error in part.errors.items()}

        def rows(split: str, item: str) -> list[Row]:
            part = self.parts[split]
            if not part.draws(name):
                return []
            return [part.real(item) if name == "real" else part.row(name, item)]

        return Method(rows, {**info, "judges' errors": errors})

    def columns(self, split: str, scores: Sequence[Scores]) -> Mapping[str, str]:
        """Returns the columns of the judges' figures; for expressions only those that some method has."""
        if isinstance(self.parts[split], Sets):
            return super().columns(split, scores)
        known = {"published", "images"}.union(*(score.estimates for score in scores))
        every = self.suite.words["expression_columns"]
        return {head: cell for head, cell in every.items() if cell.split()[-1] in known}

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables and pictures."""
        scored = ScoredSplits(records, self.parts, metrics)
        told: list[list[str]] = []
        ratios: dict[str, dict[str, Any]] = {}
        for split, scores in scored.scores.items():
            by_name = {s.label: s for s in scores}
            real = by_name.pop("real", None)
            if real is None or not isinstance(self.parts[split], Sets):
                continue
            for label, s in by_name.items():
                shares = {k: s[f"{k}_told"].value / max(1e-9, real[f"{k}_told"].value) for k in TOLD}
                ratios.setdefault(split, {})[label] = shares
                told.append([split, label, *(percentage(part, 0) for part in shares.values())])
        tables = [report.declared_table("composition", "told", told)] if told else []
        figures = [self._pictures(records, list(scored.scores))] if scored.scores else []
        return report.scored_report(self, scored, infos, tables, figures, {"told": ratios})

    def _pictures(self, records: Sequence[Record], splits: Sequence[str]) -> PictureGrid:
        """Returns real images beside samples of what they show."""
        labels = [name for name in self.suite.methods if any(r["method"] == name for r in records)]
        drawn = [name for name in labels if name != "real"]
        rows = []
        for split in splits:
            part = self.parts[split]
            for number, item in enumerate(self.items(split)[:SHOWN]):
                samples = [
                    from_model(part.drawn(name, number).image) if part.draws(name) else None for name in drawn
                ]
                rows.append((split, [from_model(self.scenes[split][item].x0), *samples]))
        return PictureGrid("pictures", "Real images, and samples of what they show", ["real", *drawn], rows)


def metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns the estimates of rows of sets or expressions."""
    return set_metrics(rows) if "truth" in rows[0] else expression_metrics(rows)


SUITE = frame.DeclaredSuite("composition", CompositionBench)
