"""Weights on disk in 8 bits, and as they are read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from igm_cli.core.weights import is_packed, pack, quantize, read_weights, unpack, write_weights
from igm_cli.errors import InputError


@pytest.mark.parametrize("shape", [(64, 2048), (32, 64, 3, 3)])
def test_factors_are_better_than_the_largest_value_over_127(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-3, 3, len(weight)).view(-1, *[1] * (weight.ndim - 1))  # a scale per channel
    values, scale = quantize(weight)
    assert values.dtype == torch.int8 and values.shape == weight.shape
    assert scale.shape == (len(weight), *[1] * (weight.ndim - 1))
    error = (values * scale - weight).flatten(1).norm(dim=1)
    step = weight.flatten(1).abs().amax(1, keepdim=True) / 127
    nearest = ((weight.flatten(1) / step).round() * step - weight.flatten(1)).norm(dim=1)
    assert (error <= nearest).all() and (error < nearest).any()
    assert (error < 0.02 * weight.flatten(1).norm(dim=1)).all()


def test_small_tensors_and_others_than_weights_stay() -> None:
    given = {
        "large": torch.randn(256, 256),
        "zero": torch.zeros(256, 256),
        "norm": torch.randn(2**17),
        "last": torch.randn(64, 256, 3, 3),
        "small": torch.randn(128, 128),
        "steps": torch.arange(3),
        "last.scale": torch.ones(2),
    }
    packed = pack(given)
    assert {name for name, value in packed.items() if value.dtype == torch.int8} == {"large", "zero"}
    again = unpack(packed)
    assert again.keys() == given.keys() and not again["zero"].any()
    assert torch.equal(again["norm"], given["norm"].half()) and torch.equal(again["steps"], given["steps"])
    assert torch.equal(again["last.scale"], torch.ones(2).half())


def test_files_are_packed_and_read_as_float32(tmp_path: Path) -> None:
    given, path = {"large": torch.randn(256, 512), "bias": torch.randn(256)}, tmp_path / "w.safetensors"
    write_weights(path, given, torch.float16)
    plain = path.stat().st_size
    assert (
        not is_packed(path)
        and not is_packed(tmp_path / "none")
        and torch.equal(read_weights(path)["large"], given["large"].half().float())
    )
    write_weights(path, given, torch.int8)
    assert is_packed(path) and path.stat().st_size < 0.52 * plain
    found = read_weights(path)
    assert found.keys() == given.keys() and {value.dtype for value in found.values()} == {torch.float32}
    torch.testing.assert_close(found["large"], given["large"], atol=0.03, rtol=0)
    write_weights(path, found, torch.float16)
    assert not is_packed(path) and path.stat().st_size == plain
    with pytest.raises(InputError, match="not finite"):
        write_weights(path, {"large": given["large"] / 0}, torch.int8)


def test_the_bundled_models_are_small() -> None:
    files = list((ROOT / "igm_cli/checkpoints").rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 50e6
