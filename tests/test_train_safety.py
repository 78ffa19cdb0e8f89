"""What training never does: write over what is not its own, keep weights that are no numbers, run two at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import TINY_PRESET
from test_training import CONFIG, SPEC, Spots, run, stop

from igm_cli.commands.train_preset import Recipe
from igm_cli.commands.train_run import Place, Training
from igm_cli.commands.train_validation import Validation
from igm_cli.core.checkpoint import load_checkpoint, read_spec, save_checkpoint
from igm_cli.core.files import exclusive
from igm_cli.core.training.run import train
from igm_cli.core.training.state import RunRecord, describe_run
from igm_cli.errors import InputError, OutputError, UsageError
from igm_cli.output import Output
from igm_cli.plugins import registry


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "metrics.jsonl", "igm.json", "state.pt", "vae/notes.txt", "run.json"],
)
@pytest.mark.parametrize("text", ["my own", "{}", "[]"])
def test_files_of_others_are_not_touched(tmp_path, name, text):
    folder = tmp_path / "mine"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match="another --output"):
        run(folder)
    assert contents(folder) == {name: text.encode()}


def test_the_log_of_a_scheduler_may_lie_in_the_folder_of_a_run(tmp_path):
    (tmp_path / "slurm-4711.out").write_text("mine")
    run(tmp_path)
    assert (tmp_path / "slurm-4711.out").read_text() == "mine" and (tmp_path / "model.safetensors").exists()


def test_a_model_that_is_no_run_is_not_trained_over(tmp_path, finished):
    folder = tmp_path / "published"
    shutil.copytree(finished, folder)
    (folder / "run.json").unlink()
    before = contents(folder)
    with pytest.raises(InputError, match="no run of igm; use another --output"):
        run(folder, replace(CONFIG, steps=8))
    assert contents(folder) == before


def test_a_model_without_its_state_is_not_trained_over(tmp_path, finished):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "state.pt").unlink()
    before = contents(folder)
    with pytest.raises(InputError, match=rf"no state\.pt .* another --output, with --init {folder} to start"):
        run(folder, replace(CONFIG, steps=8))
    assert contents(folder) == before
    record = RunRecord(folder, describe_run(SPEC, CONFIG, {}, None))
    assert record.held(CONFIG.steps - 1, SPEC) == CONFIG.steps
    assert record.held(CONFIG.steps + 1, SPEC) is None


def test_a_first_checkpoint_that_is_cut_short_hinders_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(RunRecord, "save_state", lambda *_: 1 / 0)
        run(tmp_path)
    run(tmp_path)
    assert load_checkpoint(tmp_path).spec.info["steps"] == CONFIG.steps


def test_a_validation_that_fails_at_the_end_loses_no_step(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, replace(CONFIG, checkpoint_every=100, picture_every=100), validate=lambda *_: 1 / 0)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == CONFIG.steps
    assert load_checkpoint(tmp_path).spec.info["steps"] == CONFIG.steps


def test_a_stop_during_a_validation_loses_no_step_and_the_next_call_validates(tmp_path):
    config, seen = replace(CONFIG, checkpoint_every=100, picture_every=3), []

    def validate(step, denoiser):
        assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == step, (
            "saved before, as it may be killed"
        )
        seen.append(step)
        return ({"right": 0.5}, {}) if len(seen) > 1 else None

    run(tmp_path, config, validate=validate, stop=lambda: len(seen) == 1)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3
    run(tmp_path, config, validate=validate)
    assert seen == [3, 3, 6]
    metrics = RunRecord(tmp_path, {}).metrics()
    assert [line["step"] for line in metrics if "right" in line] == [3, 6]


def test_a_stop_during_the_last_validation_ends_before_the_calibration(here, tmp_path, monkeypatch):
    """The same command then validates, and only then calls the run finished."""
    small = "--preset tiny.toml --limit 2 --device cpu -o run --set picture_every=2 --set calibration=1"
    (tmp_path / "tiny.toml").write_text(TINY_PRESET)
    call = f"train clevr --steps 2 {small}".split()
    monkeypatch.setattr("igm_cli.commands.train_run.COUNT", 1)  # images validated
    monkeypatch.setattr("igm_cli.commands.train_run.draw_curves", lambda *_: "no curves")
    with monkeypatch.context() as patch:
        invert = Validation._invert
        patch.setattr(Validation, "_invert", lambda *a: os.kill(os.getpid(), signal.SIGTERM) or invert(*a))
        code, _, err = here(*call, cwd=tmp_path)
    says = "igm: interrupted; step 2 of 2 is saved in run, and the same command continues from there"
    assert code == 143 and err.splitlines()[-1] == says and "calibrated" not in err
    code, _, err = here(*call)
    assert code == 0 and "already holds" not in err
    assert [line["step"] for line in RunRecord(tmp_path / "run", {}).metrics()] == [1, 2, 2]
    assert "already holds all 2 steps" in here(*call).err


def test_what_differs_in_the_data_of_a_run_is_named(tmp_path):
    part = {"source": "given", "root": "cells", "seed": 0}
    record = RunRecord(tmp_path, {"data": {"dataset": "objects", "parts": [part], "files": "012707b1"}})
    record.begin(0)
    for change, says in (
        (
            {"parts": [part | {"seed": 3}]},
            r"a run with data\.parts\[0\]\.seed = 0, not 3; use another --output",
        ),
        ({"files": "746d7330"}, r"a run of other images or annotations than .* or the same data"),
    ):
        with pytest.raises(InputError, match=says):
            RunRecord(tmp_path, {"data": record.description["data"] | change}).refuse_other_run()
    moved = {"dataset": "objects", "parts": [part | {"root": "moved"}]}
    RunRecord(tmp_path, {"data": moved | {"files": "012707b1"}}).refuse_other_run()
    RunRecord(tmp_path / "other", {"data": moved}).begin(0)
    with pytest.raises(InputError, match="root = 'moved', not 'cells'"):  # their contents are not known
        RunRecord(tmp_path / "other", {"data": {"dataset": "objects", "parts": [part]}}).refuse_other_run()


def command(output: Path, init: Path | None = None) -> None:
    adapter = registry.dataset("clevr")
    Training(
        adapter,
        registry.concept_parser("pos"),
        Recipe("default", {}),
        Place(output, limit=1, device="cpu", init=init),
        Output(quiet=True),
    ).run()


def test_the_command_refuses_before_it_loads_data(tmp_path, finished):
    before = contents(finished)
    with pytest.raises(UsageError, match="--init and --output"):
        command(finished.parent / "." / finished.name, finished)
    assert contents(finished) == before
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(InputError, match=r"holds config\.json"):
        command(tmp_path)
    assert contents(tmp_path) == {"config.json": b"mine"}


def test_one_run_at_a_time_writes_to_a_folder(tmp_path):
    with exclusive(tmp_path / "run"), pytest.raises(InputError, match="another igm is writing"):
        run(tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    run(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # the lock is gone


class Broken(Spots):
    """Spots whose images are no numbers from some batch on."""

    def __init__(self, first: int) -> None:
        self.left = first

    def batch(self, indices, flips):
        images, concepts, present = super().batch(indices, flips)
        self.left -= 1
        return images * float("nan") if self.left < 0 else images, concepts, present


def test_a_training_that_diverges_keeps_what_was_good(tmp_path):
    with pytest.raises(InputError, match=r"diverges after step 5.*learning_rate"):
        train(SPEC, Broken(5), CONFIG, tmp_path, device_is_cpu=True)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4
    assert load_checkpoint(tmp_path).spec == replace(SPEC, info={"steps": 4})
    run(tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == CONFIG.steps


def test_weights_that_are_no_numbers_are_not_saved(tmp_path, finished):
    weights = load_file(finished / "model.safetensors")
    name = sorted(weights)[3]
    for value, dtype in ((torch.nan, torch.float32), (1e6, torch.float16)):
        with pytest.raises(InputError, match=f"not finite, in {name}"):
            save_checkpoint(tmp_path / "new", SPEC, weights | {name: weights[name] + value}, dtype)
    assert not (tmp_path / "new").exists()


def test_weights_that_are_no_numbers_are_not_loaded(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "model")
    weights = load_file(finished / "model.safetensors")
    name = sorted(weights)[3]
    weights[name].view(-1)[0] = torch.inf
    save_file(weights, tmp_path / "model" / "model.safetensors")
    with pytest.raises(InputError, match=f"not finite, in {name}"):
        load_checkpoint(tmp_path / "model")
    with pytest.raises(InputError, match=f"not finite, in {name}"):
        run(tmp_path / "run", init=tmp_path / "model")


def test_a_state_that_is_no_numbers_is_not_gone_on_from(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, report=stop(3))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    next(iter(state["model"].values())).fill_(torch.nan)
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(InputError, match="not finite"):
        run(tmp_path)


def test_a_failed_write_leaves_the_state_before(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, report=stop(3))
    before = (tmp_path / "state.pt").read_bytes()

    def fail(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        run(tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("igm.json", {"composition": "product"}, "'composition' must be 'sum' or 'mean', not 'product'"),
        ("igm.json", {"image_size": [32, 2.5]}, "must be a whole number, not 2.5"),
        ("igm.json", {"concepts": 3}, "'concepts' must be text, not 3"),
        ("igm.json", {"conceptz": "pos"}, "did you mean concepts"),
        ("igm.json", {"space": None}, "'space' must be a table"),
        ("igm.json", {"format": 2}, "checkpoint format"),
        ("config.json", {"architecture": 1}, "'architecture' must be text, not 1"),
    ],
)
def test_descriptions_say_what_is_wrong(tmp_path, finished, file, change, says):
    folder = tmp_path / "model"
    shutil.copytree(finished, folder)
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(InputError) as caught:
        read_spec(folder)
    assert says in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_description_lacks_nothing(tmp_path, finished):
    shutil.copytree(finished, tmp_path / "model")
    known = json.loads((tmp_path / "model/igm.json").read_text())
    del known["concepts"]
    (tmp_path / "model/igm.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="'concepts' is missing"):
        read_spec(tmp_path / "model")
