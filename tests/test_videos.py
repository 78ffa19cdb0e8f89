"""Videos: which frames are looked at, what their records say, and how a run goes on."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tiny_videos
from conftest import Here, in_two
from test_cli import one_sentence

from igm_cli.app import main
from igm_cli.errors import ExtraError, InputError
from igm_cli.videos import frames, length


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_videos.write(tmp_path_factory.mktemp("videos") / "clip.mp4")


@pytest.mark.parametrize("suffix", tiny_videos.CODECS)
def test_each_nth_frame_of_every_kind_of_video(suffix: str, tmp_path: Path) -> None:
    path = tiny_videos.write(tmp_path / f"clip{suffix}")
    path = path.rename(tmp_path / "clip.mp4")  # what it is called decides nothing
    found = list(frames(path, "clip", 5))
    assert [(number, time) for number, time, _ in found] == [(0, 0.0), (5, 0.5), (10, 1.0)]
    for number, _, picture in found:  # where nothing is black
        assert picture().getpixel((50, 40)) == pytest.approx((20 * number,) * 3, abs=6)
    assert [number for number, *_ in frames(path.read_bytes(), "clip", 6)] == [0, 6]
    assert length(path, "clip") == 12


def test_frames_are_decoded_as_they_are_needed(tmp_path: Path) -> None:
    whole = tiny_videos.write(tmp_path / "clip.mkv", frames=300).read_bytes()
    half = whole[: len(whole) // 2] + bytes(len(whole) // 2)  # damage is met when it is reached
    assert [number for number, *_ in islice(frames(half, "clip", 20), 3)] == [0, 20, 40]


def test_a_video_is_turned_as_it_says(video: Path) -> None:
    content, upright = video.read_bytes(), struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = content.find(upright, content.find(upright) + 1)  # of the track; the first one is of the film
    turned = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)  # a quarter clockwise
    content = content[:place] + turned + content[place + len(turned) :]
    *_, last = frames(content, "clip", 11)
    picture = last[2]()
    assert picture.size == (48, 64)
    black = [picture.getpixel(corner) < (60, 60, 60) for corner in ((8, 8), (40, 8), (8, 56), (40, 56))]
    assert black == [False, True, False, False]


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "clip is not a video that can be read; use MP4"),
        (PLAYLIST, "clip is not a video that can be read; use MP4"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "clip is not a video that can be read"),
        (b"\x00\x00\x00\x1cftypisom" + bytes(99), "clip is damaged"),
        (b"\x1aE\xdf\xa3" + bytes(99), "clip is damaged"),
        (b"RIFF\x00\x00\x00\x00AVI " + bytes(99), "clip (is damaged|has no pictures)"),
    ],
)
def test_what_is_no_video(content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(frames(content, "clip", 1))


def test_frames_too_large_are_not_decoded(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("igm_cli.imaging.MAX_BYTES", 20_000)
    for look in (lambda: next(frames(video, "clip", 1)), lambda: length(video, "clip")):
        with pytest.raises(InputError, match="64×48 pixels"):
            look()


def test_the_extra_is_named(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ExtraError, match=r"^a video needs av; pip install 'igm-cli\[video\]'$"):
        next(frames(video, "clip", 1))


def test_a_record_for_each_frame_and_a_run_that_goes_on(
    tiny_model: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--draws", "2", "--k-max", "2", "--device", "cpu", "--json", "-o", "r.jsonl")
    command = ("invert", str(video), "--model", str(tiny_model), *options)
    assert main([*command, "--every", "6"]) == 0
    first = capsys.readouterr().out.splitlines()
    more = ("--csv", "t.csv", "--coco", "c.json", "--overlay", "found", "--map", "maps")
    assert main([*command, "--every", "3", *more]) == 0
    whole = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in whole]
    assert [(record["frame"], record["time"]) for record in records] == [(0, 0.0), (3, 0.3), (6, 0.6), (9, 0.9)]
    assert first == [whole[0], whole[2]]  # kept ones
    assert {record["image"] for record in records} == {str(video)}
    kept = [json.loads(line)["frame"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert sorted(kept) == [0, 3, 6, 9]
    numbered = ["000000.png", "000003.png", "000006.png", "000009.png"]
    assert sorted(path.name for path in (tmp_path / "found/clip").iterdir()) == numbered
    assert sorted(path.name for path in (tmp_path / "maps/clip").glob("*.png")) == numbered
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert {(row["frame"], row["time"]) for row in rows} <= {
        ("0", "0.0"),
        ("3", "0.3"),
        ("6", "0.6"),
        ("9", "0.9"),
    }
    images = json.loads((tmp_path / "c.json").read_text())["images"]
    assert [(image["file_name"], image["frame_id"]) for image in images][1] == ("clip.mp4/000003.png", 3)


def test_videos_beside_images_and_what_is_refused(
    tiny_model: Path,
    pictures: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def igm(*words: str) -> tuple[int, str, str]:
        code = main(["invert", *words, "--model", str(tiny_model), "--draws", "2", "--device", "cpu"])
        return code, *capsys.readouterr()

    picture, other = ((pictures / f"{number}.png").read_bytes() for number in (0, 1))
    for name, content in (("clip.mp4", video.read_bytes()), ("0.png", picture), ("bad.avi", b"x")):
        Path(name).write_bytes(content)
    code, _, err = igm(".")
    assert code == 0 and "left out of .: 1 .avi file, 1 .mp4 file" in err
    code, out, err = igm(".", "--every", "8")
    assert code == 3 and "bad.avi is not a video that can be read" in err
    assert "0.png" in out and "clip.mp4 frame 8 (0.80 s)" in out
    Path("found/clip").mkdir(parents=True)
    Path("found/clip/000000.png").write_bytes(other)
    for words, says in (
        (("clip.mp4",), "clip.mp4 is a video; add --every N"),
        (("clip.mp4", "0.png", "--shared", "--every", "2"), "--every is about single images"),
        (("clip.mp4", "--every", "2", "--overlay", "one.png"), "--overlay one.png is one file for a video; name a folder"),
        (("clip.mp4", "--every", "8", "--overlay", "found"), "000000.png, which igm did not draw"),
    ):  # fmt: skip
        code, _, err = igm(*words)
        assert code == 2 and says in one_sentence(err)
    assert Path("found/clip/000000.png").read_bytes() == other


def test_frames_before_the_damage_are_kept(
    here: Here, tiny_model: Path, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*how: Any) -> Iterator[Any]:
        yield from islice(frames(*how), 2)
        raise InputError("clip.mp4 is damaged; save the video again")

    monkeypatch.setattr("igm_cli.videos.frames", damaged)
    command = ("invert", video, "--every", 3, "--model", tiny_model, "--k", 1, "--draws", 2, "--device", "cpu")
    done = here(*command, "--csv", tmp_path / "t.csv")
    assert done.code == 3 and "clip.mp4 is damaged" in done.err and "clip.mp4 frame 3" in done.out
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert [row["frame"] for row in rows] == ["0", "3"]


@pytest.mark.slow
def test_two_processes_share_videos(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        tiny_videos.write(tmp_path / name, frames=4)
    command = [*in_two("-m", "igm_cli"), "invert", "a.mp4", "b.mp4", "--every", "2", "--overlay", "found"]
    command += ["--model", str(tiny_model), "--draws", "2", "--device", "cpu", "--json", "-o", "r.jsonl"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [(record["image"], record["frame"]) for record in map(json.loads, done.stdout.splitlines())]
    assert found == [("a.mp4", 0), ("a.mp4", 2), ("b.mp4", 0), ("b.mp4", 2)]
    assert len(list((tmp_path / "found").glob("*/*.png"))) == 4
    assert (tmp_path / "r.jsonl").read_text() == done.stdout
