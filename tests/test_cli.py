"""The command line as a user meets it: real processes, streams and exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import typer
from conftest import ROOT, Here, Igm, in_two, launch_two
from forks import Fork
from PIL import Image

import igm_cli
from igm_cli import app
from igm_cli.core.checkpoint import add_to_description
from igm_cli.output import Output
from igm_cli.session import ImageSession

QUICK = ("--draws", "2", "--device", "cpu")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def untimed(text: str) -> list[dict[str, Any]]:
    """Results without their seconds, the one thing that differs between two calls."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines(text)]


def schema(name: str) -> dict[str, Any]:
    path = Path(igm_cli.__file__).parent / "schemas" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def one_sentence(stderr: str) -> str:
    """What an error must look like: one line, no traceback."""
    found = [line for line in stderr.splitlines() if line.strip()]
    assert len(found) == 1, stderr
    assert found[0].startswith("igm: ")
    assert "Traceback" not in stderr
    return found[0]


@pytest.mark.parametrize("command", ["train", "ui", "plugins", "doctor"])
def test_help(igm: Igm, command: str) -> None:
    """Of a command, and of those that have no screen in test_screens.py."""
    done = igm(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert command in done.stdout
    assert done.stderr == ""


def test_help_is_light() -> None:
    """Options alone need pydantic."""
    code = (
        "import sys; from igm_cli.app import main\n"
        "heavy = {'PIL', 'datasets', 'diffusers', 'matplotlib', 'numpy', 'pydantic', 'scipy', 'torch', 'transformers'}\n"
        "for words in sys.argv[1:]: print(main(words.split()), *sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    given = ("--help", "--version", "invert --help", "train --help", "zero-shot --help")
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.splitlines() == ["0", "0", "0 pydantic", "0 pydantic", "0 pydantic"]


def test_version_and_bare_call(igm: Igm) -> None:
    assert igm("--version").stdout == f"igm {igm_cli.__version__}\n"
    bare = igm()
    assert bare.returncode == 2
    assert bare.stdout.count("Usage") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["invrt"], 2, "invert"),
        (["invert"], 2, "PATHS"),
        (["invert", "x.png", "--nonsense"], 2, "--nonsense"),
        (["invert", "x.png", "--k", "0"], 2, "--k"),
        (["invert", "x.png", "--fit", "bend"], 2, "bend"),
        (["invert", "x.png", "--k", "2", "--k-max", "4"], 2, "--k"),
        (["estimate-k", "x.png", "--k-min", "5", "--k-max", "3"], 2, "--k-min 5"),
        (["invert", "{pictures}/0.png", "--concepts", "poss"], 5, "did you mean pos"),
        (["invert", "{pictures}/0.png", "--model", "no-such"], 4, "no-such"),
        (["invert", "{pictures}", "--overlay", "one.png"], 2, "folder"),
        (["invert", "{pictures}/0.png", "--overlay", "one.xyz"], 2, ".xyz"),
        (["invert", "{pictures}/0.png", "--overlay", "{pictures}/0.png"], 2, "overwrite"),
        (["train", "celvr"], 5, "did you mean clevr"),
        (["train", "clevr", "--concepts", "nope"], 5, "nope"),
        (["train", "clevr", "--preset", "nope"], 2, "nope"),
        (["train", "clevr", "--preset", "nope.toml"], 4, "nope.toml"),
        (["train", "clevr", "--set", "stepps=3"], 3, "stepps"),
        (["train", "clevr", "--set", "steps"], 2, "key=value"),
        (["train", "clevr", "--set", "modell.x=3"], 2, "modell"),
        (["train", "animals", "--set", "autoencoder_steps=0"], 2, "give --init"),
        (["train", "clevr", "--set", "model.blockz=3"], 3, "blockz"),
        (["train", "clevr", "--precision", "fp8"], 2, "fp8"),
        (["train", "clevr", "--seed", str(2**32)], 2, "--seed"),
        (["train", "clevr", "--set", "model.image_size=64"], 3, "image_size"),
        (["train", "clevr", "--set", "model.image_size=abc"], 3, "image_size"),
        (["train", "clevr", "--set", "inference.drawz=3"], 3, "drawz"),
        (["train", "clevr", "--set", "inference.draws=0"], 3, "draws"),
        (["train", "clevr", "--data-root", "/no/such/folder"], 3, "/no/such/folder"),
        (["train", "clevr", "--init", "no-such"], 4, "no-such"),
        (["train", "clevr", "--init", "{pictures}"], 4, "model.safetensors"),
        (["train", "clevr", "--init", "{tiny_model}"], 3, "do not fit"),
    ],
)
def test_mistakes(
    here: Here, pictures: Path, tiny_model: Path, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    given = [a.format(pictures=pictures, tiny_model=tiny_model) for a in arguments]
    done = here(*given, cwd=tmp_path)
    assert done.code == code, done.err
    assert says in one_sentence(done.err)
    assert done.out == ""


def test_no_image_is_drawn_over_another(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "0.png", tmp_path / "a.png")
    with Image.open(pictures / "1.png") as picture:
        picture.save(tmp_path / "b.jpg")
    before = (tmp_path / "a.png").read_bytes()
    done = igm("invert", tmp_path, "--model", tiny_model, "--overlay", tmp_path, *QUICK)
    assert done.returncode == 2
    assert "a.png" in one_sentence(done.stderr)
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_name_that_is_not_utf8_stops_no_other(
    igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copy(pictures / "0.png", tmp_path / "good.png")
    try:
        shutil.copy(pictures / "1.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    done = igm("invert", tmp_path, "--model", tiny_model, "--json", *QUICK)
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 1 and "good.png" in done.stdout
    assert "not in UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.png", None, "does not exist"),
        ("broken.png", None, "broken.png is a link to a file that does not exist"),
        ("empty.png", b"", "empty"),
        ("text.png", b"hello", "not an image"),
    ],
)
def test_bad_images(
    here: Here, tiny_model: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if name == "broken.png":
        (tmp_path / name).symlink_to("nowhere.png")
    done = here("invert", tmp_path / name, "--model", tiny_model, "--json", *QUICK)
    assert done.code == 3
    assert says in one_sentence(done.err)
    assert done.out == ""


def test_a_file_that_looks_like_an_option_is_known(here: Here, tmp_path: Path) -> None:
    (tmp_path / "-dash.png").write_bytes(b"")
    done = here("invert", "-dash.png", cwd=tmp_path)
    assert done.code == 2 and "write ./-dash.png" in one_sentence(done.err)
    assert "empty" in here("invert", "--", "-dash.png").err
    long = ",".join(f"label{n}.x" for n in range(60))  # longer than the name of any file
    assert "does not exist" in here("zero-shot", "no.png", f"--labels={long}").err


def test_bad_devices(here: Here, tiny_model: Path, pictures: Path) -> None:
    unknown = here("invert", pictures / "0.png", "--model", tiny_model, "--device", "tpu")
    assert unknown.code == 2
    assert "tpu" in one_sentence(unknown.err)
    absent = here("invert", pictures / "0.png", "--model", tiny_model, "--device", "cuda:99")
    assert absent.code == 3
    assert "cuda:99" in one_sentence(absent.err)


@pytest.mark.parametrize(
    ("file", "content", "code"),
    [
        ("model.safetensors", None, 4),
        ("model.safetensors", b"garbage", 3),
        ("igm.json", b"{", 3),
        ("config.json", None, 4),
    ],
)
def test_bad_checkpoints(
    here: Here, tiny_model: Path, pictures: Path, tmp_path: Path, file: str, content: bytes | None, code: int
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    if content is None:
        (broken / file).unlink()
    else:
        (broken / file).write_bytes(content)
    done = here("invert", pictures / "0.png", "--model", broken, *QUICK)
    assert done.code == code, done.err
    one_sentence(done.err)


def test_checkpoint_of_another_space(here: Here, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    description = json.loads((other / "igm.json").read_text())
    description["space"]["high"] = [2.0, 2.0]
    (other / "igm.json").write_text(json.dumps(description))
    done = here("invert", pictures / "0.png", "--model", other, *QUICK)
    assert done.code == 3
    assert "concept space" in one_sentence(done.err)


def test_a_model_of_a_plugin_that_is_not_here(here: Here, tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "mine")
    told = (model / "igm.json").read_text()
    (model / "igm.json").write_text(told.replace('"concepts": "pos"', '"concepts": "gauges"'))
    done = here("invert", "a.png", "--model", model)
    assert done.code == here("ui", "--model", model, "--host", "no name").code == 5
    says = "igm: the model 'mine' needs the concept parser 'gauges', of a plugin that is not installed; install"
    assert one_sentence(done.err) == f"{says} that plugin"
    for name, way_out in (
        ("igm-gauges", "the package igm-gauges, as its training says, if you trust it"),
        ("-r x; rm", "that plugin"),
    ):
        add_to_description(model, {"plugins": {"concepts": name}})
        assert one_sentence(here("invert", "a.png", "--model", model).err) == f"{says} {way_out}"
        assert (f"pip install igm-cli {name}\n" in here("models", model).out) == (name == "igm-gauges")


def test_invert_json(igm: Igm, tiny_model: Path, pictures: Path) -> None:
    call = ("invert", pictures, "--model", tiny_model, "--concepts", "pos", "--json", *QUICK)
    done = igm(*call)
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert [Path(line["image"]).name for line in found] == ["0.png", "1.png", "2.png"]
    for line in found:
        jsonschema.validate(line, schema("igm.invert-1"), jsonschema.Draft202012Validator)
        assert line["k"] == len(line["items"])
        assert line["k_source"] == "estimated"
    assert [line["size"] for line in found] == [[32, 32], [64, 40], [30, 50]]
    *others, doubt = done.stderr.splitlines()
    assert doubt.startswith(
        "igm: tiny-pos was not calibrated: confidence is rough, and images unlike those it was"
    )
    assert all("raise --k-max" in said for said in others)
    assert untimed(igm(*call).stdout) == untimed(done.stdout)


def test_invert_given_k_and_overlay(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    from PIL import Image

    target = tmp_path / "deep" / "out.png"
    image = pictures / "1.png"
    done = igm("invert", image, "--model", tiny_model, "--k", 2, "--json", "--overlay", target, *QUICK)
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout)
    assert (line["k"], line["k_source"]) == (2, "given")
    for item in line["items"]:
        assert item["x_px"] == pytest.approx(item["x"] * 64, abs=1e-3)
        assert item["y_px"] == pytest.approx(item["y"] * 40, abs=1e-3)
    assert Image.open(target).size == (64 * 12, 40 * 12)  # enlarged, so that numbers can be read
    table = igm("invert", image, "--model", tiny_model, "--k", 2, *QUICK)
    assert table.returncode == 0
    assert "K = 2 (given)" in table.stdout
    assert "confidence" in table.stdout


def test_results_do_not_depend_on_the_batch(igm: Igm, tiny_model: Path, pictures: Path) -> None:
    call = ("invert", pictures, "--model", tiny_model, "--json", *QUICK, "--batch-size")
    one, many = igm(*call, 1), igm(*call, 2)
    assert many.returncode == 0, many.stderr
    assert untimed(many.stdout) == untimed(one.stdout)
    none = igm(*call, 0)
    assert none.returncode == 2
    assert "--batch-size takes auto or a number" in one_sentence(none.stderr)


def test_each_image_is_kept_and_counted_when_it_is_done(
    tiny_model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run that ends at its last image has kept the others, and the bar of images is never ahead of what is kept."""
    kept, told, begun = tmp_path / "kept.jsonl", [], []
    work = ImageSession.invert

    def invert(self: ImageSession, images: Any, progress: Any = None) -> Any:
        begun.append(images)
        if sum(map(len, begun)) == 3:
            raise KeyboardInterrupt
        return work(self, images, progress)

    def report(what: str, done: int, total: int) -> None:
        if what == "images":
            told.append((done, len(kept.read_text().splitlines())))

    monkeypatch.setattr(ImageSession, "invert", invert)
    monkeypatch.setattr(Output, "progress", lambda self: contextlib.nullcontext(report))
    call = ["invert", str(pictures), "--model", str(tiny_model), *QUICK, "-o", str(kept)]
    assert app.main(call) == 130
    assert told == [(0, 0), (1, 1), (2, 2)]
    begun[:] = [[None] * 3]
    told.clear()
    kept.unlink()
    assert app.main([*call, "--batch-size", "2"]) == 0
    assert told == [(0, 0), (0, 0), (2, 2), (3, 3)]


def test_invert_sgd(igm: Igm, tiny_model: Path, pictures: Path) -> None:
    sgd = ("--method", "sgd", "--restarts", "2", "--steps", "3", "--k", "1", "--json")
    done = igm("invert", pictures / "0.png", "--model", tiny_model, *sgd, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout)
    jsonschema.validate(line, schema("igm.invert-1"), jsonschema.Draft202012Validator)
    assert "calibrated" not in done.stderr  # it gives no confidence


def test_sgd_options_need_sgd(here: Here, tiny_model: Path, pictures: Path) -> None:
    done = here("invert", pictures / "0.png", "--model", tiny_model, "--restarts", 2, *QUICK)
    assert done.code == 2
    assert "--method sgd" in one_sentence(done.err)


def test_the_models_own_seed_counts(tiny_model: Path, tmp_path: Path) -> None:
    from igm_cli.model import open_checkpoint

    own = tmp_path / "own"
    shutil.copytree(tiny_model, own)
    description = json.loads((own / "igm.json").read_text())
    description["inference"] |= {"seed": 5, "method": "sgd", "restarts": 2}
    (own / "igm.json").write_text(json.dumps(description))
    model = open_checkpoint(str(own), None, "cpu")

    def settings(**given: Any) -> Any:
        return ImageSession(model, k=None, fit="crop", batch_size=None, given=given).settings

    chosen = settings(seed=None, method=None, steps=3)
    assert (chosen.seed, chosen.method, chosen.steps) == (5, "sgd", 3)
    assert settings(seed=0).seed == 0


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("can't allocate memory: 9")],
)
def test_out_of_memory(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from igm_cli import app
    from igm_cli.plugins import registry

    def full(kind: str) -> None:
        raise error

    monkeypatch.setattr(registry, "listings", full)
    assert app.main(["plugins"]) == 3
    says = one_sentence(capsys.readouterr().err)
    assert "not enough memory; use " in says and "--scale" in says
    assert ("--device cpu" in says) == ("CUDA" in str(error))


def test_one_bad_image_among_many(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(pictures, folder)
    (folder / "00.png").write_bytes(b"no image")
    overlays = tmp_path / "drawn"
    done = igm("invert", folder, "--model", tiny_model, "--json", "--overlay", overlays, *QUICK)
    assert done.returncode == 3
    assert len(lines(done.stdout)) == 3
    assert "00.png" in done.stderr
    assert "1 of 4" in done.stderr
    assert sorted(p.name for p in overlays.iterdir()) == ["0.png", "1.png", "2.png"]
    for name in ("0.png", "1.png", "2.png"):
        (folder / name).write_bytes(b"no image")
    done = igm("invert", folder, "--model", tiny_model, "--json", "--overlay", tmp_path / "none", *QUICK)
    assert done.returncode == 3 and done.stderr.endswith("igm: 4 of 4 images could not be used\n")


def test_a_folder_run_goes_on(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    results = tmp_path / "out" / "results.jsonl"
    call = ("invert", pictures, "--model", tiny_model, "--json", "--output", results, *QUICK)
    whole = igm(*call)
    assert whole.returncode == 0, whole.stderr
    text = results.read_text()
    assert text == whole.stdout
    first, second = text.splitlines(keepends=True)[:2]
    results.write_text(first + second[: len(second) // 2])  # cut short in the middle of a line
    again = igm(*call)
    assert again.returncode == 0, again.stderr
    resumed = results.read_text().splitlines(keepends=True)
    assert resumed[0] == first  # not done again: its seconds are those of the first run
    name = results.name
    (results.parent / f"{name}.rank0").write_text(resumed[0] + resumed[2])  # what several processes leave
    (results.parent / f"{name}.rank1").write_text(resumed[1])
    results.unlink()
    merged = igm(*call)
    assert merged.returncode == 0, merged.stderr
    assert results.read_text().splitlines(keepends=True) == resumed
    assert [p.name for p in results.parent.iterdir()] == [name]
    assert [json.loads(x)["image"] for x in resumed] == [x["image"] for x in lines(text)]
    other = igm(*call, "--seed", "7")
    assert other.returncode == 3
    assert "other options" in one_sentence(other.stderr)
    assert results.read_text().splitlines(keepends=True) == resumed
    results.write_text("something else\n")
    foreign = igm(*call)
    assert foreign.returncode == 3
    assert results.read_text() == "something else\n"


@pytest.mark.slow
def test_two_processes_give_what_one_does(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    call = ["invert", str(pictures), "--model", str(tiny_model), "--json", *QUICK]
    one = igm(*call)
    assert one.returncode == 0, one.stderr
    results = tmp_path / "results.jsonl"
    two = launch_two("-m", "igm_cli", *call, "--output", results, cwd=tmp_path)
    assert untimed(two) == untimed(one.stdout)
    assert results.read_text() == two
    assert [p.name for p in tmp_path.iterdir() if "rank" in p.name] == []


def test_estimate_k(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    from PIL import Image

    plot = tmp_path / "curve.png"
    call = ("estimate-k", pictures / "0.png", "--model", tiny_model, "--k-max", 2, *QUICK)
    done = igm(*call, "--json", "--plot", plot)
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout)
    jsonschema.validate(line, schema("igm.estimate-k-1"), jsonschema.Draft202012Validator)
    assert [point["k"] for point in line["k_curve"]] == [0, 1, 2]
    assert Image.open(plot).size[0] > 300
    assert line["k_penalty"] == 0
    results = tmp_path / "r[1].jsonl"
    kept = igm(*call, "--json", "--output", results)
    assert kept.returncode == 0, kept.stderr
    assert results.read_text() == kept.stdout == igm(*call, "--json", "--output", results).stdout
    table = igm(*call).stdout
    assert "K = " in table
    assert table.count("◯") == 1


def test_the_choice_of_k_can_be_read_off() -> None:
    from igm_cli.commands.show import curve_table

    curve = [{"k": k, "error": e, "stderr": 0.0} for k, e in enumerate([0.5, 0.3, 0.29])]
    columns, rows = curve_table({"k": 1, "k_penalty": 0.05, "k_curve": curve})
    assert columns[3] == "error + cost of K"
    sums = [float(row[3]) for row in rows]
    assert sums.index(min(sums)) == [row[-1] for row in rows].index("◯") == 1


def test_read_only_output(igm: Igm, tiny_model: Path, pictures: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    image = pictures / "0.png"
    for option, target in (("--output", blocked / "r.jsonl"), ("--overlay", blocked / "o.png")):
        done = igm("invert", image, "--model", tiny_model, option, target, *QUICK)
        assert done.returncode == 3, done.stderr
        one_sentence(done.stderr)
    train = igm("train", "clevr", "--output", blocked / "run")
    assert train.returncode == 3
    one_sentence(train.stderr)


def test_an_interrupt_while_the_command_line_is_imported(igm: Igm, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    done = igm("--version", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "igm: interrupted\n")


def test_a_reader_that_leaves(igm: Igm, tiny_model: Path, pictures: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    call = [sys.executable, "-m", "igm_cli", "models", "--json"]
    done = subprocess.run(call, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 0


def test_bugs_are_ours(igm: Igm, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import igm_cli.plugins.registry as r\n"
        "def broken(kind): raise ZeroDivisionError('sums gone wrong')\n"
        "r.listings = broken\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = igm("plugins", env={"PYTHONPATH": path})
    assert done.returncode == 1
    assert "this is a bug in igm: ZeroDivisionError: sums gone wrong" in one_sentence(done.stderr)
    debug = igm("plugins", env={"PYTHONPATH": path, "IGM_DEBUG": "1"})
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


def test_plugins_and_doctor(igm: Igm) -> None:
    done = igm("plugins", "--json")
    assert done.returncode == 0
    found = {(line["kind"], line["name"]): line for line in lines(done.stdout)}
    assert found["datasets", "clevr"]["ok"]
    assert found["concepts", "pos"]["ok"]
    doctor = igm("doctor", "--json")
    assert doctor.returncode == 0, doctor.stderr
    (report,) = lines(doctor.stdout)
    assert report["ok"]
    assert report["packages"]["torch"]


TINY_PRESET = """
[model]
channels = [8, 8, 8]
blocks = 1
head_channels = 8
head_layers = 1
image_size = [48, 32]

[train]
steps = 4
batch_size = 2
log_every = 1
checkpoint_every = 2
picture_every = 4
calibration = 0
half = false

[inference]
grid = [4, 4]
draws = 2
max_draws = 2
k_max = 2
"""


def test_train_resume_and_use(
    igm: Igm, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igm_cli.commands.train_validation.COUNT", 2)  # images, in the forks, too
    (tmp_path / "tiny.toml").write_text(TINY_PRESET)
    call = ("train", "clevr", "--preset", "tiny.toml", "--limit", 2, "--device", "cpu", "-o", "run")
    done = igm(*call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    metrics = lines((tmp_path / "run/metrics.jsonl").read_text())
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    assert any("validation/perceived_sum" in line for line in metrics)
    drawn = sorted(p.name for p in (tmp_path / "run/pictures").iterdir())
    assert drawn == ["inversion-0000004.png", "samples-0000004.png"]
    finished = igm(*call, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("\n") == 1
    assert "already holds all 4 steps" in finished.stderr
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "run/model.safetensors").unlink()
    assert "already holds" not in igm(*call, cwd=tmp_path).stderr
    (tmp_path / "run/model.safetensors").write_bytes(weights)
    longer = igm(*call, "--steps", 6, cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert lines((tmp_path / "run/metrics.jsonl").read_text())[-1]["step"] == 6
    other = igm(*call, "--set", "learning_rate=1e-3", cwd=tmp_path)
    assert other.returncode == 3
    assert "learning_rate" in other.stderr.splitlines()[-1]
    used = igm("invert", pictures / "0.png", "--model", "run", "--json", cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    (line,) = lines(used.stdout)
    assert line["model"] == "run"


@pytest.mark.slow
def test_a_folder_without_validation_images(igm: Igm, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "tiny.toml").write_text(TINY_PRESET)
    (tmp_path / "data/images/train").mkdir(parents=True)
    Image.new("RGB", (96, 64), (60, 60, 60)).save(tmp_path / "data/images/train/a.png")
    scene = {"image_index": 0, "image_filename": "a.png", "objects": [{"pixel_coords": [40, 30, 9]}]}
    file = tmp_path / "data/CLEVR_train_scenes.json"
    file.write_text(json.dumps({"scenes": [scene]}))
    call = ("train", "clevr", "--preset", "tiny.toml", "--data-root", "data", "--device", "cpu", "-o", "run")
    done = igm(*call, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "without validation" in done.stderr
    assert json.loads((tmp_path / "run/igm.json").read_text())["info"]["data"] == "given"
    (part,) = json.loads((tmp_path / "run/run.json").read_text())["data"]["parts"]
    assert (part["root"], part["seed"]) == ("data", 0)
    scene["objects"] = [{"pixel_coords": [300, 200, 9]}]
    file.write_text(json.dumps({"scenes": [scene]}))
    wrong = igm(*call[:-1], "other", cwd=tmp_path)
    assert wrong.returncode == 3
    assert "96×64" in one_sentence(wrong.stderr)


def started(folder: Path, command: Sequence[str] = ()) -> Any:
    """A long training as a process, a fork unless a command is given that runs igm, once it has saved something."""
    (folder / "tiny.toml").write_text(TINY_PRESET)
    call = ["train", "clevr", "--preset", "tiny.toml", "--limit", "4", "--device", "cpu", "-o", "run"]
    call += ["--steps", "100000", "--set", "checkpoint_every=5", "--set", "picture_every=0"]
    env = os.environ | {"HF_HOME": str(folder / "cache"), "ACCELERATE_USE_CPU": "true"}
    if command:
        pipe = subprocess.PIPE
        process: Any = subprocess.Popen(
            [*command, *call], env=env, cwd=folder, stdout=pipe, stderr=pipe, text=True
        )
    else:
        process = Fork(call, env, folder)
    deadline = time.monotonic() + 90
    while not (folder / "run/state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_training_keeps_its_checkpoint(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    process = started(tmp_path)
    process.send_signal(sent)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGKILL)  # or it would train on for hours
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    step = torch.load(tmp_path / "run/state.pt", weights_only=True)["step"]
    says = f"igm: interrupted; step {step} of 100000 is saved in run, and the same command continues from there"
    assert err.splitlines()[-1] == says
    from igm_cli.core.checkpoint import load_checkpoint

    load_checkpoint(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True])
def test_two_processes_stop_together(tmp_path: Path, group: bool) -> None:
    """SIGTERM for the launcher alone, or for all processes at once as SLURM does it."""
    process = started(tmp_path, in_two("-m", "igm_cli"))
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for number in [process.pid, *map(int, children)] if group else [process.pid]:
            os.kill(number, signal.SIGTERM)
        sent = time.time()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (tmp_path / "run/state.pt").stat().st_mtime - sent < 10
    (said,) = [line for line in err.splitlines() if "is saved in run" in line]
    step = torch.load(tmp_path / "run/state.pt", weights_only=True)["step"]
    assert f"step {step} of 100000" in said
    measured = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert measured["step"] == step


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--k", "x"), "--k must be a whole number; see igm invert --help"),
        (("--k", "0"), "--k must be at least 1; see igm invert --help"),
        (("--scale", "w"), "--scale must be a number; see igm invert --help"),
        (("--penalty", "inf"), "--penalty must be at most 1000000000; see igm invert --help"),
        (("--k-max", "10001"), "--k-max must be at most 10000; see igm invert --help"),
        (("--fit", "y"), "--fit: 'y' is not one of 'crop', 'squash'; see igm invert --help"),
    ],
)
def test_wrong_values_are_told_plainly(
    words: tuple[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["invert", "a.png", *words]) == 2
    assert capsys.readouterr().err == f"igm: {says}\n"


def test_options_take_what_their_settings_take() -> None:
    from pydantic import TypeAdapter

    from igm_cli.core.training.config import TrainConfig
    from igm_cli.core.types import InversionSettings
    from igm_cli.generation import GenerationSettings

    group: Any = typer.main.get_command(app.command_line())
    for settings, commands in {
        InversionSettings: ("invert", "estimate-k", "zero-shot", "evaluate"),
        GenerationSettings: ("generate",),
        TrainConfig: ("train",),
    }.items():
        fields = TypeAdapter(settings).json_schema()["properties"]
        for option in (each for name in commands for each in group.commands[name].params):
            field = fields.get(option.name, {})
            ranges = [one for one in (field, *field.get("anyOf", ())) if "minimum" in one]
            if ranges and option.name != "batch_size":  # or auto
                assert [(option.min, option.max)] == [(r["minimum"], r["maximum"]) for r in ranges], option.name
