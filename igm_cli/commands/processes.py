"""Several processes of one call, started by accelerate launch: they join before the work and gather their results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from igm_cli.errors import need


def meet(*, on_cpu: bool) -> None:
    """Joins the processes before the work, with a timeout long enough for slow ones."""
    need("train", "accelerate")
    from accelerate import PartialState

    PartialState(cpu=on_cpu, timeout=timedelta(days=7))


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, on every process."""
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState()
    values: list[Any] = [None] * state.num_processes
    dist.all_gather_object(values, value)
    state.wait_for_everyone()
    state.destroy_process_group()
    return values
