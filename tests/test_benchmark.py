"""``igm benchmark`` as a user meets it, and estimates with their intervals."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from benchmark_cases import CASES, summary_of
from conftest import Igm
from hypothesis import given
from hypothesis import strategies as st
from test_cli import one_sentence

from igm_cli.app import main
from igm_cli.benchmarks.baselines.fit import Budget, Fitted, TrainingData
from igm_cli.benchmarks.baselines.resnet import ResNetFactors, ResNetSet
from igm_cli.benchmarks.baselines.slot_attention import DinosaurSet, SlotAttentionSet
from igm_cli.benchmarks.frame import CheckpointBench
from igm_cli.benchmarks.intervals import clustered_rate, mean, rate, ratio
from igm_cli.benchmarks.report import calibration_rows, percent
from igm_cli.benchmarks.scores import Paired
from igm_cli.benchmarks.suite import Infos, Method, Record, Report, Request, Row, find_suite
from igm_cli.benchmarks.timing import machine, machine_note, timed
from igm_cli.commands.benchmark import parse_budget
from igm_cli.commands.benchmark_run import run_benchmark
from igm_cli.commands.schemas import is_record
from igm_cli.core.concepts import Categorical
from igm_cli.errors import OutputError, UsageError
from igm_cli.folders import option_identity
from igm_cli.output import Output

# The command


def test_a_run_from_the_command_line(igm: Igm, tmp_path: Path) -> None:
    options = "--set points=K3-n6-D200,K2-n4-D64 --set problems=2 --device cpu --json"
    asked = f"benchmark decomposition --methods auto,exhaustive --splits points --limit 1 {options}"
    done = igm(*asked.split(), "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["schema"], result["suite"], result["failed"]) == ("igm.benchmark/1", "decomposition", {})
    assert list(result["splits"]["points"]) == ["K3-n6-D200"]
    page = (tmp_path / "report.md").read_text()
    assert "- command: `igm benchmark decomposition" in page and str(tmp_path.parent) not in page
    provenance = json.loads((tmp_path / "summary.json").read_text())["provenance"]
    assert {"command", "machine", "versions", "seed", "device"} <= set(provenance)


def test_a_report_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--set points=K2-n4-D64 --set problems=2 --device cpu"
    arguments = ["-o", str(tmp_path), *options.split(), "--methods"]
    arguments = [*["benchmark", "decomposition", "--splits", "points"], *arguments]
    assert main([*arguments, "exhaustive"]) == 0
    shown = capsys.readouterr()
    assert "K2-n4-D64" in shown.out and "all right" in shown.out
    assert f"files of the report in {tmp_path}" in shown.err.replace("\n", "") and "records of" not in shown.err
    assert main([*arguments, "auto"]) == 0
    shown = capsys.readouterr()
    assert f"{tmp_path} holds records of exhaustive, too; name them with --methods" in shown.err.replace(
        "\n", ""
    )
    assert "exhaustive" not in (tmp_path / "report.md").read_text().partition("- command")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("objectdiscovery",), 5, "did you mean object-discovery"),
        (("object-discovery", "--methods", "slot-atention"), 2, "did you mean slot-attention"),
        (("attributes", "--methods", "gc-varient"), 2, "did you mean gc-variant"),
        (("object-discovery", "--methods", ","), 2, "no method named"),
        (("object-discovery", "--splits", "colour"), 2, "did you mean color"),
        (("object-discovery", "--set", "sgd-steps=1"), 2, "did you mean sgd_steps"),
        (("object-discovery", "--set", "sgd_steps=many"), 2, "whole number"),
        (("object-discovery", "--limit", "0"), 2, "limit"),
        (("object-discovery", "--train-budget", "soon"), 2, "20m or 4000steps"),
        (("object-discovery", "--train-budget", "0m"), 2, "is above 0"),
        (("object-discovery", "--splits", "folder"), 3, "needs --data-root"),
        (("object-discovery", "--data-root", "."), 3, "scenes/CLEVR_val_scenes.json"),
        (("object-discovery", "--device", "cuda:7"), 3, "is not here"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *arguments, "-o", str(tmp_path / "run")]) == code
    told = capsys.readouterr()
    assert says in one_sentence(told.err)
    assert told.out == ""
    assert not (tmp_path / "run" / "records.jsonl").exists()


@pytest.mark.slow
def test_every_method_failing_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = CASES["object-discovery"].request(tmp_path)
    arguments = ["--model", request.model, "--data-root", request.data_root, "-o", tmp_path / "run"]
    options = ["--methods", "dinosaur", "--limit", "1", "--device", "cpu", "--json", "--train-budget", "1steps"]
    code = main(["benchmark", "object-discovery", *map(str, arguments), "--splits", "folder", *options])
    told = capsys.readouterr()
    assert code == 3, told.err
    assert "--set dino=FOLDER" in json.loads(told.out)["failed"]["dinosaur"]
    assert "| dinosaur | failed the weights" in " ".join((tmp_path / "run" / "report.md").read_text().split())


class Few:
    """A suite of four items whose only method runs on the first ``few`` of them, and whose loading is counted."""

    name, identity = "few", MappingProxyType({})

    def __init__(self) -> None:
        self.loaded, self.few = 0, 2

    def open(self, request: Request) -> Few:
        self.few = request.options.get("few", 2)
        return self

    def items(self, split: str) -> list[str]:
        return ["a", "b", "c", "d"]

    def method(self, name: str) -> Method:
        self.loaded += 1
        return Method(lambda split, item: [{"label": name}], {"size": 1}, self.few)

    def report(self, records: Sequence[Record], infos: Infos) -> Report:
        return Report([], summary={"items": [record["item"] for record in records], "methods": infos})


def test_a_method_with_a_limit_is_done_when_it_ran_on_so_many(tmp_path: Path) -> None:
    suite, out = Few(), tmp_path / "run"

    def run(**options: Any) -> dict[str, Any]:
        request = replace(CASES["decomposition"].request(tmp_path), splits=("all",), options=options)
        run_benchmark(suite, ["one"], request, out, Output(as_json=True))  # type: ignore[arg-type]
        return summary_of(out)

    first = run()
    assert first == {"items": ["a", "b"], "methods": {"one": {"size": 1}}} and suite.loaded == 1
    assert run() == first and suite.loaded == 1  # nothing to do, so it is not loaded
    assert run(few=3)["items"] == ["a", "b", "c"] and suite.loaded == 2
    (out / "methods.json").write_text('{"one": {"size": 1}}')  # as igm wrote it before
    assert run(few=4)["items"] == ["a", "b", "c", "d"] and suite.loaded == 3


def test_a_model_in_the_hubs_cache_is_reported_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, folder = CASES["attributes"], tmp_path / "models--ana--faces" / "snapshots" / "0123abc"
    folder.parent.mkdir(parents=True)
    request = case.request(tmp_path)
    shutil.move(request.model, folder)
    request = replace(request, model=folder, splits=case.splits[:1], limit=1)
    run_benchmark(find_suite("attributes"), ["igm"], request, tmp_path / "run", Output(as_json=True))
    assert json.loads(capsys.readouterr().out)["methods"]["igm"]["checkpoint"] == "ana/faces"
    written = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert written["provenance"]["checkpoint"] == "ana/faces"


def test_suites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--json"]) == 0
    found = {suite["name"]: suite for suite in map(json.loads, capsys.readouterr().out.splitlines())}
    assert set(CASES) <= set(found)
    assert {suite["schema"] for suite in found.values()} == {"igm.benchmarks/1"}
    assert all(map(is_record, found.values()))
    assert main(["benchmark", "object-discovery", "--about", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["object-discovery"]
    assert main(["benchmark", "object-discovery", "--about"]) == 0
    told = capsys.readouterr().out
    assert "--set sgd_images=..." in told and "--methods igm-sgd" in told and "--splits folder-3-5" in told


def test_budgets() -> None:
    assert parse_budget("20m").minutes == parse_budget("20").minutes == parse_budget("20 minutes").minutes == 20
    assert parse_budget("1 min").minutes == 1
    assert parse_budget("4000steps").steps == parse_budget("4000 steps").steps == 4000
    for text in ("", "m", "steps", "-3m", "1.5steps"):
        with pytest.raises(UsageError):
            parse_budget(text)


def test_one_is_not_several(tmp_path: Path) -> None:
    class Full(Few):
        def method(self, name: str) -> Method:
            def rows(split: str, item: str) -> list[Row]:
                if item == "b":
                    raise OutputError("the disk is full")
                return []

            return Method(rows, {})

    request = replace(CASES["decomposition"].request(tmp_path), splits=("all",))
    with pytest.raises(OutputError, match=r"the disk is full; the folder keeps 1 record$"):
        run_benchmark(Full(), ["one"], request, tmp_path / "run", Output(as_json=True))  # type: ignore[arg-type]
    fitted = Fitted(torch.nn.Identity(), 0.1, 1, 1, 1.0, 0.5, {})
    assert [fitted.info(Budget(steps=n))["budget"] for n in (1, 2)] == ["1 step", "2 steps"]
    assert "validation error by learning rate" not in fitted.info(Budget(steps=1))  # nothing was tried
    assert "1 thread on 2 cores" in machine_note({**machine(torch.device("cpu")), "threads": 1, "cores": 2})


def test_folders_among_options_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(name: str, weights: bytes) -> Path:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_bytes(bytes(5000) + weights)
        return tmp_path / name

    first = option_identity(folder("a/resnet", b"1"))
    assert first.startswith("resnet-")
    assert first == option_identity(folder("b/resnet", b"1")) != option_identity(folder("c/resnet", b"2"))
    assert option_identity(tmp_path / "a/resnet/model.safetensors") == "model.safetensors"
    many = "word," * 100
    for value in ("hf:a/resnet-50", "7", "", many):
        assert option_identity(value) == value
    monkeypatch.setenv("HOME", str(tmp_path))
    assert option_identity("~/a/resnet") == first


def kept(size: tuple[int, int], given: dict[str, str], dataset: str = "clevr", baseline: Any = None) -> Path:
    """Returns the cache folder of a trained baseline."""
    request = SimpleNamespace(seed=0, cache=Path(), range_option=given)
    bench: Any = SimpleNamespace(request=request, image_size=size, dataset=dataset)
    data: Any = TrainingData({}, list)  # type: ignore[arg-type]
    return CheckpointBench.folder_of(bench, baseline or SlotAttentionSet(size), data, 0, Budget(steps=1))


@pytest.mark.parametrize(
    "starting",
    [
        lambda folder: ResNetSet((16, 16), weights=folder),
        lambda folder: ResNetFactors(Categorical({"one": ("a", "b")}), weights=folder),
        lambda folder: DinosaurSet((16, 16), dino=folder),
    ],
)
def test_baselines_that_start_from_other_weights_are_others(
    starting: Callable[[str], Any], tmp_path: Path
) -> None:
    def started(folder: str, weights: bytes) -> Path:
        (tmp_path / folder / "net").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "net/model.safetensors").write_bytes(weights)
        return kept((16, 16), {}, baseline=starting(str(tmp_path / folder / "net")))

    first = started("here", b"1")
    assert first == started("moved", b"1") != started("here", b"2")


def test_baselines_that_saw_other_images_are_others() -> None:
    first = kept((16, 16), {})
    assert first == kept((16, 16), {})
    assert (
        len({first, kept((32, 16), {}), kept((16, 16), {"range": "0,4095"}), kept((16, 16), {}, "animals")})
        == 4
    )


def test_percentages_have_one_form() -> None:
    held = {"values": 4, "confidence": 0.95, "accuracy": 1.0, "error": 0.05}
    assert calibration_rows({"all": {"igm": held}}) == [["all", "igm", "4", "95.0 %", "100.0 %", "5.0 %"]]
    assert percent(rate([1, 0], [1, 1])).startswith("50.0 % [")


def test_seconds_include_the_work_started_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: order.append(str(device)))
    monkeypatch.setattr(time, "perf_counter", lambda: order.append("clock") or float(len(order)))
    found, (seconds, _) = timed(lambda: order.append("run") or 7, torch.device("cuda:0"))
    assert order == ["cuda:0", "clock", "run", "cuda:0", "clock"] and (found, seconds) == (7, 3)


# Estimates


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=2, max_size=20))
def test_intervals_hold_their_rate(pairs: list[tuple[int, int]]) -> None:
    trials = [n for _, n in pairs]
    hits = [min(hits, n) for hits, n in pairs]
    for estimate in (rate(hits, trials), ratio(hits, trials), clustered_rate(hits, trials)):
        assert 0 <= estimate.low <= estimate.value + 1e-9 and estimate.value - 1e-9 <= estimate.high
    assert rate(hits, trials).high <= 1 and clustered_rate(hits, trials).high <= 1
    assert clustered_rate(hits, trials).high > clustered_rate(hits, trials).low
    if sum(hits) in (0, sum(trials)):
        assert rate(hits, trials).high > rate(hits, trials).low


def test_bootstrap_intervals_repeat() -> None:
    found = ratio([3, 4, 2, 5, 5] * 20, [3, 4, 4, 5, 6] * 20)
    assert found.value == pytest.approx(19 / 22)
    assert found.low < found.value < found.high and found.high - found.low < 0.15
    assert found == ratio([3, 4, 2, 5, 5] * 20, [3, 4, 4, 5, 6] * 20)
    alone = mean([7])
    assert alone.value == 7 and math.isnan(alone.low) and math.isnan(alone.high)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (8, 1, 2 * (1 + 9) / 512), (3, 3, 1), (200, 0, 2.0**-199)],
)
def test_mcnemars_exact_p(first: int, second: int, p: float) -> None:
    assert Paired(0, 0, first, second).p == pytest.approx(p) == Paired(0, 0, second, first).p
    pairs = [(True, False)] * first + [(False, True)] * second + [(True, True)] * 3
    assert Paired.of(pairs) == (first + second + 3, 3, first, second)
