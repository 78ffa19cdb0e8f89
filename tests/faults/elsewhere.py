"""What lies in no image file: addresses, standard input, videos, and models of a hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from faults.case import SECONDS, Case, Content, Outcome
from faults.kit import Kit

SLOW = 2 * SECONDS


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _addresses(kit)
    yield from _standard_input(kit)
    yield from _videos(kit)
    yield from _hub(kit)


def _addresses(kit: Kit) -> Iterator[Case]:
    for path in ("a.png", "as-text", "moved", "a.png?x=../../y&z=%00#part"):
        yield Case("address", path, (*kit.invert(f"{kit.web}/{path}"), "--json"), expect="answered", check=_one)
    for path, says in (
        ("404", "404"), ("503", "503"), ("loop", "redirects more than"), ("to-file", "redirects to"), ("to-ftp", "redirects to"),
        ("short", "too early"), ("no-http", "HTTP"), ("page", "not an image"), ("paper.pdf", "is a PDF"), ("empty", "0 bytes"),
        ("endless", "more than 256 MB"), ("nothing/at/all.png", "404"), ("clip.mp4", "add --every"),
    ):  # fmt: skip
        codes = (2,) if "every" in says else (3,)
        yield Case("address, bad", path, kit.invert(f"{kit.web}/{path}"), codes=codes, says=says)
    for path in ("hang", "hang-later", "drip-of-headers"):  # the last one says something every now and then
        slow = 150.0 if path.startswith("drip") else SLOW
        says = "takes more than 120 s" if path.startswith("drip") else "said nothing for 10 s"
        yield Case(
            "address, silent", path, kit.invert(f"{kit.web}/{path}"), codes=(3,), says=says, seconds=slow
        )
    for address in (
        "http://127.0.0.1:9/a.png", "http://no-such-host.invalid/a.png", "http://", "https:///a.png", "http://[::1/a.png",
        "http://127.0.0.1:99999/a.png", "http://127.0.0.1:x/", "http://a:b@127.0.0.1:9/a.png", "http://\u202e/a.png",
        "http://127.0.0.1:9/a\nb.png", "http://127.0.0.1:9/ a.png", "HTTP://127.0.0.1:9/" + "a" * 5000, "https://127.0.0.1:9/a.png",
    ):  # fmt: skip
        yield Case("address, none", repr(address)[:50], kit.invert(address), codes=(3,))
    several = (f"{kit.web}/404", "a.png", f"{kit.web}/a.png", "http://127.0.0.1:9/x")
    more = ("--output", "r.jsonl", "--overlay", "found", "--csv", "t.csv", "--coco", "c.json")
    says = "2 of 4 images could not be used"
    yield Case(
        "address, bad",
        "among others",
        (*kit.invert(*several), *more),
        {"a.png": kit.picture},
        codes=(3,),
        says=says,
    )
    shared = (*kit.invert(f"{kit.web}/a.png", f"{kit.web}/404"), "--shared")
    yield Case("address, bad", "--shared", shared, codes=(3,), says="404")


def _one(outcome: Outcome) -> str | None:
    found = [(record["size"], "root" in record) for record in outcome.json()]
    return None if found == [([32, 32], False)] else f"{found}"


def _standard_input(kit: Kit) -> Iterator[Case]:
    yield Case("standard input", "nothing", kit.invert("-"), codes=(3,), says="standard input is empty")
    yield Case(
        "standard input", "twice, and a file", kit.invert("-", "a.png", "-"), {"a.png": kit.picture}, codes=(3,)
    )
    yield Case(
        "standard input", "closed", kit.invert("-"), codes=(3,), closed=(0,), says="standard input is empty"
    )
    yield Case("standard input", "several processes", kit.invert("-"), codes=(2, 3, 4),
               env={"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"})  # fmt: skip
    yield Case("standard input", "a file of that name", (*kit.invert("./-"), "--json"), {"-": kit.picture}, "answered",
               check=lambda o: None if Path(o.json()[0]["image"]).name == "-" and Path(o.json()[0]["image"]).is_absolute() else o.out)  # fmt: skip


def _videos(kit: Kit) -> Iterator[Case]:
    whole = kit.video
    every = ("--every", "4")
    good: dict[str, Content] = {"a.mp4": whole}
    yield Case("video", "whole", (*kit.invert("a.mp4", *every), "--json"), good, "answered", check=_frames)
    yield Case("video", "by address", kit.invert(f"{kit.web}/a.mp4", *every), codes=(3,), says="404")
    yield Case("video", "without --every", kit.invert("a.mp4"), good, codes=(2,), says="add --every")
    for value in ("0", "-1", "x", "1.5", "", "9" * 30):
        yield Case("video, --every", value, kit.invert("a.mp4", "--every", value), good, codes=(2,))
    for share in (0, 1, 7, 8, 30, 200, len(whole) // 2, len(whole) - 1):
        cut = {"a.mp4": whole[:share]}
        yield Case("video, cut short", f"{share} bytes", kit.invert("a.mp4", *every), cut, "either", codes=(3,))
    for number in range(24):
        content = bytearray(whole)
        for _ in range(number + 1):
            content[kit.random.randrange(len(content))] = kit.random.randrange(256)
        damaged = {"a.mp4": bytes(content)}
        yield Case(
            "video, damaged", f"{number + 1} bytes", kit.invert("a.mp4", *every), damaged, "either", codes=(3,)
        )
    for name, content in (
        ("PNG", kit.picture), ("text", b"hello\n"), ("zeros", bytes(5000)), ("PDF", b"%PDF-1.4\n"), ("an empty AVI", b"RIFF\0\0\0\0AVI "),
        ("an empty EBML", b"\x1aE\xdf\xa3"), ("a playlist", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"), ("noise", kit.random.randbytes(4000)),
    ):  # fmt: skip
        yield Case("video, none", name, kit.invert("a.mp4", *every), {"a.mp4": content}, codes=(3,))
    yield Case("video, none", "a folder", kit.invert("a.mp4", *every), {"a.mp4/x.txt": b""}, codes=(3,))
    yield Case(
        "video, none",
        "a pipe",
        kit.invert("a.mp4", *every),
        {"a.mp4": lambda path: os.mkfifo(path)},
        codes=(3,),
    )
    yield Case("video, none", "missing", kit.invert("a.mp4", *every), codes=(3,), says="does not exist")
    yield Case(
        "video, none",
        "vectors",
        ("decompose", "a.mp4", "--codebooks", "b.safetensors"),
        {**good, "b.safetensors": kit.codebooks},
        codes=(3,),
    )
    mine = {**good, "found/a/000000.png": kit.picture}
    yield Case(
        "video, pictures",
        "of others in the way",
        kit.invert("a.mp4", *every, "--overlay", "found"),
        mine,
        codes=(2,),
    )
    yield Case(
        "video, pictures",
        "a file in the way",
        kit.invert("a.mp4", *every, "--overlay", "found"),
        {**good, "found/a": b"x"},
        codes=(2,),
    )
    yield Case(
        "video, pictures", "one file", kit.invert("a.mp4", *every, "--overlay", "a.png"), good, codes=(2,)
    )


def _frames(outcome: Outcome) -> str | None:
    found = [(record["frame"], record["time"]) for record in outcome.json()]
    return None if found == [(0, 0.0), (4, 0.4), (8, 0.8)] else f"{found}"


def _hub(kit: Kit) -> Iterator[Case]:
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    model = str(kit.positions)
    for name in (
        "name",
        "hf:name",
        "a/b/c",
        "/a",
        "a/",
        "../a",
        "a/../b",
        "a b/c",
        "http://127.0.0.1:9/a",
        "a/" + "b" * 300,
        "\x1b[31m/a",
    ):
        yield Case("hub, no name", repr(name)[:40], ("push", model, name), codes=(2,))
        yield Case("hub, no name, pull", repr(name)[:40], ("pull", name), codes=(2,))
    for name, command in (("push", ("push", model, "a/b")), ("pull", ("pull", "hf:a/b"))):
        yield Case(
            "hub, no network", name, command, env=away, codes=(4,), says="cannot be reached", process=True
        )
        offline = {**away, "HF_HUB_OFFLINE": "1"}
        yield Case("hub, offline", name, command, env=offline, codes=(4,), says="HF_HUB_OFFLINE", process=True)
    nobody = {**away, "HF_TOKEN": ""}
    yield Case(
        "hub, not logged in",
        "push",
        ("push", model, "a/b"),
        env=nobody,
        codes=(4,),
        says="hf auth login",
        process=True,
    )
    for name, content in (
        ("no JSON", "{"),
        ("a list", "[]"),
        ("nothing", "{}"),
        ("no space", '{"concepts": "pos", "format": 1}'),
    ):
        files = {"m/igm.json": content}
        yield Case(
            "hub, no model", f"igm.json is {name}", ("push", "m", "a/b", "--dry-run"), files, codes=(3, 4)
        )
        yield Case("hub, no model", f"igm.json is {name}, card", ("models", "m"), files, "either", codes=(3, 4))
    yield Case("hub, no model", "an empty folder", ("push", "m", "a/b"), {"m/x": b""}, codes=(4,))
    yield Case(
        "hub, card", "no text", ("push", model, "a/b", "--card", "c.md"), {"c.md": b"\xff\xfe\x00"}, codes=(3,)
    )
    yield Case("hub, card", "missing", ("push", model, "a/b", "--card", "c.md"), codes=(3,))
    edited = {"push/b/README.md": "edited"}
    yield Case("hub, card", "edited", ("push", model, "a/b", "--dry-run"), edited, codes=(2,))
