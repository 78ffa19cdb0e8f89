"""Models are pushed to a hub of this machine, pulled from it and used; and what is said where that cannot be."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_hub
import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest
import tiny_pipelines
import yaml
from conftest import ROOT, Here, Igm
from huggingface_hub.utils.tqdm import disable_progress_bars
from test_cli import one_sentence

from igm_cli.bundled import _described, bundled, names_pipeline
from igm_cli.commands.model_card import LICENCES, card
from igm_cli.core.hub import refusal
from igm_cli.core.models.pipeline_files import find_pipeline

SCENE = ROOT / "examples/images/CLEVR_val_000003.png"


@pytest.fixture
def hub() -> Iterator[fake_hub.Hub]:
    with fake_hub.serving() as hub:
        yield hub


@pytest.fixture
def call(hub: fake_hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here) -> Here:
    """Runs igm in this process, in an empty folder, against the hub, with a cache of its own."""
    disable_progress_bars()
    _described.cache_clear()
    constants = {"ENDPOINT": hub.address, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    constants |= {"HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}"}
    for name, value in {**constants, "HF_HUB_CACHE": str(tmp_path / "home" / "hub")}.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.address)  # which diffusers asks
    for name, value in hub.environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return here


def head_of(text: str) -> dict[str, Any]:
    """The head of a card, for programs."""
    found: dict[str, Any] = yaml.safe_load(re.fullmatch(r"---\n(.*?)\n---\n\n# .*", text, re.DOTALL)[1])  # type: ignore[index]
    return found


def test_a_model_is_pushed_pulled_and_used(
    call: Here, hub: fake_hub.Hub, tiny_model: Path, pictures: Path
) -> None:
    code, out, err = call("push", tiny_model, "user/mine", "--private", "--json", "--licence", "MIT")
    assert code == 0 and json.loads(out)["address"] == f"{hub.address}/user/mine", err
    there = hub.repositories["user/mine"]
    names = {"igm.json", "config.json", "scheduler_config.json", "model.safetensors"}
    assert set(there.files) == {*names, "README.md", ".gitattributes"} and there.private
    assert all(there.files[name] == (tiny_model / name).read_bytes() for name in names)
    head = head_of(there.files["README.md"].decode())
    assert (head["library_name"], head["license"]) == ("igm", "mit") and "igm-pos" in head["tags"]
    code, out, err = call("pull", "hf:user/mine", "--json")
    record = json.loads(out)
    assert (record["name"], record["concepts"], record["source"]) == ("user/mine", "pos", "cached") and record[
        "card"
    ]
    hub.asked.clear()
    invert = ("invert", pictures / "0.png", "--draws", 2, "--device", "cpu", "--json", "--model")
    found = [json.loads(call(*invert, model)[1]) for model in (tiny_model, "user/mine")]
    assert hub.asked == [] and found[1]["model"] == "user/mine"
    assert [found[0][key] for key in ("items", "run")] == [found[1][key] for key in ("items", "run")]


@pytest.mark.slow
def test_by_processes_of_their_own(
    igm: Igm, hub: fake_hub.Hub, tiny_model: Path, pictures: Path, tmp_path: Path
) -> None:
    env = hub.environment(tmp_path / "home")
    invert = ("invert", pictures / "0.png", "--model", "user/mine", "--k", 2, "--draws", 2, "--device", "cpu")
    for words in (("push", tiny_model, "user/mine"), ("pull", "hf:user/mine"), invert, ("models",)):
        done = igm(*words, env=env)
        assert done.returncode == 0 and len(done.stderr.splitlines()) <= 1, done.stderr
    assert "user/mine" in done.stdout


def test_a_pipeline_that_igm_trained_keeps_its_labels(call: Here, hub: fake_hub.Hub) -> None:
    code, _, err = call("push", "animals-tiny", "user/animals")
    assert code == 0, err
    assert {"tokenizer/merges.txt", "unet/diffusion_pytorch_model.safetensors", "igm.json"} <= set(
        hub.repositories["user/animals"].files
    )
    folder = find_pipeline("hf:user/animals")
    assert len(json.loads((folder / "igm.json").read_text())["space"]["labels"]) == 26
    code, out, err = call("models")
    assert code == 0 and re.search(r"user/animals\W+cached\W+labels\W+15.2 MB\W+calibrated", out), out


def test_a_pipeline_of_others_is_pulled(call: Here, hub: fake_hub.Hub, tmp_path: Path) -> None:
    folder = tiny_pipelines.build(tmp_path / "pipeline", "sd1")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    hub.repositories["owner/diffusion"] = fake_hub.Repository(files=files)
    assert names_pipeline("hf:owner/diffusion", None)
    assert hub.asked and not any("safetensors" in asked for asked in hub.asked)  # only its description
    hub.asked.clear()
    code, _, err = call("invert", SCENE, "--model", "hf:owner/diffusion")
    assert code == 2 and "text-to-image pipeline; use igm zero-shot" in err
    assert hub.asked == []  # which is fetched once
    code, out, err = call("pull", "owner/diffusion", "--json")
    assert code == 0, err
    assert json.loads(out)["concepts"] == "labels" and names_pipeline("owner/diffusion", None)
    code, _, err = call("push", "owner/diffusion", "user/mine")
    assert code == 4 and "igm: owner/diffusion is a text-to-image pipeline that igm did not write" in err


def test_a_dry_run_writes_the_card_and_asks_nobody(call: Here, hub: fake_hub.Hub, tiny_model: Path) -> None:
    code, out, err = call("push", tiny_model, "user/mine", "--dry-run", "--json")
    record = json.loads(out)
    assert (code, err, hub.asked) == (0, "", []) and not record["uploaded"]
    path = Path(record["card"])
    assert path == Path("push/mine/README.md")
    assert record["files"]["README.md"] == path.stat().st_size and "model.safetensors" in record["files"]
    assert call("push", tiny_model, "user/mine", "--dry-run")[0] == 0  # the same card
    path.write_text(path.read_text() + "\nEdited by hand.\n")
    code, _, err = call("push", tiny_model, "user/mine", "--dry-run")
    assert code == 2 and "is there already and differs" in one_sentence(err)
    assert call("push", tiny_model, "user/mine", "--card", path)[0] == 0
    assert hub.repositories["user/mine"].files["README.md"] == path.read_bytes()


def test_what_the_hub_or_igm_refuses(
    call: Here, hub: fake_hub.Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"igm.json": b"{}", "config.json": b"{}"}
    hub.repositories["user/public"] = fake_hub.Repository(files=dict(files))
    hub.repositories["user/other"] = fake_hub.Repository(files={"model.bin": b"x"})
    hub.repositories["user/hidden"] = fake_hub.Repository(private=True, files=dict(files))
    hub.repositories["owner/gated"] = fake_hub.Repository(gated=True, files=dict(files))
    hub.repositories["user/damaged"] = fake_hub.Repository(files={"igm.json": b"{", "config.json": b"{}"})
    Path("bad.md").write_text("no head")
    Path("runs").mkdir()

    def refused(code: int, says: str, *words: object) -> None:
        done, out, err = call(*words)
        assert (done, out) == (code, ""), err
        assert says in one_sentence(
            "\n".join(
                line for line in err.splitlines() if not re.search("uploading|looking for|is fetched", line)
            )
        ), err

    refused(2, "'mine' has no owner; write user/name", "push", tiny_model, "mine")
    refused(2, "'a/b/c' names no place on the Hugging Face hub", "push", tiny_model, "a/b/c")
    refused(
        2,
        "the hub knows no licence 'mitt'; did you mean mit",
        "push",
        tiny_model,
        "user/mine",
        "--licence",
        "mitt",
    )
    refused(4, "there is no model 'clevr-post'; did you mean clevr-pos", "push", "clevr-post", "user/mine")
    refused(4, "runs is not a model of igm", "push", "runs", "user/mine")
    refused(2, "--output is about the card of --dry-run", "push", tiny_model, "user/mine", "-o", "x")
    refused(4, "you may not write to owner/mine", "push", tiny_model, "owner/mine")
    refused(2, "user/public is there already and public", "push", tiny_model, "user/public", "--private")
    refused(2, "user/other holds files that are not igm's, such as model.bin", "push", tiny_model, "user/other")
    refused(3, "the hub refuses the head of the card", "push", tiny_model, "user/mine", "--card", "bad.md")
    refused(4, "the hub has no model user/none that you may see", "pull", "hf:user/none")
    refused(4, "owner/gated is gated: ask for access on its page", "pull", "hf:owner/gated")
    refused(4, "owner/gated is gated", "invert", "x.png", "--model", "hf:owner/gated")
    refused(3, "user/other is not a model that igm can use", "pull", "user/other")
    refused(3, "is not a valid JSON file", "pull", "user/damaged")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(4, "the hub does not accept your token", "push", tiny_model, "user/mine")
    monkeypatch.delenv("HF_TOKEN")
    refused(4, "you are not logged in to the hub; run hf auth login", "push", tiny_model, "user/mine")
    assert "uploading" not in call("push", tiny_model, "user/mine")[2]
    refused(4, "the hub has no model user/hidden that you may see", "pull", "user/hidden")
    hub.answers = 500
    refused(4, "the hub answered 500 when it was asked for user/public", "pull", "user/public")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(4, "the hub cannot be reached for user/public; connect", "pull", "user/public")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(4, "HF_HUB_OFFLINE keeps igm from asking the hub for user/public", "pull", "user/public")
    assert hub.repositories["user/public"].files == files


def test_what_lies_elsewhere_is_not_uploaded(call: Here, hub: fake_hub.Hub, tiny_model: Path) -> None:
    Path("secret.json").write_text("{}")
    Path("model").mkdir()
    for path in tiny_model.iterdir():
        Path("model", path.name).write_bytes(path.read_bytes())
    Path("model/notes.txt").write_text("mine")
    Path("model/config.json").unlink()
    Path("model/config.json").symlink_to("../secret.json")
    code, _, err = call("push", "model", "user/mine")
    assert (
        code == 3 and "model/config.json is a link to a file elsewhere" in one_sentence(err) and hub.asked == []
    )


def test_models_here_and_their_state(call: Here, tiny_model: Path) -> None:
    for name in ("good", "bad"):
        Path("runs", name).mkdir(parents=True)
        for path in tiny_model.iterdir():
            Path("runs", name, path.name).write_bytes(path.read_bytes())
    Path("runs/bad/igm.json").write_text("[]")
    code, out, _ = call("models", "--json")
    records = {record["name"]: record for record in map(json.loads, out.splitlines())}
    assert code == 0 and list(records) == [*bundled(), "runs/bad", "runs/good"]
    assert {name for name, record in records.items() if record["calibrated"]} == set(bundled())
    assert records["runs/good"] | {"size_mb": 0} == {
        "schema": "igm.models/1", "name": "runs/good", "source": "local", "concepts": "pos", "size_mb": 0,
        "calibrated": False, "card": False, "path": "runs/good", "problem": "",
    }  # fmt: skip
    assert "must hold a JSON object" in records["runs/bad"]["problem"] and not records["runs/bad"]["concepts"]
    code, out, _ = call("models", "runs/good")
    assert code == 0 and "igm invert image.png --model runs/good" in out
    told = Path("runs/good/igm.json").read_text()
    Path("runs/good/igm.json").write_text(told.replace('"concepts": "pos"', '"concepts": "gauges"'))
    shown = call("models")[1]
    assert "damaged: runs/bad/igm.json must hold" in shown
    assert re.search(r"runs/good\W+local\W+gauges\W+[\d.]+ MB\W+needs plugin", shown)


@pytest.mark.parametrize("name", bundled())
def test_cards_say_what_igm_json_says(name: str) -> None:
    folder = bundled()[name]
    known, text = json.loads((folder / "igm.json").read_text()), card(folder, f"hf:user/{name}")
    head = head_of(text)
    assert head["license"] in LICENCES and f"igm-{known['concepts']}" in head["tags"]
    assert f"--model hf:user/{name}" in text and known["info"]["licence"] in text
    images = known["info"]["calibrated"]["images"]  # of windows, where igm did not count their images
    counted = "windows" if known.get("scale") else "images"
    assert re.search(rf"\| {counted} +\| +{images} +\|", text) and "typicality" in text
    factors = known["space"].get("factors") or known["space"].get("what", {}).get("factors") or {}
    assert all(value in text for values in factors.values() for value in values)


def test_a_card_says_why_a_model_is_not_calibrated(tiny_model: Path, tmp_path: Path) -> None:
    known = json.loads((tiny_model / "igm.json").read_text())
    (tmp_path / "igm.json").write_text(json.dumps({**known, "info": {"not_calibrated": "too few | images"}}))
    text = card(tmp_path, "runs/mine/")
    assert "\n# mine\n" in text
    assert "not_calibrated" not in text and r"too few \| images" in text.partition("## Data and training")[0]


def test_a_model_that_did_not_learn_says_so(call: Here, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "mine")
    known = json.loads((tiny_model / "igm.json").read_text())
    known["info"] |= {"outcome": "the loss stays at 0.5000", "not_learned": "it did not learn"}
    Path("mine/igm.json").write_text(json.dumps(known))
    code, _, err = call("push", "mine", "user/mine", "--dry-run", "--json")
    assert code == 0 and one_sentence(err).endswith("its igm.json says that it did not learn")
    for text in (call("models", "./mine")[1], Path("push/mine/README.md").read_text()):
        assert (
            "the loss stays at 0.5000" in text
            and "It hardly learned anything" in text.partition("## Limits")[2]
        )
    assert "learned" not in call("models", tiny_model)[1]


def test_a_card_holds_what_would_be_markup(tiny_model: Path, tmp_path: Path) -> None:
    known = json.loads((tiny_model / "igm.json").read_text())
    known["info"] = {
        "data": "a|b\n# c <script>",
        "licence": "---\nevil: 1",
        "calibrated": {"images": 3, "figures": {"right": 0.51234}},
    }
    (tmp_path / "igm.json").write_text(json.dumps(known))
    text = card(tmp_path, "mine")
    assert head_of(text)["license"] == "other" and "evil" not in head_of(text)
    assert r"a\|b<br># c \<script>" in text and "right 0.5123" in text


def test_what_is_forbidden_is_said() -> None:
    error = OSError("Forbidden")
    error.response = SimpleNamespace(status_code=403)  # type: ignore[attr-defined]
    assert "you may not read owner/name on the hub" in str(refusal("owner/name", error))
    assert "you may not write to owner/name" in str(refusal("owner/name", error, writing=True))
