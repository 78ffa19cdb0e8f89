"""``igm benchmark decomposition``: points, schemes of restarts, and the figures of its report, on tiny problems."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_cases import CASES, EASY, NOISY, Run, recorded, records_of, work
from hypothesis import given, settings
from hypothesis import strategies as st

from igm_cli.benchmarks.suite import Plot, find_suite
from igm_cli.benchmarks.suites.decomposition import DYNAMICS, SUITE, problems_of, schemes
from igm_cli.benchmarks.suites.decomposition_points import (
    AUTO,
    COUPLED,
    DEMANDED,
    EXHAUSTIVE,
    OWN,
    POINTS,
    RESONATOR,
    Point,
)
from igm_cli.benchmarks.suites.decomposition_report import Score, build, paired, races
from igm_cli.bundled import find_model
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.decompose import ITERATIVE, decompose
from igm_cli.core.decomposition.exhaustive import exhaustive_operations
from igm_cli.errors import UsageError

CASE = CASES["decomposition"]


def opened(*splits: str, **changes: Any) -> Any:
    return find_suite("decomposition").open(CASE.request(Path(), splits=splits, **changes))


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
    suite = find_suite("decomposition")
    assert suite.name == "decomposition" and set(suite.splits) == {*POINTS, OWN}
    assert set(suite.default_splits(None)) == set(POINTS)
    bench = opened(*POINTS, options={}, limit=None)
    assert all(len(bench.items(split)) == len(points) for split, points in POINTS.items())  # no name twice
    assert set(bench.items("targets")) == set(DEMANDED)
    assert opened("size", limit=3, options={}).items("size") == [point.name for point in POINTS["size"][:3]]
    assert max(point.search_space for point in POINTS["targets"]) == 10**8
    assert {point.factors for point in POINTS["size"]} == {2, 3, 4}
    assert all(
        point.coupled_only == (split in ("restarts", "steps")) for split in POINTS for point in POINTS[split]
    )


@pytest.mark.parametrize(
    ("options", "splits", "says"),
    [
        ({"precision": "float8"}, ("size",), "float32 or bfloat16"),
        ({"points": "K3-n5"}, (OWN,), "names no point"),
        ({"points": "vtb-K3-n5-D9"}, (OWN,), "unknown binding 'vtb'"),
        ({"points": "K1-n5-D9"}, (OWN,), "at least 2"),
        ({"points": "K3-n5-D9-rho1.5-R2"}, (OWN,), "at most 1"),
        ({}, (OWN,), "go together"),
        ({"points": EASY}, ("size",), "go together"),
    ],
)
def test_wrong_options(options: dict[str, Any], splits: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        opened(*splits, options=options)


def test_no_data_and_no_model_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out --data-root"):
        opened("size", data_root=tmp_path)
    assert find_model(None, find_suite("decomposition").concepts) == Path()
    with pytest.raises(UsageError, match="leave out --model"):
        find_model("clevr-pos", find_suite("decomposition").concepts)


# Methods


def test_settings_are_what_users_get() -> None:
    assert {name: DYNAMICS[name] for name in ITERATIVE} == {name: make() for name, make in ITERATIVE.items()}
    assert set(SUITE.methods) == {AUTO, EXHAUSTIVE, *DYNAMICS}
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
    bench = opened(OWN, seed=3, options={"problems": 5, "iterations": 3, "points": EASY})
    problems = problems_of(Point.parse(EASY), 5, 3)
    for name in ("factorizer", EXHAUSTIVE, AUTO):
        (row,) = bench.method(name)(OWN, EASY)
        found = decompose(problems.vectors, problems.codebooks, DYNAMICS.get(name, name), iterations=3, seed=4)
        assert row["right"] == (found.indices == problems.truth).sum(1).tolist()
        assert row["iterations"] == found.iterations.tolist()
        assert row["operations"] == found.operations.tolist()
        assert (row["problems"], row["share"], row["search_space"]) == (5, 1, 216)
        assert row["seconds"] > 0
        assert row["exhaustive"] == exhaustive_operations(problems.codebooks) == 2 * 216 * 200
        if name != "factorizer":
            assert row["right"] == [3] * 5


@pytest.mark.parametrize("name", [EASY, NOISY])
def test_a_part_of_exhaustive_search_has_no_accuracy(name: str) -> None:
    # Arithmetic is counted in GFLOP: so many problems that no single product is within it.
    bench = opened(OWN, options={"problems": 2, "points": name})
    bench.numbers["exhaustive_gflop"] = 0
    (row,) = bench.method(EXHAUSTIVE)(OWN, name)
    assert row["share"] == pytest.approx(2 / 6) and row["right"] is None
    assert row["operations"] == pytest.approx([row["exhaustive"]] * 2)
    report = build([recorded(OWN, "", row)], {}, SUITE.splits)
    (cells,) = next(table for table in report.tables if table.name == f"table-{OWN}").rows
    assert "(from 33 %)" in cells[8] and cells[3] == ""


def test_end_to_end(run: Run, tmp_path: Path) -> None:
    easy = run.summary["splits"][OWN][EASY]
    assert set(easy) == {AUTO, COUPLED, RESONATOR, EXHAUSTIVE} and easy[AUTO]["exact"][0] == 1
    assert run.summary["auto"][OWN][EASY]["exact"] == 1 and run.summary["auto"][OWN][EASY]["arithmetic"] <= 1
    assert run.summary["coupled_and_resonator"][OWN][EASY]["problems"] == 4
    page = (run.out / "report.md").read_text()
    assert "guidance" in page and "checkpoint" not in page and EASY in page
    before = records_of(run.out)
    out = tmp_path / "run"
    shutil.copytree(run.out, out)
    options = {**CASE.options, "points": f"{EASY},{NOISY},K2-n4-D64"}
    wider = work("decomposition", replace(run.request, options=options, limit=None), out, (AUTO,))
    assert "K2-n4-D64" in wider["splits"][OWN]  # more points go into the same folder
    assert records_of(out)[: len(before)] == before


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


def test_scores_of_known_rows() -> None:
    found = Score(row("any", [3, 3, 2, 0], sure=[1, 0, 1, 0])).estimates
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx(
        {"exact": 0.5, "right": 8 / 12, "astray": 0.25, "iterations": 2, "operations": 4e8, "seconds": 1}
    )
    assert list(found["exact"]) == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)  # Wilson's, of two of four


def test_auto_races_the_fastest_that_is_as_accurate() -> None:
    ours = row(AUTO, [3, 3, 3, 3], 2.0)
    quick, good, slow = row("quick", [3, 3, 3, 2], 0.1), row("good", [3] * 4, 3.0), row("slow", [3] * 4, 9.0)

    def race(*others: dict[str, Any], mine: dict[str, Any] = ours) -> Any:
        (found,) = races([Score(each) for each in (mine, *others)]).values()
        return found

    found = race(quick, slow, good)
    assert found["fastest_as_accurate"] == "good" and found["met"] and found["arithmetic"] == pytest.approx(0.2)
    assert race(quick, row(EXHAUSTIVE, None, 1.0))["fastest_as_accurate"] == EXHAUSTIVE
    assert not race(row(EXHAUSTIVE, None, 1.0))["met"]
    assert race(row("level", [3] * 4, 1.95))["met"]  # repeats of one call differ by as much
    assert race(quick)["fastest_as_accurate"] is None and race(quick)["met"]
    assert not race(mine=row(AUTO, [3, 3, 3, 2]))["met"]
    assert not race(mine=row(AUTO, [4] * 4, point="K4-n100-D2000"))[
        "met"
    ]  # a fifth of the arithmetic, not a tenth
    assert race(mine=row(AUTO, [3, 0, 0, 0], point="K3-n20-D1000"))["met"]  # of which nothing is demanded


def test_coupled_and_resonator_are_paired() -> None:
    rows = [
        row(COUPLED, [3, 3, 3, 0, 1]),
        row(RESONATOR, [3, 0, 0, 3, 2]),
        row(COUPLED, [2], point="K2-n4-D64"),
    ]
    found = paired([Score(each) for each in rows], RESONATOR)
    assert found == {"K3-n100-D1000": (5, 1, 2, 1)}
    assert found["K3-n100-D1000"].p == 1


def test_coupled_stands_beside_every_rival_that_was_run() -> None:
    rows = [row(COUPLED, [3, 3, 0]), row("resonator-outer", [3, 0, 0]), row("factorizer", [3, 3, 3])]
    report = build([recorded("size", "", each) for each in rows], {}, SUITE.splits)
    (table,) = [table for table in report.tables if table.name == "coupled-and-rivals"]
    point = "K3-n100-D1000"
    assert [found[:7] for found in table.rows] == [
        ["size", point, "resonator-outer", "3", "1", "1", "0"],
        ["size", point, "factorizer", "3", "2", "0", "1"],
    ]
    assert report.summary["coupled_and_factorizer"]["size"][point]["second"] == 1


def plots_of(*records: dict[str, Any]) -> dict[str, Plot]:
    figures = build(records, {}, SUITE.splits).figures
    return {figure.name: figure for figure in figures if isinstance(figure, Plot)}


def test_plots_over_what_a_split_varies() -> None:
    size = [recorded("size", "", row("a", [3, n % 3], point=f"K3-n{n}-D1000")) for n in (30, 20)]
    size.append(recorded("size", "", row(EXHAUSTIVE, None, 5.0, point="K3-n30-D1000")))
    size.append(recorded("size", "", row("a", [2, 2], point="K2-n50-D1000")))
    plots = plots_of(*size)
    assert set(plots) == {
        f"size-K{k}-{q}" for k in (2, 3) for q in ("exact", "factors", "seconds", "operations")
    }
    accuracy, seconds = plots["size-K3-exact"], plots["size-K3-seconds"]
    assert accuracy.log_x and [tuple(curve.x) for curve in accuracy.curves] == [(8000, 27000)]
    assert list(accuracy.curves[0].y) == [0.5, 0.5] and len(accuracy.curves[0].low) == 2
    assert seconds.log_y and list(seconds.curves[1].y) == [5.0] and not seconds.curves[1].low

    schemes = [row("a", [3, 3], point=f"K3-n40-D1000-rho{rho}-R{r}") for rho in (0.2, 0.5) for r in (0, 10)]
    (plot,) = plots_of(*(recorded("restarts", "", each) for each in schemes)).values()
    assert [(curve.label, tuple(curve.x)) for curve in plot.curves] == [
        ("ρ = 0.2", (0, 10)),
        ("ρ = 0.5", (0, 10)),
    ]
    assert plots_of(recorded("targets", "", row("a", [3, 3]))) == {}


def test_report_of_nothing_and_of_failures() -> None:
    assert [table.name for table in build([], {}, SUITE.splits).tables] == ["methods"]
    report = build([recorded(OWN, "", row("a", [3, 3], math.pi))], {"b": {"failed": "no room"}}, SUITE.splits)
    assert all(len(cells) == len(table.columns) for table in report.tables for cells in table.rows)
    details = next(table for table in report.tables if table.name == f"table-{OWN}")
    assert [cells[2:4] for cells in details.rows] == [["a", "100.0 % [34.2, 100.0]"], ["b", "failed"]]
    assert "3.14 s" in details.rows[0] and details.title == SUITE.splits[OWN][0].upper() + SUITE.splits[OWN][1:]
    json.dumps(report.summary)
