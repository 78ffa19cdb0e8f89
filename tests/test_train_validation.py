"""What training shows of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Here
from PIL import Image
from test_cli import TINY_PRESET

from igm_cli.commands import train_validation
from igm_cli.commands.train_validation import Validation
from igm_cli.core.checkpoint import load_checkpoint
from igm_cli.core.types import Inversion
from igm_cli.errors import PluginError
from igm_cli.plugins.clevr.adapter import Clevr
from igm_cli.plugins.positions import Positions
from igm_cli.plugins.registry import concept_parser

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (90, 90, 90)]


def test_pictures_and_figures(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[int | None] = []
    invert = train_validation.invert

    def counting(*arguments: object, k: int | None = None, **options: object) -> Inversion:
        asked.append(k)
        return invert(*arguments, k=k, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(train_validation, "invert", counting)
    model = load_checkpoint(tiny_model)
    rows = [
        {
            "image": Image.new("RGB", (48, 32), colour),
            "objects": [{"pixel_coords": [20.0 + i, 16.0, 1.0]} for i in range(number + 1)],
        }
        for number, colour in enumerate(COLOURS)
    ]
    data = datasets.Dataset.from_list(rows)
    parser = concept_parser("pos")
    for name in ("score", "right"):
        with monkeypatch.context() as patch, pytest.raises(PluginError, match=f"fails in {name} "):
            patch.setattr(Positions, name, lambda *_: 1 / 0)
            Validation(data, parser, model.spec, tmp_path)  # a parser that fails is found before training
    shown = Validation(data, parser, model.spec, tmp_path)
    parser_scores = [{"some": 1.0}, {"some": None}, {"some": 4.0}, {}, {"some": math.nan}]
    given = iter(parser_scores)
    monkeypatch.setattr(Positions, "score", lambda *_: {"objects": 3.0, **next(given)})
    network = model.denoiser
    assert isinstance(network, torch.nn.Module)
    network.train()
    told: list[tuple[str, int, int]] = []
    assert (
        shown(6, network, stop=lambda: len(asked) > 1) is None
    )  # a signal comes while the first image is inverted
    assert network.training and asked == [1, None] and not (tmp_path / "pictures").exists()
    asked.clear()
    given = iter(parser_scores)
    seen = shown(7, network, progress=lambda *what: told.append(what))
    assert seen and network.training
    scores, pictures = seen
    assert told[0] == ("validation images", 0, 5) and told[-1] == ("validation images", 5, 5)
    assert asked == [1, None, 2, None, 3, None, 4, None, 5, None]
    # The model estimates three at most, so the images of four and five are always miscounted.
    assert scores["validation/k_exact"] <= 0.6
    assert scores["validation/objects"] == pytest.approx(3)
    assert scores["validation/some"] == pytest.approx(2.5), "the mean over the images that have it"
    assert 0 <= scores["validation/right"] <= 1
    assert pictures["validation/samples"].shape == (960, 960, 3)

    sheet = Image.open(tmp_path / "pictures/samples-0000007.png")
    assert sheet.size == (960, 960)  # 32x32 over 32x32, 240 wide, four a row
    for number, colour in enumerate(COLOURS):
        corner = (number % 4 * 240, number // 4 * 480)
        assert sheet.getpixel((corner[0] + 120, corner[1] + 100)) == colour
        sample = sheet.crop((corner[0], corner[1] + 250, corner[0] + 240, corner[1] + 480))
        assert len(sample.getcolors(maxcolors=1 << 20) or []) > 100
    assert Image.open(tmp_path / "pictures/inversion-0000007.png").size == (960, 320)


def test_a_validation_split_without_images_is_none(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Clevr.load

    def load(self: Clevr, split: str, **options: Any) -> Any:
        rows = whole(self, split, **options)
        return rows.select([]) if split == "val" else rows

    monkeypatch.setattr(Clevr, "load", load)
    monkeypatch.setattr("igm_cli.commands.train_run.draw_curves", lambda *_: "no curves")
    (tmp_path / "tiny.toml").write_text(TINY_PRESET)
    call = [
        "train",
        "clevr",
        "--preset",
        "tiny.toml",
        "--limit",
        "2",
        "--steps",
        "1",
        "--device",
        "cpu",
        "--set",
        "calibration=16",
        "-o",
        "run",
    ]
    says = "training goes on without validation and calibration: clevr has no images in val\n"
    tried = here(*call, "--dry-run", cwd=tmp_path)
    assert tried.code == 0 and says in tried.err and "then the model is calibrated" not in tried.err
    done = here(*call)
    assert done.code == 0 and says in done.err and "the model is not calibrated (" in done.err
