"""Shows the progress of a training, and at its end how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from igm_cli.benchmarks.suite import Curve, Plot
from igm_cli.commands.drawings import save_picture, sheet
from igm_cli.commands.figures import draw
from igm_cli.commands.train_validation import COUNT
from igm_cli.errors import missing, percentage
from igm_cli.output import Output, ProgressReport

CURVES = "curves.png"
"""File name of the plotted curves in a run folder."""

STILL_FALLING = 0.01
"""If the loss falls by more than this over the last two fifths of a training, more steps are advised."""


class Watch:
    """Shows every step of a training by a bar, or by log lines, which also report speed and memory."""

    def __init__(self, sink: Output, steps: int, bar: ProgressReport) -> None:
        self.sink, self.steps, self.bar = sink, steps, bar
        self.figures: dict[str, float] = {}
        bar("training", 0, steps)  # starts its clock at once

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Receives a step and its logged figures."""
        self.figures |= figures
        shown = {"loss": "loss {:.4f}"}
        if not self.sink.on_terminal:
            shown |= {"images_per_second": "{:.3g} images/s", "memory_gb": "{:.1f} GB"}
        parts = [form.format(self.figures[name]) for name, form in shown.items() if name in self.figures]
        self.bar(f"training: {', '.join(parts)}" if parts else "training", step, self.steps)


class Outcome(NamedTuple):
    """How a training went."""

    said: str  # how loss and validation developed
    advice: str
    not_learned: str | None = None  # a clause that says so, if little or nothing was learned


def how_it_went(
    metrics: Sequence[Mapping[str, float]],
    steps: int,
    warmup: int = 0,
    *,
    cut: bool = False,
    recounts: bool = False,
) -> Outcome:
    """Returns how loss and validation developed, by the lines of metrics.jsonl, and advice about it.

    ``cut`` says that crops were validated, not whole images; ``recounts`` that the model was calibrated since, so that it counts
    otherwise.
    """
    losses = [line["loss"] for line in metrics if "loss" in line]
    names = ("right", "place_right", "k_exact")
    found, placed, counted = (_last(metrics, f"validation/{name}") for name in names)
    if not losses:
        return Outcome("nothing was logged of it", "smaller log_every logs more")
    fifth = max(1, len(losses) // 5)
    first, before, last = (
        sum(part) / len(part)
        for part in (losses[:fifth], losses[-2 * fifth : -fifth] or losses[:1], losses[-fifth:])
    )
    then, now = f"{first:.4f}", f"{last:.4f}"
    change = f"{'fell' if last < first else 'rose'} from {then} to {now}"
    said = f"the loss stays at {now}" if then == now else f"the loss {change}"
    said = f"the loss is {now}" if len(losses) == 1 else said
    if found is not None:
        share = found if placed is None else placed
        where = (
            f"{COUNT} crops of validation images" if cut else f"the first validation images, {COUNT} at most,"
        )
        said += f"; {percentage(share, 0)} of the concepts in {where} are found"
        said += " when their number is given" if counted is not None else ""
        if placed is not None:
            said += f", {percentage(found, 0)} with every value right"
    if recounts:
        counted = None
    if counted is not None:
        said += f", and the number is right for {percentage(counted, 0)} when it is not given"
    if steps <= warmup and last >= first:
        why = f"it ended within its {warmup} steps of warm-up, in which little is learned"
        return Outcome(said, f"{why}; train for more --steps", why)
    if len(losses) == 1:
        advice = "one line of a log does not say whether it learned; smaller log_every logs more"
    # A model that found most from the beginning has little to learn.
    elif last >= first and max(found or 0, placed or 0) < 0.5:
        why = "it did not learn"
        way_out = "check the annotations (--dry-run draws them), then try another learning_rate"
        return Outcome(said, f"{why}: {way_out}", why)
    elif placed is not None and found is not None and placed >= 0.5 > found:
        advice = (
            f"places are learned sooner than values: continue with --steps {2 * steps}; train.mixed and train.contrast help "
            "values"
        )
    elif found is not None and found < 0.5:
        advice = (
            f"that is few: continue with --steps {2 * steps}, and check the annotations (--dry-run draws them)"
        )
    elif len(losses) > 4 and before - last > STILL_FALLING * before:
        advice = f"the loss is still falling: --steps {2 * steps} continues from here, and may be better"
    elif counted is not None and counted < 0.5:
        advice = "objects are found but counted badly: igm evaluate --calibrate on more images may mend that"
    else:
        advice = "it went well"
    return Outcome(said, advice)


def _last(metrics: Sequence[Mapping[str, float]], name: str) -> float | None:
    """Returns the last value of a figure, None if there is none."""
    return next((line[name] for line in reversed(metrics) if name in line), None)


def draw_curves(metrics: Sequence[Mapping[str, float]], folder: Path) -> str:
    """Plots loss and validation over the steps in a run folder; returns a sentence saying where, or what is missing."""
    if missing("matplotlib"):
        return "pip install 'igm-cli[plots]' to have its curves drawn"

    def curve(label: str, name: str, factor: float = 1) -> Curve:
        points = [(line["step"], factor * line[name]) for line in metrics if name in line]
        return Curve(label, [x for x, _ in points], [y for _, y in points])

    placed = _last(metrics, "validation/place_right")
    plots = [Plot("loss", "Loss", "step", "loss", [curve("Loss", "loss")], log_y=True)]
    found = "concepts found" if placed is None else "every value right, too"
    labels = {"place_right": "places found", "right": found, "k_exact": "number right"}
    shown = [curve(label, f"validation/{name}", 100) for name, label in labels.items()]
    if known := [each for each in shown if each.x]:
        plots.append(Plot("validation", "Validation images", "step", "%", known))
    save_picture(sheet([draw(plot) for plot in plots], width=760), folder / CURVES)
    return f"the curves are drawn in {folder / CURVES}"
