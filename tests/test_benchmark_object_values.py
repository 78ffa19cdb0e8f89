"""Objects with values in ``igm benchmark object-discovery``: figures by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from benchmark_cases import CASES

from igm_cli.benchmarks.suite import find_suite
from igm_cli.benchmarks.suites.object_values import precision, value_metrics

A, B, C = [0.2, 0.2], [0.8, 0.2], [0.5, 0.8]


def row(
    truth: list[Any], free: list[Any], certainty: list[float], given: list[Any] | None = None
) -> dict[str, Any]:
    """A row of objects ``(point, values)``."""
    parts = {"truth": truth, "free": free, "given": truth if given is None else given}
    return {
        **{name: [point for point, _ in part] for name, part in parts.items()},
        "values": {name: [list(values) for _, values in part] for name, part in parts.items()},
        "factors": ["color", "shape"],
        "certainty": certainty,
    }


def test_objects_and_scenes_are_right_in_all_values() -> None:
    rows = [
        row([(A, (0, 1)), (B, (2, 0))], [(B, (2, 0)), (A, (0, 1))], [0.9, 0.8], [(A, (0, 1)), (B, (1, 0))]),
        row([(C, (1, 1))], [(C, (1, 1)), (A, (0, 0))], [0.9, 0.8]),  # one too many
        row([(C, (1, 1))], [(C, (1, 0))], [0.9], [([0.6, 0.8], (1, 1))]),  # a wrong shape; given, too far off
    ]
    found = value_metrics(rows)
    assert found["described"].value == pytest.approx(2 / 4)
    assert found["color right"].value == pytest.approx(2 / 4)
    assert found["shape right"].value == pytest.approx(3 / 4)
    assert found["scene right"].value == pytest.approx(1 / 3)
    assert value_metrics([{"truth": [A], "given": [A], "free": None}]) == {}


def test_average_precision_ranks_answers_of_all_images() -> None:
    near = [0.2 + 0.3 / 6, 0.2]  # 0.3 sixths away
    rows = [
        row([(A, (0, 0)), (B, (1, 1))], [(near, (0, 0)), (A, (0, 0)), (B, (1, 0))], [0.9, 0.7, 0.8]),
        row([(C, (0, 1))], [(C, (0, 1))], [0.6]),
    ]
    # By certainty: right (an object has it), wrong values, taken already, right; of three objects.
    assert precision(rows, math.inf).value == pytest.approx((1 + 2 / 4) / 3)
    assert precision(rows, 0.5).value == pytest.approx((1 + 2 / 4) / 3)
    # Too far off now, so that the second answer at the same object is right: places 3 and 4, precision made to fall.
    assert precision(rows, 0.25).value == pytest.approx((2 / 4 + 2 / 4) / 3)
    perfect = [row([(A, (0, 0))], [(A, (0, 0))], [0.5])]
    assert precision(perfect, 0.125).value == 1.0
    assert precision([row([(A, (0, 0))], [], [])], 1.0).value == 0.0


def test_methods_of_positions_alone_are_refused_for_such_models(tmp_path: Any) -> None:
    from benchmark_cases import write_model

    from igm_cli.core.checkpoint import ModelSpec
    from igm_cli.core.noise_schedule import ScheduleConfig
    from igm_cli.errors import InputError
    from igm_cli.plugins import registry

    options = {"factors": "shape=cube|sphere"}
    parser = registry.configured(registry.concept_parser("objects"), options)
    shape = {"channels": [8, 8, 8], "blocks": 1, "head_channels": 8, "head_layers": 1, "window": 3}
    spec = ModelSpec(
        architecture="factored",
        options={"image_size": [48, 32], "patch": 4, **shape},
        space=parser.space.to_dict(),
        schedule=ScheduleConfig().to_dict(),
        composition="sum",
        image_size=(48, 32),
        concepts="objects",
        concept_options=options,
        inference={"grid": [4, 4], "draws": 2, "max_draws": 2, "k_max": 3, "keep": 8, "refine_steps": 1},
    )
    case = CASES["object-discovery"]
    request = case.request(tmp_path, model=write_model(tmp_path / "objects", spec), limit=2)
    bench = find_suite("object-discovery").open(request)
    with pytest.raises(InputError, match="igm-sgd is of models of positions"):
        bench.method("igm-sgd")
    split = request.splits[0]
    method = bench.method("igm")
    records = [
        {"method": "igm", "split": split, "item": item, "rows": method(split, item)}
        for item in bench.items(split)[:2]
    ]
    report = bench.report(records, {"igm": method.info})
    assert any("all values right" in table.columns for table in report.tables)
    titles = [table.title for table in report.tables]
    assert any(title.startswith("Average precision") for title in titles)
