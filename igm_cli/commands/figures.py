"""Draws the figures of a report: plots, confusion matrices and grids of pictures."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from igm_cli.benchmarks.suite import Confusion, Curve, Figure, PictureGrid, Plot
from igm_cli.errors import need
from igm_cli.imaging import to_rgb

DPI = 120
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
"""Okabe and Ito's colours, distinguishable with any colour vision, without their yellow, which is too pale for a line."""
MARKERS = "osD^vPX<>ph*"
DASHES = ("-", "--", ":", "-.")
PALEST = 0.6
"""Share of white in the palest shade among the settings of one method."""
PANELS = 3
"""Confusion matrices per row."""
GRID_WIDTH = 1080
"""Approximate width of a grid of pictures, in pixels."""

GREY = "#666666"


@dataclass(frozen=True)
class Style:
    """The look of a label's curve."""

    color: str
    marker: str
    dashes: str


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """Returns the look of every label, independently of their order.

    The first word of a label names the method and determines the hue; settings of one method (``sgd R=1``,
    ``sgd R=20``) are shades of it, the last one at full strength.
    """
    known = sorted(set(labels), key=_natural)
    methods: dict[str, list[str]] = {}
    for label in known:
        methods.setdefault(label.partition(" ")[0], []).append(label)
    found = {}
    for number, settings in enumerate(methods.values()):
        hue, dashes = PALETTE[number % len(PALETTE)], DASHES[number // len(PALETTE) % len(DASHES)]
        for place, label in enumerate(settings):
            white = PALEST * (1 - place / (len(settings) - 1)) if len(settings) > 1 else 0.0
            marker = MARKERS[(number + place) % len(MARKERS)]
            found[label] = Style(_paler(hue, white), marker, dashes)
    return found


def report_styles(figures: Iterable[Figure]) -> dict[str, Style]:
    """Returns the looks of all curves of a report, so that a method looks the same in every plot."""
    return styles(curve.label for figure in figures if isinstance(figure, Plot) for curve in figure.curves)


def draw(figure: Figure, looks: Mapping[str, Style] | None = None) -> Image.Image:
    """Returns a figure as a picture, its curves in the looks of the whole report (:func:`report_styles`) or its own."""
    if isinstance(figure, Plot):
        return _draw_plot(figure, looks or report_styles([figure]))
    if isinstance(figure, Confusion):
        return _draw_confusion(figure)
    return _draw_grid(figure)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Returns an empty matplotlib figure with a size in inches; it needs no display."""
    need("plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def to_picture(figure: Any) -> Image.Image:
    """Returns a matplotlib figure as an RGB picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def _draw_plot(plot: Plot, looks: Mapping[str, Style]) -> Image.Image:
    labels = [curve.label for curve in plot.curves]
    legend = any(labels) and (len(labels) > 1 or labels[0] != plot.title)
    figure = new_figure(7.6 if legend else 6.4, max(4.2, 0.9 + 0.19 * len(labels)))
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    axes = figure.subplots()
    points = [p for curve in plot.curves for p in zip(curve.x, curve.y, strict=True)]
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    xs = [x for x, _ in points]
    bounds = [bound for curve in plot.curves for bound in (*curve.low, *curve.high)]
    ys = [y for _, y in points] + [bound for bound in bounds if math.isfinite(bound)] * bool(points)
    log_x, log_y = (plot.log_x and max(xs, default=0) > 0), (plot.log_y and max(ys, default=0) > 0)
    size = 6.5 if len(labels) <= 10 else 4.5
    handles = [_draw_curve(axes, curve, looks[curve.label], size) for curve in plot.curves]
    _scale(axes.xaxis, axes.set_xscale, log_x, xs)
    _scale(axes.yaxis, axes.set_yscale, log_y, ys)
    if not log_x and xs and len(set(xs)) <= 16 and all(x == round(x) for x in xs):
        axes.set_xticks(sorted(set(xs)))
    if not log_y and ys and "%" in plot.y_label and min(ys) >= 0 and 40 < max(ys) <= 100:
        axes.set_ylim(-2, 102)
    if not points:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set_xlabel(_plain(plot.x_label))
    axes.set_ylabel(_plain(plot.y_label))
    axes.set_title(_folded(plot.title, 62), fontsize=12, pad=10)
    axes.grid(alpha=0.3, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        names = [_folded(label, 26) for label in labels]
        figure.legend(handles, names, loc="outside right upper", frameon=False, fontsize=9)
    return to_picture(figure)


def _draw_curve(axes: Any, curve: Curve, style: Style, size: float) -> Any:
    """Draws a curve with markers of the given size; returns its legend handle."""
    single = len(curve.x) == 1
    edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6 if size > 5 else 0}
    look = {"color": style.color, "linestyle": "none" if single else style.dashes, "linewidth": 1.8}
    mark = {"marker": style.marker, "markersize": 9 if single else size, "zorder": 4 if single else 3}
    (line,) = axes.plot(curve.x, curve.y, **look, **mark, **edge)
    if not curve.low or not curve.high:
        return line
    if single:
        ends = [*curve.low, *curve.high]
        axes.plot([*curve.x, *curve.x], ends, color=style.color, linewidth=1.6, zorder=3)
    else:
        shade: dict[str, Any] = {"color": style.color, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(curve.x, curve.low, curve.high, **shade)
    return line


def _scale(axis: Any, scale: Any, log: bool, values: Sequence[float]) -> None:
    """Scales an axis; a logarithmic one gets readable tick labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not log:
        return
    scale("log", nonpositive="clip")
    positive = [value for value in values if value > 0]
    decades = math.log10(max(positive) / min(positive))
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """Returns a tick label of a logarithmic axis."""
    if 1e-3 <= value < 1e5 or value <= 0:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = f"{value / 10**exponent:g}"
    return rf"$10^{{{exponent}}}$" if digit == "1" else rf"${digit}\cdot10^{{{exponent}}}$"


def _draw_confusion(confusion: Confusion) -> Image.Image:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    rows, columns = max(1, len(confusion.truths)), max(1, len(confusion.estimates))
    across = max(1, min(PANELS, len(confusion.counts)))
    down = max(1, math.ceil(len(confusion.counts) / across))
    digits = max((len(str(n)) for c in confusion.counts.values() for row in c for n in row), default=1)
    cell = max(0.27, 0.09 * digits, min(0.6, 2.4 / max(rows, columns)))
    width = max(across * (columns * cell + 0.3) + 1.4, 4.2)
    figure = new_figure(width, down * (rows * cell + 0.75) + 0.4)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    shades = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9cc7e4", PALETTE[0], "#08305a"])
    for number, (label, counts) in enumerate(confusion.counts.items()):
        axes = panels[number // across, number % across]
        _draw_matrix(axes, confusion, counts, shades)
        axes.set_title(_folded(label, max(12, int(columns * cell * 10))), fontsize=10)
        axes.tick_params(labelbottom=number + across >= len(confusion.counts))
    for empty in panels.flat[len(confusion.counts) :]:
        empty.set_axis_off()
    figure.supxlabel("estimate", fontsize=10)
    figure.supylabel("truth", fontsize=10)
    figure.suptitle(_folded(confusion.title, int(width * 9)), fontsize=12)
    if down * rows * cell > 1:
        shape: dict[str, Any] = {"shrink": 0.8, "aspect": 24, "pad": 0.01, "ticks": [0, 0.5, 1]}
        bar = figure.colorbar(ScalarMappable(Normalize(0, 1), shades), ax=panels, **shape)
        bar.ax.set_yticklabels(["0 %", "50 %", "100 %"], fontsize=8)
        bar.set_label("of the true row", fontsize=9)
        bar.outline.set_visible(False)
    return to_picture(figure)


def _draw_matrix(axes: Any, confusion: Confusion, counts: Sequence[Sequence[int]], shades: Any) -> None:
    """Draws one method's matrix."""
    from matplotlib.patches import Rectangle

    totals = [max(1, sum(row)) for row in counts]
    shares = [[n / total for n in row] for row, total in zip(counts, totals, strict=True)]
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    for y, (truth, row) in enumerate(zip(confusion.truths, counts, strict=True)):
        for x, (estimate, count) in enumerate(zip(confusion.estimates, row, strict=True)):
            color = "#b4b4b4" if not count else "white" if shares[y][x] > 0.55 else "#222222"
            text = axes.text(x, y, str(count), ha="center", va="center", fontsize=7.5, color=color)
            text.set_in_layout(False)
            if truth == estimate:
                outline: dict[str, Any] = {"fill": False, "edgecolor": PALETTE[1], "linewidth": 1.5}
                axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, **outline))
    axes.set_xticks(range(len(confusion.estimates)), [_plain(e) for e in confusion.estimates], fontsize=8)
    axes.set_yticks(range(len(confusion.truths)), [_plain(t) for t in confusion.truths], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_color("#bbbbbb")


def _draw_grid(grid: PictureGrid) -> Image.Image:
    gap, margin = 6, 10
    cell = max(110, min(350, GRID_WIDTH // max(1, len(grid.columns)) - gap))
    names = ["\n".join(textwrap.wrap(label, 18)) for label, _ in grid.rows]
    heads = [_folded(head, max(6, cell // 9)) for head in grid.columns]
    title = _folded(grid.title, max(30, (len(grid.columns) * (cell + gap)) // 10))
    left = margin + max((_text_size(name, 9)[0] + gap for name in names if name), default=0)
    title_height = _text_size(title, 12)[1] + 2 * gap if title else 0
    head_height = max((_text_size(head, 10)[1] for head in heads), default=0) + gap
    pictures = [[None if p is None else _to_width(p, cell) for p in row] for _, row in grid.rows]
    sizes = [[p.height for p in row if p is not None] for row in pictures]
    tallest = max(itertools.chain(*sizes), default=cell)
    heights = [max(row, default=tallest) for row in sizes]
    width = left + len(heads) * (cell + gap) - gap + margin
    width = max(width, _text_size(title, 12)[0] + 2 * margin)
    height = margin + title_height + head_height + sum(heights) + gap * max(0, len(heights) - 1) + margin
    figure = new_figure((width + 0.01) / DPI, (height + 0.01) / DPI, layout=None)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, **style)

    write(width / 2, margin, title, fontsize=12, ha="center", va="top")
    top = margin + title_height + head_height
    for column, head in enumerate(heads):
        x = left + column * (cell + gap)
        write(x + cell / 2, top - gap, head, fontsize=10, ha="center", va="bottom")
    for name, row, row_height in zip(names, pictures, heights, strict=True):
        write(left - gap, top + row_height / 2, _plain(name), fontsize=9, ha="right", va="center")
        for column, picture in enumerate(row):
            x = left + column * (cell + gap)
            tall = row_height if picture is None else picture.height
            pixels = np.full((tall, cell, 3), 244, dtype=np.uint8) if picture is None else np.asarray(picture)
            # At one top: a legend below one of two pictures of an image does not shift it.
            figure.figimage(pixels, x, height - top - tall, origin="upper")
        top += row_height + gap
    return to_picture(figure)


def _to_width(picture: Image.Image, width: int) -> Image.Image:
    """Returns the picture at a width, without mixing the colours of a label map."""
    method = Image.Resampling.NEAREST if picture.mode in ("1", "P") else Image.Resampling.LANCZOS
    size = (width, max(1, round(picture.height * width / picture.width)))
    return to_rgb(picture).resize(size, method)


def _text_size(text: str, size: float) -> tuple[int, int]:
    """Returns the size in pixels of lines of text."""
    figure = new_figure(1, 1, layout=None)
    box = figure.text(0, 0, text, fontsize=size).get_window_extent(figure.canvas.get_renderer())
    return math.ceil(box.width), math.ceil(box.height)


def _folded(text: str, width: int) -> str:
    """Returns text wrapped to a width in characters."""
    return "\n".join(textwrap.wrap(_plain(text), max(4, width)))


def _plain(text: str) -> str:
    """Returns text escaped so that matplotlib does not read it as a formula."""
    return text.replace("$", r"\$")


def _natural(label: str) -> list[tuple[int, str]]:
    """Returns a sort key that puts ``R=5`` before ``R=20``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", label) if part]


def _paler(color: str, white: float) -> str:
    parts = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in parts)
