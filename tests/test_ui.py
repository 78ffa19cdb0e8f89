"""``igm ui``: what the page answers, and the page itself in a browser."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Igm
from PIL import Image, ImageOps
from test_cli import one_sentence

from igm_cli.bundled import names_pipeline
from igm_cli.commands.ui import is_local, require_free, serve
from igm_cli.commands.ui_page import Workbench
from igm_cli.errors import OutputError

SCENE = str(ROOT / "examples/images/CLEVR_val_000003.png")
FACE = str(ROOT / "examples/faces/long-0.png")


@pytest.fixture(scope="module")
def bench(bundled_models: str) -> Workbench:
    return Workbench(["clevr-pos", "celeba-attributes", "nowhere"], "cpu")


def test_what_is_found(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, int, int]] = []
    found = bench.find(SCENE, "clevr-pos", progress=lambda *step: steps.append(step))
    assert re.fullmatch(r"CLEVR_val_000003\.png: K = 5 \(estimated\), typicality 1\.00, .* on cpu", found.says)
    assert not found.doubts and found.curve is not None and steps
    columns, rows = found.table
    assert columns == ["#", "x", "y", "x_px", "y_px", "confidence"] and len(rows) == 5
    overlay = found.pictures[0].convert("RGB")
    assert overlay.tobytes() != Image.open(SCENE).convert("RGB").resize(overlay.size).tobytes()
    monkeypatch.setattr("igm_cli.api.open_checkpoint", lambda *_: pytest.fail("loaded again"))
    assert "K = 2 (given)" in bench.find(SCENE, "clevr-pos", "of,another model", k=2).says
    assert "K = 1 (estimated)" in bench.find(SCENE, "clevr-pos", k_max=1).says


def test_attributes_have_no_number_of_concepts(bench: Workbench) -> None:
    found = bench.find(FACE, "celeba-attributes")
    assert "K =" not in found.says and found.curve is None
    assert ["1", "Black_Hair", "yes", "1.000"] in found.table[1]


def test_an_image_unlike_those_trained_on_is_said_to_be(bench: Workbench, tmp_path: Path) -> None:
    Image.open(FACE).resize((300, 60)).save(tmp_path / "wide.png")
    unlike, cut = bench.find(str(tmp_path / "wide.png"), "clevr-pos").doubts
    assert "wide.png is unlike what clevr-pos was trained on" in unlike and "guess" in unlike
    assert "only its middle is used" in cut and "--" not in cut and str(tmp_path) not in cut


def test_a_mistake_is_a_sentence_on_the_page(bench: Workbench, tmp_path: Path) -> None:
    broken, text = tmp_path / "broken.png", tmp_path / "text.png"
    broken.write_bytes(Path(SCENE).read_bytes()[:900])
    text.write_text("no image")
    said = {
        "there is no image yet; drop one, or choose a file": bench.find(None, "clevr-pos"),
        "text.png is not an image": bench.find(str(text), "clevr-pos"),
        "broken.png ": bench.find(str(broken), "clevr-pos"),
        "there is no model 'nowhere'": bench.find(SCENE, "nowhere"),
        "999 concepts": bench.find(SCENE, "clevr-pos", k=999),
        "nothing is asked for yet": bench.draw(" ", "clevr-pos"),
        "the expression does not parse": bench.draw("pos(", "clevr-pos"),
        "'cat' is not a place": bench.draw("cat", "clevr-pos"),
        "draws 1 to 16 images": bench.draw("3 pos", "clevr-pos", 99),
        "there is no model": bench.draw("3 pos", "nowhere"),
    }
    for start, answer in said.items():
        assert start in answer.says and not answer.pictures and answer.curve is None, answer.says
        assert "\n" not in answer.says and str(tmp_path) not in answer.says and "bug" not in answer.says


def test_what_is_drawn(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = bench.draw("2 pos", "clevr-pos", 2, seed=3, steps=4)
    for module in ("igm_cli.api", "igm_cli.label_models"):
        monkeypatch.setattr(f"{module}.open_checkpoint", lambda *_: pytest.fail("loaded again"))
    assert bench.draw("pos(0.3,0.5)", "clevr-pos", 1, steps=2).pictures
    again = bench.draw("2 pos", "clevr-pos", 2, seed=3, steps=4)
    assert drawn.says.startswith("2 images of 2 pos") and len(drawn.pictures) == 2
    assert [p.tobytes() for p in drawn.pictures] == [p.tobytes() for p in again.pictures]
    assert [row[:2] for row in drawn.table[1]] == [["1", "2 pos"], ["2", "2 pos"]]


def test_labels_are_asked_for_where_they_matter() -> None:
    bench = Workbench(["animals-tiny"], "cpu")
    assert names_pipeline("animals-tiny", None) and not names_pipeline("clevr-pos", None)
    found = bench.find(str(ROOT / "examples/animals/lion-koala.png"), "animals-tiny", "lion, koala, teapot")
    assert {row[1] for row in found.table[1]} == {"lion", "koala", "teapot"}
    assert any("not trained on 'teapot'" in doubt for doubt in found.doubts)


def test_what_the_command_refuses(igm: Igm) -> None:
    for arguments, code, says in (
        (["--model", "nowhere"], 4, "there is no model 'nowhere'"),
        (["--model", __file__], 3, "is not a model; give a pipeline folder"),
        (["--device", "toaster"], 2, "toaster"),
        (["--port", "70000"], 2, "--port"),
        (["--host", "no name"], 3, "choose another --port or --host"),
    ):
        done = igm("ui", "--no-browser", *arguments)
        assert done.returncode == code and says in one_sentence(done.stderr), done.stderr


def test_a_port_that_is_taken_just_now_is_told_in_our_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def launch(**_: Any) -> None:
        logging.getLogger("uvicorn.error").error(OSError(98, "address already in use"))
        raise OSError("Cannot find empty port in range: 7860-7860. You can set GRADIO_SERVER_PORT.")

    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(themes=SimpleNamespace(Default=dict)))
    with pytest.raises(OutputError) as caught:
        serve(SimpleNamespace(launch=launch), "127.0.0.1", 7860, browser=False)
    assert str(caught.value) == (
        "the page cannot be served at port 7860 of 127.0.0.1: address already in use; choose another --port or --host"
    )
    assert not caplog.records


def test_which_addresses_are_of_this_machine_alone() -> None:
    assert all(map(is_local, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.0.4", "example.org")))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Starts ``igm ui`` and returns its process and address."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "igm_cli", "ui", "--no-browser", "--device", "cpu", *arguments]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
            # In a shell's background interrupts are ignored, and what is started there would ignore them, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://\S+?(?=/?;)", line)
        assert address, line + process.communicate(timeout=30)[1]
        return process, address[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_page_is_served_until_it_is_ended(served: Any, tmp_path: Path) -> None:
    port = free_port()
    process, address = served("--port", str(port))
    assert address == f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{address}/config") as answer:
        config = json.load(answer)
    assert config["analytics_enabled"] is False and config["title"] == "igm"
    assert "fonts.googleapis" not in urllib.request.urlopen(address).read().decode()
    with pytest.raises(OutputError, match=f"port {port} of 127.0.0.1: address already in use; choose another"):
        require_free("127.0.0.1", port)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and one_sentence(err) == "igm: interrupted; the page is closed", (out, err)
    assert not list(tmp_path.glob("igm-ui-*"))  # uploads are gone


@pytest.mark.slow
def test_in_a_browser(served: Any, tmp_path: Path) -> None:
    """A real upload and a drawing; ``SCREENSHOTS=FOLDER`` keeps what they look like."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1180,1400",
        "--disable-gpu",
    ):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    _, address = served("--port", str(free_port()))
    browser = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    try:
        browser.get(address)
        wait = WebDriverWait(browser, 60)

        def seen(css: str) -> list[Any]:
            return [each for each in browser.find_elements(By.CSS_SELECTOR, css) if each.is_displayed()]

        def press(name: str) -> None:
            wait.until(lambda _: [b for b in seen("button.primary") if b.text == name])[0].click()

        def answer(start: str) -> str:
            """The text of the answer, once it starts so."""
            texts = lambda: [t.get_attribute("value") or "" for t in seen("textarea")]  # noqa: E731
            wait.until(lambda _: any(text.startswith(start) for text in texts()))
            return next(text for text in texts() if text.startswith(start))

        def drop(path: str) -> None:
            wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0].send_keys(path)
            wait.until(lambda _: seen(f"a[href*='{Path(path).stem}']"))

        def keep(name: str) -> None:
            if folder := os.environ.get("SCREENSHOTS"):
                time.sleep(2)  # what is still being faded in
                browser.save_screenshot(str(tmp_path / "shot.png"))
                shot = Image.open(tmp_path / "shot.png").convert("RGB")
                _, _, _, below = ImageOps.invert(shot).getbbox() or (0, 0, *shot.size)
                shot = shot.crop((0, 0, shot.width, min(shot.height, below + 16)))
                shot.save(Path(folder) / f"{name}.png", optimize=True)

        press("Find")
        answer("there is no image yet")
        drop(str(ROOT / "README.md"))
        press("Find")
        answer("README.md is not an image")
        seen("button[aria-label='Remove this file'], button[aria-label='Clear']")[0].click()
        drop(SCENE)
        press("Find")
        assert "K = 5 (estimated)" in answer("CLEVR_val_000003.png")
        wait.until(lambda _: len([i for i in seen("img") if int(i.get_property("naturalWidth")) > 300]) == 2)
        keep("ui-find")
        next(tab for tab in seen("button[role=tab]") if tab.text == "Draw").click()
        wait.until(lambda _: seen("textarea:enabled"))[0].send_keys("3 pos")
        press("Draw")
        answer("4 images of 3 pos")
        wait.until(lambda _: len([i for i in seen("img") if int(i.get_property("naturalWidth")) == 96]) >= 4)
        keep("ui-draw")
        asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
        outside = [url for url in urls if url.startswith("http") and not url.startswith(address)]
        assert len(urls) > 10 and not outside
    finally:
        browser.quit()
