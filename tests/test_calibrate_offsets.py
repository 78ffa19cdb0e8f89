"""``benchmarks/calibrate_offsets.py``: offsets that were added are found."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


def test_the_likeliest_offsets_undo_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("calibrate_offsets")
    labels = ("cat", "dog", "owl", "rabbit")
    added = torch.tensor([-1.5e-3, 0.5e-3, -0.5e-3, 1.5e-3], dtype=torch.float64)

    def scenes(some: tuple[str, ...], seed: int) -> object:
        places = torch.tensor([labels.index(label) for label in some])
        pairs = torch.tensor(list(itertools.combinations(range(len(some)), 2)))
        shares = torch.nn.functional.one_hot(pairs, len(some)).double().mean(1)
        generator = torch.Generator().manual_seed(seed)
        truth = torch.randint(len(pairs), (400,), generator=generator)
        noise = torch.randn(400, len(pairs), generator=generator, dtype=torch.float64)
        away = 1e-3 * (1 - torch.nn.functional.one_hot(truth, len(pairs)).double())
        return module.Scenes(some, away + 4e-4 * noise + shares @ added[places], truth, shares)

    groups = [scenes(labels, 0), scenes(("cat", "dog", "rabbit"), 1)]
    offsets = module.fit(groups, labels)
    assert float(offsets.sum()) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(offsets, -added, rtol=0, atol=3e-4)
    fresh = scenes(labels, 2)
    assert fresh.right(offsets) > fresh.right(torch.zeros(4).double()) + 0.05
    known = scenes(("cat", "dog", "rabbit"), 3)  # of which the offsets lose nothing
    assert module.share(known, offsets, labels) == 1.0
    assert module.share(known, -20 * offsets, labels) == 0.0
