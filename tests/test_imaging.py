"""Images as people have them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from igm_cli import imaging
from igm_cli.errors import InputError
from igm_cli.folders import Source, content_of, expand_inputs
from igm_cli.imaging import decode_image, from_array, open_image, read_bytes, to_model
from igm_cli.pixels import Scaling
from igm_cli.plugins.base import Frame


def read_image(path: Path) -> Image.Image:
    return decode_image(read_bytes(path), str(path))


def gradient(width: int = 24, height: int = 16) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "bmp", "tiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    kind = {"lossless": True} if suffix == "webp" else {"quality": 98} if suffix == "jpg" else {}
    Image.fromarray(gradient()).save(path, **kind)
    read = read_image(path)
    assert (read.mode, read.size) == ("RGB", (24, 16))
    tolerance = 12 if suffix == "jpg" else 0
    assert np.abs(np.asarray(read).astype(int) - gradient()).max() <= tolerance


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[:, :2] = (255, 0, 0, 255)
    rgba[:, 2:] = (0, 0, 255, 128)
    rgba[0, 3] = (0, 0, 0, 0)
    Image.fromarray(rgba).save(path)
    pixels = np.asarray(read_image(path))
    assert tuple(pixels[1, 0]) == (255, 0, 0)
    assert tuple(pixels[0, 3]) == (255, 255, 255)
    assert tuple(pixels[1, 3]) == (127, 127, 255)


def test_palette_and_greyscale(tmp_path: Path) -> None:
    Image.fromarray(gradient()).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").mode == "RGB"
    Image.fromarray(gradient()).convert("L").save(tmp_path / "l.png")
    pixels = np.asarray(read_image(tmp_path / "l.png"))
    assert (pixels[..., 0] == pixels[..., 2]).all()
    palette = Image.fromarray(gradient()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    palette.save(tmp_path / "t.gif", transparency=0)
    assert (np.asarray(read_image(tmp_path / "t.gif")) == 255).all(axis=-1).any()
    Image.fromarray(gradient()).convert("CMYK").save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg").mode == "RGB"
    Image.fromarray(gradient()).convert("1").save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").mode == "RGB"
    half = Image.new("LA", (4, 4), (100, 128))
    assert from_array(half.convert("La"), "a").getpixel((0, 0)) == from_array(half, "a").getpixel((0, 0))


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff"])
def test_sixteen_bits(tmp_path: Path, name: str) -> None:
    values = np.linspace(0, 65535, 24 * 16).reshape(16, 24).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    pixels = np.asarray(read_image(tmp_path / name)).astype(int)
    assert np.abs(pixels[..., 0] - values / 257).max() <= 1
    dark = (values // 512).astype(np.uint16)  # a dark 16-bit image stays dark
    Image.fromarray(dark).save(tmp_path / name)
    assert np.asarray(read_image(tmp_path / name)).max() <= 1


def test_sixteen_bits_as_pil_sees_them() -> None:
    values = np.full((4, 4), 32768)
    quiet = Scaling(note=lambda text: None)
    for image in (
        Image.fromarray(values.astype(np.int32)),
        Image.frombytes("I;16B", (4, 4), values.astype(">u2").tobytes()),
        Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)),
    ):
        assert np.asarray(imaging.to_rgb(image, scaling=quiet)).max() in (127, 128)


@pytest.mark.parametrize(
    ("values", "given", "black", "white", "says"),
    [
        (
            np.array([[0, 100], [4095, 65535]], np.uint16),
            None,
            0,
            65535,
            "0 is taken for black and 65535 for white",
        ),
        (np.array([[0, 100], [4095, 65535]], np.uint16), (0, 4095), 0, 4095, ""),
        (np.array([[0, 0.25], [1.01, -0.02]], np.float32), None, 0, 1, "they lie within -0.02..1.01"),
        (np.array([[0, 0.25], [7, -3]], np.float32), (-1, 2), -1, 2, ""),
    ],
)
def test_black_and_white_are_one_rule(
    tmp_path: Path, values: np.ndarray, given: tuple[float, float] | None, black: float, white: float, says: str
) -> None:
    said: list[str] = []
    scaling = Scaling(given, said.append)
    Image.fromarray(values).save(tmp_path / "a.tif")
    right = ((values.astype(float) - black) / (white - black)).clip(0, 1) * 255
    for _ in range(2):  # what is assumed is said once
        pixels = np.asarray(open_image(tmp_path / "a.tif", scaling))
        np.testing.assert_array_equal(pixels, np.repeat(right.round()[..., None], 3, 2))
    assert len(said) == bool(says) and says in "".join(said)
    if given:
        array = np.asarray(from_array(values, "a", scaling))
        np.testing.assert_array_equal(array, pixels)


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_frames_that_are_not_read_are_told_once(tmp_path: Path, suffix: str) -> None:
    said: list[str] = []
    scaling, path = Scaling(note=said.append), tmp_path / f"a.{suffix}"
    first, *others = (Image.new("RGB", (8, 8), (grey, grey, grey)) for grey in (10, 100, 200))
    first.save(path, save_all=True, append_images=others)
    first.save(tmp_path / f"one.{suffix}")
    for name in (f"one.{suffix}", path.name, path.name):
        assert np.asarray(open_image(tmp_path / name, scaling)).max() <= 12
    assert said == [
        f"{path} has several frames or pages, of which only the first is read; save the others as images of their own"
    ]
    first.save(
        tmp_path / "a.mpo", save_all=True, append_images=others
    )  # as cameras and phones write photographs
    assert open_image(tmp_path / "a.mpo", Scaling(note=said.append)).size == (8, 8) and len(said) == 1


def test_a_range_is_part_of_the_run(tiny_model: Path) -> None:
    from igm_cli.model import open_checkpoint
    from igm_cli.session import ImageSession

    opened = open_checkpoint(str(tiny_model), None, "cpu")
    how: dict[str, Any] = {"k": None, "fit": "crop", "batch_size": None, "given": {}}
    runs = {
        ImageSession(opened, **how, pixel_range=given).run for given in (None, "0,255", "0,4095", (0, 4095))
    }
    assert len(runs) == 3


def test_exif_turns_the_image(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.fromarray(gradient())
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    assert read_image(path).size == (16, 24)


def test_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(path: Path, text: str) -> None:
        with pytest.raises(InputError, match=text):
            read_image(path)

    says(tmp_path / "nowhere.png", "does not exist")
    says(tmp_path, "folder")
    (tmp_path / "zero.png").write_bytes(b"")
    says(tmp_path / "zero.png", "empty")
    (tmp_path / "text.png").write_text("not a picture")
    says(tmp_path / "text.png", "not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "whole.png"
    )
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    says(tmp_path / "cut.png", "damaged")
    (tmp_path / "head.png").write_bytes(data[:20])
    with pytest.raises(InputError):
        read_image(tmp_path / "head.png")
    Image.fromarray(gradient()).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError):
        read_image(tmp_path / "cut.jpg")
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(InputError, match="cut is damaged"):
        from_array(cut, "cut")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    says(tmp_path / "dot.png", "1×1")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    says(tmp_path / "huge.png", "pixels")
    monkeypatch.setattr(imaging, "MAX_BYTES", 8 * 64 * 64 - 1)
    says(tmp_path / "whole.png", "64×64")


def test_expand_inputs(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [Path(s.name).relative_to(tmp_path).as_posix() for s in expand_inputs([str(tmp_path)])]
    assert names == ["a.JPG", "b.png", "sub/c.webp"]
    files = expand_inputs([str(tmp_path / "b.png"), str(tmp_path / "*.png"), str(tmp_path)])
    assert [Path(source.name).name for source in files] == ["b.png", "a.JPG", "c.webp"]
    assert expand_inputs(["missing.png"]) == [Source.of(Path("missing.png"))]
    (tmp_path / "odd[1].png").write_bytes(b"x")
    assert expand_inputs([str(tmp_path / "odd[1].png")]) == [Source.of(tmp_path / "odd[1].png")]
    with pytest.raises(InputError, match="matches"):
        expand_inputs([str(tmp_path / "*.bmp")])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no image"):
        expand_inputs([str(tmp_path / "nothing")])


def test_the_content_of_a_folder_leaves_out_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("x")
    before = content_of(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "b.csv").write_text("y")
    monkeypatch.setattr(os.path, "relpath", lambda *_: 1 / 0)  # as for another drive of Windows
    assert content_of(tmp_path, tmp_path / "run", tmp_path.parent) == before != content_of(tmp_path)


def test_to_model() -> None:
    image = Image.fromarray(gradient(24, 16))
    same = to_model(image, Frame.fit(image.size, 1.5), (24, 16))
    assert same.shape == (3, 16, 24)
    assert same.dtype == torch.float32
    assert torch.allclose(((same + 1) * 127.5).permute(1, 2, 0), torch.from_numpy(gradient()).float())
    half = to_model(image, Frame.fit(image.size, 1.0), (8, 8))
    assert half.shape == (3, 8, 8)
    assert half.min() >= -1
    assert half.max() <= 1
    # the crop is around the centre: red grows to the right and is symmetric about grey
    assert float(half[0].mean()) == pytest.approx(0.0, abs=0.02)
    squashed = to_model(image, Frame.fit(image.size, 1.0, "squash"), (8, 8))
    assert squashed[0, 0, 0] < half[0, 0, 0]


def test_shrinking_keeps_fine_detail_grey() -> None:
    stripes = np.zeros((96, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    shrunk = to_model(Image.fromarray(stripes), Frame.fit((96, 96), 1.0), (16, 16))
    assert float(shrunk[:, 2:-2, 2:-2].abs().max()) < 0.1
