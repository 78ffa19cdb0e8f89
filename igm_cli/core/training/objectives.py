"""Training objectives: the loss of the rows of one step.

argmin_theta  E_{x0, c, t, eps} ‖eps - compose_k eps_theta(x_t, t | c_k)‖²     (IGM, Wang et al. 2025, Algorithm 1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.composition import Composition
from igm_cli.core.concepts import Categorical, Continuous, Product
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.device import runs_ahead, to_device
from igm_cli.core.inference.windows import Local
from igm_cli.core.noise_schedule import Schedule
from igm_cli.core.objective import Noised, composed_loss
from igm_cli.core.philox import NormalRows
from igm_cli.core.sampling.composed import Composed, require_alike
from igm_cli.core.training.batches import Samples, make_batches
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.contrast import contrastive_loss, contrastive_loss_of_points, false_concepts
from igm_cli.core.training.plan import StepPlan, plan_step
from igm_cli.core.training.presence import presence_loss
from igm_cli.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator


STEPS_AHEAD = 8
"""Steps whose noise a GPU draws at once."""


class Objective(Protocol):
    """A loss that is computed step by step."""

    def loss(self, model: nn.Module, step: int, plan: StepPlan) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            model: The network in training, as it may be called (wrapped for several processes).
            step: Number of the step.
            plan: The step's draws for the rows wanted.
        """
        ...


@dataclass(frozen=True)
class Companion:
    """A frozen model to which another one learns to add (Du, Li & Mordatch 2020, section 4.4).

    Attributes:
        folder: Its checkpoint.
        denoiser: The model, on the training device.
        composition: How it composes.
        samples: The training images with this model's concepts.
    """

    folder: Path
    denoiser: Denoiser
    composition: Composition
    samples: Samples


class ComposedObjective:
    """The composed error, and the contrast if the configuration asks for it.

    The model in training adds its contributions to the composed prediction of its companions, if it has any.

    Raises:
        InputError: If the configuration has options that only apply to other models.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: ModelSpec,
        samples: Samples,
        config: TrainConfig,
        accelerator: Accelerator,
        companions: Sequence[Companion] = (),
    ) -> None:
        if config.autoencoder_steps or config.reading_steps:
            raise InputError(
                "autoencoder_steps and reading_steps are of text-to-image models; set them to 0 for others"
            )
        space = getattr(model, "space", None)
        known = isinstance(space, Categorical) or (
            isinstance(space, Continuous | Product) and spec.composition == "sum"
        )
        if config.contrast and not (known and spec.architecture == "factored"):
            raise InputError(
                "contrast is between values of factors, or points whose contributions are summed, of a factored "
                "denoiser; set it to 0 for others"
            )
        if config.mixed and not isinstance(space, Product):
            raise InputError("mixed is of the values of points; set it to 0 for other concepts")
        for layer in getattr(model, "auxiliary", ()):  # only the contrast's loss reaches these
            layer.requires_grad_(config.contrast > 0)  # distributed training refuses idle parameters
        if companions:
            if config.contrast or config.drop:
                raise InputError("a model that adds to others takes neither contrast nor drop; set both to 0")
            require_alike(
                [*((each.folder.name, each.denoiser) for each in companions), ("the new model", model)]
            )
            for layer in (getattr(model, name, None) for name in ("base_out", "pixels")):
                if isinstance(layer, nn.Module):
                    layer.requires_grad_(False)  # the prediction under no concept is the companions'
        self.companions = [(each, make_batches(each.samples, config, accelerator)) for each in companions]
        self.denoiser, self.schedule = model, cast(Schedule, model.schedule)
        self.space, self.composition = space, spec.composition
        self.config, self.device = config, accelerator.device
        self.batches = make_batches(samples, config, accelerator)
        alone = runs_ahead(self.device) and accelerator.num_processes == 1
        seed = plan_step(0, len(samples), config).noise_seed
        self.noise = NormalRows(seed, self.device, STEPS_AHEAD * config.batch_size if alone else 0)

    def loss(self, model: nn.Module, step: int, plan: StepPlan) -> Tensor:
        """See :class:`Objective`."""
        images, concepts, present = self.batches.rows(plan)
        random = plan.generator()
        if self.config.drop:
            kept = torch.rand(len(present), generator=random) >= self.config.drop
            present = present & to_device(kept, self.device)[:, None]
        t = to_device(plan.timesteps(self.schedule.steps, self.config.timestep_power), self.device)
        noise = self.noise.rows(tuple(images.shape[1:]), plan.numbers)
        seen, weight = Noised.of(self.schedule, images, t, noise), self.config.contrast_at(step)
        if self.config.contrast and isinstance(self.space, Categorical):
            return contrastive_loss(model, seen, self.composition, self.space, concepts, weight)
        if self.config.contrast and isinstance(self.space, Continuous):
            return presence_loss(model, seen, self.space, concepts, present, weight, random)
        if isinstance(self.space, Product):
            shown = self._mixed(self.space, concepts, random)
            if weight:
                rank = to_device(torch.rand(tuple(present.shape), generator=random), self.device)
                member = rank.masked_fill(~present, -1.0).argmax(1)
                compared = concepts[torch.arange(len(member), device=self.device), member]
                false = self._mixed(self.space, false_concepts(self.space, compared, random), random)
                local = cast(Local, self.denoiser)
                return contrastive_loss_of_points(
                    model, local, seen, self.space, concepts, present, shown, member, false, weight
                )
            concepts = shown
        frozen = self._frozen(plan) if self.companions else None
        return composed_loss(model, seen, self.composition, concepts, present, frozen)

    def _mixed(self, space: Product, concepts: Tensor, random: torch.Generator) -> Tensor:
        """Returns concepts ``[B,K,D]`` with mixtures in place of some values.

        Each concept has its own proportion U^(1/mixed - 1), U uniform: most lose nothing, some everything.
        """
        if not self.config.mixed:
            return concepts
        shape = concepts.shape[:2]
        own = torch.rand(*shape, 1, generator=random) ** (1 / self.config.mixed - 1)
        which = torch.rand(*shape, len(space.what.factors), generator=random) < own
        return space.mixed(concepts, to_device(which, self.device))

    def _frozen(self, plan: StepPlan) -> Callable[[Tensor, Tensor], Tensor]:
        """Returns the companions' prediction for the rows of a step, as a function of (x_t, t)."""
        joined: Composed | None = None
        for each, batches in self.companions:
            _, concepts, present = batches.rows(plan)
            part = Composed.of(each.denoiser, concepts, each.composition, present)
            joined = joined & part if joined else part
        assert joined is not None

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            with torch.no_grad():
                return joined.predict(x_t, t).epsilon

        return predict
