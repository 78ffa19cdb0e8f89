"""``igm benchmark zero-shot``: end to end on a tiny random pipeline, and the figures of its report."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from PIL import Image

from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.baselines.prompt_weights import BATCH
from igm_cli.benchmarks.suite import Confusion, Plot, Request
from igm_cli.benchmarks.suites.zero_shot.figures import agreement, paired, right, score
from igm_cli.benchmarks.suites.zero_shot.methods import (
    ADAPTIVE,
    COUNTING,
    ENUMERATE,
    IGM,
    METHODS,
    WEIGHTS,
    Plan,
)
from igm_cli.benchmarks.suites.zero_shot.report import score_table
from igm_cli.benchmarks.suites.zero_shot.splits import SPLITS, TRIO, counts
from igm_cli.commands.benchmark_run import run_benchmark
from igm_cli.core.inference.inversion import InversionSettings
from igm_cli.core.metrics import mcnemar
from igm_cli.core.models.pipeline_files import quiet
from igm_cli.errors import IgmError, InputError, MissingError, UsageError
from igm_cli.output import Output
from igm_cli.plugins import registry

SUITE = "igm_cli.benchmarks.suites.zero_shot.suite:ZeroShot"
FOUR = "cat,dog,rabbit,fox"
SMALL = {"draws": 2, "relax_steps": 2, "slow_limit": 1, "animals": FOUR}
SHOWN = ("pairs-3-drawn", "pairs-25-drawn", "count-drawn")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet():
        folder = tiny_pipelines.build(tmp_path_factory.mktemp("pipelines") / "tiny", "sd1")
    inference = {"draws": 2, "max_draws": 8}
    space = {"kind": "text", "labels": list(TRIO), "templates": ["a photo of a {label}", "a {label}"]}
    (folder / "igm.json").write_text(json.dumps({"space": space, "inference": inference}))
    return folder


def request_of(model: Path, *splits: str, **changes: Any) -> Request:
    request = Request(
        splits=splits,
        data_root=None,
        limit=2,
        budget=Budget(steps=1),
        seed=0,
        device=torch.device("cpu"),
        model=model,
        cache=model.parent / "cache",
        options=SMALL,
    )
    return replace(request, **changes)


def work(request: Request, out: Path, methods: tuple[str, ...] = tuple(METHODS)) -> None:
    run_benchmark(registry.suite(SUITE), methods, request, out, Output(as_json=True))


@pytest.fixture(scope="module")
def out(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method on two pictures of every task."""
    folder = tmp_path_factory.mktemp("benchmark") / "run"
    work(request_of(model, *SHOWN), folder)
    return folder


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())["summary"]
    return summary


def test_every_method_names_labels(out: Path) -> None:
    summary = summary_of(out)
    for split in SHOWN:
        told = {label: figures["images"] for label, figures in summary["splits"][split].items()}
        assert told == dict.fromkeys((m for m in METHODS if not counts(split) or m in COUNTING), 2)
    for record in records_of(out):
        for row in record["rows"]:
            known = set(TRIO) if record["split"] == "pairs-3-drawn" else set(FOUR.split(","))
            assert set(row["predicted"]) | set(row["truth"]) <= known
            assert len(set(row["predicted"])) == len(row["predicted"])
            if not counts(record["split"]):
                assert len(row["predicted"]) == len(row["truth"]) == 2
            assert (row["confidence"] is not None) == (record["method"] in COUNTING)
            assert row["seconds"] > 0 and row["error"] > 0
    truths = [r["rows"][0]["truth"] for r in records_of(out) if r["split"] == "count-drawn" and r["rows"]]
    assert all(1 <= len(truth) <= 3 for truth in truths)


def test_calls_are_those_of_each_method(out: Path) -> None:
    rows = {(r["split"], r["method"]): row for r in records_of(out) for row in r["rows"]}
    for split, m in (("pairs-3-drawn", 3), ("pairs-25-drawn", 4)):
        sets = math.comb(m, 2)
        calls = {name: (rows[split, name]["calls"], rows[split, name]["draws"]) for name in METHODS}
        assert calls[IGM] == calls["dc-variant"] == (2 * m, 2)
        assert calls[ENUMERATE] == (2 * 2 * sets, 2)
        assert calls["dc-compound"] == (2 * sets, 2)
        assert calls[WEIGHTS] == (2 * BATCH * m, 2 * BATCH)
        assert calls[ADAPTIVE][0] <= m * calls[ADAPTIVE][1] and calls[ADAPTIVE][1] <= 8


def test_enumeration_gives_igms_answers(out: Path) -> None:
    agreed = summary_of(out)["agreement"]
    assert set(agreed) == {"pairs-3-drawn", "pairs-25-drawn"}
    for found in agreed.values():
        assert (found["agreeing"], found["images"]) == (2, 2)
    assert agreed["pairs-3-drawn"]["calls"] == {IGM: 3, ENUMERATE: 6}
    for part in summary_of(out)["paired"].values():
        if ENUMERATE in part:
            assert (part[ENUMERATE]["ours"], part[ENUMERATE]["theirs"], part[ENUMERATE]["p"]) == (0, 0, 1)


def test_a_run_leaves_its_report(out: Path) -> None:
    page = (out / "report.md").read_text(encoding="utf-8")
    for heading in ("Two of cat, dog and rabbit", "igm against plain enumeration", "picture by picture"):
        assert heading in page
    assert "another model" in page and "87.3 %" in page
    assert str(out.parent) not in page
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    (line,) = [x for x in lines if (x["split"], x["method"], x["figure"]) == ("count-drawn", IGM, "number")]
    assert float(line["value"]) == summary_of(out)["splits"]["count-drawn"][IGM]["number"][0]
    names = ("pictures-1", "pictures-2", "numbers-count-drawn", *(f"cost-{split}" for split in SHOWN))
    for name in names:
        assert (out / f"{name}.png").stat().st_size > 1000


def test_a_run_goes_on_where_it_stopped(out: Path, model: Path) -> None:
    before = records_of(out)
    lines = (out / "records.jsonl").read_bytes().splitlines(keepends=True)
    (out / "records.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])  # a line cut short
    work(request_of(model, *SHOWN), out)
    after = records_of(out)
    assert after[:-1] == before[:-1]
    assert [row["predicted"] for row in after[-1]["rows"]] == [row["predicted"] for row in before[-1]["rows"]]
    with pytest.raises(IgmError, match="draws"):
        work(request_of(model, *SHOWN, options={**SMALL, "draws": 3}), out)


def test_slow_methods_run_on_fewer_pictures(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igm_cli.benchmarks.suites.zero_shot.methods.SLOW", 5)
    work(request_of(model, "pairs-25-drawn"), tmp_path, (IGM, ENUMERATE, "dc-compound"))
    told = summary_of(tmp_path)["splits"]["pairs-25-drawn"]
    assert {label: figures["images"] for label, figures in told.items()} == {
        IGM: 2,
        ENUMERATE: 1,
        "dc-compound": 1,
    }
    page = (tmp_path / "report.md").read_text()
    assert "the one image that every method was run on" in page
    assert summary_of(tmp_path)["paired"]["pairs-25-drawn"][ENUMERATE]["images"] == 1


def test_what_is_slow() -> None:
    settings = InversionSettings(relax_steps=100)
    plan = Plan(settings, draws=32, stages=False, slow_limit=50, templates=("a {label}",))
    assert plan.calls(IGM, 25, 2) == 25 * 32
    assert plan.calls(ENUMERATE, 20, 3) == 3420 * 32
    assert plan.calls("dc-compound", 25, 2) == 300 * 32
    assert plan.calls(WEIGHTS, 3, 2) == 3 * 4 * 100


def test_your_own_pictures(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("cat_1", "cat_dog_2", "dog_rabbit_3")):
        Image.new("RGB", (40, 30), (60 * number, 90, 30)).save(folder / f"{name}.png")
    options = {**SMALL, "pictures": str(folder)}
    request = request_of(model, "pictures", options=options, limit=None)
    bench = registry.suite(SUITE).open(request)
    assert bench.items("pictures") == ["cat_1.png", "cat_dog_2.png", "dog_rabbit_3.png"]
    assert bench.cells["pictures"].labels == TRIO
    for name in (IGM, ENUMERATE, "dc-compound"):
        rows = [bench.method(name)("pictures", item)[0] for item in bench.items("pictures")]
        assert [row["truth"] for row in rows] == [["cat"], ["cat", "dog"], ["dog", "rabbit"]]
        assert [len(row["predicted"]) for row in rows] == [1, 2, 2]
    assert str(tmp_path) not in json.dumps(bench.identity)
    wider = replace(request, options={**options, "labels": "Cat,dog,rabbit,snowy  owl"})
    assert registry.suite(SUITE).open(wider).cells["pictures"].labels == ("cat", "dog", "rabbit", "snowy owl")
    with pytest.raises(InputError, match="same label"):
        (folder / "cat_dog_2.png").unlink()
        (folder / "dog_rabbit_3.png").unlink()
        registry.suite(SUITE).open(request)


def test_pictograms_of_a_folder(model: Path, tmp_path: Path) -> None:
    for style, colour in (("plain", "red"), ("other", "blue")):
        for animal in FOUR.split(","):
            (tmp_path / style / animal).mkdir(parents=True)
            Image.new("RGBA", (32, 32), colour).save(tmp_path / style / animal / "1.png")
    options = {**SMALL, "seen": "plain", "unseen": "other"}
    request = request_of(model, "pairs-3-seen", "pairs-3-unseen", data_root=tmp_path, options=options)
    bench = registry.suite(SUITE).open(request)
    seen, unseen = (bench.cells[f"pairs-3-{look}"].scenes for look in ("seen", "unseen"))
    item = bench.items("pairs-3-seen")[0]
    assert seen[item].truth.equal(unseen[item].truth)
    assert not seen[item].x0.equal(unseen[item].x0)
    with pytest.raises(UsageError, match="fluent"):
        registry.suite(SUITE).open(replace(request, options=SMALL))


def test_stages_spare_calls(model: Path) -> None:
    options = {**SMALL, "draws": 16, "stages": "on"}
    bench = registry.suite(SUITE).open(request_of(model, "pairs-25-drawn", options=options))
    (row,) = bench.method("dc-compound")("pairs-25-drawn", bench.items("pairs-25-drawn")[0])
    assert row["calls"] < 16 * 6
    assert bench.method("dc-compound").info["stages"] == "on"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draws": 0}, "draws takes a whole number of at least 1"),
        ({"slow_limit": "few"}, "slow_limit takes a whole number"),
        ({"template": "a photo"}, "must hold {label}"),
        ({"stages": "perhaps"}, "on or off"),
        ({"views": 3}, "1, 2 or 4"),
        ({"views": "four"}, "whole number"),
        ({"animals": " , "}, "names with commas"),
        ({"animals": "cat,unicorn"}, "unknown animal 'unicorn'"),
        ({"dtype": "float8"}, "unknown dtype"),
    ],
)
def test_wrong_options(model: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        registry.suite(SUITE).open(request_of(model, "pairs-25-drawn", options=options))


def test_what_cannot_be_measured(model: Path, tmp_path: Path) -> None:
    for split, says in (("pairs-3-unseen", "needs --data-root"), ("pictures", "needs --set pictures=FOLDER")):
        with pytest.raises(InputError, match=says):
            registry.suite(SUITE).open(request_of(model, split))
    with pytest.raises((InputError, MissingError)):
        registry.suite(SUITE).open(request_of(tmp_path, "pairs-3-drawn"))
    other = tmp_path / "sum"
    shutil.copytree(model, other)
    description = json.loads((model / "igm.json").read_text())
    (other / "igm.json").write_text(json.dumps({**description, "composition": "sum"}))
    with pytest.raises(InputError, match="composes by sum"):
        registry.suite(SUITE).open(request_of(other, "pairs-3-drawn"))


def test_defaults() -> None:
    suite = registry.suite(SUITE)
    assert suite.default_splits(None) == SHOWN
    assert set(suite.default_splits(Path())) == {
        f"{task}-{look}" for task in ("pairs-3", "pairs-25", "count") for look in ("seen", "unseen")
    }
    assert set(suite.default_splits(Path())) <= set(suite.splits) == set(SPLITS)


# Figures of known rows


def row(label: str, predicted: str, truth: str, **more: Any) -> dict[str, Any]:
    told = {"confidence": None, "seconds": 2.0, "calls": 12, "draws": 4, "error": 0.5}
    return {"label": label, "predicted": list(predicted), "truth": list(truth), **told, **more}


def record(item: str, *rows: dict[str, Any]) -> dict[str, Any]:
    return {"method": "any", "split": "pairs-3-drawn", "item": item, "rows": list(rows)}


def test_scores_of_known_rows() -> None:
    rows = [row("any", "ab", "ba"), row("any", "ac", "ab"), row("any", "a", "ab"), row("any", "abc", "abc")]
    assert [right(r) for r in rows] == [True, False, False, True]
    found = score("any", rows)
    assert {name: e.value for name, e in found.estimates.items()} == pytest.approx(
        {
            "exact": 0.5,
            "number": 0.75,
            "recall": 7 / 9,
            "calls_a_draw": 3,
            "calls": 12,
            "seconds": 2,
            "draws": 4,
        }
    )
    # Wilson's, of two of four
    assert found.estimates["exact"].to_list() == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (8, 1, 2 * (1 + 9) / 512), (3, 3, 1), (200, 0, 2.0**-199)],
)
def test_mcnemars_exact_p(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)


def test_methods_are_paired_on_the_pictures_both_saw() -> None:
    records = [
        record("1", row(IGM, "ab", "ab"), row("other", "ab", "ab")),
        record("2", row(IGM, "ab", "ab"), row("other", "ac", "ab")),
        record("3", row(IGM, "ac", "ab"), row("other", "ab", "ab")),
        record("4", row(IGM, "ab", "ab")),
        record("5", row(IGM, "ab", "ab"), row("other", "bc", "ab")),
    ]
    (found,) = paired(records)
    assert (found.other, found.images, found.both, found.ours, found.theirs) == ("other", 4, 1, 2, 1)
    assert found.p == 1
    assert paired([record("1", row("other", "a", "a"))]) == []


def test_agreement_is_of_sets() -> None:
    records = [
        record("1", row(IGM, "ab", "ab"), row(ENUMERATE, "ba", "ab", calls=24, error=0.5001)),
        record("2", row(IGM, "ab", "ab"), row(ENUMERATE, "ac", "ab", calls=24)),
        record("3", row(IGM, "ab", "ab")),
    ]
    found = agreement(records)
    assert found is not None
    assert (found.agreeing, found.images) == (1, 2)
    assert found.difference == pytest.approx(0.0002, rel=1e-2)
    assert found.calls == {IGM: 3, ENUMERATE: 6}
    assert agreement(records[2:]) is None


def test_published_figures_stand_beside_their_own_task_only() -> None:
    scores = [score(IGM, [row(IGM, "ab", "ab")])]
    table = score_table("pairs-3-unseen", "two of three", scores, ["dc-variant"])
    assert table.rows[0][:3] == [IGM, table.rows[0][1], "87.3 %"]
    assert table.rows[1][:2] == ["dc-variant", "failed"] and len(table.rows[1]) == len(table.columns)
    assert "published" not in score_table("pairs-25-unseen", "two of 25", scores).columns
    assert "number right" in score_table("count-drawn", "one to three", scores).columns


def test_figures_of_counts(model: Path) -> None:
    bench = registry.suite(SUITE).open(request_of(model, "count-3-drawn"))
    items = bench.items("count-3-drawn")
    records = [
        {"method": m, "split": "count-3-drawn", "item": item, "rows": bench.method(m)("count-3-drawn", item)}
        for m in (IGM, ENUMERATE)
        for item in items
    ]
    assert all(r["rows"] == [] for r in records if r["method"] == ENUMERATE)
    report = bench.report(records, {"dc-variant": {"failed": "no room"}})
    (confusion,) = [figure for figure in report.figures if isinstance(figure, Confusion)]
    assert sum(map(sum, confusion.counts[IGM])) == 2 and set(confusion.counts) == {IGM}
    (plot,) = [figure for figure in report.figures if isinstance(figure, Plot)]
    assert [curve.label for curve in plot.curves] == [IGM] and plot.log_x
