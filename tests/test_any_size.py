"""Images of any size through the command line, by a tiny random model."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_cases import write_positions
from conftest import Here
from PIL import Image

from igm_cli import IgmError, app, imaging, load, open_model, session
from igm_cli.commands import show
from igm_cli.core.concepts import Continuous
from igm_cli.core.inference import tiles
from igm_cli.output import Output


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_positions(tmp_path / "model", (32, 32), 0.5))


def test_images_of_several_sizes_are_scaled_and_told_in_their_pixels(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [(96, 64), (64, 96), (20, 20)]
    paths = [str(tmp_path / f"{w}x{h}.png") for w, h in sizes]
    for path, size in zip(paths, sizes, strict=True):
        Image.effect_noise(size, 60).convert("RGB").save(path)
    assert app.main(["invert", *paths, "--model", model, "--json", "--device", "cpu", "--batch-size", "3"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [tuple(record["size"]) for record in records] == sizes
    for record, (width, height) in zip(records, sizes, strict=True):
        assert all(0 <= item["x_px"] <= width and 0 <= item["y_px"] <= height for item in record["items"])


def test_a_count_in_tiles_says_that_it_has_no_curve(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "OVERLAP", 32)
    Image.effect_noise((200, 100), 60).convert("RGB").save(tmp_path / "a.png")
    told = ["estimate-k", str(tmp_path / "a.png"), "--model", model, "--device", "cpu"]
    assert app.main([*told, "--plot", str(tmp_path / "curve.png")]) == 0
    assert "no common curve" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "curve.png").exists()
    assert app.main(["invert", told[1], "--model", model, "--k", "2"]) == 2
    assert "can be given for an image that is inverted in tiles" in capsys.readouterr().err


def test_long_and_small_images_in_tiles_from_the_command_line_and_python(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "TILE", 64)
    monkeypatch.setattr(tiles, "OVERLAP", 32)
    told: dict[str, set[int]] = {}
    for name, size in (("long", (220, 12)), ("small", (20, 20))):
        path = tmp_path / f"{name}.png"
        Image.effect_noise(size, 60).convert("RGB").save(path)
        assert app.main(["invert", str(path), "--model", model, "--json", "--device", "cpu"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["size"] == list(size)
        assert all(0 <= item["x_px"] <= size[0] and 0 <= item["y_px"] <= size[1] for item in record["items"])
        seen = load(model, device="cpu").invert(
            path, progress=lambda what, done, most: told.setdefault(what, set()).add(most)
        )
        assert seen.items == record["items"]
    assert told["tiles: long.png"] == {3}
    assert not any(what.startswith("tiles") for what in told if what.endswith("small.png"))


def test_what_belongs_to_models_of_one_size_is_refused(
    model: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(tmp_path / f"{number}.png") for number in (0, 1)]
    for path in images:
        Image.effect_noise((96, 64), 60).convert("RGB").save(path)
    for options, words in (
        (["--shared"], "by models that see all images at one size"),
        (["--fit", "squash"], "sees whole images of any size; leave out the fit"),
    ):
        assert app.main(["invert", *images, "--model", model, *options, "--device", "cpu"]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    sizes = [load(model, device="cpu").energy_map(images[0], scale=scale).values.shape for scale in (None, 1.0)]
    assert sizes == [(16, 24), (32, 48)]
    with pytest.raises(IgmError, match="leave out the scale"):
        load(tiny_model, device="cpu").energy_map(images[0], scale=1.0)


def test_an_image_that_a_scale_would_make_too_large_is_refused_alone(
    model: str, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a", (24, 24)), ("large", (60, 40)), ("z", (24, 24))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(imaging, "MAX_BYTES", 8 * 50 * 50)
    words = ("estimate-k", tmp_path, "--model", model, "--scale", "2", "--device", "cpu", "--json")
    done = here(*words, "--batch-size", "3")
    assert done.code == 3 and len(done.out.splitlines()) == 2
    says = "large.png would have 120×80 pixels at the scale 2, more than the 0 megapixels that igm allows; use a smaller --scale"
    assert says in done.err and "1 of 3 images could not be used; the others are done" in done.err
    opened = load(model, device="cpu")
    for look in (opened.invert, opened.energy_map):
        with pytest.raises(IgmError, match="use a smaller --scale"):
            look(tmp_path / "large.png", scale=2.0)


def test_a_table_of_very_many_objects_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "MOST_ROWS", 30)
    items = [{"x": 0.5, "y": 0.5, "x_px": 5.0, "y_px": 5.0, "confidence": 0.9}] * 41
    record = {"image": "a.png", "k": 41, "k_source": "estimated", "seconds": 1.0, "k_curve": [], "items": items}
    plane = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    show.ImageReport(Output(False), plane).add(record)
    said = capsys.readouterr().out
    assert "K = 41" in said and "and 11 more, which --csv and --json give; the" in said and " 31 " not in said


def test_a_table_of_counts_marks_guesses() -> None:
    record = {"image": "a.png", "k": 3, "denoising_error": 0.1, "typicality": 0.1}
    report = show.ImageReport(Output(False), Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0)))
    report.detailed = False
    report.add(record)
    report.add({**record, "typicality": 0.9})
    assert [row["K"] for row in report.rows] == ["3 (a guess)", "3"]


def test_that_nothing_was_found_needs_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"image": "a.png", "k": 0, "k_source": "estimated", "seconds": 1.0, "k_curve": [], "items": []}
    plane = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    show.ImageReport(Output(False), plane).add(record)
    assert capsys.readouterr().out == "a.png: K = 0 (estimated), 1.00 s; nothing was found\n"


def test_a_terminal_lists_the_first_of_many_objects(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    places = [{"x": 0.5, "y": 0.5, "x_px": 5.0, "y_px": 5.0, "confidence": 0.5 + 0.01 * n} for n in range(41)]
    record = {
        "image": "a.png",
        "k": 41,
        "k_source": "estimated",
        "seconds": 1.0,
        "k_curve": [],
        "items": places,
    }
    report = show.ImageReport(Output(False), Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0)))
    report.add(record)
    said = capsys.readouterr().out
    assert "and 21 more, which --csv and --json give; the confidence of all is 0.50 to 0.90" in " ".join(
        said.split()
    )
    assert "│ 20 │" in said and "│ 21 │" not in said
    report.detailed = False
    report.add(record)
    report.end()
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert said.count("(0.500, 0.500)") == 20 and "and 21 more" in said


def test_large_images_are_worked_out_and_kept_one_by_one(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_model.BATCH_PIXELS, "cpu", 6000)  # five of 32×32 pixels, one of 96×80
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, size in zip(paths, [(96, 64), (192, 160)], strict=True):
        Image.effect_noise(size, 60).convert("RGB").save(path)
    large = [paths[1]] * 2
    told: list[tuple[str, int]] = []
    load(model, device="cpu").invert(large, progress=lambda what, done, most: told.append((what, done)))
    assert [done for what, done in told if what == "images"] == [0, 1, 2]
    kept, end = tmp_path / "kept.jsonl", session.ImageSession.invert

    def stopped(self: session.ImageSession, images: list[Any], progress: Any = None) -> Any:
        if any(image.about["image"] == str(paths[1]) for image in images):
            raise KeyboardInterrupt
        return end(self, images, progress)

    monkeypatch.setattr(session.ImageSession, "invert", stopped)
    with contextlib.suppress(KeyboardInterrupt):
        app.main(["invert", *map(str, paths), "--model", model, "--device", "cpu", "--output", str(kept)])
    (record,) = map(json.loads, kept.read_text().splitlines())
    assert record["image"] == str(paths[0])


def test_a_doubt_says_what_else_it_may_be() -> None:
    """A number given, or too few looked for, leave of an image what is as unlike those trained on as noise."""
    record = {"image": "a.png", "model": "m", "k": 2, "typicality": 0.1, "k_curve": [{"k": 0}, {"k": 2}]}
    record["schema"] = "igm.invert/1"
    for more, says in (
        ({"k_source": "estimated"}, "trained on (typicality 0.10)"),
        ({"k_source": "given"}, "trained on, or does not hold 2 concepts (typicality 0.10)"),
        (
            {"k_source": "estimated", "k_at_maximum": True},
            "trained on, or holds more than 2 concepts (typicality 0.10)",
        ),
        (
            {"k_source": "estimated", "schema": "igm.zero-shot/1"},
            "a.png is unlike what m was trained on, or shows none of the labels asked for (typicality 0.10)",
        ),
    ):
        assert says in show.warning(record | more)
