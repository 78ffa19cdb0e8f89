"""The energy map is the error under no concept less that under each, by network calls."""

from __future__ import annotations

import pytest
import torch
from label_oracle import LabelOracle, letters
from oracle import factors, positions

from igm_cli.core.inference.direct import hypothesis_errors
from igm_cli.core.inference.energy_map import energy_map
from igm_cli.core.inference.noised_batch import importance_of
from igm_cli.core.noise_schedule import draw
from igm_cli.core.types import InversionSettings


@pytest.mark.parametrize("kind", ["positions", "factors", "labels"])
def test_errors_by_network_calls(kind: str) -> None:
    settings = InversionSettings(draws=8, power=-1.0, low=0.05, high=0.5, seed=4)
    if kind == "positions":
        oracle = positions()
        candidates = oracle.space.grid((7, 5))
        image = oracle.image(torch.tensor([[0.3, 0.5], [0.8, 0.7]]))
    elif kind == "factors":
        oracle, candidates = factors(), torch.eye(9)
        image = oracle.image(candidates[[0, 3, 6]])
    else:
        oracle, candidates = LabelOracle(letters(5)), torch.eye(5)
        image = oracle.image(["a", "c"])
    gains = energy_map(oracle, image, settings, candidates)
    draws = draw(oracle.schedule, tuple(image.shape), 8, low=0.05, high=0.5, seed=4)
    importance = importance_of(oracle.schedule, draws.t, settings.power)
    errors = hypothesis_errors(oracle, image, draws, candidates[:, None], "sum")  # [M,N]
    features = oracle.features(oracle.schedule.add_noise(image[None], draws.noise, draws.t), draws.t)
    none = (draws.noise - oracle.base(features)).square().mean((1, 2, 3))
    expected = ((none - errors) * importance).sum(1) / importance.sum()
    torch.testing.assert_close(gains.float(), expected, rtol=1e-4, atol=1e-6)
    if kind == "positions":  # highest in the cells of the two objects
        best = gains.view(5, 7).flatten().topk(2).indices
        assert {(int(i) % 7, int(i) // 7) for i in best} == {(2, 2), (5, 3)}
