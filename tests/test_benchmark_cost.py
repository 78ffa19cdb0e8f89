"""Benchmark ``cost``: counts against closed forms, scaling, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_cases import CASES
from oracle import Oracle, positions

from igm_cli.benchmarks.suite import find_suite
from igm_cli.benchmarks.suites import cost_measure as measure
from igm_cli.benchmarks.suites import cost_report as report
from igm_cli.benchmarks.suites.cost import ITEMS, SUITE, CostBench
from igm_cli.benchmarks.suites.cost_measure import Meter, NetworkUse, line, repeated, with_gflop
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.inference.call_counter import CallCounter
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.noised_batch import Whole
from igm_cli.core.inference.windows import Local
from igm_cli.core.types import InversionSettings
from igm_cli.errors import UsageError

CPU = torch.device("cpu")
EVIDENCE = InversionSettings(k_max=3, grid=(8, 8), draws=6, max_draws=12, scan_draws=3, keep=16)
SGD = replace(EVIDENCE, method="sgd", restarts=3, steps=5, score_draws=10)


def inference(checkpoint: Checkpoint) -> InversionSettings:
    return InversionSettings.from_dict(checkpoint.spec.inference)


PLACES = torch.tensor([[0.3, 0.4], [0.7, 0.6]])


@pytest.fixture
def oracle() -> Oracle:
    return positions()


@pytest.fixture
def tiny(tiny_model: Path) -> Checkpoint:
    return load_checkpoint(tiny_model, CPU)


@pytest.fixture
def bench(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CostBench:
    """Opened on a tiny model, with noise for images."""
    options = {"images": 1, "repeats": 1, "sgd_steps": 2, "steps": 50, "restarts": 4, "flops": 0, "batch": 2}
    splits = find_suite("cost").default_splits(None)
    request = CASES["cost"].request(tmp_path, splits=splits, limit=None, model=tiny_model, options=options)
    opened = find_suite("cost").open(request)
    noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    monkeypatch.setattr(opened, "images", lambda k, count: list(noise[:count]))
    assert isinstance(opened, CostBench)
    return opened


@pytest.mark.parametrize("k", [2, None])
def test_tally_counts_what_the_inversion_reports(oracle: Oracle, k: int | None) -> None:
    tally = CallCounter(oracle)
    found = invert(tally, oracle.image(PLACES), EVIDENCE, k=k)
    assert tally.used.whole_calls == found.network_calls
    assert tally.used.passes >= EVIDENCE.draws


def test_tally_counts_what_a_model_with_products_reports(tiny: Checkpoint) -> None:
    tally = CallCounter(tiny.denoiser)
    found = invert(tally, torch.zeros(3, 32, 32), inference(tiny))
    assert tally.used.whole_calls == found.network_calls


def test_descent_shares_what_its_restarts_are_charged_for(oracle: Oracle) -> None:
    tally = CallCounter(oracle)
    found = invert(tally, oracle.image(PLACES), SGD, k=2)
    draws = SGD.steps + SGD.score_draws
    assert tally.used.passes == draws
    assert tally.used.contributions == draws * SGD.restarts * 2
    assert found.network_calls == draws * SGD.restarts * 3

    alone = CallCounter(oracle)
    found = invert(alone, oracle.image(PLACES), replace(SGD, restarts=1), k=2)
    assert alone.used.whole_calls == found.network_calls


def test_tally_changes_nothing_and_offers_what_is_inside(oracle: Oracle, tiny: Checkpoint) -> None:
    image = oracle.image(PLACES)
    plain, tallied = (invert(d, image, EVIDENCE, k=2) for d in (oracle, CallCounter(oracle)))
    assert torch.equal(plain.concepts, tallied.concepts)
    for denoiser in (oracle, tiny.denoiser):
        for offer in (Local, Whole):
            assert isinstance(CallCounter(denoiser), offer) == isinstance(denoiser, offer)


def test_gflop_counts_matrix_products_and_their_gradients() -> None:
    a, b = torch.ones(200, 100, requires_grad=True), torch.ones(100, 50)
    threads = torch.get_num_threads()
    result, gflop = with_gflop(lambda: torch.autograd.grad((a @ b).sum(), a)[0])
    assert result.shape == a.shape and torch.get_num_threads() == threads
    assert gflop == pytest.approx(2 * 2 * 200 * 100 * 50 / 1e9)


def test_scaled_descent_is_exactly_the_long_one(tiny: Checkpoint) -> None:
    image = torch.zeros(3, 32, 32)
    settings = replace(inference(tiny), method="sgd", restarts=2, steps=12, score_draws=10)
    row = Meter(tiny, flops=True).descent([image], settings, 2, short=4)
    long = Meter(tiny, flops=True).counted(image, settings, 2)
    assert (row["passes"], row["contributions"]) == (long.passes, long.contributions)
    assert row["network_calls"] == long.network_calls
    # A window that hangs over the border costs less: arithmetic depends a little on where descent goes.
    assert row["gflop"] == pytest.approx(long.gflop, rel=0.05)
    assert row["scaled_from"] == [2, 4, 8]


def test_straight_lines() -> None:
    assert line([1, 2, 4], [3.0, 5.0, 9.0]) == pytest.approx((2.0, 0.0))
    assert line([1, 2, 4], [3.0, 6.0, 9.0])[1] > 0.05
    assert NetworkUse(1, 2, 3, 4).along(NetworkUse(2, 4, 6, 8), 3) == NetworkUse(4, 8, 12, 16)
    fields = repeated({"seconds": 2.0, "gflop": None, "label": "x", "nonlinearity": 0.1}, 3)
    assert fields == {"seconds": 6.0, "gflop": None, "label": "x", "nonlinearity": 0.1}


@pytest.mark.slow
def test_every_axis_and_the_headline(bench: CostBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "SIZED", (5, 8))
    monkeypatch.setattr(measure, "seconds_by_processes", lambda *_: 1.0)  # fresh processes take seconds
    monkeypatch.setattr(measure, "peak_memory", lambda *_: {"memory_mb": 2.0, "process_mb": 3.0})
    some = {axis: items[:1] for axis, items in ITEMS.items()}
    some |= {"k": ("k=2", "k=5"), "draws": ("draws=4",), "batch": ITEMS["batch"]}
    some |= {"size": ("k=5 at 48x32", "k=8 at 64x32")}
    records: list[dict[str, Any]] = []
    for name in SUITE.methods:
        method = bench.method(name)
        for axis, items in some.items():
            for item in items:
                rows = method(axis, item)
                records.append({"method": name, "split": axis, "item": item, "rows": rows})
    many = [row | {"x": 12, "seconds": 3 * row["seconds"]} for row in records[0]["rows"]]
    records.append({"method": "igm", "split": "k", "item": "k=12", "rows": many})
    result = bench.report(json.loads(json.dumps(records)), {})
    json.dumps([result.summary, bench.identity])

    headline, *others = result.tables
    assert headline.name == "headline" and [t.name for t in others] == [f"cost-{axis}" for axis in ITEMS]
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert len(headline.rows) == len(report.QUANTITIES)
    assert "scaled, not run in full" in headline.note
    ratios = result.summary["ratios"]["5"]
    calls = (50 + bench.base.score_draws) * 4 * 6
    ours = next(r for r in result.summary["axes"]["k"] if r["label"] == report.GIVEN and r["x"] == 5)
    for way in (report.BATCHED, report.IN_TURN):
        assert ratios[way]["network_calls"] == pytest.approx(calls / ours["network_calls"])
    assert ratios[report.IN_TURN]["passes"] == pytest.approx(4 * ratios[report.BATCHED]["passes"])
    assert ratios[report.IN_TURN]["whole_calls"] == pytest.approx(ratios[report.IN_TURN]["network_calls"])
    few, many = result.summary["axes"]["size"]
    assert (few["size"], few["seconds_per_object"]) == ("48x32", pytest.approx(few["seconds"] / 5))
    claim = many["seconds_per_object"] / few["seconds_per_object"]
    assert result.summary["scaling"]["seconds_per_object"] == pytest.approx(claim)
    assert f"K = 5 on 48x32: {claim:.2f}." in next(t.note for t in others if t.name == "cost-size")
    assert result.summary["growth"]["seconds"] == pytest.approx(3)
    assert all(len(curve.x) == len(curve.y) for plot in result.figures for curve in plot.curves)  # type: ignore[union-attr]


def test_report_of_nothing_and_of_half(bench: CostBench) -> None:
    assert bench.report([], {}).summary["ratios"] == {}
    row = {"label": report.GIVEN, "x": 5, "seconds": 1.0, "passes": 3.0, "network_calls": 9.0}
    half = bench.report([{"method": "igm", "split": "k", "item": "k=5", "rows": [row]}], {})
    assert half.summary["ratios"] == {}


def test_memory_of_one_inversion(tiny: Checkpoint, tiny_model: Path) -> None:
    used = measure.resident_peak(tiny_model, inference(tiny).to_dict(), torch.zeros(3, 32, 32).numpy(), 2, 1)
    assert used["process_mb"] > 50 and used["memory_mb"] >= 0


def test_options(bench: CostBench) -> None:
    assert bench.numbers["images"] == 1 and bench.numbers["objects"] == 5
    with pytest.raises(UsageError, match="leave out --data-root"):
        find_suite("cost").open(replace(bench.request, data_root=Path()))


def test_a_model_of_any_size_forgets_where_cells_lie(bench: CostBench) -> None:
    _, changed = bench.anywhere
    stem, own = (c.denoiser.trunk.stem.weight for c in (changed, bench.checkpoint))  # type: ignore[attr-defined]
    assert torch.equal(stem, own[:, :-2]) and changed.spec.inference == bench.checkpoint.spec.inference


def test_grids_are_counted_by_their_candidates(bench: CostBench) -> None:
    (row,) = bench.method("igm")("candidates", "grid=6x4")
    assert row["x"] == 24 and row["label"] == report.GIVEN
    assert bench.method("igm-sgd")("candidates", "grid=6x4") == []


@pytest.mark.slow
def test_processes_of_their_own(bench: CostBench) -> None:
    records = [
        {"method": "igm", "split": axis, "item": item, "rows": bench.method("igm")(axis, item)}
        for axis, item in (("memory", "k=2"), ("batch", "way=processes"))
    ]
    rows = [row for record in records for row in record["rows"]]
    assert rows[0]["memory_mb"] >= 0 and rows[1]["images_per_second"] > 0
