"""Addresses and standard input: what is fetched, for how long, and what is said where it is not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import web_server
from PIL import Image
from test_cli import one_sentence

from igm_cli import api, fetching
from igm_cli.app import main
from igm_cli.errors import InputError
from igm_cli.fetching import fetch
from igm_cli.folders import expand_inputs

OPTIONS = ("--draws", "2", "--device", "cpu", "--json")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with web_server.serving() as address:
        yield address


@pytest.mark.parametrize("path", ["a.png", "a.png?size=1&x", "a.png?ü", "as-text", "moved"])
def test_an_address_is_fetched_whatever_the_server_calls_it(server: str, path: str) -> None:
    assert fetch(f"{server}/{path}") == web_server.picture()


REFUSED = {
    "404": "the server says 404 Not Found",
    "503": "the server says 503 Service Unavailable",
    "loop": "it redirects more than 5 times",
    "to-file": "it redirects to something that is not an http or https address",
    "to-ftp": "it redirects to something that is not an http or https address",
    "short": "it ended [0-9]+ bytes too early",
    "hang": "the server said nothing for 0.3 s",
    "hang-later": "the server said nothing for 0.3 s",
    "drip": "it takes more than 0.6 s",
    "drip-of-headers": "it takes more than 0.6 s",
    "no-http": "what answers there does not speak HTTP",
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_fetched_is_said_in_time(server: str, path: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=f"/{path} cannot be fetched: {REFUSED[path]}; check it"):
        fetch(f"{server}/{path}", silent=0.3, in_all=0.6)
    assert time.monotonic() - began < 2


def test_bytes_without_end_are_not_kept(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_FETCHED", 3 << 20)
    with pytest.raises(InputError, match="it holds more than 3 MB"):
        fetch(f"{server}/endless")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:9/a.png", "nothing answers there"),
        ("http://no-such-host.invalid/a.png", "no such host is known here"),
        ("http:///a.png", "is not an address"),
        ("http://127.0.0.1:x/a.png", "is not an address"),
        ("http://a b/a.png", "is not an address"),
        ("http://127.0.0.1:9/a\r\nHost: b", "is not an address"),
        ("http://me:word@127.0.0.1:9/a.png", "^the address of 127.0.0.1 holds a name or password"),
    ],
)
def test_addresses_that_are_none(address: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as told:
        fetch(address)
    assert "word@" not in str(told.value)


def test_what_a_person_types_is_an_address_where_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-").write_bytes(b"x")
    typed = ["https://a/b.png", "-", "./-", "HTTP://a/c.mp4?x=.png"]
    found = expand_inputs(typed, (".png", ".mp4"), anywhere=True)
    assert [source.path for source in found] == [None, None, tmp_path / "-", None]
    assert [source.name for source in found] == [
        "https://a/b.png",
        "-",
        str(tmp_path / "-"),
        "HTTP://a/c.mp4?x=.png",
    ]
    assert [(source.stem, source.is_video) for source in found] == [
        ("b", False), ("stdin", False), ("-", False), ("c", True)
    ]  # fmt: skip
    assert [source.path for source in expand_inputs(["-"])] == [tmp_path / "-"]  # of vectors


def test_the_record_names_the_address(
    server: str,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    addresses = [f"{server}/a.png?size=32", f"{server}/page", f"{server}/paper.pdf", f"{server}/moved"]
    command = ["invert", *addresses, "--model", str(tiny_model), *OPTIONS, "-o", "r.jsonl"]
    code = main([*command, "--overlay", "found", "--coco", "c.json"])
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 3, err
    assert [record["image"] for record in records] == [addresses[0], addresses[3]]
    assert {record["sha256"] for record in records} == {hashlib.sha256(web_server.picture()).hexdigest()}
    assert "root" not in records[0]
    assert f"{addresses[1]} is not an image that can be read" in err
    assert f"{addresses[2]} is a PDF" in err and "2 of 4 images could not be used" in err
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["a.png", "moved.png"]
    images = json.loads((tmp_path / "c.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [addresses[0], addresses[3]]
    main(command)
    assert capsys.readouterr().out == out  # kept


def test_standard_input_holds_an_image(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def igm(data: bytes) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main(["invert", "-", "--model", str(tiny_model), *OPTIONS, "--overlay", ".", "-o", "kept.jsonl"])
        return code, *capsys.readouterr()

    other = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(other, "PNG")
    assert igm(other.getvalue())[0] == 0
    code, out, err = igm(web_server.picture())
    kept = [json.loads(line) for line in Path("kept.jsonl").read_text().splitlines()]
    assert kept[1] == json.loads(out) and kept[0]["sha256"] == hashlib.sha256(other.getvalue()).hexdigest()
    assert "has changed" not in err and igm(web_server.picture())[:2] == (0, out) and len(kept) == 2
    record = json.loads(out)
    assert code == 0 and record["image"] == "-" and "root" not in record
    assert record["sha256"] == hashlib.sha256(web_server.picture()).hexdigest()
    assert Path("stdin.png").is_file()
    assert igm(b"")[::2] == (3, "igm: standard input is empty (0 bytes); save the image again\n")
    monkeypatch.setattr(fetching, "MAX_BYTES", 10)
    code, _, err = igm(web_server.picture())
    assert code == 3 and "standard input holds more than" in one_sentence(err)


def test_standard_input_that_is_a_terminal(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main_end, terminal = pty.openpty()
    try:
        with os.fdopen(terminal, "r") as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            code = main(["invert", "-", "--model", str(tiny_model)])
    finally:
        os.close(main_end)
    err = capsys.readouterr().err
    assert code == 2 and "standard input, which is a terminal" in one_sentence(err)


def test_the_library_fetches_nothing(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"^http://127.0.0.1:9/a.png is an address; fetch it"):
        api.load(tiny_model, device="cpu").invert("http://127.0.0.1:9/a.png")
