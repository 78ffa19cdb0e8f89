"""Properties of every built-in benchmark suite, end to end on tiny models."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_cases import CASES, Run, records_of, without_times, work

from igm_cli.benchmarks.suite import find_suite
from igm_cli.commands.benchmark_run import run_benchmark
from igm_cli.errors import IgmError, InputError, UsageError
from igm_cli.output import Output

COSTLY = ("attributes", "composition", "cost", "object-discovery", "objects", "zero-shot")
"""Suites whose methods take seconds to prepare: what all suites share is tried on these among the slow tests."""
EVERY = [pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY)) for name in CASES]


@pytest.fixture(params=CASES)
def run(request: pytest.FixtureRequest, finished: Callable[[str], Run]) -> Run:
    return finished(request.param)


def test_methods_answer_every_item_within_their_limit(run: Run) -> None:
    bench = run.opened()
    records = records_of(run.out)
    for split in run.case.splits:
        items = list(bench.items(split))
        assert len(items) > 0 and (run.case.limit is None or len(items) <= run.case.limit)
        for method in run.case.methods:
            told = [r["item"] for r in records if (r["method"], r["split"]) == (method, split)]
            assert told == items[: len(told)] and told, (method, split)
    assert all(isinstance(row["label"], str) for record in records for row in record["rows"])
    assert {record["schema"] for record in records} == {"igm.benchmark-record/1"}


def test_a_run_leaves_its_report(run: Run) -> None:
    whole = json.loads((run.out / "summary.json").read_text())
    assert whole["schema"] == "igm.benchmark-summary/1" and whole["provenance"]["suite"] == run.name
    page = (run.out / "report.md").read_text(encoding="utf-8")
    for method in run.case.methods:
        assert f"| {method}" in page
    assert str(run.out.parent) not in page.replace(whole["provenance"]["command"], "")
    for name in run.case.files:
        assert (run.out / name).stat().st_size > 1000
    assert set(json.loads((run.out / "methods.json").read_text())) == set(run.case.methods)


def test_every_number_is_in_the_results(run: Run) -> None:
    if not (path := run.out / "results.csv").exists():
        assert list(run.out.glob("cost-*.csv"))  # which has a file per axis instead
        return
    with path.open(newline="", encoding="utf-8") as file:
        lines = {tuple(line[key] for key in list(line)[:-4]): line for line in csv.DictReader(file)}
    page = (run.out / "report.md").read_text(encoding="utf-8")
    heads = {line["column of the report"] for line in lines.values()} - {""}
    assert heads and all(f" {head} " in page for head in heads)
    found = 0
    for split, parts in run.summary["splits"].items():
        for first, scores in parts.items():
            inner = scores if isinstance(next(iter(scores.values())), dict) else {None: scores}
            for second, numbers in inner.items():
                count = str(numbers.get("images", numbers.get("problems")))
                for name, number in numbers.items():
                    key = (split, first, *([second] if second else []), count, name)
                    if name not in ("images", "problems"):
                        value = number[0] if isinstance(number, list) else number
                        expected = math.nan if value is None else value  # JSON has no nan
                        assert float(lines[key]["value"]) == pytest.approx(expected, nan_ok=True)
                        found += 1
    assert found == len(lines)


def test_intervals_hold_their_number(run: Run) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                check(inner)
        elif isinstance(value, list) and len(value) == 3 and all(isinstance(v, float) for v in value):
            assert value[1] - 1e-9 <= value[0] <= value[2] + 1e-9

    check(run.summary.get("splits", {}))


@pytest.mark.parametrize("run", EVERY, indirect=True)
def test_a_run_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"  # others read the run itself
    shutil.copytree(run.out, out)
    path = out / "records.jsonl"
    before, lines = records_of(run.out), path.read_bytes().splitlines(keepends=True)
    kept = len(lines) - 1
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][:-20])  # a line cut short
    summary = work(run.name, run.request, out)
    assert records_of(out)[:kept] == before[:kept]  # not measured again
    assert without_times(records_of(out)) == without_times(before)
    assert set(summary) == set(run.summary)


def test_another_configuration_is_refused(run: Run) -> None:
    name, value = run.case.other
    other = replace(run.request, options={**run.request.options, name: value})
    with pytest.raises(InputError, match=name):
        work(run.name, other, run.out)
    with pytest.raises(InputError, match="seed = 0, not 1"):
        work(run.name, replace(run.request, seed=1), run.out)


@pytest.mark.parametrize("run", EVERY, indirect=True)
def test_a_method_that_fails_takes_no_other_down(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = run.case.methods[:2]
    suite = find_suite(run.name)

    class Broken:
        name, open = suite.name, staticmethod(lambda request: broken(suite.open(request), first))

    split = run.case.splits[0]
    request = replace(run.request, splits=(split,), limit=1)
    run_benchmark(Broken, (first, second), request, tmp_path, Output(as_json=True))  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert f"{first} failed, the others go on: no room" in told.err
    answer = json.loads(told.out)
    assert answer["failed"] == {first: "no room"} and answer["suite"] == run.name
    assert {record["method"] for record in records_of(tmp_path)} == {second}
    report = suite.open(request).report(records_of(tmp_path), {first: {"failed": "no room"}, second: {}})
    assert all(len(row) == len(table.columns) for table in report.tables for row in table.rows)
    if any(cell == first for table in report.tables for row in table.rows for cell in row):
        assert any({first, "failed"} <= set(row) for table in report.tables for row in table.rows)


def broken(bench: Any, name: str) -> Any:
    """Lets one method of an opened suite fail."""
    whole = bench.method

    def method(asked: str) -> Any:
        if asked == name:
            raise IgmError("no room")
        return whole(asked)

    bench.method = method
    return bench


def test_declarations_are_complete(run: Run) -> None:
    suite = find_suite(run.name)
    assert suite.name == run.name and suite.summary
    assert set(run.case.methods) <= set(suite.methods) and set(run.case.splits) <= set(suite.splits)
    assert set(run.case.options) <= set(suite.options) and run.case.other[0] in suite.options
    for lines in (suite.methods, suite.splits, suite.options):
        assert all(isinstance(line, str) and line for line in lines.values())
    for root in (None, Path()):
        assert set(suite.default_splits(root)) <= set(suite.splits)
    published = {name.removeprefix("folder-") for name in suite.published}  # type: ignore[attr-defined]
    assert published <= {
        name.removeprefix("folder-").rpartition("-")[0] or name for name in suite.splits
    } | set(suite.splits)


def test_whole_numbers_are_no_less_than_they_may(run: Run) -> None:
    words = find_suite(run.name).words  # type: ignore[attr-defined]
    least, most = words.get("least", {}), words.get("most", {})
    assert find_suite(run.name).options.keys() >= {*words["numbers"], *least, *most}
    for name in {*words["numbers"], *least, *most}:
        low, high = least.get(name, 1), most.get(name, 10**9)
        for wrong in (low - 1, low + 0.5, "few", True, high + 1):
            with pytest.raises(UsageError, match=f"--set {name} takes a whole number of {low} to {high}, not"):
                run.opened(options={**run.request.options, name: wrong})
