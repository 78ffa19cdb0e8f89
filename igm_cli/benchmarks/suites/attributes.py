"""Suite ``attributes``: facial attributes inside and outside the training domain (IGM, Wang et al. 2025, section 5.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from igm_cli.benchmarks import frame, report
from igm_cli.benchmarks.baselines.configuration import ConfigurationClassifier, FactorClassifier
from igm_cli.benchmarks.baselines.fit import TrainingData
from igm_cli.benchmarks.baselines.resnet import ResNetFactors, most_likely
from igm_cli.benchmarks.intervals import Estimate, mean, proportion
from igm_cli.benchmarks.scores import Rows, ScoredSplits, Scores, agreement, paired_with
from igm_cli.benchmarks.suite import Infos, Method, Record, Report, Request, Row
from igm_cli.benchmarks.suites.attribute_cost import COUNTS, ENUMERATE, FactorCost, factor_report
from igm_cli.benchmarks.timing import timed
from igm_cli.core.concepts import Categorical
from igm_cli.core.device import inference_precision
from igm_cli.core.inference.engine import invert
from igm_cli.core.models.factored_global import GlobalDenoiser
from igm_cli.core.noise_schedule import draw
from igm_cli.core.training.batches import Samples
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.samples import DatasetSamples

READ_OUT = "read-out"
"""The linear read-out from a model's training, without inversion."""

SAME_DRAWS = "igm, same draws"
"""The exact search under the same draws as the enumeration."""

FACTORS = "factors"
DRAWN = 400  # faces of a drawn split by default
FEMALE = {"domain": "female"}
"""The training domain, as in the paper."""

PUBLISHED_FACTORS = {"Black_Hair", "Eyeglasses", "Smiling"}
"""Attributes in the published figures."""


class AttributeBench(frame.CheckpointBench):
    """The suite opened for one request."""

    dataset, called = "celeba", "attributes"
    free = ("exact_images", "relax_images")

    def __init__(self, suite: frame.DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        space = self.checkpoint.denoiser.space
        if self.parser.space != space or not isinstance(space, Categorical):
            raise InputError("the checkpoint's options of concepts do not fit its factors; train it again")
        self.space, self.factors = space, list(space.factors)
        steps = self.whole_number("relax_steps", self.settings.relax_steps)
        self.settings = replace(self.settings, method="evidence", relax_steps=steps)
        contrast = self.options.get("contrast", self.checkpoint.spec.info.get("contrast", 0.0))
        if not isinstance(contrast, int | float) or isinstance(contrast, bool) or not 0 <= contrast < math.inf:
            raise UsageError(f"--set contrast takes a number of at least 0, not {contrast!r}")
        self.contrast = float(contrast)
        self.faces = self.whole_number("faces", 0) if "faces" in self.options else None
        if self.faces and request.data_root:
            raise UsageError("--set faces is about drawn faces; leave it out, or leave out --data-root")
        self.scenes: dict[str, frame.AnnotatedImages] = {}
        for name in request.splits:
            if name != FACTORS:
                data = self.load("test", name, request.limit or DRAWN, "CelebA")
                scenes = self.scenes[name] = frame.AnnotatedImages(data, self.parser, self.image_size)
                scenes[next(iter(scenes.rows))]  # reports missing attributes before anything is trained
        self.cost = FactorCost(self.checkpoint, self.settings, request.device)

    @cached_property
    def data(self) -> TrainingData:
        """Training and validation images of the training domain."""
        root, request = self.request.data_root, self.request
        drawn = {"size": self.faces} if self.faces else {}
        adapter = registry.dataset(self.dataset)
        drawn |= request.reading(adapter)
        seed, validation = 0, 400  # the seed of the drawn faces that ``igm train celeba`` learns from

        def samples(split: str, limit: int | None) -> Samples:
            data = adapter.load(
                split, data_root=root, limit=limit, seed=seed, progress=request.progress, **FEMALE, **drawn
            )
            return DatasetSamples(data, self.parser, self.image_size, request.progress)

        chosen = {**FEMALE, "faces": self.faces, "seed": seed, "validation": validation}
        about = {"folder": self.folder_identity, **chosen}
        return TrainingData(about, lambda: (samples("train", None), samples("val", validation)))

    def items(self, split: str) -> Sequence[str]:
        """Returns the file names of a split's images, or numbers of factors."""
        if split == FACTORS:
            return [str(count) for count in COUNTS][: self.request.limit]
        return super().items(split)

    def method(self, name: str) -> Method:
        """Prepares a method: loads or trains it, unless no images are requested of it."""
        cost = {"igm": self.cost.igm, ENUMERATE: self.cost.enumerate}.get(name)
        if self.scenes:
            made = self._made(name)
        else:
            info = {"cost": "over factors only" if cost else "not measured"}
            limit = self.numbers["exact_images"] if name == ENUMERATE else None
            made = Method(lambda split, item: [], info, limit)

        def rows(split: str, item: str) -> list[Row]:
            if split != FACTORS:
                return made(split, item)
            return [cost(int(item))] if cost else []

        return Method(rows, made.info, made.limit)

    def _made(self, name: str) -> Method:
        settings = self.settings
        if name in ("gc", "gc-variant"):
            return self.classified(ConfigurationClassifier if name == "gc" else FactorClassifier)
        if name == "resnet-50":
            return self.predicted()
        if name == READ_OUT:
            return self.read_out()
        if name == ENUMERATE:  # under the same draws as igm: the most that igm takes
            same = replace(settings, draws=settings.max_draws)
            both = {ENUMERATE: replace(same, method="enumerate"), SAME_DRAWS: same}
            return self.inverted(both, self.numbers["exact_images"])
        own = {"igm": "evidence", "relax": "relax", "diffusion-classifier": "eliminate"}[name]
        limit = self.numbers["relax_images"] if name == "relax" else None
        return self.inverted({name: replace(settings, method=own)}, limit)

    def truth(self, scene: frame.AnnotatedImage) -> list[int]:
        """Returns the true value of every factor."""
        return values_of(self.space, scene.truth)

    def inverted(self, settings: Mapping[str, InversionSettings], limit: int | None = None) -> Method:
        """Returns the checkpoint inverted under one or several settings, each with the label of its row."""
        denoiser, composition = self.checkpoint.denoiser, self.checkpoint.spec.composition

        def row(label: str, image: Tensor) -> Row:
            found = invert(denoiser, image, settings[label], composition=composition)
            return frame.inversion_row(label, values_of(self.space, found.concepts), found, found.seconds)

        described: Any = {label: _described(one) for label, one in settings.items()}
        described = described if len(described) > 1 else next(iter(described.values()))
        info = {**frame.checkpoint_info(self.checkpoint), "settings": described}
        return self.on_images(lambda s: [row(label, s.x0.to(self.device)) for label in settings], info, limit)

    def classified(self, kind: type[ConfigurationClassifier]) -> Method:
        """Returns a conditional diffusion model, not composed, inverted by trying its conditions.

        Its trunk starts from the weights of the measured model.
        """
        baseline = kind(self.checkpoint.spec, init=self.request.model, contrast=self.contrast)
        trained, s = self.fitted(baseline, self.data), self.settings
        model = trained.model.requires_grad_(False)

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image = scene.x0.to(self.device)
            found, (seconds, _) = timed(lambda: baseline.invert(model, image, s), self.device)
            cost = {"seconds": seconds, "calls": found.network_calls, "draws": s.max_draws}
            return [{"label": baseline.name, "predicted": list(found.values), "confidence": None, **cost}]

        return self.on_images(rows, {**trained.info(self.request.budget), "contrast": baseline.contrast})

    def predicted(self) -> Method:
        """Returns a network that names all values in one pass."""
        baseline = ResNetFactors(self.space, weights=self.options.get("resnet"))
        trained = self.fitted(baseline, self.data)

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image = scene.x0[None].to(self.device)
            with inference_precision(self.device):
                chances, (seconds, _) = timed(
                    lambda: baseline.predict(trained.model, image).float(), self.device
                )
            return [self.named("resnet-50", chances[0], seconds=seconds, calls=1, draws=0)]

        return self.on_images(rows, trained.info(self.request.budget))

    def read_out(self) -> Method:
        """Returns the read-out of the measured model, averaged over the noise samples of igm's first decision.

        Raises:
            InputError: If the model has none, or its training did not use it.
        """
        denoiser, s = self.checkpoint.denoiser, self.settings
        if not isinstance(denoiser, GlobalDenoiser) or not self.checkpoint.spec.info.get("contrast"):
            raise InputError("the model was trained without a contrast, which its read-out learns by")
        draws = draw(
            denoiser.schedule, (3, *self.image_size[::-1]), s.draws, low=s.low, high=s.high, seed=s.seed
        )
        draws = draws.to(self.device)

        @torch.no_grad()
        def chances(x0: Tensor) -> Tensor:
            with inference_precision(self.device):
                seen = denoiser.features(denoiser.schedule.add_noise(x0[None], draws.noise, draws.t), draws.t)
            logits = seen.view.read.float().mean(0)
            return torch.cat([logits[group].softmax(0) for group in self.space.groups()])

        def rows(scene: frame.AnnotatedImage) -> list[Row]:
            image = scene.x0.to(self.device)
            found, (seconds, _) = timed(lambda: chances(image).cpu(), self.device)
            return [self.named(READ_OUT, found, seconds=seconds, calls=s.draws, draws=s.draws)]

        return self.on_images(rows, {**frame.checkpoint_info(self.checkpoint), "settings": f"{s.draws} draws"})

    def named(self, label: str, chances: Tensor, **cost: float) -> Row:
        """Returns the row of a network that predicts the probability of every value ``[D]``."""
        confidence = [float(chances[group].max()) for group in self.space.groups()]
        values = most_likely(self.space, chances[None])[0].tolist()
        return {"label": label, "predicted": values, "confidence": confidence, **cost}

    def metrics(self, rows: Rows) -> dict[str, Estimate]:
        """Returns how often all factors are right, how often each one is, and costs."""
        found = list(map(hits, rows))
        return {
            "all_right": proportion(list(map(all, found))),
            **{name: proportion([r[place] for r in found]) for place, name in enumerate(self.factors)},
            **{name: mean(r[name] for r in rows) for name in ("seconds", "calls", "draws")},
        }

    def columns(self, split: str, scores: Sequence[Scores]) -> Mapping[str, str]:
        """Returns the columns of accuracy, cost, and the accuracy of each factor."""
        factors = {factor.replace("_", " "): f"rate {factor}" for factor in self.factors}
        return {**super().columns(split, scores), **factors}

    def published(self, split: str) -> Mapping[str, str]:
        """Returns the paper's figures, which are shown only for its own factors."""
        return super().published(split) if set(self.factors) == PUBLISHED_FACTORS else {}

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables, plots and pictures."""
        scored = ScoredSplits(records, self.scenes, self.metrics)
        compared = (SAME_DRAWS, ENUMERATE)
        pairs = scored.each(lambda labels: paired_with("igm", labels, right, SAME_DRAWS))
        exact = scored.each(lambda labels: agreement(labels, compared, lambda row: row["predicted"], base=1))
        sureness = scored.sureness(hits, SAME_DRAWS)
        factors = factor_report([record for record in records if record["split"] == FACTORS])
        tables = report.declared_tables(
            "attributes",
            paired=report.paired_rows(pairs),
            exactness=report.agreement_rows(exact, compared, share=True),
            calibration=report.calibration_rows(sureness),
        )

        def named(row: Mapping[str, Any]) -> list[dict[str, Any]]:
            values = zip(self.space.factors.items(), row["predicted"], strict=True)
            return [{"factor": name, "value": names[value]} for (name, names), value in values]

        grids = report.answer_grids(scored, self.scenes, compared, right, named)
        names = ("images", "both", "ours", "theirs")
        paired = {
            split: {other: p.to_dict(*names) for other, p in part.items()} for split, part in pairs.items()
        }
        told = {"paired": paired, "exactness": exact, "calibration": sureness, "factors": factors.summary}
        shown = [*tables, *factors.tables], [*factors.figures, *grids]
        return report.scored_report(self, scored, infos, *shown, told)


def values_of(space: Categorical, concepts: Tensor) -> list[int]:
    """Returns the index of every factor's value, within the factor, from one-hot rows ``[F,D]``."""
    return most_likely(space, concepts.sum(0, keepdim=True))[0].tolist()


def hits(row: Mapping[str, Any]) -> list[bool]:
    """Returns which values of a row are right."""
    return [p == t for p, t in zip(row["predicted"], row["truth"], strict=True)]


def right(row: Mapping[str, Any]) -> bool:
    """Returns whether all values of a row are right."""
    return all(hits(row))


def _described(s: InversionSettings) -> str:
    """Returns the method and the draws as the report shows them."""
    draws = {
        "relax": f"{s.relax_steps} steps",
        "enumerate": f"{s.draws} draws",
        "eliminate": f"up to {s.max_draws} draws",
        "evidence": f"{s.draws} to {s.max_draws} draws" if s.draws < s.max_draws else f"{s.draws} draws",
    }
    return f"{s.method}, {draws[s.method]}"


SUITE = frame.DeclaredSuite("attributes", AttributeBench)
