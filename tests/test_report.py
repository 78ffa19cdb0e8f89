"""A benchmark's report as files and on the terminal."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageColor

from igm_cli.benchmarks.suite import Confusion, Curve, PictureGrid, Plot, Report, Table
from igm_cli.commands.benchmark_run import cache_folder
from igm_cli.commands.figures import MARKERS, PALETTE, Style, draw, report_styles, styles
from igm_cli.commands.report_files import markdown, markdown_table, show_report, write_report
from igm_cli.errors import IgmError
from igm_cli.output import Output

NAN = float("nan")
TABLE = Table(
    "perception",
    "Perception over [3, 10]",
    ["method", "rate [%]", "note"],
    [
        ["igm", "93.1", "a|b"],
        ["igm-sgd R=20", "–", "two\nlines"],
        ["slot_attention", "7", r"back\|slash <b>*bold*</b> `x` _y_ &amp;"],
    ],
    note="Rates of a|b.",
)
PLOT = Plot(
    "rates",
    "Rate over [n]",
    "objects",
    "rate [%]",
    [
        Curve("igm", [3, 4, 5], [90, 80, 70], [85, 75, 65], [95, 85, 75]),
        Curve("gc", [3, 4, 5], [50, NAN, 30]),
    ],
    note="Bands: 95 %.",
)
POINTS = Plot(
    "seconds",
    "Error over seconds",
    "s",
    "error",
    [Curve("resnet-50", [0.01], [0.02], [0.01], [0.03]), Curve("igm", [0.5, 2], [0.02, 0.002])],
    log_x=True,
    log_y=True,
)
COUNTS = Confusion(
    "count",
    "Counts",
    ["3", "4"],
    ["2", "3", "4"],
    {"igm": [[0, 9, 1], [0, 2, 8]], "gc": [[4, 6, 0], [0, 0, 0]]},
)
GRID = PictureGrid(
    "grid",
    "Pictures",
    ["truth", "igm"],
    [
        ("one", [Image.new("RGB", (30, 20), (255, 0, 0)), None]),
        ("two", [Image.new("RGBA", (600, 400), (0, 255, 0, 255)), Image.new("L", (10, 20), 0)]),
    ],
)
REPORT = Report(
    tables=[TABLE, Table("empty", "No rows", ["a"], [])],
    figures=[PLOT, POINTS, COUNTS, GRID],
    summary={"igm": {"rate": 0.931, "spread": NAN}, "bound": [float("inf"), 1]},
    notes=["Measured *once*."],
)
PROVENANCE: dict[str, Any] = {
    "suite": "clevr",
    "when": None,
    "versions": {"igm": "0.1.0"},
    "command": "igm benchmark `clevr`",
    "checkpoint": ["a", "b"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    written = write_report(REPORT, folder, PROVENANCE)
    names = {p.name for p in written}
    pictures = {"rates.png", "seconds.png", "count.png", "grid.png"}
    assert names == {"summary.json", "report.md", "perception.csv", "empty.csv", *pictures}
    assert names == {p.name for p in folder.iterdir()}, "something temporary is left"
    return folder


def parse_table(lines: list[str]) -> list[list[str]]:
    """Cells of a table of GitHub's Markdown as a reader sees them."""
    rows = []
    for line in lines:
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
        shown = (re.sub(r"(?<!\\)<br>", "\n", cell.strip()) for cell in cells)
        rows.append([re.sub(r"\\([^A-Za-z0-9\s])", r"\1", cell) for cell in shown])
    return [rows[0], *rows[2:]]


def has_colour(picture: Image.Image, colour: str) -> bool:
    counted = picture.getcolors(picture.width * picture.height) or []
    return ImageColor.getrgb(colour) in {color for _, color in counted}


def test_markdown_reads_back(folder: Path) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# Benchmark clevr"
    start = lines.index("## Perception over [3, 10]") + 2
    table = list(itertools.takewhile(bool, lines[start:]))
    assert parse_table(table) == [list(TABLE.columns), *map(list, TABLE.rows)]
    assert len({len(line) for line in table}) == 1, "columns are not aligned"
    assert re.fullmatch(r"\| -+ \| -+: \| -+ \|", table[1])
    assert r"slot_attention" in table[4]
    assert lines[start + len(table) + 1] == r"Rates of a\|b."
    assert r"![Rate over \[n\]](rates.png)" in lines
    assert lines[-1] == r"- Measured \*once\*."
    for name in re.findall(r"\]\((.+\.png)\)", text):
        assert (folder / name).is_file()


def test_provenance_is_listed() -> None:
    lines = markdown(Report([]), PROVENANCE).splitlines()
    assert lines == [
        "# Benchmark clevr",
        "",
        "- command: `` igm benchmark `clevr` ``",
        "- versions:",
        "  - igm: 0.1.0",
        "- checkpoint: a, b",
        "- when: –",
    ]


def test_words_do_not_stand_right() -> None:
    rule = markdown_table(
        ["method", "figures", "mostly", "times", "mixed"],
        [
            ["m1", "[1, 2]", "±3", "1.2e-5 s", "few"],
            ["m2", "< 0.5 %", "failed", "–", "2"],
            ["x", "", "4", "", ""],
        ],
    ).splitlines()[1]
    assert [cell.strip().endswith(":") for cell in rule.split("|")[1:-1]] == [False, True, True, True, False]


def test_csv_reads_back(folder: Path) -> None:
    with (folder / "perception.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [TABLE.columns, *TABLE.rows]
    assert (folder / "empty.csv").read_text() == "a\n"


def test_summary_is_strict_json(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert data == {
        "schema": "igm.benchmark-summary/1",
        "provenance": PROVENANCE,
        "summary": {"igm": {"rate": 0.931, "spread": None}, "bound": [None, 1]},
    }


def test_pictures_are_written_whole(folder: Path) -> None:
    looks = report_styles(REPORT.figures)
    for name in ("rates", "seconds", "count", "grid"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
            assert picture.format == "PNG" and picture.mode == "RGB"
            assert 250 <= picture.width <= 1600 and 150 <= picture.height <= 1600
            if name in ("rates", "seconds"):
                assert has_colour(picture, looks["igm"].color)


def test_one_method_looks_the_same_everywhere() -> None:
    looks = report_styles([PLOT, COUNTS, POINTS])
    assert set(looks) == {"igm", "gc", "resnet-50"}
    assert looks == report_styles([POINTS, GRID, PLOT])
    assert (
        len({style.color for style in looks.values()}) == len({style.marker for style in looks.values()}) == 3
    )
    for figure, others in ((PLOT, ["resnet-50"]), (POINTS, ["gc"])):
        picture = draw(figure, looks)
        for curve in figure.curves:
            assert has_colour(picture, looks[curve.label].color), curve.label
        for label in others:
            assert not has_colour(picture, looks[label].color)


def test_settings_are_shades_of_their_method() -> None:
    labels = ["gc", *(f"sgd R={r}" for r in (20, 1, 5))]
    looks = styles(labels)
    assert looks["sgd R=20"].color == PALETTE[1] and looks["gc"] == Style(PALETTE[0], MARKERS[0], "-")
    light = [sum(ImageColor.getrgb(looks[f"sgd R={r}"].color)) for r in (1, 5, 20)]
    assert light == sorted(light, reverse=True) and len(set(light)) == 3
    many = styles([f"m{i}" for i in range(20)])
    assert len(set(many.values())) == 20


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "curves",
    [
        [],
        [Curve("none", [], [])],
        [Curve("nothing", [1, 2], [NAN, NAN], [NAN, NAN], [NAN, NAN])],
        [Curve("half", [1, 2], [3, 4], [], [5, 6]), Curve("gap", [1, 2], [3, NAN], [2, NAN], [4, NAN])],
        [Curve("zero", [0, 1], [0, -1], [-1, -2], [1, 0]), Curve("dot", [1], [2], [0], [3])],
        [Curve("a $5 label, $6", [0.86, 0.87], [1e-6, 2e-6])],
    ],
)
def test_odd_curves_are_drawn(curves: list[Curve], log: bool) -> None:
    picture = draw(Plot("p", "costs $1 or $2", "x", "y [%]", curves, log_x=log, log_y=log))
    assert picture.height == 504


def test_an_interval_is_shaded() -> None:
    bare = Plot("p", "t", "x", "y", [Curve("m", [1, 2], [5, 5]), Curve("frame", [1, 2], [0, 10])])
    band = Plot("p", "t", "x", "y", [Curve("m", [1, 2], [5, 5], [3, 3], [7, 7]), bare.curves[1]])
    looks = report_styles([band])
    shade = [round(255 - 0.15 * (255 - part)) for part in ImageColor.getrgb(looks["m"].color)]

    def shaded(plot: Plot) -> int:
        picture = draw(plot, looks)
        counted = picture.getcolors(picture.width * picture.height) or []
        return sum(
            number
            for number, color in counted
            if isinstance(color, tuple) and all(abs(a - b) <= 2 for a, b in zip(color, shade, strict=True))
        )

    assert shaded(bare) < 100 and shaded(band) > 20_000


def test_confusions_stand_side_by_side() -> None:
    def panels(number: int) -> Image.Image:
        counts = {f"method {i}": [[5, i, 0], [0, 0, 10]] for i in range(number)}
        return draw(Confusion("c", "Counts", ["3", "4"], ["3", "4", "none"], counts))

    one, two, three, five = map(panels, (1, 2, 3, 5))
    assert one.width < two.width < three.width == five.width
    assert one.height == three.height < five.height
    for picture in (one, five):
        assert has_colour(picture, PALETTE[1]), "the diagonal is not outlined"
        assert has_colour(picture, "#08305a"), "a full row is not darkest"
    assert draw(Confusion("c", "nothing", [], [], {})).width > 100


def test_grid_scales_to_one_width() -> None:
    picture = draw(GRID)
    boxes = {}
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0)}.items():
        flat = Image.new("RGB", picture.size, colour)
        other = ImageChops.difference(picture, flat).convert("L").point(lambda value: 255 * (value == 0))
        boxes[name] = other.getbbox() or (0, 0, 0, 0)
    left, top, right, bottom = boxes["red"]
    assert (right - left, bottom - top) == (350, 233)
    below = bottom + 6
    assert boxes["green"] == (left, below, right, below + 233), "not at the top of its row"
    blank = picture.crop((right + 6, top, right + 356, bottom))
    assert blank.getextrema() == ((244, 244),) * 3
    black = picture.crop((right + 6, below, right + 356, below + 700))
    assert black.getextrema() == ((0, 0),) * 3
    assert draw(PictureGrid("g", "nothing at all", [], [])).width > 100


def test_tables_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(Output(), REPORT)
    shown = capsys.readouterr().out
    for part in (TABLE.title, TABLE.note, "slot_attention", "<b>*bold*</b>", "No rows"):
        assert part in shown
    show_report(Output(as_json=True), REPORT)
    assert not capsys.readouterr().out


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IgmError, match=r"cannot write .*summary\.json"):
        write_report(Report([]), tmp_path / "file", {})


def test_a_card_is_written_where_not_every_letter_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := io.TextIOWrapper(io.BytesIO(), "ascii"))
    Output().markdown("# \u043a\u043e\u0442\n")
    assert b"# " in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_the_cache_may_be_the_present_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IGM_CACHE", ".")
    assert cache_folder() == Path()
