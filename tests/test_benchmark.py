"""``igm benchmark`` as a user meets it, and the figures of its report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Igm
from hypothesis import given
from hypothesis import strategies as st
from test_cli import one_sentence

from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.suite import Request
from igm_cli.benchmarks.suites.object_discovery.figures import score
from igm_cli.benchmarks.suites.object_discovery.published import PUBLISHED
from igm_cli.benchmarks.suites.object_discovery.splits import SPLITS
from igm_cli.bundled import bundled
from igm_cli.commands.benchmark import parse_budget
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import space_to_dict
from igm_cli.core.metrics import rate, ratio
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry

SMALL = ("--limit", "1", "--splits", "3-5", "--train-budget", "2steps", "--set", "renders=8")


def benchmark(igm: Igm, out: Path, *arguments: object, **how: Any) -> Any:
    cache = {"IGM_CACHE": str(out.parent / "cache")}
    return igm("benchmark", "object-discovery", "--device", "cpu", "-o", out, *arguments, env=cache, **how)


@pytest.fixture(scope="module")
def run(igm: Igm, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """igm, a baseline of two steps and one that cannot be had, on one image."""
    out = tmp_path_factory.mktemp("benchmark") / "run"
    return out, benchmark(igm, out, *SMALL, "--methods", "igm,slot-attention,dinosaur", "--json")


def test_a_run_leaves_its_report(run: tuple[Path, Any]) -> None:
    out, done = run
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == "igm.benchmark/1"
    assert set(result["splits"]["3-5"]) == {"igm", "slot-attention"}
    figures = result["splits"]["3-5"]["igm"]
    value, low, high = figures["perception"]
    assert 0 <= low <= value <= high <= 1
    assert figures["images"] == 1
    assert {"error", "seconds", "calls", "k_exact", "recall", "precision"} <= set(figures)
    page = (out / "report.md").read_text(encoding="utf-8")
    assert "| igm " in page
    assert re.search(r"\| dinosaur +\| +failed \|", page)
    assert re.search(r"\| dinosaur +\| failed the weights", page)
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    (line,) = [x for x in lines if (x["method"], x["figure"]) == ("igm", "perception")]
    assert float(line["value"]) == value
    assert json.loads((out / "summary.json").read_text())["summary"]["splits"] == result["splits"]
    for name in ("pictures", "perception-rendered", "counts-rendered", "time-3-5"):
        assert (out / f"{name}.png").stat().st_size > 1000


def test_a_method_that_fails_takes_no_other_down(run: tuple[Path, Any]) -> None:
    _, done = run
    assert "dinosaur failed, the others go on" in one_sentence_about(done.stderr, "dinosaur")
    assert "--set dino=FOLDER" in json.loads(done.stdout)["failed"]["dinosaur"]


def one_sentence_about(stderr: str, word: str) -> str:
    (line,) = [line for line in stderr.splitlines() if word in line]
    return line


def test_a_run_goes_on_where_it_stopped(igm: Igm, run: tuple[Path, Any]) -> None:
    out, _ = run
    records = out / "records.jsonl"
    before = records.read_bytes()
    records.write_bytes(before[:-20])  # the last line cut short
    done = benchmark(igm, out, *SMALL, "--methods", "igm,slot-attention")
    assert done.returncode == 0, done.stderr
    kept = [json.loads(line) for line in records.read_text().splitlines()]
    assert [line["method"] for line in kept] == ["igm", "slot-attention"]
    assert records.read_bytes().startswith(before.splitlines()[0])  # not measured again
    assert "igm" in done.stdout
    assert "3 to 5 objects, rendered" in done.stdout


def test_another_configuration_is_refused(igm: Igm, run: tuple[Path, Any]) -> None:
    out, _ = run
    done = benchmark(igm, out, *SMALL, "--methods", "igm", "--seed", "1")
    assert done.returncode == 3
    assert "seed = 0, not 1" in one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("objectdiscovery",), 5, "did you mean object-discovery"),
        (("object-discovery", "--methods", "slot-atention"), 2, "did you mean slot-attention"),
        (("object-discovery", "--splits", "colour"), 2, "did you mean color"),
        (("object-discovery", "--set", "sgd-steps=1"), 2, "did you mean sgd_steps"),
        (("object-discovery", "--set", "sgd_steps=many"), 2, "whole number"),
        (("object-discovery", "--limit", "0"), 2, "limit"),
        (("object-discovery", "--train-budget", "soon"), 2, "20m or 4000steps"),
        (("object-discovery", "--train-budget", "0m"), 2, "more than nothing"),
        (("object-discovery", "--splits", "folder"), 3, "needs --data-root"),
        (("object-discovery", "--data-root", "."), 3, "scenes/CLEVR_val_scenes.json"),
        (("object-discovery", "--device", "cuda:7"), 3, "is not here"),
    ],
)
def test_bad_input(igm: Igm, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = igm("benchmark", *arguments, "-o", tmp_path / "run")
    assert done.returncode == code, done.stderr
    assert says in one_sentence(done.stderr)
    assert done.stdout == ""
    assert not (tmp_path / "run" / "records.jsonl").exists()


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    """An untrained U-Net of the paper's kind, on disk."""
    options = {"channels": [16, 16], "layers": 1, "attention_dim": 32, "head_dim": 8, "groups": 8}
    spec = ModelSpec(
        architecture="unet",
        options={**options, "image_size": [96, 64]},
        space=space_to_dict(registry.concept_parser("pos").space),
        schedule=ScheduleConfig(prediction_type="epsilon").to_dict(),
        composition="mean",
        image_size=(96, 64),
        concepts="pos",
    )
    save_checkpoint(tmp_path / "unet", spec, spec.build().state_dict())
    return tmp_path / "unet"


def open_discovery(tmp_path: Path, **options: Any) -> Any:
    request = Request(
        splits=("3-5",),
        data_root=None,
        limit=1,
        budget=Budget(steps=1),
        seed=0,
        device=torch.device("cpu"),
        model=bundled()["clevr-pos"],
        cache=tmp_path / "cache",
        options={"sgd_steps": 1, **options},
        progress=lambda what, done, total: None,
    )
    return registry.suite("object-discovery").open(request)


def test_one_descent_gives_a_row_for_every_number_of_starts(tmp_path: Path) -> None:
    bench = open_discovery(tmp_path)
    rows = bench.method("igm-sgd")("3-5", bench.items("3-5")[0])
    assert [row["label"] for row in rows] == [f"igm-sgd R={r}" for r in (1, 5, 10, 15, 20)]
    assert all(len(row["given"]) == len(row["truth"]) for row in rows)
    assert rows[4]["calls"] == 20 * rows[0]["calls"]


def test_the_papers_unet_is_measured_beside(unet: Path, tmp_path: Path) -> None:
    method = open_discovery(tmp_path, unet=str(unet)).method("igm-sgd")
    assert set(method.info) == {"igm-sgd", "igm-sgd-unet"}
    igm_json = json.loads((unet / "igm.json").read_text())
    (unet / "igm.json").write_text(json.dumps({**igm_json, "image_size": [64, 64]}))
    with pytest.raises(InputError, match=r"model.image_size=\[96,64\]"):
        open_discovery(tmp_path, unet=str(unet)).method("igm-sgd")


def test_suites_are_listed(igm: Igm) -> None:
    done = igm("benchmark", "--json")
    found = {suite["name"]: suite for suite in map(json.loads, done.stdout.splitlines())}
    assert {"object-discovery", "cost"} <= set(found)
    assert set(found["object-discovery"]["splits"]) == set(SPLITS)


def test_budgets() -> None:
    assert parse_budget("20m").minutes == parse_budget("20").minutes == parse_budget("20 minutes").minutes == 20
    assert parse_budget("1 min").minutes == 1
    assert parse_budget("4000steps").steps == parse_budget("4000 steps").steps == 4000
    for text in ("", "m", "steps", "-3m", "1.5steps"):
        with pytest.raises(UsageError):
            parse_budget(text)


def row(truth: list[list[float]], given_: list[list[float]], free: list[list[float]] | None) -> dict[str, Any]:
    return {"truth": truth, "given": given_, "free": free, "seconds": 2.0, "calls": 7}


def test_scores_of_known_rows() -> None:
    two = [[0.2, 0.2], [0.8, 0.8]]
    rows = [row(two, two, [*two, [0.5, 0.5]]), row(two, [[0.2, 0.2], [0.5, 0.5]], two[:1])]
    e = score("any", rows).estimates
    assert e["perception"].value == pytest.approx(3 / 4)
    assert e["error"].value == pytest.approx(0.09 / 4)
    assert e["k_exact"].value == 0
    assert e["k_off"].value == 1
    assert e["recall"].value == pytest.approx(3 / 4)
    assert e["precision"].value == pytest.approx(3 / 4)
    assert (e["seconds"].value, e["calls"].value) == (2, 7)


def test_what_finds_nothing_perceives_nothing() -> None:
    e = score("any", [row([[0.2, 0.2]], [], [])]).estimates
    assert (e["perception"].value, e["recall"].value) == (0, 0)
    assert e["error"].value == 1


def test_methods_that_do_not_count_have_no_counts() -> None:
    assert "k_exact" not in score("any", [row([[0.2, 0.2]], [[0.2, 0.2]], None)]).estimates


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=20))
def test_intervals_hold_their_rate(pairs: list[tuple[int, int]]) -> None:
    trials = torch.tensor([float(n) for _, n in pairs])
    hits = torch.minimum(torch.tensor([float(h) for h, _ in pairs]), trials)
    for estimate in (rate(hits, trials), ratio(hits, trials)) if len(pairs) > 1 else (rate(hits, trials),):
        assert 0 <= estimate.low <= estimate.value + 1e-9
        assert estimate.value - 1e-9 <= estimate.high <= 1
    if float(hits.sum()) in (0, float(trials.sum())):
        assert rate(hits, trials).high > rate(hits, trials).low


def test_published_figures_are_of_known_splits() -> None:
    assert set(PUBLISHED) <= set(SPLITS)
