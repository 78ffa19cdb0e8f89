"""Generation: draws the images that concept expressions describe, with one model or several composed as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from igm_cli.core.checkpoint import GenerationDefaults
from igm_cli.core.files import fingerprint_of
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.sampling import Composed, Hamiltonian, Langevin, sample, sample_any
from igm_cli.core.sampling.composed import require_alike
from igm_cli.core.validation import Guidance, Natural, Sampler, reporter, validated
from igm_cli.errors import UsageError
from igm_cli.imaging import Frame, from_model, pixel_hash
from igm_cli.open_model import OpenModel, suitable_batch
from igm_cli.records import GeneratedImage
from igm_cli.session import ImageSession, rounded
from igm_cli.wishes import Asked, Reader, Wish

if TYPE_CHECKING:
    from igm_cli.core.sampling.correctors import Corrector
    from igm_cli.plugins.base import Progress

BATCH = 3
"""Images per batch in generation for each one in inversion, since sampling keeps no statistics."""

CORRECTORS: dict[str, Callable[[int], Corrector]] = {
    "ula": lambda steps: Langevin(steps, 0.1),
    "mala": lambda steps: Langevin(steps, 0.1, accept=True),
    "hmc": lambda steps: Hamiltonian(steps),
}


@validated("generation option", UsageError)
class GenerationSettings:
    """How images are drawn.

    Attributes:
        seed: Seed of everything random; image number i depends only on it and on i.
        steps: Noise levels on the way from noise to an image.
        sampler: ``ancestral`` or ``ddim``; None takes what the model draws best with, ``ancestral`` unless it says so.
        guidance: Factor of every contribution; None takes the model's own, 1 (AND) unless it says so.
        correct: L, steps of the corrector at every noise level.
        corrector: ``ula`` or ``mala`` (Langevin steps, without or with an acceptance test), or ``hmc``.
        particles: M, particles per image, weighted and resampled.
        branches: For OR: ``draw`` one branch per image, which is exact, or ``mix`` the scores.
        free: Values of factors that are not named: ``random``, or ``none`` for no contribution.
        check: Whether the model inverts what it drew.
        batch_size: Images per batch; None takes what suits the device.
    """

    seed: Natural = 0
    steps: Annotated[int, Field(ge=2, le=10_000)] = 50
    sampler: Sampler | None = None
    guidance: Guidance | None = None
    correct: Annotated[int, Field(ge=0, le=1000)] = 0
    corrector: Literal["ula", "mala", "hmc"] = "ula"
    particles: Annotated[int, Field(ge=1, le=10_000)] = 1
    branches: Literal["draw", "mix"] = "draw"
    free: Literal["random", "none"] = "random"
    check: bool = False
    batch_size: Annotated[int, Field(ge=1, le=100_000)] | None = None


class Generation:
    """Models composed as one, with the settings of one call.

    The base comes from the first model that an expression names.

    Raises:
        UsageError: If the settings do not fit each other.
        InputError: If the models do not fit each other.
    """

    key = ("expression", "index")

    def __init__(self, models: Sequence[OpenModel], settings: GenerationSettings) -> None:
        self.models, self.settings, self.device = list(models), settings, models[0].device
        s = settings
        if s.branches == "mix" and (s.correct or s.particles > 1):
            raise UsageError("--or mix follows the mixture itself; leave out --correct and --particles")
        if s.corrector != GenerationSettings.corrector and not s.correct:
            raise UsageError(
                f"--corrector {s.corrector} corrects at no level; give --correct L, its steps at every level"
            )
        if s.check and (len(models) > 1 or models[0].decode):
            raise UsageError("--check looks with one trained checkpoint; leave it out, or use igm zero-shot")
        if models[0].companions:
            others = " and ".join(models[0].companions)
            raise UsageError(
                f"{models[0].name} adds to {others}, with which it was trained; name {others} first"
            )
        for model in models:
            if not hasattr(model.parser, "ask"):
                raise UsageError(
                    f"concepts {model.parser.name} cannot be asked for in words: their parser has no 'ask'"
                )
        self.name = " + ".join(model.name for model in models)
        own = [GenerationDefaults(**model.generation) for model in models]
        self.guidances = [s.guidance or each.guidance or 1.0 for each in own]
        # The weights of particles are those of ancestral steps.
        self.sampler = s.sampler or (s.particles == 1 and own[0].sampler) or "ancestral"
        told = {**asdict(s), "guidance": self.guidances, "sampler": self.sampler}
        told |= {"batch_size": None, "check": False}  # these change nothing that is drawn
        # What else a text-to-image model could be asked about changes nothing.
        identities = [{k: v for k, v in model.identity.items() if k != "labels"} for model in models]
        self.run = fingerprint_of({"models": identities, "settings": told})

    @cached_property
    def reader(self) -> Reader:
        """The reader of the models' expressions."""
        s = self.settings
        return Reader([model.parser for model in self.models], self.frame, s.seed, s.free)

    def require_possible(self, wish: Wish) -> None:
        """Raises an :class:`IgmError` if the first image of a wish cannot be drawn, before anything is written."""
        self.reader.asked(wish, 0)
        _ = self._size, self._steps  # raise an error if several models disagree, or have fewer timesteps

    def draw(self, wishes: Sequence[Wish], n: int, progress: Progress | None = None) -> list[GeneratedImage]:
        """Returns n images per wish."""
        every = []
        for wish in wishes:
            for first in range(0, n, self.batch_size):
                every += self.images(wish, range(first, min(n, first + self.batch_size)), progress=progress)
        return every

    @cached_property
    def batch_size(self) -> int:
        """Images per batch."""
        alone = self.models[0].decode is not None  # one image keeps a text-to-image network busy
        return self.settings.batch_size or (1 if alone else BATCH * suitable_batch(self.models[0]))

    def images(
        self,
        wish: Wish | Sequence[Wish],
        numbers: range,
        name: Callable[[int], str] = str,
        progress: Progress | None = None,
    ) -> list[GeneratedImage]:
        """Returns the images with the given numbers, drawn as one batch; ``name`` gives the path of each.

        ``wish`` is one for all images or one per image; all wishes must name the same models.
        """
        started, s = time.monotonic(), self.settings
        wishes = [wish] * len(numbers) if isinstance(wish, Wish) else list(wish)
        (named,) = {frozenset(each.models) for each in wishes}
        counters = [CallCounter(model.denoiser) for model in self.models]
        if s.branches == "mix" and isinstance(wish, Wish) and len(wish.branches) > 1:
            asked, x = self._mixed(counters, wish, numbers)
        else:
            asked = [self.reader.asked(*pair) for pair in zip(wishes, numbers, strict=True)]
            x = self._sampled(self._composed(counters, named, asked), numbers, progress)
        touching = self._composed(counters, named, asked).overlap_in(x, self._levels // 2).tolist()
        decode = self.models[0].decode
        pictures = [from_model(image) for image in (decode(x) if decode else x)]
        calls = round(sum(counter.used.whole_calls for counter in counters) / len(numbers))
        seconds = round((time.monotonic() - started) / len(numbers), 4)
        results = []
        for each, number, each_asked, picture, overlap in zip(
            wishes, numbers, asked, pictures, touching, strict=True
        ):
            record = self._record(each, number, each_asked, picture.size)
            record["overlap"] = round(overlap, 4)
            record |= {"image": name(number), "sha256": pixel_hash(picture)}
            record |= {"network_calls": calls, "seconds": seconds}
            if s.check:
                record["check"] = self._check(each_asked, picture)
            result = GeneratedImage.model_validate(record)
            result._picture = picture
            results.append(result)
        return results

    def _sampled(self, model: Composed, numbers: range, progress: Progress | None) -> Tensor:
        """Returns samples ``[B,C,H,W]`` for the images with the given numbers."""
        s, tell = self.settings, reporter(progress)
        what = f"noise levels: image {numbers.start + 1} to {numbers.stop}"
        return sample(
            model, self._shape, sampler=self.sampler, particles=s.particles,
            corrector=CORRECTORS[s.corrector](s.correct) if s.correct else None,
            progress=lambda done, total: tell(what, done, total), **self._how(numbers),
        )  # fmt: skip

    def _mixed(self, counters: Sequence[CallCounter], wish: Wish, numbers: range) -> tuple[list[Asked], Tensor]:
        """Returns the branch that each sample of a mixture ended in, and the samples ``[B,C,H,W]``."""
        every = [[self.reader.of(branch, number) for number in numbers] for branch in wish.branches]
        weights = [branch.probability for branch in wish.branches]
        models = [self._composed(counters, wish.models, asked) for asked in every]
        x, sure = sample_any(models, self._shape, weights, **self._how(numbers))
        return [every[b][row] for row, b in enumerate(sure.argmax(1).tolist())], x

    def _how(self, numbers: range) -> dict[str, Any]:
        """Returns the arguments of all samplers; latents are not clipped."""
        clip = self.models[0].decode is None
        return {"steps": self._steps, "seed": self.settings.seed, "first": numbers.start, "clip": clip}

    @property
    def told(self) -> dict[str, Any]:
        """The settings of this call as the records of its images have them."""
        names = ("seed", "sampler", "correct", "corrector", "particles", "branches")
        settings = {name: getattr(self.settings, name) for name in names}
        chosen = {"sampler": self.sampler, "steps": self._steps}
        alike = len(set(self.guidances)) == 1
        guidance = self.guidances[0] if alike else self.guidances
        return {"model": self.name, "guidance": guidance, **settings, **chosen}

    def _record(self, wish: Wish, number: int, asked: Asked, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the fields of an image's record that do not depend on its pixels."""
        items, present, absent = [], [], []
        for model, concepts, weights in zip(self.models, asked.concepts, asked.weights, strict=True):
            shown = weights > 0
            items += model.parser.decode(concepts[shown], self.frame)
            present += weights[shown].tolist()
            absent += weights[~shown].tolist()
        named = [self.models[place] for place in sorted(wish.models)]
        return {
            "schema": "igm.generate/1",
            "expression": wish.expression,
            "index": number,
            "clause": str(asked.branch),
            "size": list(size),
            "items": [{**rounded(item), "confidence": None} for item in items],
            "weights": [round(weight, 6) for weight in present + absent],
            **self.told,
            "model": " + ".join(model.name for model in named),
            "concepts": " + ".join(model.parser.name for model in named),
            "device": str(self.device),
            "run": self.run,
        }

    def _check(self, asked: Asked, picture: Any) -> dict[str, Any]:
        """Inverts an image that the model drew; returns what it found."""
        found = self._looking.invert([self._looking.input(picture)])[0]
        predicted = self._looking.parser.encode(found.items, self.frame)
        scores = self._looking.parser.score(predicted, asked.concepts[0][asked.weights[0] > 0])
        return {"k": found.k, "items": found.items, "scores": scores}

    @cached_property
    def _looking(self) -> ImageSession:
        return ImageSession(self.models[0])

    @cached_property
    def frame(self) -> Frame:
        """The frame of a whole image."""
        width, height = self._size
        return Frame((width, height), (0.0, 0.0, float(width), float(height)))

    @cached_property
    def _size(self) -> tuple[int, int]:
        """(width, height) of images; composed models must agree on it and on the noise schedule."""
        if len(self.models) > 1:
            require_alike([(model.name, model.denoiser) for model in self.models])
        return self.models[0].image_size

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a sample."""
        width, height = self._size
        return tuple(getattr(self.models[0].denoiser, "latent_shape", (3, height, width)))

    @property
    def _steps(self) -> int:
        """Number of noise levels; each step leads from one timestep of the schedule to another."""
        steps, most = self.settings.steps, self._levels - 1
        if most < steps != GenerationSettings.steps:
            raise UsageError(
                f"{self.name} has {self._levels} timesteps, so --steps is at most {most}, not {steps}"
            )
        return min(steps, most)

    @property
    def _levels(self) -> int:
        """T, the timesteps of the schedule."""
        return int(self.models[0].denoiser.schedule.steps)

    def _composed(self, counters: Sequence[CallCounter], named: Set[int], asked: Sequence[Asked]) -> Composed:
        """Composes the models that a wish names, under the concepts of some of its images; the first gives the base.

        The choice of models must not depend on the batch.
        """
        joined: Composed | None = None
        for place, (model, counter) in enumerate(zip(self.models, counters, strict=True)):
            if place not in named:
                continue
            rows, weights = [a.concepts[place] for a in asked], [a.weights[place] for a in asked]
            most = max(1, *map(len, rows))
            padding = torch.cat([*rows, torch.zeros(1, model.parser.space.dim)])[:1]
            concepts = torch.stack([torch.cat([r, padding.expand(most - len(r), -1)]) for r in rows])
            scale = torch.stack([torch.cat([w, w.new_zeros(most - len(w))]) for w in weights])
            part = Composed.of(
                counter, concepts.to(self.device), model.joins or model.composition,
                (scale != 0).to(self.device), self.guidances[place] * scale.to(self.device),
            )  # fmt: skip
            joined = joined & part if joined else part
        assert joined is not None
        return joined
