"""``igm benchmark zero-shot``: end to end on a tiny random pipeline, and the figures of its report."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_cases import CASES, FOUR, Run, recorded, records_of, work
from PIL import Image

import igm_cli
from igm_cli.benchmarks.baselines.label_methods import BATCH
from igm_cli.benchmarks.report import score_table
from igm_cli.benchmarks.scores import Paired, by_label, paired_with
from igm_cli.benchmarks.suite import Confusion, Plot, Request, find_suite
from igm_cli.benchmarks.suites.zero_shot import (
    ADAPTIVE,
    COARSE,
    COUNTING,
    ENUMERATE,
    IGM,
    SUITE,
    WEIGHTS,
    hits,
    metrics,
    most_calls,
    predicted,
    right,
    spared_calls,
    stopped_early,
)
from igm_cli.benchmarks.suites.zero_shot_splits import SPLITS, TRIO, counts
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError, MissingError, UsageError

CASE = CASES["zero-shot"]
SMALL, SHOWN = CASE.options, CASE.splits


@pytest.fixture
def model(run: Run) -> Path:
    return run.request.model


def request_of(model: Path, *splits: str, **changes: Any) -> Request:
    return CASE.request(model.parent, splits=splits, **{"model": model, **changes})


def opened(model: Path, *splits: str, **changes: Any) -> Any:
    return find_suite("zero-shot").open(request_of(model, *splits, **changes))


def test_every_method_names_labels(run: Run) -> None:
    summary = run.summary
    for split in SHOWN:
        told = {label: figures["images"] for label, figures in summary["splits"][split].items()}
        assert told == dict.fromkeys((m for m in SUITE.methods if not counts(split) or m in COUNTING), 2)
    for record in records_of(run.out):
        for row in record["rows"]:
            known = set(TRIO) if record["split"] == "pairs-3-drawn" else set(FOUR.split(","))
            assert set(row["predicted"]) | set(row["truth"]) <= known
            assert len(set(row["predicted"])) == len(row["predicted"])
            if not counts(record["split"]):
                assert len(row["predicted"]) == len(row["truth"]) == 2
            assert (row["confidence"] is not None) == (record["method"] in COUNTING)
            assert row["seconds"] > 0 and row["error"] > 0
    truths = [r["rows"][0]["truth"] for r in records_of(run.out) if r["split"] == "count-drawn" and r["rows"]]
    assert all(1 <= len(truth) <= 3 for truth in truths)


def test_calls_are_those_of_each_method(run: Run) -> None:
    rows = {(r["split"], r["method"]): row for r in records_of(run.out) for row in r["rows"]}
    for split, m in (("pairs-3-drawn", 3), ("pairs-25-drawn", 4)):
        sets = math.comb(m, 2)
        calls = {name: (rows[split, name]["calls"], rows[split, name]["draws"]) for name in SUITE.methods}
        assert calls[IGM] == calls["dc-variant"] == (2 * m, 2)
        assert calls[ENUMERATE] == (2 * 2 * sets, 2)
        assert calls["dc-compound"] == (2 * sets, 2)
        assert calls[WEIGHTS] == (2 * BATCH * m, 2 * BATCH)
        assert calls[ADAPTIVE][0] <= m * calls[ADAPTIVE][1] and calls[ADAPTIVE][1] <= 8


def test_enumeration_gives_igms_answers(run: Run) -> None:
    agreed = run.summary["agreement"]
    assert set(agreed) == {"pairs-3-drawn", "pairs-25-drawn"}
    for found in agreed.values():
        assert (found["agreeing"], found["images"]) == (2, 2)
    assert agreed["pairs-3-drawn"]["calls"] == {IGM: 3, ENUMERATE: 6}
    for part in run.summary["paired"].values():
        if ENUMERATE in part:
            assert (part[ENUMERATE]["ours"], part[ENUMERATE]["theirs"], part[ENUMERATE]["p"]) == (0, 0, 1)


def test_the_report_says_what_is_published(run: Run) -> None:
    page = (run.out / "report.md").read_text(encoding="utf-8")
    for heading in ("Two of cat, dog and rabbit", "igm against plain enumeration", "picture by picture"):
        assert heading in page
    assert "another model" in page and "87.3 %" in page


def test_slow_methods_run_on_fewer_pictures(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igm_cli.benchmarks.suites.zero_shot.SLOW", 5)
    request = request_of(model, "pairs-25-drawn")
    summary = work("zero-shot", request, tmp_path, (IGM, ENUMERATE, "dc-compound"))
    told = summary["splits"]["pairs-25-drawn"]
    assert {label: figures["images"] for label, figures in told.items()} == {
        IGM: 2,
        ENUMERATE: 1,
        "dc-compound": 1,
    }
    page = (tmp_path / "report.md").read_text()
    assert "the one image that every method was run on" in page
    assert summary["paired"]["pairs-25-drawn"][ENUMERATE]["images"] == 1


def test_what_is_slow() -> None:
    settings = InversionSettings(relax_steps=100)
    assert most_calls(IGM, 25, 2, 32, settings) == 25 * 32
    assert most_calls(ENUMERATE, 20, 3, 32, settings) == 3420 * 32
    assert most_calls("dc-compound", 25, 2, 32, settings) == 300 * 32
    assert most_calls(WEIGHTS, 3, 2, 32, settings) == 3 * 4 * 100


def test_your_own_pictures(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("cat_1", "cat_dog_2", "dog_rabbit_3")):
        Image.new("RGB", (40, 30), (60 * number, 90, 30)).save(folder / f"{name}.png")
    options = {**SMALL, "pictures": str(folder)}
    request = request_of(model, "pictures", options=options, limit=None)
    bench = find_suite("zero-shot").open(request)
    assert bench.items("pictures") == ["cat_1.png", "cat_dog_2.png", "dog_rabbit_3.png"]
    assert bench.cells["pictures"].labels == TRIO
    for name in (IGM, ENUMERATE, "dc-compound"):
        rows = [bench.method(name)("pictures", item)[0] for item in bench.items("pictures")]
        assert [row["truth"] for row in rows] == [["cat"], ["cat", "dog"], ["dog", "rabbit"]]
        assert [len(row["predicted"]) for row in rows] == [1, 2, 2]
    assert str(tmp_path) not in json.dumps(bench.identity)
    wider = replace(request, options={**options, "labels": "Cat,dog,rabbit,snowy  owl"})
    assert find_suite("zero-shot").open(wider).cells["pictures"].labels == ("cat", "dog", "rabbit", "snowy owl")
    with pytest.raises(InputError, match="same label"):
        (folder / "cat_dog_2.png").unlink()
        (folder / "dog_rabbit_3.png").unlink()
        find_suite("zero-shot").open(request)


def test_pictograms_of_a_folder(model: Path, tmp_path: Path) -> None:
    for style, colour in (("plain", "red"), ("other", "blue")):
        for animal in FOUR.split(","):
            (tmp_path / style / animal).mkdir(parents=True)
            Image.new("RGBA", (32, 32), colour).save(tmp_path / style / animal / "1.png")
    options = {**SMALL, "seen": "plain", "unseen": "other"}
    request = request_of(model, "pairs-3-seen", "pairs-3-unseen", data_root=tmp_path, options=options)
    bench = find_suite("zero-shot").open(request)
    seen, unseen = (bench.cells[f"pairs-3-{look}"].scenes for look in ("seen", "unseen"))
    item = bench.items("pairs-3-seen")[0]
    assert seen[item].truth.equal(unseen[item].truth)
    assert not seen[item].x0.equal(unseen[item].x0)
    with pytest.raises(UsageError, match="fluent"):
        find_suite("zero-shot").open(replace(request, options=SMALL))


def test_igm_answers_as_users_are_answered(model: Path, tmp_path: Path) -> None:
    """By a model with a label of nothing: the same labels and confidences as of the library, at the same calls."""
    folder, photos = tmp_path / "knows", tmp_path / "photos"
    shutil.copytree(model, folder)
    photos.mkdir()
    Image.new("RGB", (40, 30), (200, 90, 30)).save(photos / "cat_dog.png")
    description = json.loads((model / "igm.json").read_text())
    description["space"] |= {"labels": [*TRIO, "void"], "nothing": "void"}
    description["inference"] |= {"k_min": 1, "k_max": 3, "temperature": 0.01}
    (folder / "igm.json").write_text(json.dumps(description))
    options = {**SMALL, "pictures": str(photos), "labels": "cat,dog,rabbit"}
    bench = find_suite("zero-shot").open(request_of(folder, "pictures", options=options, limit=None))
    (row,) = bench.method(ADAPTIVE)("pictures", "cat_dog.png")
    (alone,) = bench.method("dc-variant")("pictures", "cat_dog.png")
    told = igm_cli.load(folder, labels=TRIO, templates=bench.templates, device="cpu").invert(
        photos / "cat_dog.png", k=2
    )
    assert row["predicted"] == [item["label"] for item in told.items]
    assert row["confidence"] == pytest.approx([item["confidence"] for item in told.items], abs=1e-4)
    assert (row["calls"], row["draws"]) == (told.network_calls, told.draws)
    assert alone["calls"] == 3 * alone["draws"]


def test_stages_spare_calls(model: Path) -> None:
    options = {**SMALL, "draws": 16, "stages": "on"}
    bench = find_suite("zero-shot").open(request_of(model, "pairs-25-drawn", options=options))
    (row,) = bench.method("dc-compound")("pairs-25-drawn", bench.items("pairs-25-drawn")[0])
    assert row["calls"] < 16 * 6
    assert bench.method("dc-compound").info["stages"] == "on"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"draws": 0}, "draws takes a whole number of 1 to"),
        ({"template": "a photo"}, "must hold {label}"),
        ({"stages": "perhaps"}, "on or off"),
        ({"views": 3}, "1, 2 or 4"),
        ({"views": "four"}, "whole number"),
        ({"animals": " , "}, "--set animals must be names with commas"),
        ({"others": ""}, "--set others must be names with commas"),
        ({"first": 0}, "--set first takes a whole number of 1 to 100000"),
        ({"animals": "cat,unicorn"}, "unknown animal 'unicorn'"),
        ({"dtype": "float8"}, "unknown dtype"),
    ],
)
def test_wrong_options(model: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find_suite("zero-shot").open(request_of(model, "pairs-25-drawn", options=options))


def test_labels_that_no_picture_shows_are_offered_too(model: Path, tmp_path: Path) -> None:
    others = [f"thing {n}" for n in range(9)]
    options = {**SMALL, "others": ",".join((*others, "cat")), "draws": 8, "coarse": 2, "template": "{label}"}
    request = request_of(model, "pairs-25-drawn", options=options, limit=1)
    bench = find_suite("zero-shot").open(request)
    assert bench.cells["pairs-25-drawn"].labels == (*FOUR.split(","), *others)
    summary = work("zero-shot", request, tmp_path, (IGM, COARSE))
    told = summary["spared"]["pairs-25-drawn"]
    assert told[COARSE]["calls"][IGM] == 8 * 13 and told[COARSE]["calls"][COARSE] <= 2 * 13 + 6 * 8
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Few labels under most draws" in page and "igm-coarse |     13 |" in page


def test_what_few_labels_under_most_draws_change() -> None:
    whole = {str(n): row(IGM, "ab", "ab", calls=40) for n in range(3)}
    few = {"0": "ba", "1": "ac", "9": "ab"}
    part = {IGM: whole, COARSE: {item: row(COARSE, found, "ab", calls=10) for item, found in few.items()}}
    told = spared_calls(part)
    assert set(told) == {COARSE} and (told[COARSE]["agreeing"], told[COARSE]["images"]) == (1, 2)
    assert told[COARSE]["calls"] == {IGM: 40, COARSE: 10} and told[COARSE]["right"] == {IGM: 2, COARSE: 1}
    assert spared_calls({IGM: whole}) == {} == spared_calls({COARSE: whole})


def test_what_cannot_be_measured(model: Path, tmp_path: Path) -> None:
    for split, says in (("pairs-3-unseen", "needs --data-root"), ("pictures", "needs --set pictures=FOLDER")):
        with pytest.raises(InputError, match=says):
            find_suite("zero-shot").open(request_of(model, split))
    with pytest.raises((InputError, MissingError)):
        find_suite("zero-shot").open(request_of(tmp_path, "pairs-3-drawn"))
    other = tmp_path / "sum"
    shutil.copytree(model, other)
    description = json.loads((model / "igm.json").read_text())
    (other / "igm.json").write_text(json.dumps({**description, "composition": "sum"}))
    with pytest.raises(InputError, match="composes by sum"):
        find_suite("zero-shot").open(request_of(other, "pairs-3-drawn"))


def test_defaults() -> None:
    suite = find_suite("zero-shot")
    assert suite.default_splits(None) == SHOWN
    assert set(suite.default_splits(Path())) == {
        f"{task}-{look}" for task in ("pairs-3", "pairs-25", "count") for look in ("seen", "unseen")
    }
    assert set(suite.default_splits(Path())) <= set(suite.splits) == set(SPLITS)


# Figures of known rows


def row(label: str, predicted: str, truth: str, **more: Any) -> dict[str, Any]:
    told = {"confidence": None, "seconds": 2.0, "calls": 12, "draws": 4, "error": 0.5}
    return {"label": label, "predicted": list(predicted), "truth": list(truth), **told, **more}


def test_scores_of_known_rows() -> None:
    rows = [row("any", "ab", "ba"), row("any", "ac", "ab"), row("any", "a", "ab"), row("any", "abc", "abc")]
    assert [right(r) for r in rows] == [True, False, False, True]
    assert hits(rows[1]) == [True, False] and predicted(rows[0]) == predicted(row("any", "ba", "ab"))
    found = metrics(rows)
    assert {name: e.value for name, e in found.items()} == pytest.approx(
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
    assert list(found["exact"]) == pytest.approx([0.5, 0.150, 0.850], abs=1e-3)  # Wilson's, of two of four


def test_methods_are_paired_on_the_pictures_both_saw() -> None:
    records = [
        recorded("pairs-3-drawn", "1", row(IGM, "ab", "ab"), row("other", "ab", "ab")),
        recorded("pairs-3-drawn", "2", row(IGM, "ab", "ab"), row("other", "ac", "ab")),
        recorded("pairs-3-drawn", "3", row(IGM, "ac", "ab"), row("other", "ab", "ab")),
        recorded("pairs-3-drawn", "4", row(IGM, "ab", "ab")),
        recorded("pairs-3-drawn", "5", row(IGM, "ab", "ab"), row("other", "bc", "ab")),
    ]
    found = paired_with(IGM, by_label(records), right)
    assert found == {"other": Paired(items=4, both=1, first=2, second=1)}
    assert found["other"].p == 1
    assert paired_with(IGM, by_label([recorded("pairs-3-drawn", "1", row("other", "a", "a"))]), right) == {}


def test_published_figures_stand_beside_their_own_task_only(model: Path) -> None:
    bench = opened(model, "pairs-3-drawn")
    table = score_table(bench, "pairs-3-unseen", "two of three", [], ["dc-variant"])
    assert table.columns[2] == "published" and "another model" in table.note
    assert table.rows[0][:2] == ["dc-variant", "failed"] and len(table.rows[0]) == len(table.columns)
    assert "published" not in score_table(bench, "pairs-25-unseen", "two of 25", [], []).columns
    assert "number right" in score_table(bench, "count-drawn", "one to three", [], []).columns


def test_figures_of_counts(model: Path) -> None:
    bench = find_suite("zero-shot").open(request_of(model, "count-3-drawn"))
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


def test_draws_until_settled_are_held_against_all_draws():
    whole = {str(n): {"predicted": ["cat", "dog"], "draws": 1000} for n in range(4)}
    few = {"0": ["dog", "cat"], "1": ["cat", "dog"], "2": ["cat", "rabbit"], "9": ["cat", "dog"]}
    rows = {item: {"predicted": found, "draws": 16 * (1 + int(item))} for item, found in few.items()}
    told = stopped_early({"igm": whole, "igm-adaptive": rows})
    assert (told["images"], told["agreeing"], told["draws"]) == (3, 2, 1000)
    assert (told["median"], told["low"], told["high"]) == (32, 16, 48)
    assert stopped_early({"igm": whole}) == {} == stopped_early({"igm": whole, "igm-adaptive": {}})
