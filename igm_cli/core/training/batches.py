"""Batches of samples on the training device, prepared so that it never waits for them.

A CPU makes them on request.  Another device keeps all samples in its memory if they fit; otherwise a thread makes and
sends the next batch during the current step.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from igm_cli.core.device import fits, runs_ahead, to_device
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.plan import StepPlan, plan_step

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Images ``[B,C,H,W]``, concepts ``[B,K,D]`` and presence ``[B,K]``."""

READ_AT_ONCE = 512
"""Samples copied to a device at once, if all of them go there."""


class Samples(Protocol):
    """Training images with their concepts."""

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], flips: list[bool]) -> Batch:
        """Returns images ``[B,C,H,W]``, concepts ``[B,K,D]``, presence ``[B,K]`` (False = padding).

        Images are bytes, or floats in -1..1; those of ``flips`` are mirrored left to right.
        """
        ...


class Batches(Protocol):
    """Batches on the training device."""

    def rows(self, plan: StepPlan) -> Batch:
        """Returns the rows of a plan, with images in -1..1."""
        ...


def make_batches(samples: Samples, config: TrainConfig, accelerator: Accelerator) -> Batches:
    """Returns batches of samples of the kind that suits the device and its memory."""
    device = accelerator.device
    if not runs_ahead(device):
        return HostBatches(samples)
    size = len(samples) * samples.batch([0], [False])[0].nbytes
    if fits(size, device):
        return ResidentBatches(samples, config, device)
    share = config.batch_size // accelerator.num_processes
    first = accelerator.process_index * share
    return SentBatches(samples, config, device, range(first, first + share))


def as_floats(images: Tensor) -> Tensor:
    """Returns images in -1..1, given as bytes or as floats in this range."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images


class HostBatches:
    """Batches on the CPU."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def rows(self, plan: StepPlan) -> Batch:
        """See :class:`Batches`."""
        images, concepts, present = self.samples.batch(plan.indices, plan.flips)
        return as_floats(images), concepts, present


class ResidentBatches:
    """Batches from samples that are all in a device's memory; concepts are padded to the largest number per image."""

    def __init__(self, samples: Samples, config: TrainConfig, device: torch.device) -> None:
        self.device = device
        parts = list(_read(samples, config.mirror, device))
        longest = max(part[2].shape[1] for part in parts)
        images, concepts, present = zip(*parts, strict=True)
        self.images = torch.cat(images)
        self.concepts = torch.cat([F.pad(c, (0, 0, 0, longest - c.shape[2])) for c in concepts], dim=1)
        self.present = torch.cat([F.pad(p, (0, longest - p.shape[1])) for p in present])

    def rows(self, plan: StepPlan) -> Batch:
        """See :class:`Batches`."""
        index, side = to_device(torch.tensor([plan.indices, [int(flip) for flip in plan.flips]]), self.device)
        images = self.images[index]
        images = torch.where(side.bool()[:, None, None, None], images.flip(-1), images)
        return as_floats(images), self.concepts[side, index], self.present[index]


def _read(samples: Samples, mirror: bool, device: torch.device) -> Iterator[Batch]:
    """Yields all samples on a device; concepts ``[1 or 2,b,K,D]`` plain and, with ``mirror``, mirrored."""
    for first in range(0, len(samples), READ_AT_ONCE):
        rows = list(range(first, min(first + READ_AT_ONCE, len(samples))))
        images, concepts, present = samples.batch(rows, [False] * len(rows))
        sides = [concepts, samples.batch(rows, [True] * len(rows))[1]] if mirror else [concepts]
        yield images.to(device), torch.stack(sides).to(device), present.to(device)


class SentBatches:
    """Batches sent to a device one ahead of the training, as bytes if the samples are bytes.

    ``share`` are the rows of the whole batch for this process.
    """

    def __init__(self, samples: Samples, config: TrainConfig, device: torch.device, share: range) -> None:
        self.samples, self.config, self.device, self.share = samples, config, device, share
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="igm-batches")
        self.ahead: tuple[tuple[int, int, int], Future[Batch]] | None = None

    def rows(self, plan: StepPlan) -> Batch:
        """See :class:`Batches`."""
        if self.ahead is None or self.ahead[0] != _place(plan):
            self.ahead = _place(plan), self.thread.submit(self._send, plan)
        images, concepts, present = batch = self.ahead[1].result()
        if self.stream is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self.stream)
            for tensor in batch:
                tensor.record_stream(here)
        following = self._following(plan)
        self.ahead = _place(following), self.thread.submit(self._send, following)
        return as_floats(images), concepts, present

    def _following(self, plan: StepPlan) -> StepPlan:
        """Returns the next rows, the same number, of this step or of the next one."""
        count, first, step = len(plan.indices), plan.first + len(plan.indices), plan.step
        if first >= self.share.stop:
            first, step = self.share.start, step + 1
        return plan_step(step, len(self.samples), self.config).rows(first, first + count)

    def _send(self, plan: StepPlan) -> Batch:
        with torch.cuda.stream(self.stream):
            images, concepts, present = (
                to_device(tensor, self.device) for tensor in self.samples.batch(plan.indices, plan.flips)
            )
        return images, concepts, present


def _place(plan: StepPlan) -> tuple[int, int, int]:
    """Returns a plan's step, first row and number of rows."""
    return plan.step, plan.first, len(plan.indices)
