"""``igm benchmark attributes``: what its methods cost, the axis of factors, and the numbers of its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_cases import CASES, PAPERS, Run, attribute_spec, recorded, records_of
from PIL import Image
from tiny_models import write

from igm_cli.benchmarks.report import score_table
from igm_cli.benchmarks.scores import agreement, by_label, calibration
from igm_cli.benchmarks.suite import Infos, PictureGrid, Plot, Report, find_suite
from igm_cli.benchmarks.suites.attribute_cost import COUNTS, ENUMERATE, LARGEST
from igm_cli.benchmarks.suites.attributes import FACTORS, READ_OUT, SAME_DRAWS, hits, values_of
from igm_cli.core.concepts import Categorical
from igm_cli.core.noise_schedule import draw
from igm_cli.errors import InputError, UsageError

CASE = CASES["attributes"]


@pytest.fixture(scope="module")
def folder(finished: Callable[[str], Run]) -> Path:
    """Where model and data are."""
    return finished("attributes").out.parent


def opened(folder: Path, *splits: str, **changes: Any) -> Any:
    changes = {"data_root": None, "limit": 2, "options": {}, **changes}
    return find_suite("attributes").open(CASE.request(folder, splits=splits, **changes))


def test_every_method_names_a_value_of_every_factor(run: Run) -> None:
    out, summary = run.out, run.summary
    for split in CASE.splits[:2]:
        told = {label: scores["images"] for label, scores in summary["splits"][split].items()}
        assert told == {**dict.fromkeys(CASE.methods, 3), "enumerate": 2, SAME_DRAWS: 2, "relax": 1}
        for scores in summary["splits"][split].values():
            assert {"all_right", *PAPERS, "seconds", "calls", "draws"} <= set(scores)
            assert scores["all_right"][0] <= min(scores[factor][0] for factor in PAPERS)
    records = [record for record in records_of(out) if record["split"] != FACTORS]
    for record in records:
        for row in record["rows"]:
            assert len(row["predicted"]) == len(row["truth"]) == 3
            assert set(row["predicted"]) | set(row["truth"]) <= {0, 1}
            assert row["confidence"] is None or all(0.4 <= c <= 1 for c in row["confidence"])
    truths = {r["item"]: r["rows"][0]["truth"] for r in records}
    assert truths["000075.jpg"] == [1, 1, 1] and truths["000076.jpg"] == [0, 0, 1]  # bits of the number
    assert set(summary["paired"]["folder-male"]) == set(told) - {"igm", SAME_DRAWS}
    assert set(summary["calibration"]["folder-male"]) == {"igm", READ_OUT, "resnet-50"}
    assert summary["calibration"]["folder-male"]["igm"]["values"] == 9


def test_the_evidence_is_exact(run: Run) -> None:
    """Brute force by network calls names the same configuration under the same draws, at 24 calls for 6."""
    exact = run.summary["exactness"]
    assert set(exact) == {"folder-female", "folder-male"}
    for found in exact.values():
        assert (found["agreeing"], found["images"]) == (2, 2)
        assert found["agree"][0] == 1
        assert found["difference"] < 1e-4
        assert found["calls"] == {SAME_DRAWS: 6, ENUMERATE: 24}
    page = (run.out / "report.md").read_text(encoding="utf-8")
    for text in (
        "igm against each other method",
        "Evidence against enumeration",
        "the one image that every method was run on",
        "80.8 %",
    ):
        assert text in page


def test_calls_are_those_of_each_method(run: Run) -> None:
    rows = {
        row["label"]: row
        for record in records_of(run.out)
        if record["split"] != FACTORS
        for row in record["rows"]
    }
    calls = {label: (row["calls"], row["draws"]) for label, row in rows.items()}
    assert calls[ENUMERATE] == (6 * 25, 6)
    assert calls[SAME_DRAWS] == (6 * 7, 6)
    assert calls["gc"] == (6 * 9, 6)  # a condition for each of eight configurations
    assert calls["gc-variant"] == (6 * 7, 6)
    assert calls["relax"] == (12 * 4, 12)  # three steps of four draws
    assert calls["resnet-50"] == (1, 0)
    assert calls[READ_OUT] == (2, 2)  # the trunk alone
    assert calls["igm"][0] == 7 * calls["igm"][1] and 2 <= calls["igm"][1] <= 6
    assert calls["diffusion-classifier"][0] < calls[ENUMERATE][0]


def test_the_read_out_is_the_mean_of_what_the_model_reads_off_the_same_draws(folder: Path) -> None:
    bench = opened(folder, "folder-female", data_root=folder / "data")
    method, denoiser, s = bench.method(READ_OUT), bench.checkpoint.denoiser, bench.settings
    draws = draw(denoiser.schedule, (3, 32, 32), s.draws, low=s.low, high=s.high, seed=s.seed)
    for item in bench.items("folder-female"):
        (found,) = method("folder-female", item)
        x_t = denoiser.schedule.add_noise(bench.scenes["folder-female"][item].x0[None], draws.noise, draws.t)
        with torch.no_grad():
            each = [
                denoiser(x_t[i : i + 1], draws.t[i : i + 1], torch.eye(6)[None], read=True)[2] for i in (0, 1)
            ]
        logits = (torch.cat(each).double().mean(0)).view(3, 2)
        assert found["predicted"] == logits.argmax(1).tolist()
        assert found["confidence"] == pytest.approx(logits.softmax(1).amax(1).tolist(), abs=0.02)


def test_a_read_out_that_was_never_trained_is_not_measured(folder: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "plain", replace(attribute_spec(*PAPERS), info={}))
    with pytest.raises(InputError, match="trained without a contrast"):
        opened(folder, "folder-female", data_root=folder / "data", model=model).method(READ_OUT)


def test_calls_over_factors_are_a_sum_against_a_product(folder: Path) -> None:
    bench = opened(folder, FACTORS, limit=None)
    assert bench.items(FACTORS) == [str(count) for count in COUNTS]
    ours, theirs = bench.method("igm"), bench.method(ENUMERATE)
    records = []
    for item in ("3", "6", "12"):
        n = int(item)
        (mine,), (all_of_them,) = ours(FACTORS, item), theirs(FACTORS, item)
        assert mine["calls_a_draw"] == 2 * n
        assert all_of_them["calls_a_draw"] == n * 2**n
        assert mine["draws"] == all_of_them["draws"] == 6
        assert (mine["scaled"], all_of_them["scaled"]) == (False, n > LARGEST)
        assert mine["seconds"] > 0
        records += [
            {"method": r["label"], "split": FACTORS, "item": item, "rows": [r]} for r in (mine, all_of_them)
        ]
    six, twelve = (records[place]["rows"][0]["seconds"] for place in (3, 5))
    assert twelve / six == pytest.approx((1 + 12 * 2**12) / (1 + 6 * 2**6))
    report = bench.report(records, {})
    (table,) = [t for t in report.tables if t.name == FACTORS]
    assert [row[:4] for row in table.rows] == [
        ["3", "8", "6", "24"],
        ["6", "64", "12", "384"],
        ["12", "4096", "24", "49152"],
    ]
    growth = report.summary["factors"]["growth"]["seconds"]
    assert f"12 factors take igm {growth:.2f} times the seconds of 3" in table.note
    assert "(scaled)" in table.rows[2][5] and "(scaled)" not in table.rows[1][5]
    plots = {figure.name: figure for figure in report.figures if isinstance(figure, Plot)}
    assert plots["factors-calls"].log_y and plots["factors-seconds"].log_y
    assert [(c.label, c.x) for c in plots["factors-seconds"].curves] == [
        ("igm", [3, 6, 12]),
        (ENUMERATE, [3, 6]),
        (f"{ENUMERATE} (scaled)", [6, 12]),
    ]


def test_nothing_is_trained_for_the_cost(folder: Path, tmp_path: Path) -> None:
    bench = opened(folder, FACTORS, cache=tmp_path / "cache")
    assert bench.items(FACTORS) == ["2", "3"]
    assert bench.method("gc")(FACTORS, "3") == []
    assert not (tmp_path / "cache").exists()


def test_faces_are_drawn_where_no_folder_is_given(folder: Path) -> None:
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    bench = opened(folder, "female", "outlined-male", options={"faces": 3})
    igm, records = bench.method("igm"), []
    for split in ("female", "outlined-male"):
        assert bench.items(split) == ["face_000000.png", "face_000001.png"]
        records += [
            {"method": "igm", "split": split, "item": item, "rows": igm(split, item)}
            for item in bench.items(split)
        ]
    assert [r["rows"][0]["truth"] for r in records] == 2 * [[0, 0, 0], [1, 0, 0]]
    female, male = (bench.scenes[split]["face_000000.png"].x0 for split in ("female", "outlined-male"))
    assert not female.equal(male)
    assert tuple(map(len, bench.data.parts)) == (3, 3)
    report: Report = bench.report(records, {"gc": {"failed": "no room"}})
    (grid,) = [figure for figure in report.figures if isinstance(figure, PictureGrid)]
    assert list(grid.columns) == ["truth", "igm"] and len(grid.rows) == 4
    assert [row[:3] for row in report.tables[0].rows if row[0] == "gc"] == [["gc", "failed", "79.1 %"]]
    again: Report = bench.report(records, {"igm": {"failed": "no room"}})  # after an earlier call that did not
    assert [row[0] for row in again.tables[0].rows].count("igm") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"relax_steps": 1.5}, "relax_steps takes a whole number"),
        ({"contrast": -1}, "contrast takes a number of at least 0"),
        ({"faces": 1}, "faces takes a whole number of 2 to"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        opened(folder, FACTORS, options=options)


def test_what_cannot_be_measured(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs --data-root"):
        opened(folder, "folder-male")
    with pytest.raises(InputError, match="models of attributes, not of 'pos'"):
        opened(folder, FACTORS, model=tiny_model)
    with pytest.raises(UsageError, match="about drawn faces; leave it out"):
        opened(folder, FACTORS, data_root=folder / "data", options={"faces": 3})
    hats = write(tmp_path / "hats", attribute_spec("Black_Hair", "Wearing_Hat"))
    with pytest.raises(InputError, match="no attribute 'Wearing_Hat'"):
        opened(folder, "folder-female", data_root=folder / "data", model=hats)
    spec = replace(attribute_spec("Smiling"), concept_options={"factors": "Male"})
    with pytest.raises(InputError, match="do not fit its factors"):
        opened(folder, FACTORS, model=write(tmp_path / "other", spec))


# Numbers of known rows


def row(label: str, predicted: list[int], truth: list[int], **more: Any) -> dict[str, Any]:
    told = {"confidence": None, "seconds": 2.0, "calls": 21, "draws": 3, "error": 0.5}
    return {"label": label, "predicted": predicted, "truth": truth, **told, **more}


def reported(folder: Path, records: list[dict[str, Any]], infos: Infos | None = None, **changes: Any) -> Report:
    report: Report = opened(folder, "folder-male", data_root=folder / "data", **changes).report(
        records, infos or {}
    )
    return report


def test_scores_of_known_rows(folder: Path) -> None:
    truths = ([0, 1, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1])
    answers = ([0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 1])
    names = list(opened(folder, "folder-male", data_root=folder / "data", limit=None).items("folder-male"))
    records = [
        recorded("folder-male", name, row("igm", a, t, confidence=[0.9, 0.7, 0.8], seconds=s))
        for name, a, t, s in zip(names, answers, truths, (2.0, 2.0, 2.0, 6.0), strict=True)
    ]
    report = reported(folder, records, limit=None)
    scores = report.summary["splits"]["folder-male"]["igm"]
    assert scores.pop("images") == 4
    assert {name: e[0] for name, e in scores.items()} == pytest.approx(
        {
            "all_right": 0.5,
            "Black_Hair": 0.75,
            "Eyeglasses": 0.75,
            "Smiling": 1,
            "seconds": 3.0,
            "calls": 21,
            "draws": 3,
        }
    )
    assert scores["all_right"] == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)  # Wilson's, of two of four
    assert report.tables[0].rows[0][2] == "65.6 %"
    assert calibration([row("any", [0], [0])], hits) is None


def test_published_figures_stand_beside_the_papers_factors_only(folder: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "bangs", attribute_spec("Bangs", "Smiling"))
    bench = opened(folder, FACTORS, model=model)
    assert score_table(bench, "male", "male faces", [], ["igm"]).rows[0][2] == ""
    papers = opened(folder, FACTORS)
    assert score_table(papers, "male", "male faces", [], ["igm"]).rows[0][2] == "65.6 %"


def test_confidence_is_held_against_accuracy() -> None:
    def found(confidence: list[float], predicted: list[int]) -> dict[str, float]:
        found = calibration([row("any", predicted, [1] * len(predicted), confidence=confidence)], hits)
        assert found is not None
        return found

    assert found([1.0, 1.0, 0.0], [1, 1, 0])["error"] == 0
    assert found([1.0, 1.0], [1, 0])["error"] == 0.5
    mixed = found([0.9, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7], [1, 0, 1, 1, 1, 1, 0, 1])
    assert mixed == pytest.approx(
        {"values": 8, "confidence": 0.8, "accuracy": 0.75, "error": (0.15 + 0.05) / 2}
    )


def test_agreement_counts_images_that_both_saw() -> None:
    brute = {"calls": 75, "error": 1.0}
    records = [
        recorded("female", "a", row(ENUMERATE, [0], [0], **brute), row(SAME_DRAWS, [0], [0], error=1.001)),
        recorded("female", "b", row(ENUMERATE, [0], [0], **brute), row(SAME_DRAWS, [1], [0], error=1.0)),
        recorded("female", "c", row(ENUMERATE, [0], [0], **brute)),
    ]

    def found(part: list[dict[str, Any]]) -> dict[str, Any]:
        return agreement(by_label(part), (SAME_DRAWS, ENUMERATE), lambda r: r["predicted"], base=1)

    both = found(records)
    assert (both["agreeing"], both["images"], both["agree"][0]) == (1, 2, 0.5)
    assert both["difference"] == pytest.approx(0.001)
    assert both["calls"] == {ENUMERATE: 24, SAME_DRAWS: 6}
    assert found(records[2:]) == {}
    json.dumps(both)


def test_values_are_counted_within_their_factor() -> None:
    space = Categorical({"hair": ("black", "blond", "grey"), "glasses": ("no", "yes")})
    assert values_of(space, torch.eye(5)[[1, 4]]) == [1, 1]
    assert values_of(space, torch.eye(5)[[2, 3]]) == [2, 0]


def test_pictures_show_misses_first(folder: Path) -> None:
    bench = opened(folder, "folder-female", data_root=folder / "data", limit=4)
    records = []
    for item in bench.items("folder-female"):
        truth = bench.truth(bench.scenes["folder-female"][item])
        wrong = [1 - truth[0], *truth[1:]]
        rows = [row("igm", wrong if item == "000080.jpg" else truth, truth, confidence=[0.9] * 3)]
        rows.append(row("gc", wrong if item == "000074.jpg" else truth, truth))
        records.append(recorded("folder-female", item, *rows))
    (grid,) = [f for f in bench.report(records, {}).figures if isinstance(f, PictureGrid)]
    assert list(grid.columns) == ["truth", "igm", "gc"]
    frames = [[_frame(picture) for picture in pictures] for _, pictures in grid.rows]
    red, white = (200, 40, 40), (255, 255, 255)
    assert frames == [[white, red, white], [white, white, red], [white] * 3, [white] * 3]


def _frame(picture: Image.Image | None) -> Any:
    assert picture is not None
    return picture.getpixel((0, 0))
