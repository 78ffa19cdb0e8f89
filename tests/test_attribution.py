"""``igm benchmark attributes``: end to end on a tiny model, and the figures of its report."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Igm
from PIL import Image
from test_celeba import write_celeba
from test_cli import one_sentence

from igm_cli.benchmarks.baselines.fit import Budget
from igm_cli.benchmarks.suite import PictureGrid, Plot, Report, Request
from igm_cli.benchmarks.suites.attributes.cost import LARGEST
from igm_cli.benchmarks.suites.attributes.figures import Calibration, exactness, score
from igm_cli.benchmarks.suites.attributes.inversions import ENUMERATE, SAME_DRAWS, values_of
from igm_cli.benchmarks.suites.attributes.published import PUBLISHED
from igm_cli.benchmarks.suites.attributes.report import accuracy_table
from igm_cli.benchmarks.suites.attributes.splits import COUNTS, FACTORS, IMAGES
from igm_cli.core.checkpoint import ModelSpec, save_checkpoint
from igm_cli.core.concepts import Categorical, space_to_dict
from igm_cli.core.metrics import share
from igm_cli.core.noise_schedule import ScheduleConfig
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry

PAPERS = ("Black_Hair", "Eyeglasses", "Smiling")
METHODS = ("igm", "enumerate", "relax", "diffusion-classifier", "gc", "gc-variant", "resnet-50")
SMALL = ("--limit", "3", "--train-budget", "2steps", "--set", "exact_images=2", "--set", "relax_images=1")


def spec_of(*factors: str) -> ModelSpec:
    return ModelSpec(
        architecture="factored",
        options={
            "image_size": [32, 32],
            "patch": 4,
            "channels": [8, 8, 8],
            "blocks": 1,
            "head_channels": 8,
            "head_layers": 1,
        },
        space=space_to_dict(Categorical(dict.fromkeys(factors, ("no", "yes")))),
        schedule=ScheduleConfig(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction").to_dict(),
        composition="sum",
        image_size=(32, 32),
        concepts="attributes",
        concept_options={"factors": ",".join(factors)},
        inference={"draws": 2, "max_draws": 6, "relax_steps": 3},
    )


def write_model(folder: Path, spec: ModelSpec) -> Path:
    torch.manual_seed(0)
    model = spec.build()
    with torch.no_grad():  # zero-initialised outputs would make every hypothesis equal
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_checkpoint(folder, spec, model.state_dict())
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-attributes", spec_of(*PAPERS))


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 73 to 80 are tested on; 76 to 79 are male."""
    return write_celeba(tmp_path_factory.mktemp("celeba"), range(1, 81))


def benchmark(igm: Igm, out: Path, *arguments: object, **how: Any) -> Any:
    cache = {"IGM_CACHE": str(out.parent / "cache")}
    return igm("benchmark", "attributes", "--device", "cpu", "-o", out, *arguments, env=cache, **how)


@pytest.fixture(scope="module")
def run(igm: Igm, model: Path, celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Every method on three images of each domain."""
    out = tmp_path_factory.mktemp("benchmark") / "run"
    where = ("--model", model, "--data-root", celeba)
    return out, benchmark(igm, out, *where, *SMALL, "--splits", "folder-female,folder-male,factors", "--json")


def records_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def test_every_method_says_a_value_of_every_factor(run: tuple[Path, Any]) -> None:
    out, done = run
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failed"] == {}
    for split in ("folder-female", "folder-male"):
        told = {label: figures["images"] for label, figures in result["splits"][split].items()}
        assert told == {**dict.fromkeys(METHODS, 3), "enumerate": 2, SAME_DRAWS: 2, "relax": 1}
        for figures in result["splits"][split].values():
            assert {"all_right", *PAPERS, "seconds", "calls", "draws"} <= set(figures)
            value, low, high = figures["all_right"]
            assert 0 <= low <= value <= high <= 1
            assert value <= min(figures[factor][0] for factor in PAPERS)
    for record in records_of(out):
        for row in record["rows"] if record["split"] != FACTORS else ():
            assert len(row["predicted"]) == len(row["truth"]) == 3
            assert set(row["predicted"]) | set(row["truth"]) <= {0, 1}
            assert row["confidence"] is None or all(0.4 <= c <= 1 for c in row["confidence"])
    truths = {r["item"]: r["rows"][0]["truth"] for r in records_of(out) if r["split"] != FACTORS}
    assert truths["000075.jpg"] == [1, 1, 1] and truths["000076.jpg"] == [0, 0, 1]  # bits of the number


def test_the_evidence_is_exact(run: tuple[Path, Any]) -> None:
    """Brute force by network calls names the same configuration under the same draws, at 24 calls for 6."""
    exact = json.loads(run[1].stdout)["exactness"]
    assert set(exact) == {"folder-female", "folder-male"}
    for found in exact.values():
        assert (found["agreeing"], found["images"]) == (2, 2)
        assert found["agree"][0] == 1
        assert found["difference"] < 1e-4
        assert found["calls"] == {SAME_DRAWS: 6, ENUMERATE: 24}


def test_calls_are_those_of_each_method(run: tuple[Path, Any]) -> None:
    rows = {
        r["label"]: r for record in records_of(run[0]) for r in record["rows"] if record["split"] != FACTORS
    }
    calls = {label: (row["calls"], row["draws"]) for label, row in rows.items()}
    assert calls[ENUMERATE] == (6 * 25, 6)
    assert calls[SAME_DRAWS] == (6 * 7, 6)
    assert calls["gc"] == (6 * 9, 6)  # a condition for each of eight configurations
    assert calls["gc-variant"] == (6 * 7, 6)
    assert calls["relax"] == (12 * 4, 12)  # three steps of four draws
    assert calls["resnet-50"] == (1, 0)
    assert calls["igm"][0] == 7 * calls["igm"][1] and 2 <= calls["igm"][1] <= 6
    assert calls["diffusion-classifier"][0] < calls[ENUMERATE][0]


def test_a_run_leaves_its_report(run: tuple[Path, Any]) -> None:
    out, done = run
    page = (out / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| igm +\| +[\d.]+ % \[.*80\.8 %", page)
    assert re.search(r"\| folder-male +\| +2 of 2 ", page)
    for heading in ("Evidence against enumeration", "Confidence against accuracy", "number of factors"):
        assert heading in page
    assert "the one image that every method was run on" in page
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    (line,) = [x for x in lines if (x["split"], x["method"], x["figure"]) == ("folder-male", "gc", "all_right")]
    assert float(line["value"]) == json.loads(done.stdout)["splits"]["folder-male"]["gc"]["all_right"][0]
    calibrated = json.loads(done.stdout)["calibration"]["folder-male"]
    assert set(calibrated) == {"igm", SAME_DRAWS, "resnet-50"}
    assert calibrated["igm"]["values"] == 9
    for name in ("pictures-1", "pictures-2", "factors-seconds", "factors-calls"):
        assert (out / f"{name}.png").stat().st_size > 1000


def test_a_run_goes_on_where_it_stopped(igm: Igm, run: tuple[Path, Any], model: Path, celeba: Path) -> None:
    out, _ = run
    before = records_of(out)
    lines = (out / "records.jsonl").read_bytes().splitlines(keepends=True)
    kept = len(lines) - 4  # resnet-50's last face, and three numbers of factors that it has nothing to say of
    (out / "records.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:-20])  # a line cut short
    splits = ("--splits", "folder-female,folder-male,factors")
    done = benchmark(igm, out, "--model", model, "--data-root", celeba, *SMALL, *splits)
    assert done.returncode == 0, done.stderr
    after = records_of(out)
    assert len(after) == len(before) and after[:kept] == before[:kept]  # not measured again
    for now, then in zip(after[kept:], before[kept:], strict=True):
        assert [(r["label"], r["predicted"]) for r in now["rows"]] == [
            (r["label"], r["predicted"]) for r in then["rows"]
        ]
    assert [row["label"] for row in after[kept]["rows"]] == ["resnet-50"]
    assert "Evidence against enumeration" in done.stdout
    done = benchmark(igm, out, "--model", model, "--data-root", celeba, *SMALL, "--set", "relax_steps=5")
    assert done.returncode == 3
    assert "relax_steps" in one_sentence(done.stderr)


def opened(model: Path, cache: Path, *splits: str, **changes: Any) -> Any:
    options = changes.pop("options", {})
    request = Request(
        splits=splits,
        data_root=None,
        limit=2,
        budget=Budget(steps=1),
        seed=0,
        device=torch.device("cpu"),
        model=model,
        cache=cache,
        options=options,
    )
    return registry.suite("attributes").open(replace(request, **changes))


def test_calls_over_factors_are_a_sum_against_a_product(model: Path, tmp_path: Path) -> None:
    bench = opened(model, tmp_path / "cache", FACTORS, limit=None)
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


def test_nothing_is_trained_for_the_cost(model: Path, tmp_path: Path) -> None:
    bench = opened(model, tmp_path / "cache", FACTORS)
    assert bench.items(FACTORS) == ["2", "3"]
    assert bench.method("gc")(FACTORS, "3") == []
    assert not (tmp_path / "cache").exists()


def test_faces_are_drawn_where_no_folder_is_given(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("python_avatars")
    pytest.importorskip("resvg_py")
    bench = opened(model, tmp_path / "cache", "female", "outlined-male", options={"faces": 3})
    igm, records = bench.method("igm"), []
    for split in ("female", "outlined-male"):
        assert bench.items(split) == ["face_000000.png", "face_000001.png"]
        records += [
            {"method": "igm", "split": split, "item": item, "rows": igm(split, item)}
            for item in bench.items(split)
        ]
    assert [r["rows"][0]["truth"] for r in records] == 2 * [[0, 0, 0], [1, 0, 0]]
    assert not bench.scenes["female"]["face_000000.png"].x0.equal(
        bench.scenes["outlined-male"]["face_000000.png"].x0
    )
    assert (len(bench.data.training), len(bench.data.validation)) == (3, 3)
    report: Report = bench.report(records, {"gc": {"failed": "no room"}})
    (grid,) = [figure for figure in report.figures if isinstance(figure, PictureGrid)]
    assert list(grid.columns) == ["truth", "igm"] and len(grid.rows) == 4
    table = report.tables[0]
    assert [row[:3] for row in table.rows if row[0] == "gc"] == [["gc", "failed", "79.1 %"]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"exact_images": 0}, "exact_images takes a whole number of at least 1"),
        ({"relax_images": "few"}, "relax_images takes a whole number"),
        ({"relax_steps": 1.5}, "relax_steps takes a whole number"),
        ({"contrast": -1}, "contrast takes a number of at least 0"),
        ({"faces": 1}, "faces takes a whole number of at least 2"),
    ],
)
def test_wrong_options(model: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        opened(model, tmp_path, FACTORS, options=options)


def test_what_cannot_be_measured(model: Path, tiny_model: Path, celeba: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs --data-root"):
        opened(model, tmp_path, "folder-male")
    with pytest.raises(InputError, match="models of attributes, not of 'pos'"):
        opened(tiny_model, tmp_path, FACTORS)
    hats = write_model(tmp_path / "hats", spec_of("Black_Hair", "Wearing_Hat"))
    with pytest.raises(InputError, match="no attribute 'Wearing_Hat'"):
        opened(hats, tmp_path, "folder-female", data_root=celeba)
    other = write_model(tmp_path / "other", replace(spec_of("Smiling"), concept_options={"factors": "Male"}))
    with pytest.raises(InputError, match="do not fit its factors"):
        opened(other, tmp_path, FACTORS)


def test_names_are_known(igm: Igm, tmp_path: Path) -> None:
    done = igm("benchmark", "attributes", "--methods", "gc-varient", "-o", tmp_path / "run")
    assert done.returncode == 2
    assert "did you mean gc-variant" in one_sentence(done.stderr)
    suite = registry.suite("attributes")
    assert tuple(suite.methods) == METHODS
    assert suite.default_splits(None) == ("female", "male", "outlined")
    assert suite.default_splits(Path()) == ("folder-female", "folder-male")
    assert set(PUBLISHED) <= set(IMAGES)


# Figures of known rows


def row(label: str, predicted: list[int], truth: list[int], **more: Any) -> dict[str, Any]:
    told = {"confidence": None, "seconds": 2.0, "calls": 21, "draws": 3, "error": 0.5}
    return {"label": label, "predicted": predicted, "truth": truth, **told, **more}


def test_scores_of_known_rows() -> None:
    rows = [
        row("any", [0, 1], [0, 1], confidence=[0.9, 0.7]),
        row("any", [0, 1], [1, 1], confidence=[0.9, 0.7]),
        row("any", [2, 0], [2, 1], confidence=[0.9, 0.7]),
        row("any", [2, 1], [2, 1], confidence=[0.9, 0.7], seconds=6.0),
    ]
    found = score("any", rows, ["hair", "glasses"])
    assert found.images == 4
    assert {name: e.value for name, e in found.estimates.items()} == pytest.approx(
        {"all_right": 0.5, "hair": 0.75, "glasses": 0.75, "seconds": 3.0, "calls": 21, "draws": 3}
    )
    # Wilson's, of two of four
    assert found.estimates["all_right"].to_list() == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)
    assert found.calibration is not None
    assert found.calibration.confidence == pytest.approx(0.8)
    assert found.calibration.accuracy == 0.75
    assert found.calibration.error == pytest.approx((0.15 + 0.05) / 2)
    assert score("any", [row("any", [0], [0])], ["hair"]).calibration is None


def test_published_figures_stand_beside_the_papers_factors_only() -> None:
    def published(*factors: str) -> str:
        given = score("igm", [row("igm", [0] * len(factors), [0] * len(factors))], list(factors))
        return accuracy_table("male", "male faces", [given], factors).rows[0][2]

    assert published("Black_Hair", "Eyeglasses", "Smiling") == "65.6 %"
    assert published("Bangs", "Smiling") == ""


def test_perfect_confidence_has_no_calibration_error() -> None:
    assert Calibration.of(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1, 1, 0])).error == 0
    assert Calibration.of(torch.tensor([1.0, 1.0]), torch.tensor([1, 0])).error == 0.5
    assert share(torch.tensor([True])).to_list() == pytest.approx([1, 0.207, 1], abs=1e-3)


def test_exactness_counts_images_that_both_saw() -> None:
    def record(item: str, *rows: dict[str, Any]) -> dict[str, Any]:
        return {"method": ENUMERATE, "split": "female", "item": item, "rows": list(rows)}

    brute = {"calls": 75, "error": 1.0}
    records = [
        record("a", row(ENUMERATE, [0], [0], **brute), row(SAME_DRAWS, [0], [0], error=1.001)),
        record("b", row(ENUMERATE, [0], [0], **brute), row(SAME_DRAWS, [1], [0], error=1.0)),
        record("c", row(ENUMERATE, [0], [0], **brute)),
    ]
    found = exactness(records)
    assert found is not None
    assert (found.agreeing, found.images, found.agree.value) == (1, 2, 0.5)
    assert found.difference == pytest.approx(0.001)
    assert found.calls == {ENUMERATE: 24, SAME_DRAWS: 6}
    assert exactness(records[2:]) is None


def test_values_are_counted_within_their_factor() -> None:
    space = Categorical({"hair": ("black", "blond", "grey"), "glasses": ("no", "yes")})
    assert values_of(space, torch.eye(5)[[1, 4]]) == [1, 1]
    assert values_of(space, torch.eye(5)[[2, 3]]) == [2, 0]


def records_for_pictures(model: Path, celeba: Path, cache: Path) -> tuple[Any, list[dict[str, Any]]]:
    bench = opened(model, cache, "folder-female", data_root=celeba, limit=4)
    records = []
    for item in bench.items("folder-female"):
        truth = values_of(bench.space, bench.scenes["folder-female"][item].truth)
        wrong = [1 - truth[0], *truth[1:]]
        rows = [row("igm", wrong if item == "000080.jpg" else truth, truth, confidence=[0.9] * 3)]
        rows.append(row("gc", wrong if item == "000074.jpg" else truth, truth))
        records.append({"method": "igm", "split": "folder-female", "item": item, "rows": rows})
    return bench, records


def test_pictures_show_misses_first(model: Path, celeba: Path, tmp_path: Path) -> None:
    bench, records = records_for_pictures(model, celeba, tmp_path)
    (grid,) = [f for f in bench.report(records, {}).figures if isinstance(f, PictureGrid)]
    assert list(grid.columns) == ["truth", "igm", "gc"]
    frames = [[_frame(picture) for picture in pictures] for _, pictures in grid.rows]
    red, white = (200, 40, 40), (255, 255, 255)
    assert frames == [[white, red, white], [white, white, red], [white] * 3, [white] * 3]


def _frame(picture: Image.Image | None) -> Any:
    assert picture is not None
    return picture.getpixel((0, 0))
