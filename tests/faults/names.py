"""Names of files, walks of folders, streams and encodings: what is printed, and whether the right files are read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faults.case import Case, Check, Content, Outcome
from faults.kit import CPU, Kit
from faults.raw_images import GREY, saved

NAMES = (
    "~backup.png", "./~backup.png", "~$photo.png", "./~", "~", "./~root.png", "~nosuch.png", "a b.png", " a.png", "a .png ",
    "a\nb.png", "a\rb.png", "a\tb.png", "\x1b[31mred.png", "\x1b]0;title\x07.png", "\x07.png", "\x08\x08.png", "\x7f.png",
    "a\x85b.png", "\x9b31m.png", "a\u202egnp.exe", "\u2066a\u2069.png", "\u200f.png", "\u200b.png", "\u2028.png",
    "\u2029a.png", "\ufeffa.png", "\xad.png", "\U000e0041.png", "é.png", "e\u0301.png", "猫.png", "😀.png", "👨‍👩‍👧.png",
    "مرحبا.png", "[bold]a[/bold].png", "[1].png", "[/].png", "*.png", "?.png", "[!a].png", "{label}.png", "%s.png",
    "%(a)s.png", "$HOME.png", "`id`.png", ";ls.png", "a'b.png", 'a"b.png', "a\\b.png", "#.png", "&.png", "..png", "a.PNG",
    "a", "con.png", "a:b.png", "a,b.png", "a=b.png", "=.png", "@a.png", "-.png", "--json.png", "n" * 250 + ".png",
    "\udcff.png", "a\udc80b.png", ".hidden.png", "._a.png", "None.png", "null", "1", "0x1f", "true", "a|b.png", "<a>.png",
)  # fmt: skip

ENCODINGS = ("cp1252", "ascii", "latin-1", "cp437", "cp932", "koi8-r", "utf-16-le")


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _file_names(kit)
    yield from _walks(kit)
    yield from _words(kit)
    yield from _encodings(kit)
    yield from _closed(kit)
    yield from _homes(kit)


def _as_argument(name: str) -> str:
    return f"./{name}" if name.startswith("-") else name


def _named(*names: str) -> Check:
    """Whether the records are of images of these names, in this order."""

    def check(outcome: Outcome) -> str | None:
        found = [record["image"] for record in outcome.json()]
        return None if found == list(names) else f"{found}, not {list(names)}"

    return check


def _file_names(kit: Kit) -> Iterator[Case]:
    picture = saved(GREY, "PNG")
    for number, name in enumerate(NAMES):
        word = _as_argument(name)
        is_home = name == "~"
        loses = any("\ud800" <= character <= "\udfff" for character in name)
        good = "refused" if loses or is_home else "answered"
        given = os.path.normpath(word)
        check = _named(given)
        yield Case(
            "file name, JSON", repr(name), (*kit.invert(word), "--json"), {name: picture}, good, check=check
        )
        if number % 2:
            yield Case("file name, table", repr(name), kit.invert(word), {name: picture}, good)
        else:
            several = {name: picture, **{f"{n}.png": picture for n in range(4)}}
            command = kit.invert(word, *(f"{n}.png" for n in range(4)))
            if not is_home:
                yield Case(
                    "file name, table of several",
                    repr(name),
                    command,
                    several,
                    "refused" if loses else "answered",
                )
        yield Case("file name, damaged", repr(name), kit.invert(word), {name: b"no image"}, codes=(3,))
        yield Case("file name, missing", repr(name), kit.invert(word), codes=(3,))
    odd = [
        name
        for name in NAMES
        if name not in ("~", "./~", "./~backup.png") and not name.startswith((".", "-", "\udcff"))
    ]
    for name in odd[::3]:
        if "\udc80" not in name:
            files = {f"in/{name}": b"no image", "in/good.png": picture}
            if Path(name).suffix.lower() == ".png":
                yield Case("file name, one of a folder", repr(name), (*kit.invert("in"), "--json"), files, codes=(3,),
                           says="1 of 2 images")  # fmt: skip
    for name in odd[1::3]:
        if Path(name).suffix.lower() == ".png":
            command = (*kit.invert(_as_argument(name)), "--overlay", "out", "-o", "r.jsonl", "--csv", "t.csv")
            yield Case(
                "file name, written", repr(name), command, {name: picture}, "answered", check=_kept(name)
            )
    for name in ("a\0b.png", ""):
        yield Case("file name, none", repr(name), kit.invert(name), codes=(2, 3))
    yield Case("file name, none", "one too long", kit.invert("n" * 300 + ".png"), codes=(3,))
    yield Case("file name, none", "a path too long", kit.invert("n/" * 3000 + "a.png"), codes=(3,))
    yield Case(
        "file name, none", "a pattern of nothing", kit.invert("*.png"), codes=(3,), says="no file matches"
    )
    yield Case("file name, none", "a pattern that is none", kit.invert("[a.png"), codes=(3,))
    yield Case("file name, none", "~nosuch/a.png", kit.invert("~nosuch/a.png"), codes=(3,), says="~nosuch")


def _kept(name: str) -> Check:
    def check(outcome: Outcome) -> str | None:
        lines = (outcome.folder / "r.jsonl").read_bytes().splitlines()
        names = [json.loads(line)["image"] for line in lines]
        pictures = list((outcome.folder / "out").iterdir())
        return None if names == [name] and len(pictures) == 1 else f"{names}, {pictures}"

    return check


def _tree(*names: str, **links: str) -> dict[str, Content]:
    picture = saved(GREY, "PNG")
    files: dict[str, Content] = {f"in/{name}": picture for name in names}
    return files | {f"in/{name.replace('__', '/')}": Path(target) for name, target in links.items()}


def _walks(kit: Kit) -> Iterator[Case]:
    outside = {"other/o.png": saved(GREY, "PNG"), "other/deep/p.png": saved(GREY, "PNG")}
    trees: dict[str, tuple[dict[str, Content], Sequence[str], str]] = {
        "plain": (_tree("b.png", "a.png", "sub/c.png"), ("a.png", "b.png", "sub/c.png"), "^$"),
        "a linked folder": (_tree("a.png", link="../other") | outside, ("a.png", "link/deep/p.png", "link/o.png"), "^$"),
        "a link to itself": (_tree("a.png", loop="."), ("a.png",), "1 link to a folder that is read already"),
        "a link to its parent": (_tree("sub/a.png", sub__loop=".."), ("sub/a.png",), "1 link to a folder that is read"),
        "two links round": (
            _tree("x/a.png", "y/b.png", x__l="../y", y__l="../x"), ("x/a.png", "y/b.png"), "2 links to folders"
        ),
        "two links to one folder": (
            _tree(one="../other", two="../other") | outside, ("one/deep/p.png", "one/o.png"), "1 link to a folder"
        ),
        "a linked file": (_tree("a.png", **{"b.png": "../other/o.png"}) | outside, ("a.png", "b.png"), "^$"),
        "a broken link": (_tree("a.png", **{"b.png": "nowhere"}), ("a.png",), "1 broken link"),
        "AppleDouble": (_tree("a.png", "._a.png", "._b.png"), ("a.png",), "2 hidden files"),
        "checkpoints of notebooks": (_tree("a.png", ".ipynb_checkpoints/a.png"), ("a.png",), "1 hidden folder"),
        "an archive of macOS": (_tree("a.png", "__MACOSX/._a.png"), ("a.png",), "1 hidden folder"),
        "hidden files": (_tree("a.png", ".b.png", ".c/d.png"), ("a.png",), "1 hidden file, 1 hidden folder"),
        "hidden files that are not images": (_tree("a.png", ".DS_Store", ".gitignore"), ("a.png",), "^$"),
        "of other kinds": (_tree("a.png", "b.heic", "c.HEIC", "d.psd"), ("a.png",), r"2 \.heic files, 1 \.psd file"),
        "notes": (_tree("a.png", "notes.txt", "Thumbs.db", "labels.csv"), ("a.png",), "^$"),
        "upper case": (_tree("A.PNG", "b.JPG", "c.Jpeg", "d.TIF"), ("A.PNG", "b.JPG", "c.Jpeg", "d.TIF"), "^$"),
        "suffixes": (
            _tree(*(f"a.{s}" for s in ("apng", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "mpo", "pgm", "pnm", "tiff"))),
            tuple(f"a.{s}" for s in ("apng", "bmp", "dib", "gif", "jfif", "jp2", "jpe", "mpo", "pgm", "pnm", "tiff")), "^$"
        ),
        "deep": (_tree("/".join("d" * 40) + "/a.png"), ("/".join("d" * 40) + "/a.png",), "^$"),
        "names with dots": (_tree("a.b/c.png", "a.png/b.png"), ("a.b/c.png", "a.png/b.png"), "^$"),
        "control characters": (_tree("\x1b[31m/a.png"), ("\x1b[31m/a.png",), "^$"),
    }  # fmt: skip
    for name, (files, expected, says) in trees.items():
        check = _named(*(f"in/{file}" for file in expected))
        yield Case("walk", name, (*kit.invert("in"), "--json"), files, "answered", check=check, says=says)
    refused: dict[str, tuple[dict[str, Content], str]] = {
        "nothing": ({"in": lambda path: path.mkdir()}, "holds no image"),
        "hidden files alone": (_tree("._a.png"), "holds no image .*1 hidden file"),
        "other kinds alone": (_tree("a.heic"), r"holds no image .*1 \.heic file"),
        "a loop alone": (_tree(loop="."), "holds no image .*1 link to a folder"),
        "notes alone": (_tree("notes.txt"), "holds no image; give"),
        "a name that is not in UTF-8": (_tree("a.png", "\udcff.png"), "not in UTF-8"),
    }
    for name, (files, says) in refused.items():
        yield Case("walk", name, kit.invert("in"), files, codes=(3,), says=says)
        if "UTF-8" not in name:
            yield Case("walk, zero-shot", name, ("zero-shot", "in", *CPU), files, codes=(3,), says=says)
    for name in ("hidden files alone", "other kinds alone"):
        files, _ = refused[name]
        for dataset in ("pictures", "objects"):
            command = ("train", dataset, "--data-root", "in", "--dry-run", "-o", "run", *CPU)
            yield Case(
                "walk, data set", f"{dataset}, {name}", command, files, codes=(3,), says="holds no image"
            )
    patterns = {"in/*.png": ("in/a.png", "in/b.png"), "in/**/*.png": ("in/a.png", "in/b.png", "in/sub/c.png")}
    for pattern, expected in patterns.items():
        files = _tree("b.png", "a.png", "sub/c.png", "._a.png")
        yield Case(
            "walk", pattern, (*kit.invert(pattern), "--json"), files, "answered", check=_named(*expected)
        )
    twice = (*kit.invert("in/a.png", "in", "./in/a.png", "in/../in/a.png"), "--json")
    yield Case("walk", "the same file twice", twice, _tree("a.png", "b.png"), "answered")


def _words(kit: Kit) -> Iterator[Case]:
    bad = (
        "\x1b[31m",
        "\x1b]0;t\x07",
        "a\u202eb",
        "\x9b2J",
        "a\nigm: done",
        "\u2028",
        "\udcff",
        "a" * 5000,
        "[red]a[/red]",
        "\0",
    )
    picture = {"a.png": saved(GREY, "PNG")}
    for text in bad:
        name = repr(text[:20])
        options = {
            "--model": (*kit.invert("a.png")[:2], "--model", text), "--concepts": (*kit.invert("a.png"), "--concepts", text),
            "--device": ("invert", "a.png", "--model", str(kit.positions), "--device", text),
            "--method": (*kit.invert("a.png"), "--method", text), "--k": (*kit.invert("a.png"), "--k", text),
            "--batch-size": (*kit.invert("a.png"), "--batch-size", text), "--range": (*kit.invert("a.png"), "--range", text),
            "--scale": (*kit.invert("a.png"), "--scale", text), "an option": (*kit.invert("a.png"), f"--{text}"),
            "a command": (text,), "--set": ("train", "pictures", "--set", f"{text}=1", *CPU),
            "train": ("train", text), "--preset": ("train", "pictures", "--preset", text),
            "benchmark": ("benchmark", text), "--splits": ("benchmark", "objects", "--splits", text),
            "generate": ("generate", text, *CPU), "--labels": ("zero-shot", "a.png", "--labels", f"{text},{text}", *CPU),
            "--timesteps": ("zero-shot", "a.png", "--timesteps", text, *CPU),
        }  # fmt: skip
        for option, command in options.items():
            yield Case("words with controls", f"{option} {name}", command, picture)
    for key in ("\x1b[31mkey", "a\u202eb", "\x9b"):
        files: dict[str, Content] = {
            "a.npy": _array(np.ones(8, np.float32)),
            "books.safetensors": _tensors({key: (2, 8)}),
        }
        command = ("decompose", "a.npy", "--codebooks", "books.safetensors", *CPU)
        yield Case("keys with controls", repr(key), command, files, codes=(3,))
        line = json.dumps({"schema": "igm.invert/1", key: 1, "image": key}) + "\n"
        yield Case("keys with controls", f"results file {key!r}", (*kit.invert("a.png"), "-o", "r.jsonl"),
                   {**picture, "r.jsonl": line}, codes=(3,))  # fmt: skip
        yield Case("keys with controls", f"results file {key!r} as it is", (*kit.invert("a.png"), "-o", "r.jsonl"),
                   {**picture, "r.jsonl": f"{key}\n"}, codes=(3,))  # fmt: skip
        table = f"file,{key}\na.png,1\n"
        yield Case("keys with controls", f"table {key!r}",
                   ("train", "pictures", "--data-root", ".", "--dry-run", "-o", "run", *CPU),
                   {**picture, "labels.csv": table}, "either", codes=(2, 3))  # fmt: skip
        plugin = f"raise ValueError({key!r})\n"
        yield Case("keys with controls", f"plugin {key!r}", (*kit.invert("a.png"), "--concepts", "plug:P"),
                   {**picture, "plug.py": plugin}, codes=(5,), process=True)  # fmt: skip


def _array(values: Any) -> Any:
    return lambda path: np.save(path, values)


def _tensors(shapes: dict[str, tuple[int, ...]]) -> Any:
    def make(path: Path) -> None:
        from safetensors.numpy import save_file

        save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)

    return make


def _encodings(kit: Kit) -> Iterator[Case]:
    picture = saved(GREY, "PNG")
    calls: dict[str, tuple[tuple[str, ...], str]] = {
        "table": (kit.invert("猫.png"), "answered"),
        "JSON": ((*kit.invert("猫.png"), "--json"), "answered"),
        "table of several": (kit.invert("."), "answered"),
        "a curve": (("estimate-k", "猫.png", *kit.invert()[1:]), "answered"),
        "attributes": (("invert", "猫.png", "--model", str(kit.attributes), *CPU), "answered"),
        "damaged": (kit.invert("é猫.bin"), "refused"),
        "missing": (kit.invert("◯猫±.png"), "refused"),
        "usage": (kit.invert("猫.png", "--wrong-猫"), "refused"),
        "help": (("invert", "--help"), "answered"),
        "all help": (("--help",), "answered"),
        "plugins": (("plugins",), "answered"),
        "suites": (("benchmark",), "answered"),
    }
    files = {"猫.png": picture, "é猫.bin": b"no image", **{f"{n}◯.png": picture for n in range(4)}}
    for encoding in ENCODINGS:
        for name, (command, expect) in calls.items():
            check = _named("猫.png") if name == "JSON" else lambda outcome: None
            yield Case(
                "encoding", f"{encoding}, {name}", command, files, expect, encoding=encoding, check=check
            )  # type: ignore[arg-type]


def _closed(kit: Kit) -> Iterator[Case]:
    files = {"a.png": saved(GREY, "PNG"), "bad.png": b"no image"}
    for closed in ((0,), (1,), (2,), (1, 2), (0, 1, 2)):
        calls = {
            "table": kit.invert("a.png"),
            "JSON": (*kit.invert("a.png"), "--json"),
            "-o": (*kit.invert("a.png"), "--json", "-o", "r.jsonl"),
            "overlay": (*kit.invert("a.png"), "--overlay", "o.png", "-o", "r.jsonl"),
        }
        for name, command in calls.items():
            check = _only_json(1 in closed, name in ("-o", "overlay"))
            if "table" in name or "overlay" in name:
                check = _only_json(True, name == "overlay")
            yield Case(
                "closed stream", f"{closed}, {name}", command, files, "answered", closed=closed, check=check
            )
        if 2 not in closed:
            yield Case(
                "closed stream", f"{closed}, bad", kit.invert("bad.png"), files, codes=(3,), closed=closed
            )
        yield Case("closed stream", f"{closed}, help", ("--help",), files, "answered", closed=closed)


def _only_json(silent: bool, kept: bool) -> Check:
    """Whether stdout and a results file hold records alone."""

    def check(outcome: Outcome) -> str | None:
        if not silent and [record["schema"] for record in outcome.json()] != ["igm.invert/1"]:
            return f"stdout has {outcome.out[:200]!r}"
        if kept:
            lines = (outcome.folder / "r.jsonl").read_text().splitlines()
            if [json.loads(line)["schema"] for line in lines] != ["igm.invert/1"]:
                return f"r.jsonl has {lines}"
        return None

    return check


def _homes(kit: Kit) -> Iterator[Case]:
    files = {"a.png": saved(GREY, "PNG"), **{f"in/cat_{n}.png": saved(GREY, "PNG") for n in range(4)}}
    folders = {
        "no HOME": {"HOME": ""},
        "a HOME that is none": {"HOME": "/nonexistent"},
        "a HOME that is a file": {"HOME": "/dev/null"},
        "a HOME in /proc": {"HOME": "/proc/none"},
    }
    caches = {
        "HF_HOME in /proc": {"HF_HOME": "/proc/none"},
        "HF_HOME that is a file": {"HF_HOME": "/dev/null"},
        "HF_HOME of ~": {"HF_HOME": "~nosuch/hub"},
        "IGM_CACHE in /proc": {"IGM_CACHE": "/proc/none"},
        "XDG_CACHE_HOME in /proc": {"XDG_CACHE_HOME": "/proc/none"},
        "TMPDIR that is none": {"TMPDIR": "/nonexistent"},
        "MPLCONFIGDIR in /proc": {"MPLCONFIGDIR": "/proc/none"},
    }
    made_no_home: Check = lambda outcome: "a folder ~" if (outcome.folder / "~").exists() else None  # noqa: E731
    for name, env in (folders | caches).items():
        calls = {
            "invert": kit.invert("a.png"),
            "plugins": ("plugins",),
            "doctor": ("doctor",),
            "estimate-k": ("estimate-k", *kit.invert("a.png")[1:], "--plot", "p.png"),
        }
        for call, command in calls.items():
            yield Case(
                "home and cache", f"{name}, {call}", command, files, "answered", env=env, check=made_no_home
            )
        if name in ("HF_HOME in /proc", "HF_HOME that is a file", "HF_HOME of ~"):
            train = ("train", "animals", "--limit", "2", "--dry-run", "-o", "run", *CPU)
            yield Case("home and cache", f"{name}, train on made images", train, files, codes=(3,), says="set HF_HOME",
                       env=env, process=True, check=made_no_home)  # fmt: skip
        train = ("train", "pictures", "--data-root", "in", "--dry-run", "-o", "run", *CPU)
        yield Case("home and cache", f"{name}, train", train, files, "either", codes=(3,), env=env, check=made_no_home,
                   process=name in ("no HOME", "HF_HOME in /proc", "HF_HOME of ~"))  # fmt: skip
