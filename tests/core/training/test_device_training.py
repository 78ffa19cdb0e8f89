"""Training on a device that the host runs ahead of, which the CPU pretends to be."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from conftest import launch_two
from test_training import CONFIG, SPEC, Spots, run, stop, weights

from igm_cli.core.checkpoint import ModelSpec
from igm_cli.core.concepts import Categorical
from igm_cli.core.training import batches, trainer
from igm_cli.core.training.batches import HostBatches, ResidentBatches, Samples, SentBatches, as_floats
from igm_cli.core.training.objectives import ComposedObjective
from igm_cli.core.training.plan import plan_step
from igm_cli.core.training.run import fresh_model, train
from igm_cli.core.training.state import RunRecord
from igm_cli.core.training.trainer import DivergenceError, Trainer
from igm_cli.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (trainer, batches):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)


class Squares:
    """Lowers the square of what one convolution makes of images and noise."""

    def __init__(self, config, samples=None):
        self.batches = batches.make_batches(samples or Spots(), config, Accelerator(cpu=True))
        self.rows: list[int] = []

    def loss(self, model, step, plan):
        self.rows.append(len(plan.indices))
        images, _, _ = self.batches.rows(plan)
        noise = plan.noise(tuple(images.shape[1:]))
        return (model(images + noise) - noise).square().mean()


def small(config=CONFIG, objective=None, **more) -> Trainer:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 3, 3, padding=1)
    return Trainer(model, objective or Squares(config), 10, config, Accelerator(cpu=True), **more)


FACTORS = replace(SPEC, space=Categorical({"a": ("x", "y"), "b": ("u", "v", "w")}).to_dict())


class Faces(Spots):
    """Images with one value of each factor."""

    def batch(self, indices, flips):
        images, _, present = super().batch(indices, flips)
        rows = [
            [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]] if i % 2 else [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1]] for i in indices
        ]
        return images, torch.tensor(rows).float(), torch.ones_like(present)


def count_waits(spec: ModelSpec, samples: Samples, contrast: float) -> None:
    """Trains on the device that is pretended for counts."""
    from pretended_device import DEVICE, Pretended

    config = replace(CONFIG, batch_size=2, accumulation=2, contrast=contrast)
    accelerator = Accelerator(cpu=True)
    accelerator.state.device = DEVICE
    with Pretended() as seen:
        model = fresh_model(spec, 0).to(DEVICE)
        objective = ComposedObjective(model, spec, samples, config, accelerator)
        training = Trainer(model, objective, 10, config, accelerator)
        training.train_step()  # copies what is constant
        seen.waits.clear()
        training.losses = [training.train_step() for _ in range(3)]
        assert seen.waits.total() == 0, seen.waits
        figures = training.figures()
        assert seen.waits.total() > 0
    assert 0 < figures["loss"] < 20 and training.step == 4


def test_steps_do_not_wait_for_the_device():
    """In a process of its own, as a device once pretended stays."""
    here = Path(__file__)
    code = "import test_device_training as t; t.count_waits(t.SPEC, t.Spots(), 0.0); t.count_waits(t.FACTORS, t.Faces(), 0.5)"
    path = os.pathsep.join(map(str, (here.parent, here.parents[2], here.parents[3] / "benchmarks")))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_pretended_device_trains_what_a_cpu_trains(monkeypatch, pretended):
    there = small()
    list(there.run())
    monkeypatch.undo()
    here = small()
    list(here.run())
    for one, other in zip(here.bare_model.parameters(), there.bare_model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class Broken(Spots):
    """Spots whose images are no numbers in one step."""

    def __init__(self, step: int) -> None:
        self.indices = plan_step(step, 10, CONFIG).indices

    def batch(self, indices, flips):
        images, concepts, present = super().batch(indices, flips)
        return images * float("nan") if indices == self.indices else images, concepts, present


def test_a_step_that_diverges_changes_nothing_nor_does_any_after_it(pretended, monkeypatch):
    monkeypatch.setattr(batches, "fits", lambda size, device: False)
    training = small(objective=Squares(CONFIG, Broken(2)))
    before = []
    for _ in range(5):
        before.append(training.bare_model.weight.detach().clone())
        training.train_step()
    assert not torch.equal(before[1], before[2]) and torch.equal(before[2], before[4])
    assert torch.equal(training.bare_model.weight, before[2])
    training.losses = [torch.ones(())]
    for look in (training.state, training.figures, lambda: list(training.run())):
        with pytest.raises(DivergenceError, match="diverges after step 2"):
            look()


def test_figures_are_reduced_on_the_device():
    training = small()
    devices = []

    def reduce(tensor, reduction):
        devices.append(tensor.device)
        return torch.ones(())

    training.accelerator = SimpleNamespace(device=torch.device("meta"), reduce=reduce)
    training.losses = [torch.ones(()), torch.zeros(())]
    training.figures()
    assert devices == [torch.device("meta")]


def test_the_optimizer_keeps_its_counters_where_it_wants_them(tmp_path):
    """Read onto a GPU, every step of every parameter would wait for its own."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, report=stop(3))
    placed = []

    def take(state):
        placed.extend(entry["step"].device for entry in state["optimizer"]["state"].values())

    RunRecord(tmp_path, {}).load_state(take)
    assert set(placed) == {CPU}


# ---- memory ----------------------------------------------------------------------------------------------------------


class Greedy(Squares):
    """Takes more memory than there is for more rows than ``most``."""

    def __init__(self, config, most):
        super().__init__(config)
        self.most = most

    def loss(self, model, step, plan):
        loss = super().loss(model, step, plan)
        if len(plan.indices) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss


def test_out_of_memory_halves_the_rows_at_once_and_says_so():
    notes: list[str] = []
    greedy = Greedy(CONFIG, 2)
    training, plenty = small(objective=greedy, note=notes.append), small(replace(CONFIG, accumulation=2))
    for _ in range(2):
        training.train_step()
        plenty.train_step()
    assert greedy.rows == [4, 2, 2, 2, 2] and len(notes) == 1
    assert "out of memory in step 1; training goes on with 2 images at once (accumulation 2)" in notes[0]
    assert torch.equal(training.bare_model.weight, plenty.bare_model.weight)


def test_out_of_memory_again_says_what_to_do():
    training = small(objective=Greedy(CONFIG, 1))
    with pytest.raises(InputError, match=r"2 images at once.*--set accumulation=4, a smaller --batch-size"):
        training.train_step()


@pytest.mark.parametrize("how", ["no", "reduce-overhead"])
def test_the_network_is_compiled_as_asked_for(monkeypatch, how):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda model, mode: modes.append(mode) or model)
    small(replace(CONFIG, compile=how))
    assert modes == [how][: how != "no"]


def test_a_network_that_cannot_be_compiled_says_so():
    class Uncompiled(RuntimeError):
        __module__ = "torch._dynamo.exc"

    class Failing(Squares):
        def loss(self, model, step, plan):
            raise Uncompiled("no working C++ compiler")

    with pytest.raises(InputError, match=r"does not work here \(Uncompiled\); use --set compile=no"):
        small(objective=Failing(CONFIG)).train_step()


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [False, True])
def test_batches_on_a_device_are_those_of_the_host(mirror):
    config = replace(CONFIG, mirror=mirror)
    host = HostBatches(Spots())
    for ours in (ResidentBatches(Spots(), config, CPU), SentBatches(Spots(), config, CPU, range(4))):
        for step in range(6):
            for first in (0, 2):
                plan = plan_step(step, 10, config).rows(first, first + 2)
                images, concepts, present = ours.rows(plan)
                expected, places, there = host.rows(plan)
                assert torch.equal(images, expected)
                assert torch.equal(concepts[present], places[there])


def test_the_batch_after_this_one_is_made_ahead():
    asked = []

    class Told(Spots):
        def batch(self, indices, flips):
            asked.append(indices)
            return super().batch(indices, flips)

    sent = SentBatches(Told(), CONFIG, CPU, range(4))
    first, second = (plan_step(step, 10, CONFIG) for step in (0, 1))
    sent.rows(first)
    sent.thread.shutdown()
    assert asked == [first.indices, second.indices]


def test_bytes_are_turned_into_floats():
    torch.testing.assert_close(as_floats(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))
    floats = torch.tensor([0.3])
    assert as_floats(floats) is floats


# ---- several processes, and the real thing ---------------------------------------------------------------------------

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dataclasses import replace
from igm_cli.core.training import batches, trainer
from test_training import CONFIG, run
for module in (trainer, batches):
    module.runs_ahead = lambda device: True
run(Path(sys.argv[1]), replace(CONFIG, steps=int(sys.argv[3]), decay=0.0))
"""


@pytest.mark.slow
def test_two_processes_on_a_pretended_device_train_and_resume(tmp_path):
    run(tmp_path / "one", replace(CONFIG, decay=0.0))
    (tmp_path / "script.py").write_text(SCRIPT)
    for steps in (4, 6):  # the second call goes on
        launch_two(tmp_path / "script.py", tmp_path / "two", Path(__file__).parents[2], steps)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-4)


def test_the_speed_of_training_is_measured(monkeypatch, capsys):
    script = str(Path(__file__).parents[3] / "benchmarks" / "train_speed.py")
    small = "--tiny --images 6 --steps 1 --warm-up 1 --batch-size 2 4 --precision no --data rendered --json"
    monkeypatch.setattr(sys, "argv", [script, "--device", "cpu", *small.split()])
    runpy.run_path(script, run_name="__main__")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["batch_size"] for row in rows] == [2, 4]
    assert all(row["images_per_second"] > 0 and row["rendered_per_second"] > 0 for row in rows)


@pytest.mark.gpu
def test_a_gpu_trains_what_a_cpu_trains(tmp_path, gpu):
    config = replace(CONFIG, decay=0.0)
    try:
        run(tmp_path / "cpu", config)
        AcceleratorState._reset_state(True)  # one device a process, says accelerate
        for steps in (4, 6):  # the second call goes on
            train(SPEC, Spots(), replace(config, steps=steps), tmp_path / "gpu")
    finally:
        AcceleratorState._reset_state(True)
    assert weights(tmp_path / "gpu").keys() == weights(tmp_path / "cpu").keys()
    for name, value in weights(tmp_path / "cpu").items():
        torch.testing.assert_close(weights(tmp_path / "gpu")[name].cpu(), value, rtol=1e-2, atol=2e-3)
