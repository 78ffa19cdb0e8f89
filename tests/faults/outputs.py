"""Foreign files and folders given as output, and inputs given as output: not a byte of them changes."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Content
from faults.kit import CPU, Kit

NOTE = b"a note\n"
ABOUT = {"image": "other.png", "sha256": "0" * 64, "run": "0" * 16}
TABLE = "image,number,x,y\na.png,1,0.5,0.5\n"

PRESET = """
[model]
channels = [8, 8, 8]
blocks = 1
head_channels = 8
head_layers = 1

[train]
steps = 4
calibration = 16
batch_size = 2
log_every = 1
checkpoint_every = 2
picture_every = 0
half = false

[inference]
grid = [4, 4]
draws = 2
max_draws = 2
k_max = 2
"""
"""A training of seconds."""

TRAIN = ("train", "clevr", "--preset", "tiny.toml", "--limit", "4", *CPU)
BENCHMARK = ("benchmark", "decomposition", "--methods", "auto", "--splits", "points", *CPU)
BENCHMARK += ("--set", "problems=2", "--set", "points=K2-n4-D64")
DRAW = ("--steps", "2", "--device", "cpu")


def line(schema: str, **fields: Any) -> bytes:
    """Returns a line that looks like a result."""
    return (json.dumps({"schema": schema, **ABOUT, **fields}) + "\n").encode()


def link(target: str) -> Callable[[Path], None]:
    """Returns what makes a link to a file beside it."""
    return lambda path: path.symlink_to(target)


def hard_link(target: str) -> Callable[[Path], None]:
    """Returns what makes a second name of a file beside it."""
    return lambda path: os.link(path.with_name(target), path)


def device(path: Path) -> None:
    """Makes a device such as /dev/null, or a pipe where only root may.

    The machine's own is never named here: a fault would replace it for everybody.
    """
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        os.mkfifo(path)


def bind(path: Path) -> None:
    """Makes a socket."""
    here = Path.cwd()
    os.chdir(path.parent)  # whose name may be too long
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def picture(kind: str, **how: Any) -> bytes:
    """Returns a picture that igm did not draw."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 120, 9)).save(buffer, kind, **how)
    return buffer.getvalue()


def foreign_files() -> dict[str, Content]:
    """Returns files that are not igm's own, by what they are; ``note`` lies beside them."""
    from PIL import Image

    scan = Image.Exif()
    scan[0x0131] = "scanner"
    own_line = line("igm.invert/1")
    return {
        "a note": NOTE,
        "a note without a newline": b"a note",
        "JSON": b'{"my": "json"}\n',
        "a list": b'["my", "json"]\n',
        "half a JSON": b'{"my": "json"',
        "a number": b"3\n",
        "an empty line and text": b"\n\ntext",
        "an empty line": b"\n",
        "spaces": b"   ",
        "half a picture": b"\x89PNG\r\n\x1a\nrest",
        "a PNG": picture("PNG"),
        "a JPEG": picture("JPEG"),
        "a PNG of another program": picture("PNG", exif=scan),
        "zero bytes": b"\0" * 64,
        "UTF-16": "notes".encode("utf-16"),
        "a BOM": b"\xef\xbb\xbfnotes\n",
        "a BOM and a result": b"\xef\xbb\xbf" + own_line,
        "Latin-1": "caf\xe9\n".encode("latin-1"),
        "a table": TABLE.encode(),
        "a table that says who wrote it": b"image,number,written_by\na.png,1,igm-0123456789abcdef\n",
        "COCO": b'{"info": {"written_by": "igm-0123456789abcdef"}, "images": [], "annotations": []}',
        "a result and text": own_line + b"remember the milk\n",
        "a result and half a line": own_line + b"remember",
        "a result between empty lines": b"\n" + own_line + b"\n",
        "a result of another run": own_line,
        "a result of another kind": line("igm.estimate-k/2"),
        "a result with no fields": b'{"schema": "igm.invert/1"}\n',
        "a result of other types": line("igm.invert/1", image=["a.png"], run=3),
        "deep nesting": b"[" * 100_000,
        "deep nesting in a result": b'{"schema": "igm.invert/1", "image": ' + b"[" * 100_000 + b"\n",
        "a program": b"#!/bin/sh\nexit 1\n",
        "weights": (8).to_bytes(8, "little") + b'{"a":{}}',
        "a link to a note": link("note"),
        "a dangling link": link("nowhere"),
        "a link to itself": link("kept"),
        "a link to a device": link("device"),
        "a hard link to a note": hard_link("note"),
        "a pipe": os.mkfifo,
        "a socket": bind,
        "a device": device,
    }


def foreign_folders(kit: Kit) -> dict[str, Content]:
    """Returns folders that are not igm's own, or what stands in their place; ``note`` lies beside them."""

    def holding(name: str, content: bytes = NOTE) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            (path / name).parent.mkdir(parents=True)
            (path / name).write_bytes(content)

        return make

    def repository(path: Path) -> None:
        (path / ".git").mkdir(parents=True)
        (path / ".git" / "config").write_text("[core]\n")

    def linked(path: Path) -> None:
        holding("note")(path.with_name("target"))
        path.symlink_to("target")

    def with_empty(path: Path) -> None:
        (path / "empty").mkdir(parents=True)

    names = (
        "README.md",
        "config.json",
        "model.safetensors",
        "metrics.jsonl",
        "report.md",
        "summary.json",
        "igm.json",
    )
    names += (
        "results.jsonl",
        "records.jsonl",
        "methods.json",
        "state.pt",
        "notes.txt",
        ".hidden",
        "pictures/a.png",
    )
    names += (
        "vae/config.json",
        "model_index.json",
        "points.csv",
        "tensorboard/log",
        "a.png",
        "results.jsonl.rank0",
    )
    found: dict[str, Content] = {f"a folder with {name}": holding(name) for name in names}
    for name in ("run.json", "benchmark.json"):
        for text in (
            b"{}",
            b"[]",
            b"null",
            b"3",
            b"mine",
            b"",
            b"[" * 100_000,
            b'{"model": {"a": 1}}',
            b"\xff\xfe",
        ):
            found[f"a folder with {name} of {text[:20]!r}"] = holding(name, text)
        found[f"a folder with a folder {name}"] = holding(f"{name}/note")
    return found | {
        "a repository": repository,
        "a folder in a folder": with_empty,
        "a link to a folder with a note": linked,
        "a model": lambda path: shutil.copytree(kit.positions, path),
        "pictures": lambda path: shutil.copytree(kit.pictures, path),
        "a note": NOTE,
        "a link to a note": link("note"),
        "a link to itself": link("kept"),
        "a dangling link": link("nowhere"),
        "a pipe": os.mkfifo,
        "a device": device,
    }


def vectors(kit: Kit) -> Path:
    """Returns a folder with ``books.safetensors`` and ``v.npy``."""
    folder = kit.folder / "vectors"
    if not folder.exists():
        import numpy as np
        from codebook_files import write_problems

        from igm_cli.core.decomposition.problems import random_problems

        folder.mkdir(parents=True)
        problems = random_problems(4, 2, 64, 2, seed=0)
        write_problems(folder / "books.safetensors", problems)
        np.save(folder / "v.npy", problems.vectors.numpy())
    return folder


def pipeline(kit: Kit) -> Path:
    """Returns a tiny text-to-image model."""
    folder = kit.folder / "pipeline"
    if not folder.exists():
        from benchmark_cases import write_pipeline

        write_pipeline(folder)
    return folder


def calls(kit: Kit) -> dict[str, tuple[str, ...]]:
    """Returns every call that writes a file, without the file, which comes last."""
    invert, count = kit.invert("a.png"), ("estimate-k", "a.png", "--model", str(kit.positions), *CPU)
    zero = ("zero-shot", "a.png", "--model", str(pipeline(kit)), "--draws", "2", *CPU)
    taken = (
        "decompose",
        str(vectors(kit) / "v.npy"),
        "--codebooks",
        str(vectors(kit) / "books.safetensors"),
        *CPU,
    )
    draw = ("generate", "pos(0.5,0.5)", "--model", str(kit.positions), *DRAW, "-o", "drawn")
    return {
        "invert -o": (*invert, "-o"),
        "invert --overlay": (*invert, "--overlay"),
        "invert --map": (*invert, "--map"),
        "invert --csv": (*invert, "--csv"),
        "invert --coco": (*invert, "--coco"),
        "invert --shared -o": (*kit.invert("a.png", "b.png"), "--shared", "-o"),
        "estimate-k -o": (*count, "-o"),
        "estimate-k --plot": (*count, "--plot"),
        "zero-shot -o": (*zero, "-o"),
        "zero-shot --overlay": (*zero, "--overlay"),
        "zero-shot --map": (*zero, "--map"),
        "vectors -o": (*taken, "-o"),
        "vectors --csv": (*taken, "--csv"),
        "generate --grid": (*draw, "--grid"),
    }


PICTURES = ("--overlay", "--map", "--plot", "--grid")
"""Options whose file is a picture."""


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _files(kit)
    yield from _folders(kit)
    yield from _pictures_in_folders(kit)
    yield from _inputs(kit)
    yield from _twice(kit)


def _files(kit: Kit) -> Iterator[Case]:
    beside: dict[str, Content] = {"a.png": kit.picture, "b.png": kit.picture, "note": NOTE, "device": device}
    for option, call in calls(kit).items():
        name = "kept.png" if option.endswith(PICTURES) else "kept"
        for what, content in foreign_files().items():
            if what == "a link to itself" and name != "kept":
                content = link(name)
            yield Case("foreign file", f"{option}, {what}", (*call, name), {**beside, name: content})
        for what, path in (("a folder", "kept.d"), ("a file as a folder", "note/kept")):
            path = f"{path}.png" if option.endswith(PICTURES) else path
            files = {**beside, "kept.d/note": NOTE, "kept.d.png/note": NOTE}
            if what == "a folder" and option.endswith(PICTURES[:3]):
                continue  # where pictures go
            yield Case("foreign file", f"{option}, {what}", (*call, path), files)


def _folders(kit: Kit) -> Iterator[Case]:
    draw = ("generate", "pos(0.5,0.5)", "--model", str(kit.positions), *DRAW, "-o", "kept")
    for option, call in {
        "generate -o": draw, "train -o": (*TRAIN, "-o", "kept"), "benchmark --out": (*BENCHMARK, "--out", "kept"),
    }.items():  # fmt: skip
        for what, content in foreign_folders(kit).items():
            files: dict[str, Content] = {"note": NOTE, "tiny.toml": PRESET, "kept": content}
            yield Case("foreign folder", f"{option}, {what}", call, files)
        below = (*call[:-1], "note/kept")
        yield Case("foreign folder", f"{option}, below a file", below, {"note": NOTE, "tiny.toml": PRESET})
        here = (*call[:-1], ".")
        yield Case("foreign folder", f"{option}, here", here, {"note": NOTE, "tiny.toml": PRESET})


def _pictures_in_folders(kit: Kit) -> Iterator[Case]:
    own = {"a.png": kit.picture, "b.png": kit.picture}
    for option in ("--overlay", "--map", "--plot"):
        start = kit.invert() if option != "--plot" else ("estimate-k", "--model", str(kit.positions), *CPU)
        call = (start[0], "a.png", "b.png", *start[1:], option, "kept")
        for what, content in {
            "a picture": picture("PNG"), "a note": NOTE, "a link": link("../a.png"), "a folder": lambda p: p.mkdir(),
            "a hard link": lambda p: os.link(p.parent.parent / "a.png", p), "a pipe": os.mkfifo,
            "a dangling link": link("nowhere"),
        }.items():  # fmt: skip
            yield Case("foreign picture in a folder", f"{option}, {what}", call, {**own, "kept/b.png": content})
        if option == "--map":
            for what, array in {"an array": b"\x93NUMPY", "a link": link("../a.png"), "a note": NOTE}.items():
                yield Case("foreign array beside", what, call, {**own, "kept/b.npy": array})
                one = (start[0], "a.png", *start[1:], option, "m.png")
                yield Case("foreign array beside", f"{what}, one image", one, {**own, "m.npy": array})


def _inputs(kit: Kit) -> Iterator[Case]:
    """An input is never an output, however its path is written."""
    ways: dict[str, tuple[str, Content | None]] = {
        "its name": ("a.png", None),
        "from here": ("./a.png", None),
        "through a folder": ("sub/../a.png", None),
        "through a linked folder": ("same/a.png", None),
        "a link": ("link.png", link("a.png")),
        "a link to a link": ("link.png", link("first.png")),
        "a hard link": ("hard.png", hard_link("a.png")),
        "two slashes": (".//a.png", None),
        "in a folder that is read": ("./pictures/../a.png", None),
    }
    beside: dict[str, Content] = {
        "a.png": kit.picture,
        "b.png": kit.picture,
        "sub/note": NOTE,
        "pictures/note": NOTE,
    }
    beside |= {"same": link("."), "first.png": link("a.png")}
    for option, call in calls(kit).items():
        if "a.png" not in call or option.startswith("generate"):
            continue
        for what, (path, extra) in ways.items():
            files = {**beside, **({path: extra} if extra else {})}
            yield Case("input as output", f"{option}, {what}", (*call, path), files)
    zero = ("zero-shot", "a.png", "--model", str(pipeline(kit)), *CPU)
    read = {"a.png": kit.picture, "l.txt": "cat\ndog\n", "t.txt": "a {label}\n"}
    for option in ("-o", "--overlay", "--map"):
        for name, given in {"l.txt": "--labels-file", "t.txt": "--templates-file"}.items():
            yield Case(
                "input as output", f"zero-shot {option} {name}", (*zero, given, name, option, name), read
            )
    for option in ("-o", "--csv"):
        for name in ("v.npy", "books.safetensors"):
            taken = ("decompose", "v.npy", "--codebooks", "books.safetensors", *CPU, option, name)
            content = {each: (vectors(kit) / each).read_bytes() for each in ("v.npy", "books.safetensors")}
            yield Case("input as output", f"vectors {option} {name}", taken, content)
    model = {"m": lambda path: shutil.copytree(kit.positions, path), "a.png": kit.picture}
    for option in ("-o", "--csv", "--coco"):
        for name in ("igm.json", "config.json", "model.safetensors", "scheduler_config.json"):
            own = ("invert", "a.png", "--model", "m", *CPU, option, f"m/{name}")
            yield Case("input as output", f"{option}, {name} of the model", own, model)
    preset: dict[str, Content] = {"tiny.toml": PRESET, **model}
    for name in ("m", "./m", "m/.", "l"):
        files = {**preset, "l": link("m")}
        yield Case("input as output", f"train --init m -o {name}", (*TRAIN, "--init", "m", "-o", name), files)
        yield Case("input as output", f"train --with m -o {name}", (*TRAIN, "--with", "m", "-o", name), files)
        bench = ("benchmark", "objects", "--model", "m", "--out", name, *CPU)
        yield Case("input as output", f"benchmark --model m --out {name}", bench, files)
    yield Case("input as output", "train --preset p -o p", (*TRAIN, "-o", "tiny.toml"), preset)
    data: dict[str, Content] = {"d/images/a.png": kit.picture, "d/scenes.json": '{"scenes": []}', **preset}
    for name in ("d", "d/images", "./d/../d"):
        yield Case(
            "input as output", f"train --data-root d -o {name}", (*TRAIN, "--data-root", "d", "-o", name), data
        )
        out = ("benchmark", "attributes", "--data-root", "d", "--out", name, *CPU)
        yield Case("input as output", f"benchmark --data-root d --out {name}", out, data)
    start = ("generate", "--model", str(kit.positions), *DRAW)
    like: dict[str, Content] = {"a.png": drawn, "r/results.jsonl": like_line()}
    for path in ("a.png", "./a.png"):
        grid = (*start, "--like", "a.png", "-o", "new", "--grid", path)
        yield Case("input as output", f"generate --like a.png --grid {path}", grid, like)
    for path in ("r", "./r"):
        yield Case(
            "input as output",
            f"generate --like r -o {path}",
            (*start, "--like", "r/results.jsonl", "-o", path),
            like,
        )


def drawn(path: Path) -> None:
    """Makes a picture that igm drew."""
    from PIL import Image

    from igm_cli.commands.drawings import save_picture

    save_picture(Image.new("RGB", (32, 32), (90, 90, 90)), path)


def like_line() -> bytes:
    """Returns a line that generate --like reads."""
    return line("igm.invert/1", size=[32, 32], items=[{"x": 0.5, "y": 0.5, "x_px": 16, "y_px": 16}])


def _twice(kit: Kit) -> Iterator[Case]:
    """Two options would write the same file."""
    one = kit.invert("a.png")
    files = {"a.png": kit.picture, "sub/note": NOTE}
    pairs = [
        ("-o", "--csv"),
        ("-o", "--coco"),
        ("--csv", "--coco"),
        ("--overlay", "--map"),
        ("-o", "--overlay"),
    ]
    pairs += [("--map", "--csv"), ("--overlay", "--coco")]
    for first, second in pairs:
        for path, same in (("x.png", "x.png"), ("x.png", "./x.png"), ("x.png", "sub/../x.png")):
            yield Case(
                "one file twice", f"{first} {path} {second} {same}", (*one, first, path, second, same), files
            )
    for path in ("m.npy", "./m.npy"):
        yield Case("one file twice", f"--map and -o {path}", (*one, "--map", "m.png", "-o", path), files)
        yield Case("one file twice", f"--map and --csv {path}", (*one, "--map", "m.png", "--csv", path), files)
    draw = ("generate", "pos(0.5,0.5)", "--model", str(kit.positions), *DRAW, "-o", "d")
    name = "d/pos-0.5-0.5-20f1-0000.png"
    yield Case("one file twice", "generate --grid", (*draw, "--grid", name), files, says="", expect="either")
    lock = {"a.png": kit.picture, ".r.jsonl.lock": NOTE}
    yield Case("foreign lock", "a note", (*one, "-o", "r.jsonl"), lock)
    links = {**lock, ".r.jsonl.lock": link("a.png")}
    yield Case("foreign lock", "a link", (*one, "-o", "r.jsonl"), links)
    yield Case(
        "foreign lock", "a folder", (*one, "-o", "r.jsonl"), {**lock, ".r.jsonl.lock": lambda p: p.mkdir()}
    )
    run = {"tiny.toml": PRESET, ".run.lock": NOTE}
    yield Case("foreign lock", "of a run", (*TRAIN, "-o", "run"), run)
    yield Case(
        "foreign lock", "of a benchmark", (*BENCHMARK, "--out", "out"), {"out/.records.jsonl.lock": NOTE}
    )
    for name in ("r.jsonl.rank0", "r.jsonl.rank1", "r.jsonl.ranking"):
        share: dict[str, Content] = {"a.png": kit.picture, name: NOTE}
        yield Case("foreign share", name, (*one, "-o", "r.jsonl"), share, expect="either")
        share[name] = lambda path: path.mkdir()
        yield Case("foreign share", f"{name}, a folder", (*one, "-o", "r.jsonl"), share, expect="either")
