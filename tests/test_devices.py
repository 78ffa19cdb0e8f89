"""Devices that are not there, busy or full, and what igm doctor says of those that are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from igm_cli import app
from igm_cli.commands.doctor import examine
from igm_cli.core.device import gpu_state, resolve_device, training_precision
from igm_cli.errors import InputError
from igm_cli.session import ImageSession

BUSY = RuntimeError(
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be ..."
)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, free: int | Exception = 70 * 10**9) -> None:
    """Makes torch say that there are GPUs."""

    def memory(device: Any) -> tuple[int, int]:
        if isinstance(free, Exception):
            raise free
        return free, 85 * 10**9

    known = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85 * 10**9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *how, **more: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: known)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)


@pytest.mark.parametrize(
    ("count", "sentence"),
    [
        (
            0,
            "device 'cuda:7' is not here; this machine has no GPU that torch .* can use; use --device auto or cpu",
        ),
        (1, "device 'cuda:7' is not here; this machine has cuda:0"),
        (2, "device 'cuda:7' is not here; this machine has cuda:0 and cuda:1"),
        (4, "device 'cuda:7' is not here; this machine has cuda:0 to cuda:3"),
    ],
)
def test_a_gpu_that_is_not_there(count: int, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(InputError, match=f"^{sentence}$"):
        resolve_device("cuda:7")


def test_one_of_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    assert [str(resolve_device(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]


def test_what_a_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    state = gpu_state(0)
    assert (state["name"], state["memory_gb"], state["free_gb"]) == ("NVIDIA H100 80GB HBM3", 85.0, 70.0)
    assert (state["capability"], state["bf16"], state["tf32"], state["problem"]) == ("9.0", True, True, "")
    gpus(monkeypatch, 1, BUSY)
    assert gpu_state(0)["problem"] == "CUDA error: CUDA-capable device(s) is/are busy or unavailable"


@pytest.mark.parametrize(("bf16", "computed"), [(True, "bf16"), (False, "no")])
def test_a_training_computes_in_bf16_where_the_processor_does(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, computed: str
) -> None:
    monkeypatch.setattr("igm_cli.core.device.has_bf16", lambda device: bf16)
    for kind in ("cpu", "cuda"):
        assert training_precision("auto", torch.device(kind)) == computed
    assert training_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(("bf16", "told"), [(True, False), (False, True)])
def test_a_training_in_bf16_where_that_is_slow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, bf16: bool, told: bool
) -> None:
    monkeypatch.setattr("igm_cli.commands.train_run.has_bf16", lambda device: bf16)
    made: list[int] = []
    monkeypatch.setattr("igm_cli.commands.train_data.LOOKED_AT", 4)
    monkeypatch.setattr(
        "igm_cli.commands.train_run.draw_samples", lambda samples, *_: made.append(len(samples))
    )
    words = "train clevr --device cpu --dry-run --precision bf16 --set model.channels=[8,8,8] --set data.size=9"
    assert app.main([*words.split(), "--batch-size", "2", "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert made == [4] and "would train on 9 images of clevr" in said  # a dry run renders no more than it shows
    assert "s in bf16, which takes" in said
    assert ("--precision auto uses float32 instead" in said) == told


def test_doctor_names_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("igm_cli.bundled.BUNDLED", tmp_path)
    gpus(monkeypatch, 1)
    assert app.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "NVIDIA H100 80GB HBM3, 70.0 of 85.0 GB free, capability 9.0, with TF32" in shown
    assert "bf16 on cuda:0" in shown
    gpus(monkeypatch, 2, BUSY)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *how, **more: 1 / 0)
    assert app.main(["doctor"]) == 0
    assert "cannot be used: CUDA error: CUDA-capable device(s) is/are busy" in capsys.readouterr().out
    assert app.main(["doctor", "--json"]) == 0
    assert [gpu["device"] for gpu in json.loads(capsys.readouterr().out)["gpus"]] == ["cuda:0", "cuda:1"]
    gpus(monkeypatch, 0)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert app.main(["doctor"]) == 0
    assert "none" in next(line for line in capsys.readouterr().out.splitlines() if "│ GPU " in line)


def test_doctor_survives_what_it_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igm_cli.api", None)  # as without pydantic
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    report = examine()
    assert not report["ok"] and all("igm_cli.api" in model["problem"] for model in report["checkpoints"])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (BUSY, "igm: the GPU is busy with another program, or may not be used by this one; end what uses it, "),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
            "igm: not enough memory; use --device cpu, ",
        ),
        (
            TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't"),
            "igm: this needs ",
        ),
        (
            NotImplementedError("The operator 'aten::x' is not currently implemented for the MPS device"),
            "igm: this n",
        ),
    ],
)
def test_a_device_that_fails_at_first_use(
    error: Exception,
    sentence: str,
    tiny_model: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*what: Any, **how: Any) -> None:
        raise error

    monkeypatch.setattr("igm_cli.core.checkpoint.load_checkpoint", fail)
    assert app.main(["invert", str(pictures / "0.png"), "--model", str(tiny_model), "--device", "cpu"]) == 3
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert "--device cpu" in said
    assert len(said.splitlines()) == 1


def test_memory_that_runs_out_halves_the_batch_once(
    tiny_model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, sizes, most = ImageSession.invert, [], [2]

    def invert(self: ImageSession, images: Any, progress: Any = None) -> Any:
        sizes.append(len(images))
        if len(images) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return whole(self, images, progress)

    call = [
        "invert",
        str(pictures),
        "--model",
        str(tiny_model),
        "--device",
        "cpu",
        "--json",
        "--batch-size",
        "3",
    ]
    assert app.main(call) == 0
    expected = capsys.readouterr().out
    monkeypatch.setattr(ImageSession, "invert", invert)
    assert app.main(call) == 0
    out, err = capsys.readouterr()
    assert sizes == [3, 2, 1]
    first, *others, _ = err.splitlines()
    assert first == "igm: not enough memory for 3 images at once; going on with 2"
    assert len(others) <= 3 and all("raise --k-max" in said for said in others)
    items = [[json.loads(line)["items"] for line in text.splitlines()] for text in (out, expected)]
    assert items[0] == items[1]

    most[0] = 1
    kept = tmp_path / "kept.jsonl"
    assert app.main([*call, "-o", str(kept)]) == 3
    assert (
        "igm: not enough memory; use --device cpu, a smaller --batch-size or --scale" in capsys.readouterr().err
    )
    sizes.clear()
    assert app.main([*call[:-1], "1", "-o", str(kept)]) == 0
    assert sizes == [1, 1, 1]
