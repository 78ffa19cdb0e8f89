"""What people see of a training: how far it is while it runs, and how it went at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from igm_cli.errors import missing
from igm_cli.output import Output, ProgressReport, span

CURVES = "curves.png"
"""The picture of the curves in a run folder."""

FIRST, EVERY = 10.0, 60.0
"""Seconds before the first line of a log, and between the others."""

STILL_FALLING = 0.01
"""Fall of the loss over the last two fifths of a training, above which more steps are advised."""


class Watch:
    """Shows every step of a training on a terminal, and a line every minute where there is none.

    Args:
        sink: Where it is shown.
        steps: Steps in all.
        batch_size: Images per step.
        clock: Seconds.
    """

    def __init__(
        self, sink: Output, steps: int, batch_size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.sink, self.steps, self.batch_size, self.clock = sink, steps, batch_size, clock
        self.begun: tuple[int, float] | None = None
        self.next_line = FIRST
        self.figures: dict[str, float] = {}
        self.bar: ProgressReport = lambda what, done, total: None

    def shown_by(self, bar: ProgressReport) -> Watch:
        """Shows the steps by a bar, too, whose clock starts at once."""
        self.bar = bar
        bar("training", 0, self.steps)
        return self

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Takes a step and what is logged of it."""
        now = self.clock()
        self.begun = first, begun = self.begun or (step, now)
        self.figures |= figures
        self.bar(f"training: {self._loss()}" if "loss" in self.figures else "training", step, self.steps)
        if self.sink.on_terminal or step == first or now - begun < self.next_line:
            return
        self.next_line = now - begun + EVERY
        pace = (step - first) / (now - begun)
        left = (self.steps - step) / pace
        parts = [f"step {step} of {self.steps}", self._loss(), f"{pace * self.batch_size:.3g} images/s"]
        if "memory_gb" in self.figures:
            parts.append(f"{self.figures['memory_gb']:.1f} GB")
        parts.append(f"{span(left, left)} left")
        self.sink.note(", ".join(part for part in parts if part))

    def _loss(self) -> str:
        return f"loss {self.figures['loss']:.4f}" if "loss" in self.figures else ""


def how_it_went(metrics: Sequence[Mapping[str, float]], steps: int) -> tuple[str, str]:
    """Returns two sentences: how the loss and what was validated came out, and what to do about it.

    Args:
        metrics: The lines of metrics.jsonl.
        steps: Steps in all.
    """
    losses = [line["loss"] for line in metrics if "loss" in line]
    found, counted = (_last(metrics, f"validation/{name}") for name in ("right", "k_exact"))
    if not losses:
        return "nothing was logged of it", "smaller log_every logs more"
    fifth = max(1, len(losses) // 5)
    first, before, last = (
        sum(part) / len(part)
        for part in (losses[:fifth], losses[-2 * fifth : -fifth] or losses[:1], losses[-fifth:])
    )
    said = f"the loss fell from {first:.4f} to {last:.4f}" if last < first else f"the loss stays at {last:.4f}"
    if found is not None:
        said += f"; {found:.0%} of the concepts of the validation images are found"
    if counted is not None:
        said += f", and the number is right for {counted:.0%}"
    if last >= first:
        advice = (
            "it did not learn: check the annotations (--dry-run draws them), then try another learning_rate"
        )
    elif found is not None and found < 0.5:
        advice = (
            f"that is little: go on with --steps {2 * steps}, and check the annotations (--dry-run draws them)"
        )
    elif len(losses) > 4 and before - last > STILL_FALLING * before:
        advice = f"the loss still falls: --steps {2 * steps} goes on from here, and may be better"
    elif counted is not None and counted < 0.5:
        advice = "objects are found but counted badly: igm evaluate --calibrate on more images may mend that"
    else:
        advice = "it went well"
    return said, advice


def _last(metrics: Sequence[Mapping[str, float]], name: str) -> float | None:
    """The last value of a figure, None if there is none."""
    return next((line[name] for line in reversed(metrics) if name in line), None)


def draw_curves(metrics: Sequence[Mapping[str, float]], folder: Path) -> str:
    """Draws loss and validation over the steps into a run folder; says where, or what that needs."""
    if missing("matplotlib"):
        return "pip install 'igm-cli[plots]' to have its curves drawn"
    from igm_cli.benchmarks.suite import Curve, Plot
    from igm_cli.commands.drawings import save_picture, sheet
    from igm_cli.commands.figures import draw

    def curve(label: str, name: str, factor: float = 1) -> Curve:
        points = [(line["step"], factor * line[name]) for line in metrics if name in line]
        return Curve(label, [x for x, _ in points], [y for _, y in points])

    plots = [Plot("loss", "Loss", "step", "loss", [curve("Loss", "loss")], log_y=True)]
    shown = [
        curve(label, f"validation/{name}", 100)
        for label, name in (("concepts found", "right"), ("number right", "k_exact"))
    ]
    if known := [each for each in shown if each.x]:
        plots.append(Plot("validation", "Validation images", "step", "%", known))
    save_picture(sheet([draw(plot) for plot in plots], width=760), folder / CURVES)
    return f"the curves are drawn in {folder / CURVES}"
