"""What people see of a training: lines of a log, how it went, curves, every setting with who says it, trackers."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from test_training import CONFIG, SPEC, Spots

from igm_cli.commands.train_watch import Watch, draw_curves, how_it_went
from igm_cli.core.training.run import train
from igm_cli.output import Output


def curve(*losses: float, **validated: float) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = [{"step": 10.0 * n, "loss": loss} for n, loss in enumerate(losses, 1)]
    return [*lines, {"step": 10.0 * len(losses), **{f"validation/{k}": v for k, v in validated.items()}}]


@pytest.mark.parametrize(
    ("metrics", "said", "advice"),
    [
        (curve(0.5, 0.4, 0.3, 0.3, 0.3, right=0.9, k_exact=0.8), "0.5000 to 0.3000; 90 %", "it went well"),
        (curve(0.5, 0.4, 0.3, 0.3, 0.3, right=0.9, k_exact=0.2), "right for 20 %", "counted badly"),
        (curve(0.5, 0.4, 0.3, 0.3, 0.3, right=0.3), "30 %", "--steps 100"),
        (
            curve(0.5, 0.4, 0.3, 0.3, 0.3, right=0.2, place_right=0.9, k_exact=0.9),
            "90 % of the concepts in the first validation images, 8 at most, are found when their number is given, 20 % with every "
            "value right, and the number is right for 90 % when it is not given",
            "places are learned sooner than values",
        ),
        (curve(0.5, 0.4, 0.3, 0.2, 0.1), "from 0.5000 to 0.1000", "still falling"),
        (curve(0.3, 0.3, 0.4, 0.4, 0.4), "rose from 0.3000 to 0.4000", "did not learn"),
        (curve(0.4, 0.4, 0.4, 0.4, 0.40001), "stays at 0.4000", "did not learn"),
        (curve(0.4, 0.4, 0.5, right=0.9, k_exact=0.9), "rose from", "it went well"),  # it knew before
        (curve(0.4), "the loss is 0.4", "smaller log_every"),
        ([], "nothing was logged", "log_every"),
    ],
)
def test_how_it_went(metrics, said, advice):
    went = how_it_went(metrics, 50)
    assert said in went.said and advice in went.advice
    assert went.not_learned == ("it did not learn" if "did not learn" in advice else None)


def test_crops_are_not_taken_for_images():
    assert (
        "50 % of the concepts in 8 crops of validation images are found"
        in how_it_went(curve(0.4, right=0.5), 60, cut=True).said
    )


def test_counts_of_before_the_calibration_are_not_told():
    metrics = curve(0.5, 0.4, 0.3, 0.3, 0.3, right=0.9, k_exact=0.0)
    went = how_it_went(metrics, 50, recounts=True)
    assert went.said.endswith(
        "90 % of the concepts in the first validation images, 8 at most, are found when their number is given"
    )
    assert went.advice == "it went well"


def test_a_training_that_ended_in_its_warm_up_is_to_be_longer():
    went = how_it_went(curve(0.4), 60, 200)
    assert went.said == "the loss is 0.4000" and "within its 200 steps of warm-up" in went.advice
    assert went.not_learned and went.advice.startswith(went.not_learned)


@pytest.fixture
def clock(monkeypatch):
    """The time that lines of a log go by, in seconds; a test moves it."""
    now = [0.0]
    monkeypatch.setattr("igm_cli.output.FIRST", 10.0)
    monkeypatch.setattr("igm_cli.output.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_has_a_line_every_minute(clock, capsys):
    with Output().progress() as bar:
        watch = Watch(Output(), 1000, bar)
        watch(400, {})  # it goes on from here: what was done before says nothing of the time left
        for step in range(401, 1001):
            clock[0] += 0.5
            watch(step, {"loss": step / 1000, "images_per_second": 8.0} if step % 50 == 0 else {})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5  # after 10 seconds, then every 60 of 300
    assert lines[0] == "training 420 of 1000, 4.8 minutes left"
    assert lines[1] == "training 540 of 1000 (loss 0.5000, 8 images/s), 3.8 minutes left"


def test_a_log_says_how_far_all_is_that_is_being_done(clock, capsys):
    with Output().progress() as report:
        for image in range(3):
            report("images", image, 3)
            for calls in range(0, 81, 20):  # decided before all that may be needed
                clock[0] += 7
                report(f"network calls: {image}.png", calls, 100)
        report("images", 3, 3)
    assert capsys.readouterr().err.splitlines() == [
        "images 0 of 3, network calls 20 of 100 (0.png)",
        "images 2 of 3, network calls 0 of 100 (2.png), 42 seconds left",
    ]


def test_curves_are_drawn(tmp_path):
    said = draw_curves(curve(0.5, 0.4, right=0.5, k_exact=0.25), tmp_path)
    assert said == f"the curves are drawn in {tmp_path / 'curves.png'}"
    assert Image.open(tmp_path / "curves.png").size[0] == 1520  # two beside one another
    draw_curves(curve(0.5, 0.4), tmp_path)
    assert Image.open(tmp_path / "curves.png").size[0] == 760


def test_trackers_get_figures_pictures_and_options(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def validate(step, denoiser):
        return {"validation/right": 0.5}, {"validation/drawn": torch.full((4, 6, 3), 200, dtype=torch.uint8)}

    train(SPEC, Spots(), CONFIG, tmp_path, device_is_cpu=True, validate=validate)
    notes: list[str] = []
    config = replace(CONFIG, steps=CONFIG.steps + 2)
    train(SPEC, Spots(), config, tmp_path, device_is_cpu=True, validate=validate, note=notes.append)
    assert notes == [f"resuming at step {CONFIG.steps} of {config.steps}"]
    events = EventAccumulator(str(tmp_path / "tensorboard" / tmp_path.name)).Reload().Tags()
    assert {"loss", "learning_rate", "images_per_second", "validation/right"} <= set(events["scalars"])
    assert events["images"] == ["validation/drawn"]
    (options,) = (tmp_path / "tensorboard").rglob("hparams.yml")
    assert f"train.learning_rate: {CONFIG.learning_rate}" in options.read_text()


def test_a_dataset_without_a_default_preset_names_its_others(here, tmp_path, monkeypatch):
    presets = {"small": tmp_path / "small.toml", "large": tmp_path / "large.toml"}
    monkeypatch.setattr("igm_cli.plugins.clevr.adapter.Clevr.presets", presets)
    said = here("train", "clevr", "--set", "none.such=1").err.splitlines()
    assert said[0] == "clevr has no preset called default, so settings are general; --preset has large, small"
    assert "knows no table 'none'" in said[1]


def test_a_dry_run_says_every_setting_and_who_says_it(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(
        "[model]\nchannels = [8, 8, 8]\nhead_channels = 8\nimage_size = [16, 16]\n"
    )
    for number in range(3):
        for folder in ("train", "val"):
            (tmp_path / "mine" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / "mine" / folder / f"{number}.png")
            line = json.dumps({"file_name": f"{folder}/{number}.png", "labels": ["red"]})
            with (tmp_path / "mine" / "metadata.jsonl").open("a") as file:
                file.write(line + "\n")
    words = "train pictures --data-root mine --dry-run --preset p.toml --steps 7 --set precision=no"
    code, out, err = here(*words.split(), "--set", "concepts.labels=red,blue", "-o", "run")
    assert code == 0, err
    rows = {
        row[0]: row[1:]
        for line in out.splitlines()
        if len(row := [c.strip() for c in line.split("│")[1:4]]) == 3
    }
    assert rows["train.steps"] == ["7", "command line"]
    assert rows["model.channels"] == ["[8, 8, 8]", "preset p.toml"]
    assert rows["model.blocks"][1] == "default"
    assert rows["concepts.labels"] == ["red,blue", "command line"]
    assert rows["data.data_root"][0] == "given"
    assert "would train on 3 images" in err and "for 7 steps of" in err and "s in float32, which takes" in err
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()] == ["samples.png"]


def test_presets_are_listed(here):
    code, out, _ = here("train", "clevr", "--list-presets")
    assert code == 0 and "finetune" in out and "The preset of the bundled checkpoint clevr-pos." in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--tracker", "wandbb"), "unknown tracker 'wandbb'; did you mean wandb or"),
        (("--builtin",), "--builtin is about images beside those of --data-root"),
        (("--set", "stepz=5"), "did you mean steps (a whole number)?"),
        (("--set", "model.channel=[8]"), "did you mean channels (a list)"),
        (("--set", "precison=no"), "precision (one of no, bf16, fp16, auto)"),
        (("--set", "data.object=3"), "clevr has no option 'object'; did you mean objects?"),
        (("--set", "inference.kmax=3"), "k_max (a whole number)"),
    ],
)
def test_what_is_mistyped_is_named_with_what_may_be_meant(here, tmp_path, words, says):
    code, _, err = here("train", "clevr", "--dry-run", "--limit", "1", "-o", str(tmp_path / "run"), *words)
    assert code in (2, 3) and says in err and len(err.splitlines()) == 1
