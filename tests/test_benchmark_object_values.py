"""Objects with values in ``igm benchmark object-discovery``: figures by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_cases import CASES, valued_spec
from tiny_models import PLACES, write

from igm_cli.benchmarks.suite import find_suite
from igm_cli.benchmarks.suites import object_discovery
from igm_cli.benchmarks.suites.object_values import WorldPlaces, annotated, precision, value_metrics
from igm_cli.errors import InputError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame

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
    equal = [row([(A, (0, 0))], [(A, (0, value))], [0.7]) for value in (0, 1)]
    assert precision(equal, 1.0).value == precision(equal[::-1], 1.0).value == pytest.approx(0.5 / 2)


def test_places_in_the_world_are_told_by_the_camera() -> None:
    """A projective camera, before which small objects stand on the ground, and large ones higher up."""
    parser = registry.configured(registry.concept_parser("objects"), {"factors": "size=small|large"})
    camera = torch.tensor([[8, 4, 0, 48], [-3, 3, -8, 34], [0.02, 0.06, 0.03, 1]], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)

    def example(count: int) -> dict[str, Any]:
        things = []
        for large in torch.randint(2, (count,), generator=random).tolist():
            x, y = (torch.rand(2, generator=random, dtype=torch.float64) * 6 - 3).tolist()
            place = [x, y, 0.7 if large else 0.35]
            u, v, w = (camera @ torch.tensor([*place, 1.0], dtype=torch.float64)).tolist()
            things.append(
                {"pixel_coords": [u / w, v / w], "3d_coords": place, "size": ("small", "large")[large]}
            )
        return {"objects": things}

    frame = Frame.fit((96, 64), 1.5)
    world = WorldPlaces.fitted(parser, [(example(5), frame) for _ in range(200)])
    unseen = annotated(parser, example(50), frame)
    assert world and unseen and len(unseen[0]) > 40
    off = (world(unseen[0]) - unseen[1]).norm(dim=1)
    assert off.max() < 0.05 < (world(unseen[0].roll(1, 0)) - unseen[1]).norm(dim=1).median()
    assert world(unseen[0])[:, 2].sub(unseen[1][:, 2]).abs().max() < 1e-3
    assert WorldPlaces.fitted(parser, [(example(5), frame)]) is None  # too few
    lacking = {"objects": [{"pixel_coords": [3, 4], "size": "small"}]}
    assert (
        annotated(parser, lacking, frame) is None
        and WorldPlaces.fitted(parser, [(lacking, frame)] * 200) is None
    )


def test_precision_in_the_world_is_of_its_distances() -> None:
    near = row([(A, (0, 0))], [(A, (0, 0))], [0.5]) | {
        "world": {"free": [[0.2, 0, 0.7]], "truth": [[0, 0, 0.7]]}
    }
    assert [precision([near], t, "world").value for t in (0.25, 0.125)] == [1, 0] and precision(
        [near], 0.125
    ).value == 1
    found = value_metrics([near, near])
    assert (found["world precision 0.25"].value, found["world precision 0.125"].value) == (1, 0)
    assert "world precision 1" not in value_metrics([near, row([(A, (0, 0))], [(A, (0, 0))], [0.5])])
    none = row([(A, (0, 0))], [], []) | {"world": {"free": [], "truth": [[0, 0, 0.7]]}}
    assert precision([none], math.inf, "world").value == 0


def test_methods_of_positions_alone_are_refused_for_such_models(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_discovery, "WORLD", 40)
    monkeypatch.setattr(object_discovery, "RENDERED", 2)
    inference = {**PLACES, "draws": 2, "max_draws": 2}
    spec = valued_spec("objects", "size", ("small", "large"), inference, shape={"window": 3})
    case = CASES["object-discovery"]
    request = case.request(tmp_path, model=write(tmp_path / "objects", spec), limit=2)
    bench = find_suite("object-discovery").open(replace(request, data_root=None, splits=("3-5",)))
    with pytest.raises(InputError, match="igm-sgd is of models of positions"):
        bench.method("igm-sgd")
    method = bench.method("igm")
    records = [
        {"method": "igm", "split": "3-5", "item": item, "rows": method("3-5", item)}
        for item in bench.items("3-5")
    ]
    report = bench.report(records, {"igm": method.info})
    assert any("all values right" in table.columns for table in report.tables)
    titles = [table.title for table in report.tables]
    assert any(title.startswith("Average precision") for title in titles)
    assert all(np.isfinite(record["rows"][0]["world"]["truth"]).all() for record in records)
    [table] = [table for table in report.tables if table.title.startswith("Average precision")]
    assert [cells[1] for cells in table.rows[:2]] == ["igm, in the image", "igm, in the world"]
