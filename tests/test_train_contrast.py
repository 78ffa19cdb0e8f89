"""Training on factors: the contrast between their values."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import launch_two
from test_training import weights
from tiny_flags import SPACE, Flags, paint

from igm_cli.core.checkpoint import ModelSpec, load_checkpoint
from igm_cli.core.concepts import Continuous
from igm_cli.core.inference.engine import invert
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.training.contrast import contrasts
from igm_cli.core.training.run import train
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError

SPEC = ModelSpec(
    architecture="factored",
    options={
        "image_size": [16, 16], "patch": 4, "channels": [16, 16, 16], "blocks": 1,
        "head_channels": 16, "head_layers": 1,
    },
    space=SPACE.to_dict(),
    schedule=ScheduleConfig().to_dict(),
    composition="sum",
    image_size=(16, 16),
    concepts="any",
)  # fmt: skip
CONFIG = TrainConfig(
    steps=6, batch_size=4, warmup=2, log_every=1, checkpoint_every=2, half=False, contrast=0.03, contrast_from=3
)


def run(folder: Path, config: TrainConfig = CONFIG, spec: ModelSpec = SPEC) -> None:
    train(spec, Flags(0, 60), config, folder, device_is_cpu=True)


def test_with_the_contrast_every_configuration_is_soon_read(tmp_path):
    config = replace(
        CONFIG, steps=120, batch_size=16, learning_rate=5e-3, ema=0.9, contrast_from=40, checkpoint_every=120
    )
    run(tmp_path, config)
    model = load_checkpoint(tmp_path).denoiser
    settings = InversionSettings(draws=8, max_draws=8, low=0.05, high=0.6)
    for upper, lower in itertools.product(range(3), range(2)):
        found = invert(model, paint(torch.tensor([[upper, lower]]))[0], settings)
        assert found.concepts.argmax(1).tolist() == [upper, 3 + lower]


def test_the_contrast_is_of_every_factor_and_its_reading():
    errors, logits = torch.tensor([[0.2, 0.1, 0.4, 0.3, 0.25]]), torch.tensor([[0.0, 2, 1, -1, 1]])
    found = contrasts(errors, logits, torch.tensor([[1, 3]]), SPACE.groups(), pixels=30)
    likelihood = -15 * errors[0]
    for factor, (first, last, true) in enumerate([(0, 3, 1), (3, 5, 3)]):
        expected = -sum(each[first:last].log_softmax(0)[true - first] for each in (likelihood, logits[0]))
        torch.testing.assert_close(found[0, factor], expected)


def test_before_it_begins_training_is_that_of_the_paper(tmp_path):
    run(tmp_path / "later", replace(CONFIG, steps=3))
    run(tmp_path / "never", replace(CONFIG, steps=3, contrast=0.0, contrast_from=0))
    later, never = weights(tmp_path / "later"), weights(tmp_path / "never")
    for name in (name for name in never if "readout" not in name and "notice." not in name):
        torch.testing.assert_close(later[name], never[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("contrast", [0.0, 0.03])
@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path, contrast):
    config = replace(CONFIG, contrast=contrast)
    run(tmp_path / "one", config)
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import torch\n"
        "torch.set_num_threads(1)\n"
        "from dataclasses import replace; from test_train_contrast import CONFIG, run\n"
        f"run(Path(sys.argv[1]), replace(CONFIG, contrast={contrast}))\n"
    )
    (tmp_path / "script.py").write_text(script)
    launch_two(tmp_path / "script.py", tmp_path / "two", Path(__file__).parent)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-4)


def test_a_contrast_of_what_has_no_values_is_refused(tmp_path):
    plane = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
    with pytest.raises(InputError, match="between values of factors"):
        run(tmp_path, spec=replace(SPEC, space=plane.to_dict(), composition="mean"))
    with pytest.raises(InputError, match="at least 0"):
        replace(CONFIG, contrast=-1.0)
