"""``igm benchmark decomposition``: points, schemes of restarts, and the figures of its report, on tiny problems."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.suite import Plot, Request
from igm_cli.benchmarks.suites.decomposition.figures import paired, races, score
from igm_cli.benchmarks.suites.decomposition.methods import Solver, problems_of, schemes
from igm_cli.benchmarks.suites.decomposition.points import DEMANDED, OWN, POINTS, SPLITS, Options, Point
from igm_cli.benchmarks.suites.decomposition.report import build
from igm_cli.benchmarks.suites.decomposition.settings import (
    AUTO,
    COUPLED,
    DYNAMICS,
    EXHAUSTIVE,
    METHODS,
    RESONATOR,
)
from igm_cli.commands.benchmark_run import run_benchmark
from igm_cli.commands.models import find_model
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.decompose import ITERATIVE, decompose
from igm_cli.core.decomposition.exhaustive import exhaustive_operations
from igm_cli.errors import IgmError, UsageError
from igm_cli.output import Output
from igm_cli.plugins import registry

SUITE = "igm_cli.benchmarks.suites.decomposition.suite:DecompositionBenchmark"
CPU = torch.device("cpu")
EASY, NOISY = "K3-n6-D200", "hrr-K2-n6-D128-noise0.5"
SMALL = {"problems": 4, "iterations": 20, "points": f"{EASY},{NOISY}"}
MACHINE = {"device": "cpu", "processor": "any", "cores": 1, "threads": 1, "torch": "any"}


def request_of(*splits: str, **changes: Any) -> Request:
    request = Request(splits, None, None, Budget(steps=1), 0, CPU, Path(), Path("cache"), SMALL)
    return replace(request, **changes)


def work(request: Request, out: Path, *methods: str) -> dict[str, Any]:
    run_benchmark(registry.suite(SUITE), methods, request, out, Output(as_json=True))
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())["summary"]
    return summary


# Points


HUNDREDTHS = st.integers(1, 100).map(lambda n: n / 100)


@settings(max_examples=50)
@given(
    st.integers(2, 9), st.integers(2, 999), st.integers(1, 9999), st.just(0.0) | HUNDREDTHS,
    st.sampled_from(["map", "hrr", "fhrr"]), st.none() | st.tuples(HUNDREDTHS, st.integers(0, 99)),
    st.none() | st.integers(1, 999),
)  # fmt: skip
def test_names_of_points_are_read_back(
    factors: int,
    codewords: int,
    dim: int,
    noise: float,
    binding: str,
    scheme: tuple[float, int] | None,
    steps: int | None,
) -> None:
    point = Point(factors, codewords, dim, noise, binding, *(scheme or (None, None)), steps)
    assert Point.parse(point.name) == point
    assert point.problem.coupled_only is False
    assert point.coupled_only == (scheme is not None or steps is not None)


def test_points_of_all_splits() -> None:
    suite = registry.suite("decomposition")
    assert suite.name == "decomposition" and set(suite.splits) == {*POINTS, OWN}
    assert set(suite.default_splits(None)) == set(POINTS)
    found = Options().of_splits(POINTS)
    assert all(len(found[split]) == len(points) for split, points in POINTS.items())  # no name twice
    assert set(found["targets"]) == set(DEMANDED)
    assert max(point.search_space for point in POINTS["targets"]) == 10**8
    assert {point.factors for point in POINTS["size"]} == {2, 3, 4}
    assert all(
        point.coupled_only == (split in ("restarts", "steps")) for split in POINTS for point in POINTS[split]
    )


@pytest.mark.parametrize(
    ("options", "splits", "says"),
    [
        ({"problems": 0}, ("size",), "whole number of at least 1"),
        ({"precision": "float8"}, ("size",), "float32 or bfloat16"),
        ({"points": "K3-n5"}, (OWN,), "names no point"),
        ({"points": "vtb-K3-n5-D9"}, (OWN,), "unknown binding 'vtb'"),
        ({"points": "K1-n5-D9"}, (OWN,), "at least 2"),
        ({"points": "K3-n5-D9-rho1.5-R2"}, (OWN,), "at most 1"),
        ({}, (OWN,), "go together"),
        ({"points": EASY}, ("size",), "go together"),
        ({}, ("sizes",), "no split 'sizes'"),
    ],
)
def test_wrong_options(options: dict[str, Any], splits: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        registry.suite(SUITE).open(request_of(*splits, options=options))


def test_no_data_and_no_model_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out the data root"):
        registry.suite(SUITE).open(request_of("size", data_root=tmp_path))
    assert find_model(None, registry.suite(SUITE).concepts) == Path()
    with pytest.raises(UsageError, match="leave out --model"):
        find_model("clevr-pos", registry.suite(SUITE).concepts)
    with pytest.raises(UsageError, match="no method 'magic'"):
        registry.suite(SUITE).open(request_of("size", options={})).method("magic")


# Methods


def test_settings_are_what_users_get() -> None:
    assert {name: DYNAMICS[name] for name in ITERATIVE} == {name: make() for name, make in ITERATIVE.items()}
    assert set(METHODS) == {AUTO, EXHAUSTIVE, *DYNAMICS}
    variants = {name: d for name, d in DYNAMICS.items() if isinstance(d, CoupledDiffusion) and name != COUPLED}
    assert all(name == f"coupled-{d.energy}-{d.space}" for name, d in variants.items()) and len(variants) == 4


@pytest.mark.parametrize(("ratio", "restarts"), [(0.2, 3), (0.5, 0), (0.35, 10), (1.0, 2), (0.01, 4)])
def test_iterations_hold_so_many_restarts(ratio: float, restarts: int) -> None:
    point = Point(3, 5, 64, ratio=ratio, restarts=restarts, steps=7)
    ((_, method, iterations),) = schemes("coupled-gauss-latent", point, 100)
    assert isinstance(method, CoupledDiffusion) and (method.ratio, method.steps) == (ratio, 7)
    begun = [number for number in range(iterations + 1) if method.restarts(number)]
    assert len(begun) == restarts + 1 and begun[-1] == iterations  # the next one would be too many


def test_who_runs_where() -> None:
    steps = Point(3, 5, 64, steps=30)
    labels = {label: iterations for label, _, iterations in schemes("coupled-gauss-latent", steps, 20)}
    assert labels == {"coupled-gauss-latent, one pass": 30, "coupled-gauss-latent, restarts": 30}
    assert [schemes(name, steps, 20) for name in (AUTO, RESONATOR, EXHAUSTIVE)] == [[], [], []]
    assert schemes(COUPLED, steps, 20) == []  # one of the variants, which are shown
    assert schemes(COUPLED, steps.problem, 20) == [(COUPLED, DYNAMICS[COUPLED], 20)]


def test_rows_are_of_the_same_problems() -> None:
    point, options = Point.parse(EASY), Options(problems=5, iterations=3)
    problems = problems_of(point, 5, seed=3)
    for name in ("factorizer", EXHAUSTIVE, AUTO):
        (row,) = Solver(name, {OWN: {EASY: point}}, options, 3, CPU)(OWN, EASY)
        method = DYNAMICS.get(name, name)
        found = decompose(problems.vectors, problems.codebooks, method, iterations=3, seed=4)
        assert row["right"] == (found.indices == problems.truth).sum(1).tolist()
        assert row["iterations"] == found.iterations.tolist()
        assert row["operations"] == found.operations.tolist()
        assert (row["problems"], row["share"], row["search_space"]) == (5, 1, 216)
        assert (
            row["seconds"] > 0
            and row["exhaustive"] == exhaustive_operations(problems.codebooks) == 2 * 216 * 200
        )
        if name != "factorizer":
            assert row["right"] == [3] * 5


@pytest.mark.parametrize("name", [EASY, NOISY])
def test_a_part_of_exhaustive_search_has_no_accuracy(name: str) -> None:
    point = Point.parse(name)
    (row,) = Solver(EXHAUSTIVE, {OWN: {name: point}}, Options(problems=2, exhaustive_gflop=0), 0, CPU)(
        OWN, name
    )
    assert row["share"] == pytest.approx(2 / 6) and row["right"] is None
    assert row["operations"] == pytest.approx([row["exhaustive"]] * 2)
    report = build([record(row)], {}, Options(), MACHINE)
    (cells,) = next(table for table in report.tables if table.name == f"table-{OWN}").rows
    assert "(from 33 %)" in cells[8] and cells[3] == ""


def test_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = work(request_of(OWN), out, AUTO, COUPLED, RESONATOR, EXHAUSTIVE)
    easy = summary["splits"][OWN][EASY]
    assert set(easy) == {AUTO, COUPLED, RESONATOR, EXHAUSTIVE} and easy[AUTO]["exact"][0] == 1
    assert summary["auto"][OWN][EASY]["exact"] == 1 and summary["auto"][OWN][EASY]["arithmetic"] <= 1
    assert summary["coupled_and_resonator"][OWN][EASY]["problems"] == 4
    page = (out / "report.md").read_text()
    assert "guidance" in page and "checkpoint" not in page and EASY in page
    assert len((out / "results.csv").read_text().splitlines()) > 2 * 4 * 5
    before = (out / "records.jsonl").read_bytes()
    more = {**SMALL, "points": f"{EASY},{NOISY},K2-n4-D64"}
    assert "K2-n4-D64" in work(request_of(OWN, options=more), out, AUTO)["splits"][OWN]
    assert (out / "records.jsonl").read_bytes().startswith(before)
    assert registry.suite(SUITE).open(request_of("size", limit=3, options={})).items("size") == [
        point.name for point in POINTS["size"][:3]
    ]
    with pytest.raises(IgmError, match="problems"):
        work(request_of(OWN, options={**SMALL, "problems": 3}), out, AUTO)


# Figures of known rows


def row(label: str, right: list[int] | None, seconds: float = 1.0, **more: Any) -> dict[str, Any]:
    point = Point.parse(more.pop("point", "K3-n100-D1000"))
    told = {
        "label": label,
        **vars(point),
        "point": point.name,
        "search_space": point.search_space,
        "limit": 100,
    }
    count = len(right or [3, 3])
    cost = {"iterations": [2] * count, "operations": [4e8] * count, "exhaustive": 2e9, "cpu_seconds": seconds}
    sure = None if right is None else [1] * count
    return {
        **told,
        **cost,
        "problems": count,
        "share": 1,
        "right": right,
        "sure": sure,
        "seconds": seconds,
        **more,
    }


def record(*rows: dict[str, Any], split: str = OWN) -> dict[str, Any]:
    return {"method": "any", "split": split, "item": rows[0]["point"], "rows": list(rows)}


def test_scores_of_known_rows() -> None:
    found = score(row("any", [3, 3, 2, 0], sure=[1, 0, 1, 0]))
    assert found.exact and found.right and found.astray
    assert (found.exact.value, found.right.value, found.astray.value) == pytest.approx((0.5, 8 / 12, 0.25))
    assert found.exact.to_list() == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)  # Wilson's, of two of four
    assert (found.iterations.value, found.operations.value) == (2, 4e8)


def test_auto_races_the_fastest_that_is_as_accurate() -> None:
    ours = row(AUTO, [3, 3, 3, 3], 2.0)
    quick, good, slow = row("quick", [3, 3, 3, 2], 0.1), row("good", [3] * 4, 3.0), row("slow", [3] * 4, 9.0)

    def race(*others: dict[str, Any], mine: dict[str, Any] = ours) -> Any:
        (found,) = races([score(each) for each in (mine, *others)])
        return found

    found = race(quick, slow, good)
    assert found.best.label == "good" and found.met and found.arithmetic == pytest.approx(0.2)
    assert race(quick, row(EXHAUSTIVE, None, 1.0)).best.label == EXHAUSTIVE
    assert not race(row(EXHAUSTIVE, None, 1.0)).met
    assert race(row("level", [3] * 4, 1.95)).met  # repeats of one call differ by as much
    assert race(quick).best is None and race(quick).met
    assert not race(mine=row(AUTO, [3, 3, 3, 2])).met
    assert not race(
        mine=row(AUTO, [4] * 4, point="K4-n100-D2000")
    ).met  # a fifth of the arithmetic, not a tenth
    assert race(mine=row(AUTO, [3, 0, 0, 0], point="K3-n20-D1000")).met  # of which nothing is demanded


def test_coupled_and_resonator_are_paired() -> None:
    rows = [
        row(COUPLED, [3, 3, 3, 0, 1]),
        row(RESONATOR, [3, 0, 0, 3, 2]),
        row(COUPLED, [2], point="K2-n4-D64"),
    ]
    (found,) = paired([score(each) for each in rows], COUPLED, RESONATOR)
    assert (found.point, found.problems, found.both, found.first, found.second) == ("K3-n100-D1000", 5, 1, 2, 1)
    assert found.p == 1


def plots_of(*records: dict[str, Any]) -> dict[str, Plot]:
    figures = build(records, {}, Options(), MACHINE).figures
    return {figure.name: figure for figure in figures if isinstance(figure, Plot)}


def test_plots_over_what_a_split_varies() -> None:
    size = [record(row("a", [3, n % 3], point=f"K3-n{n}-D1000"), split="size") for n in (30, 20)]
    size.append(record(row(EXHAUSTIVE, None, 5.0, point="K3-n30-D1000"), split="size"))
    size.append(record(row("a", [2, 2], point="K2-n50-D1000"), split="size"))
    plots = plots_of(*size)
    assert set(plots) == {
        f"size-K{k}-{q}" for k in (2, 3) for q in ("exact", "factors", "seconds", "operations")
    }
    accuracy, seconds = plots["size-K3-exact"], plots["size-K3-seconds"]
    assert accuracy.log_x and [tuple(curve.x) for curve in accuracy.curves] == [(8000, 27000)]
    assert list(accuracy.curves[0].y) == [0.5, 0.5] and len(accuracy.curves[0].low) == 2
    assert seconds.log_y and list(seconds.curves[1].y) == [5.0] and not seconds.curves[1].low

    schemes = [row("a", [3, 3], point=f"K3-n40-D1000-rho{rho}-R{r}") for rho in (0.2, 0.5) for r in (0, 10)]
    (plot,) = plots_of(*(record(each, split="restarts") for each in schemes)).values()
    assert [(curve.label, tuple(curve.x)) for curve in plot.curves] == [
        ("ρ = 0.2", (0, 10)),
        ("ρ = 0.5", (0, 10)),
    ]
    assert plots_of(record(row("a", [3, 3]), split="targets")) == {}


def test_report_of_nothing_and_of_failures() -> None:
    assert [table.name for table in build([], {}, Options(), MACHINE).tables] == ["methods"]
    report = build([record(row("a", [3, 3], math.pi))], {"b": {"failed": "no room"}}, Options(), MACHINE)
    assert all(len(cells) == len(table.columns) for table in report.tables for cells in table.rows)
    details = next(table for table in report.tables if table.name == f"table-{OWN}")
    assert [cells[2:4] for cells in details.rows] == [["a", "100.0 % [34.2, 100.0]"], ["b", "failed"]]
    assert "3.14 s" in details.rows[0] and details.title == SPLITS[OWN][0].upper() + SPLITS[OWN][1:]
    json.dumps(report.summary)
