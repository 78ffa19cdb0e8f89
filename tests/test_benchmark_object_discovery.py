"""``igm benchmark object-discovery``: its methods, and the numbers of its report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmark_cases import Run, recorded, records_of

from igm_cli.benchmarks.suite import Plot
from igm_cli.benchmarks.suites import object_discovery
from igm_cli.benchmarks.suites.object_discovery_report import metrics
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.errors import InputError
from igm_cli.plugins import registry


def test_a_folder_without_images_for_training_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    request = SimpleNamespace(data_root=tmp_path, note=notes.append, reading=lambda adapter: {})
    bench: Any = SimpleNamespace(request=request, dataset="clevr")
    assert object_discovery.DiscoveryBench.of_folder(bench) is None
    assert len(notes) == 1 and "has neither scenes/CLEVR_train_scenes.json" in notes[0]


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    """An untrained U-Net of the paper's kind, on disk."""
    options = {"channels": [16, 16], "layers": 1, "attention_dim": 32, "head_dim": 8, "groups": 8}
    spec = ModelSpec(
        architecture="unet",
        options={**options, "image_size": [48, 32]},
        space=registry.concept_parser("pos").space.to_dict(),
        schedule=ScheduleConfig(prediction_type="epsilon").to_dict(),
        composition="mean",
        image_size=(48, 32),
        concepts="pos",
    )
    save_checkpoint(tmp_path / "unet", spec, spec.build().state_dict())
    return tmp_path / "unet"


def test_one_descent_gives_a_row_for_every_number_of_starts(run: Run) -> None:
    records = [record for record in records_of(run.out) if record["method"] == "igm-sgd"]
    assert [record["split"] for record in records] == ["folder", "folder-3-5"]  # one image of each
    for record in records:
        rows = record["rows"]
        assert [row["label"] for row in rows] == [f"igm-sgd R={r}" for r in (1, 5, 10, 15, 20)]
        assert all(len(row["given"]) == len(row["truth"]) and row["free"] is None for row in rows)
        assert rows[4]["calls"] == 20 * rows[0]["calls"]


def test_methods_are_asked_twice(run: Run) -> None:
    for record in records_of(run.out):
        if record["method"] != "igm-sgd":
            (row,) = record["rows"]
            assert len(row["given"]) == len(row["truth"]) and isinstance(row["free"], list)
    scores = run.summary["splits"]["folder"]["igm"]
    assert {"error", "seconds", "calls", "k_exact", "recall", "precision"} <= set(scores)
    assert "k_exact" not in run.summary["splits"]["folder"]["igm-sgd R=1"]
    assert "94.7 % / 1.4e-4" in (run.out / "report.md").read_text()


def test_the_papers_unet_is_measured_beside(run: Run, unet: Path) -> None:
    options = {**run.case.options, "unet": str(unet)}
    assert set(run.opened(options=options).method("igm-sgd").info) == {"igm-sgd", "igm-sgd-unet"}
    igm_json = json.loads((unet / "igm.json").read_text())
    (unet / "igm.json").write_text(json.dumps({**igm_json, "image_size": [32, 32]}))
    with pytest.raises(InputError, match=r"model.image_size=\[48,32\]"):
        run.opened(options=options).method("igm-sgd")


def test_baselines_are_trained_on_rendered_images_where_the_folder_has_none(run: Run) -> None:
    bench = run.opened("folder")
    assert bench.data.about["rendered"]["size"] == 4
    assert tuple(map(len, bench.data.parts)) == (2, 2)


def test_a_larger_limit_finds_the_same_rendered_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_discovery, "RENDERED", 4)
    few = run.opened("3-5", data_root=None, limit=1)
    all_of_them = run.opened("3-5", data_root=None, limit=None)
    assert len(few.items("3-5")) == 1 and len(all_of_them.items("3-5")) == 4
    item = few.items("3-5")[0]
    assert few.scenes["3-5"][item].x0.equal(all_of_them.scenes["3-5"][item].x0)


def test_models_of_something_else_are_refused(run: Run, tiny_attributes: Path) -> None:
    with pytest.raises(InputError, match="models of positions, not of 'attributes'"):
        run.opened("folder", model=tiny_attributes)


# Numbers of known rows


def row(truth: list[list[float]], given: list[list[float]], free: list[list[float]] | None) -> dict[str, Any]:
    return {"truth": truth, "given": given, "free": free, "seconds": 2.0, "calls": 7}


def test_scores_of_known_rows() -> None:
    two = [[0.2, 0.2], [0.8, 0.8]]
    e = metrics([row(two, two, [*two, [0.5, 0.5]]), row(two, [[0.2, 0.2], [0.5, 0.5]], two[:1])])
    assert e["perception"].value == pytest.approx(3 / 4)
    assert e["error"].value == pytest.approx(0.09 / 4)
    assert e["absolute_error"].value == pytest.approx(0.3 / 4)
    assert e["k_exact"].value == 0
    assert e["k_off"].value == 1
    assert e["recall"].value == pytest.approx(3 / 4)
    assert e["precision"].value == pytest.approx(3 / 4)
    assert (e["seconds"].value, e["calls"].value) == (2, 7)


def test_what_finds_nothing_perceives_nothing() -> None:
    e = metrics([row([[0.2, 0.2]], [], [])])
    assert (e["perception"].value, e["recall"].value) == (0, 0)
    assert e["error"].value == e["absolute_error"].value == 1


def test_methods_that_do_not_count_have_no_counts() -> None:
    assert "k_exact" not in metrics([row([[0.2, 0.2]], [[0.2, 0.2]], None)])


def test_perception_is_plotted_over_the_number_of_objects(run: Run) -> None:
    bench = run.opened("folder-3-5", limit=3)
    records = [
        recorded("folder-3-5", item, {"label": label, **row_})
        for item in bench.items("folder-3-5")
        for truth in [bench.scenes["folder-3-5"][item].truth.tolist()]
        for label, row_ in (("igm", row(truth, truth, truth[:1])), ("igm-sgd R=1", row(truth, truth, None)))
    ]
    figures = {figure.name: figure for figure in bench.report(records, {}).figures}
    plot, counts = figures["perception-folder"], figures["counts-folder"]
    assert isinstance(plot, Plot)
    assert [(curve.label, curve.x, curve.y) for curve in plot.curves] == [("igm", [3, 4, 5], [100] * 3)]
    assert counts.truths == ["3", "4", "5"] and counts.counts == {"igm": [[0, 1]] * 3}
    assert [curve.label for curve in figures["time-folder-3-5"].curves] == ["igm", "igm-sgd"]
