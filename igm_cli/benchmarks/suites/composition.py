"""Suite ``composition``: whether samples of a composed model show what was asked for, by judges who never saw the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from igm_cli.benchmarks import frame, report
from igm_cli.benchmarks.baselines.fit import TrainingData
from igm_cli.benchmarks.baselines.judges import NEAR, KindJudge, PlaceJudge, all_right, near
from igm_cli.benchmarks.scores import Estimate, Rows, ScoredSplits, Scores, mean, proportion, rate
from igm_cli.benchmarks.suite import Infos, Method, PictureGrid, Record, Report, Request, Row, Table
from igm_cli.core.concepts import Continuous
from igm_cli.core.device import inference_precision
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.engine import invert
from igm_cli.core.metrics import match
from igm_cli.core.sampling import Composed, Langevin, sample
from igm_cli.errors import InputError
from igm_cli.imaging import from_model
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.positions import Positions
from igm_cli.plugins.samples import DatasetSamples

IMAGES = 200  # of a split, unless others are asked for
HELD_OUT = 200  # renders that judges are not trained on, or as many as they are
RENDER_SEED = 31  # of the judges' renders
SURE = 0.2  # the share of real objects on which a judge is less sure than it calls sure
SHOWN = 2  # images of a split in the picture
KINDS: Mapping[str, tuple[str, ...]] = {
    "shape": ("cube", "sphere", "cylinder"),
    "material": ("rubber", "metal"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "size": ("small", "large"),
}
TOLD = ("shape", "material")  # those that are reported


class DescribedObjects(Positions):
    """Objects by where they are and what they are, as judges of kinds learn them: ``[K,2+F]``."""

    name = "described-objects"

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns place and numbers of the values of each object whose centre lies in the frame."""
        rows = [torch.zeros(0, 2 + len(KINDS))]
        for thing in example["objects"]:
            place = super().parse({"objects": [thing]}, frame)
            kinds = torch.tensor([[float(names.index(thing[kind])) for kind, names in KINDS.items()]])
            rows.append(torch.cat([place, kinds[: len(place)]], 1))
        return torch.cat(rows)

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns the objects of the image flipped left to right."""
        return torch.cat([super().mirror(concepts[..., :2]), concepts[..., 2:]], -1)


class Judges(NamedTuple):
    """Trained judges."""

    place: tuple[PlaceJudge, nn.Module]
    kinds: tuple[tuple[KindJudge, nn.Module], ...]  # two, trained apart
    least: Mapping[str, float]  # the chance above which the first is sure of a kind
    errors: Mapping[str, float]


class CompositionBench(frame.CheckpointBench):
    """The suite opened for one request."""

    dataset, called = "clevr-render", "positions"

    def __init__(self, suite: frame.DeclaredSuite, request: Request) -> None:
        super().__init__(suite, request)
        if request.data_root is not None:
            raise InputError("composition renders the images that it compares with; leave out the data root")
        if not isinstance(self.checkpoint.denoiser.space, Continuous):
            raise InputError("composition measures models of positions")
        numbers = {"steps": 50, "correct": 5, "batch": 8, "renders": 3000}
        self.numbers = {name: self.whole_number(name, value) for name, value in numbers.items()}
        self.numbers |= {name: self.whole_number(name, 20, least=0) for name in ("inverted", "twins")}
        self.scenes = {}
        for name in request.splits:
            count = request.limit or IMAGES
            data = self.load("test", name, count, "")  # a scene depends on its number alone
            self.scenes[name] = frame.AnnotatedImages(data, self.parser, self.image_size)

    @cached_property
    def data(self) -> TrainingData:
        """Renders of 1 to 8 objects, of the part of scenes that models are trained on, under a seed of their own."""
        cut = self.numbers["renders"]
        options: dict[str, Any] = {"objects": "1-8", "size": cut + min(HELD_OUT, cut)}

        @cache
        def parts() -> tuple[DatasetSamples, DatasetSamples]:
            progress = self.request.progress
            data = registry.dataset(self.dataset).load("train", seed=RENDER_SEED, progress=progress, **options)
            kept = data.select(range(cut)), data.select(range(cut, len(data)))
            first, second = (DatasetSamples(d, DescribedObjects(), self.image_size, progress) for d in kept)
            return first, second

        about = {"rendered": options, "seed": RENDER_SEED, "trained_on": cut}
        return TrainingData(about, lambda: parts()[0], lambda: parts()[1])

    @cached_property
    def judges(self) -> Judges:
        """The judges, trained or loaded."""
        counts = tuple(len(names) for names in KINDS.values())
        place = PlaceJudge()
        kinds = KindJudge(values=counts), KindJudge(values=counts, name="judge-kinds-2", kernel=5, channels=32)
        fitted = [self.fitted(judge, number) for number, judge in enumerate((place, *kinds))]
        samples = self.data.validation()
        images, concepts, present = samples.batch(list(range(len(samples))), [False] * len(samples))
        places = [row[there][:, :2] for row, there in zip(concepts, present, strict=True)]
        chances = self._kinds(kinds[0], fitted[1].model, images.float() / 127.5 - 1, places)
        least = {
            kind: float(chance.amax(1).quantile(SURE)) for kind, chance in zip(KINDS, chances, strict=True)
        }
        models = [one.model for one in fitted]
        errors = {judge.name: one.validation for judge, one in zip((place, *kinds), fitted, strict=True)}
        return Judges((place, models[0]), tuple(zip(kinds, models[1:], strict=True)), least, errors)

    def method(self, name: str) -> Method:
        """Makes a method ready; judges are trained first."""
        judges, n = self.judges, self.numbers
        info: dict[str, Any] = {"judges' errors": dict(judges.errors)}
        if name == "real":
            return Method(self._real, {"images": "rendered", **info})
        info = {**frame.checkpoint_info(self.checkpoint), "steps": n["steps"], **info}
        if name == "ula":
            info["Langevin steps a level"] = n["correct"]

        def rows(split: str, item: str) -> list[Row]:
            scene, number = self.scenes[split][item], list(self.scenes[split].rows).index(item)
            image, seconds, calls = self._drawn(name, split, number)
            row = {"label": name, **self._judged(image, scene.truth), "seconds": seconds, "calls": calls}
            if number < n["inverted"]:
                composition, denoiser = self.checkpoint.composition, self.checkpoint.denoiser
                found = invert(denoiser, image.to(self.device), self.settings, composition=composition)
                row["own"] = found.concepts.tolist()
            if number < n["twins"]:
                twin, _, _ = self._drawn(name, split, number, other=True)
                row["diversity"] = float((image - twin).square().mean() / 4)
            return [{**row, "truth": self.truth(scene)}]

        return Method(rows, info)

    @cached_property
    def _drawn(self) -> Callable[..., tuple[Tensor, float, float]]:
        """From method, split and number to an image as its bytes say it, and its share of seconds and calls."""
        batch, request = self.numbers["batch"], self.request

        @cache
        def together(name: str, split: str, first: int, other: bool) -> tuple[Tensor, float, float]:
            scenes = self.scenes[split]
            truths = [scenes[item].truth for item in list(scenes.rows)[first : first + batch]]
            counter = CallCounter(self.checkpoint.denoiser)
            longest = max(map(len, truths))
            concepts = torch.stack([torch.cat([t, t.new_zeros(longest - len(t), 2)]) for t in truths])
            present = torch.tensor([[k < len(t) for k in range(longest)] for t in truths])
            composed = Composed.of(
                counter, concepts.to(self.device), self.checkpoint.composition, present.to(self.device)
            )
            width, height = self.image_size
            corrector = Langevin(self.numbers["correct"]) if name == "ula" else None
            images, seconds = frame.timed(
                lambda: sample(
                    composed,
                    (3, height, width),
                    steps=self.numbers["steps"],
                    seed=2 * request.seed + other,
                    first=first,
                    sampler="ddim" if name == "ddim" else "ancestral",
                    corrector=corrector,
                ).cpu()
            )
            as_bytes = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
            return as_bytes, seconds / len(truths), counter.used.whole_calls / len(truths)

        def one(name: str, split: str, number: int, other: bool = False) -> tuple[Tensor, float, float]:
            images, seconds, calls = together(name, split, number - number % batch, other)
            return images[number % batch].float() / 127.5 - 1, seconds, calls

        return one

    def _real(self, split: str, item: str) -> list[Row]:
        """Returns what the judges say of a render, and how often they are right about what it shows."""
        scenes = self.scenes[split]
        scene, described = (
            scenes[item],
            DescribedObjects().parse(scenes.data[scenes.rows[item]], scenes[item].frame),
        )
        row: Row = {"label": "real", **self._judged(scene.x0, scene.truth), "truth": self.truth(scene)}
        for number, kind in enumerate(KINDS, start=2):
            true = described[row["which"], number].long().tolist()
            row[f"{kind}_right"] = sum(a == b for a, b in zip(row[kind], true, strict=True))
        return [row]

    def _judged(self, image: Tensor, truth: Tensor) -> Row:
        """Returns what the judges say of an image of which places were asked for."""
        judges = self.judges
        judge, model = judges.place
        with inference_precision(self.device):
            (found,) = judge.places(model, image[None].to(self.device))
        matched = match(found, truth)
        close = matched.squared.sum(1) < NEAR**2
        confirmed = found[matched.predicted[close]]
        first, second = (self._kinds(*one, image[None], [confirmed]) for one in judges.kinds)
        row: Row = {"found": found.tolist(), "which": matched.truth[close].tolist()}  # of the truth
        for kind, here, there in zip(KINDS, first, second, strict=True):
            row[kind] = here.argmax(1).tolist()
            row[f"{kind}_told"] = int((here.argmax(1) == there.argmax(1)).sum())
            row[f"{kind}_sure"] = int((here.amax(1) > judges.least[kind]).sum())
        return row

    def _kinds(
        self, judge: KindJudge, model: nn.Module, images: Tensor, places: Sequence[Tensor]
    ) -> list[Tensor]:
        with inference_precision(self.device):
            return judge.kinds(model, images.to(self.device), places)

    def table(self, split: str, heading: str, scores: Sequence[Scores], failed: Sequence[str]) -> Table:
        """Returns what the judges say of one split."""
        return report.score_table(split, heading, scores, failed, self.suite.words["columns"], {}, brief=8)

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        """Returns tables and pictures."""
        scored = ScoredSplits(records, self.scenes, metrics)
        told: list[list[str]] = []
        ratios: dict[str, dict[str, Any]] = {}
        for split, scores in scored.scores.items():
            by_name = {s.label: s for s in scores}
            if (real := by_name.pop("real", None)) is None:
                continue
            for label, s in by_name.items():
                shares = {k: s[f"{k}_told"].value / max(1e-9, real[f"{k}_told"].value) for k in TOLD}
                ratios.setdefault(split, {})[label] = shares
                told.append([split, label, *(f"{100 * share:.0f} %" for share in shares.values())])
        tables = [report.declared_table("composition", "told", told)] if told else []
        figures = [self._pictures(records, list(scored.scores))] if scored.scores else []
        return report.scored_report(self.suite, scored, self.table, infos, tables, figures, {"told": ratios})

    def _pictures(self, records: Sequence[Record], splits: Sequence[str]) -> PictureGrid:
        """Returns renders beside samples of the same places."""
        labels = [name for name in self.suite.methods if any(r["method"] == name for r in records)]
        drawn = [name for name in labels if name != "real"]
        rows = []
        for split in splits:
            for number, item in enumerate(list(self.scenes[split].rows)[:SHOWN]):
                scene = self.scenes[split][item]
                samples = [from_model(self._drawn(name, split, number)[0]) for name in drawn]
                rows.append((split, [from_model(scene.x0), *samples]))
        return PictureGrid("pictures", "Renders, and samples of the same places", ["real", *drawn], rows)


def metrics(rows: Rows) -> dict[str, Estimate]:
    """Returns how often what was asked for is there, whether kinds can be told, and costs."""
    truths, found = ([torch.tensor(row[key]).reshape(-1, 2) for row in rows] for key in ("truth", "found"))
    pairs = list(zip(found, truths, strict=True))
    hits, asked = [near(*pair) for pair in pairs], [len(truth) for truth in truths]
    confirmed = [len(row["which"]) for row in rows]
    estimates = {
        "all_right": proportion([all_right(*pair) for pair in pairs]),
        "recall": rate(hits, asked),
        "precision": rate(hits, [len(places) for places in found]),
        "count": proportion([len(places) == len(truth) for places, truth in pairs]),
    }
    for name in (f"{kind}_{how}" for kind in TOLD for how in ("told", "sure", "right")):
        if all(name in row for row in rows):
            estimates[name] = rate([row[name] for row in rows], confirmed)
    if all("seconds" in row for row in rows):
        estimates |= {name: mean(row[name] for row in rows) for name in ("seconds", "calls")}
    if inverted := [
        (torch.tensor(r["own"]).reshape(-1, 2), t) for r, t in zip(rows, truths, strict=True) if "own" in r
    ]:
        estimates["own_recall"] = rate(
            [near(*pair) for pair in inverted], [len(truth) for _, truth in inverted]
        )
        estimates["own_count"] = proportion([len(own) == len(truth) for own, truth in inverted])
    if twins := [row["diversity"] for row in rows if "diversity" in row]:
        estimates["diversity"] = mean(twins)
    return estimates


SUITE = frame.DeclaredSuite("composition", CompositionBench)
