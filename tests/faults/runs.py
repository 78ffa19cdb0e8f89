"""Damaged results files and run folders, stale answers, weights that are missing, cut or no numbers, and full disks."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Check, Content, Outcome
from faults.kit import CPU, QUICK, Kit
from faults.outputs import BENCHMARK, DRAW, PRESET, TRAIN, pipeline, vectors

DEEP = "[" * 100_000
OPTIONAL = ("root", "typicality", "k_at_maximum", "discriminative", "guidance_told")
"""Fields that a result may lack."""

HERE = "@HERE@"
"""Stands in results for the folder that a case runs in."""


def run_igm(folder: Path, *words: str) -> None:
    """Runs igm in a folder, in this process."""
    from igm_cli import app

    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            code = app.main(list(words))
    finally:
        os.chdir(before)
    assert code == 0, said.getvalue()


@functools.cache
def results(kit: Kit, *command: str) -> bytes:
    """Returns the results file ``r.jsonl`` of a call on a.png and b.png, wherever they are."""
    folder = kit.folder / f"results-{len(list(kit.folder.glob('results-*')))}"
    folder.mkdir(parents=True)
    for name, source in (("a.png", "0.png"), ("b.png", "1.png")):
        shutil.copy(kit.pictures / source, folder / name)
    run_igm(folder, *command, "-o", "r.jsonl")
    return (folder / "r.jsonl").read_bytes().replace(str(folder).encode(), HERE.encode())


def here(content: bytes) -> Callable[[Path], None]:
    """Returns what writes a results file whose paths start in its folder."""
    return lambda path: path.write_bytes(content.replace(HERE.encode(), str(path.parent).encode())) and None


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _results(kit)
    yield from _names(kit)
    yield from _stale(kit)
    yield from _runs(kit)
    yield from _unfinished(kit)
    yield from _weights(kit)
    yield from _full(kit)
    yield from _interrupted()


def lines(count: int, begins: bytes = b"") -> Check:
    """Returns a check of how many lines ``r.jsonl`` has, all whole, and how it begins."""

    def check(outcome: Outcome) -> str | None:
        found = (outcome.folder / "r.jsonl").read_bytes()
        if not found.startswith(begins.replace(HERE.encode(), str(outcome.folder).encode())):
            return "what it held is not there"
        whole = [json.loads(x) for x in found.split(b"\n") if x]
        return None if len(whole) == count and found.endswith(b"\n") else f"{len(whole)} lines"

    return check


def _results(kit: Kit) -> Iterator[Case]:
    images = {"a.png": kit.picture, "b.png": (kit.pictures / "1.png").read_bytes()}
    calls = {
        "invert": kit.invert("a.png", "b.png"),
        "estimate-k": ("estimate-k", "a.png", "b.png", "--model", str(kit.positions), *CPU),
        "zero-shot": ("zero-shot", "a.png", "b.png", "--model", str(pipeline(kit)), *QUICK),
    }
    for name, call in calls.items():
        content = results(kit, *call)
        first, second = content.splitlines(keepends=True)
        once: dict[str, Any] = json.loads(first)
        command = (*call, "-o", "r.jsonl")

        def case(what: str, data: bytes, command: Any = command, name: str = name, **how: Any) -> Case:
            return Case("damaged results", f"{name}: {what}", command, {**images, "r.jsonl": here(data)}, **how)

        fine: dict[str, Any] = {"expect": "answered", "check": lines(2)}
        changes: dict[str, Any] = {**fine, "may_change": ("r.jsonl",)}
        yield case("as it was", content, **fine)
        yield case("the first line", first, **changes)
        yield case("nothing", b"", **changes)
        for cut in (1, 20, len(second) // 2, len(second) - 3):
            yield case(f"{cut} bytes short", content[:-cut], **changes)
        yield case("a line twice", first + content, **changes)
        yield case("another order", second + first, **fine)
        yield case("Windows' line ends", content.replace(b"\n", b"\r\n"), expect="either")
        if name == "zero-shot":
            continue
        half = first.replace(b"a.png", b"\\ud800.png")  # JSON, if of a name that no file has here
        yield case("half a surrogate", half + second, **{**changes, "check": lines(3, half + second)})
        for what, data in {
            "an empty line": first + b"\n" + second, "an empty line at the end": content + b"\n", "empty lines": b"\n\n",
            "a BOM": b"\xef\xbb\xbf" + content, "UTF-16": content.decode().encode("utf-16"), "NUL": first + b"\0" * 9,
            "a line of NUL": first + b"\0" * 9 + b"\n" + second, "two in a line": first[:-1] + second,
            "a comma": first[:-1] + b",\n" + second, "a list": b"[" + first[:-1] + b"]\n",
            "half a first line": first[:60] + b"\n" + second, "not UTF-8": first.replace(b"a.png", b"\xff.png") + second,
            "text at the end": content + b"remember the milk", "a comment": b"// mine\n" + content,
            "a long number": first.replace(b'"k": ', b'"k": ' + b"9" * 5000) + second,
            "NaN": first.replace(b'"seconds": ', b'"seconds": NaN, "x": ') + second,
            "deep nesting": first[:-2] + f', "x": {DEEP}'.encode() + b"\n" + second,
            "closed deep nesting": first[:-2] + f', "x": {DEEP[:900]}{"]" * 900}}}'.encode() + b"\n" + second,
            "another schema": content.replace(b"/1", b"/9"), "another run": content.replace(once["run"].encode(), b"0" * 16),
            "another field": first[:-2] + b', "mine": 1}\n' + second,
        }.items():  # fmt: skip
            yield case(what, data)
        for field in (f for f in once if f not in OPTIONAL):
            without = {key: value for key, value in once.items() if key != field}
            yield case(f"no {field}", json.dumps(without).encode() + b"\n" + second)
            for value in (None, [], {"a": 1}, "x", -1.5):
                if field in ("items", "k_curve") and value == []:
                    continue
                if (
                    value == "x"
                    and isinstance(once[field], str)
                    and field not in ("schema", "run", "sha256", "k_source")
                ):
                    continue
                if (value is None and field == "denoising_error") or (
                    value == -1.5 and field == "denoising_error"
                ):
                    continue
                other = json.dumps({**once, field: value}).encode() + b"\n"
                yield case(f"{field} = {value!r}", other + second)


def _names(kit: Kit) -> Iterator[Case]:
    """Lines whose names hold what other programs take for the end of a line."""
    for name in (
        "a\u2028b.png",
        "a\u2029b.png",
        "a\x85b.png",
        "a\x0bb.png",
        "a\x1cb.png",
        "ä☃.png",
        "a b.png",
        "𝕏.png",
    ):
        content = results(kit, *kit.invert("a.png", "b.png")).replace(b"a.png", name.encode())
        if not name.isprintable():
            content = content.replace(name.encode(), json.dumps(name)[1:-1].encode())
        files = {name: kit.picture, "b.png": (kit.pictures / "1.png").read_bytes(), "r.jsonl": here(content)}
        for out, raw in (
            ("escaped", content),
            ("as it is", content.replace(json.dumps(name)[1:-1].encode(), name.encode())),
        ):
            if out == "as it is" and ord(min(name)) < 32:
                continue  # no JSON
            files = {**files, "r.jsonl": here(raw)}
            command = (*kit.invert(name, "b.png"), "-o", "r.jsonl", "--json")
            yield Case(
                "names in results", f"{name!a}, {out}", command, files, expect="answered", check=lines(2)
            )


def _stale(kit: Kit) -> Iterator[Case]:
    own, other = kit.picture, (kit.pictures / "2.png").read_bytes()
    content = results(kit, *kit.invert("a.png", "b.png"))
    images: dict[str, Content] = {
        "a.png": own,
        "b.png": (kit.pictures / "1.png").read_bytes(),
        "r.jsonl": here(content),
    }
    call = (*kit.invert("a.png", "b.png"), "-o", "r.jsonl", "--json")

    def sized(width: int, count: int) -> Check:
        def check(outcome: Outcome) -> str | None:
            size = outcome.json()[0]["size"][0]
            return lines(count)(outcome) if size == width else f"the answer is of an image of {size} pixels"

        return check

    yield Case("stale answers", "an image replaced", call, {**images, "a.png": other}, "answered", (), "done again",
               sized(30, 2), may_change=("r.jsonl",))  # fmt: skip
    yield Case("stale answers", "an image as it was", call, images, "answered", check=sized(32, 2))
    elsewhere = content.replace(HERE.encode(), b"/some/other/folder")
    yield Case("stale answers", "the same name from another folder", call,
               {**images, "a.png": other, "r.jsonl": here(elsewhere)}, "answered", check=sized(30, 4),
               may_change=("r.jsonl",))  # fmt: skip
    below = (*kit.invert("sub/../a.png", "b.png"), "-o", "r.jsonl", "--json")
    yield Case("stale answers", "by another path", below, {**images, "sub/note": b""}, "answered", check=sized(32, 3),
               may_change=("r.jsonl",))  # fmt: skip
    for what, model, command in (
        ("a model", kit.positions, ("invert", "a.png", "b.png", "--model", "m", *QUICK)),
        ("a pipeline", pipeline(kit), ("zero-shot", "a.png", "b.png", "--model", "m", *QUICK)),
    ):
        known = results(kit, *command[:3], "--model", str(model), *QUICK).replace(str(model).encode(), b"m")
        for part in list(model.rglob("*.safetensors")):
            name = part.relative_to(model).as_posix()

            def changed(path: Path, model: Path = model, name: str = name) -> None:
                shutil.copytree(model, path)
                file, before = path / name, (path / name).stat()
                data = bytearray(file.read_bytes())
                data[len(data) // 2] ^= 1
                file.write_bytes(data)
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

            files = {"a.png": own, "b.png": images["b.png"], "r.jsonl": here(known), "m": changed}
            yield Case("stale answers", f"{what}: {name} changed in the middle", (*command, "-o", "r.jsonl"), files,
                       says="another model")  # fmt: skip


@functools.cache
def trained(kit: Kit, steps: int = 4) -> Path:
    """Returns the folder of a run of so many steps."""
    folder = kit.folder / f"trained-{steps}"
    folder.mkdir(parents=True)
    (folder / "tiny.toml").write_text(PRESET)
    run_igm(folder, *TRAIN, "--steps", str(steps), "-o", "run")
    return folder / "run"


Damage = Callable[[Path], object]


def damages(path: str) -> dict[str, Damage]:
    """Returns what may happen to a file of a folder."""

    def put(data: bytes) -> Damage:
        return lambda folder: (folder / path).write_bytes(data)

    def cut(share: float) -> Damage:
        def act(folder: Path) -> None:
            data = (folder / path).read_bytes()
            (folder / path).write_bytes(data[: int(share * len(data))])

        return act

    def replaced(folder: Path) -> None:
        (folder / path).unlink()
        (folder / path).mkdir()

    return {
        "missing": lambda folder: (folder / path).unlink(),
        "empty": put(b""),
        "cut in half": cut(0.5),
        "a byte short": cut(0.99999),
        "garbage": put(b"\x93garbage\n" * 20),
        "zero bytes": put(b"\0" * 500),
        "a list": put(b"[]"),
        "deep nesting": put(DEEP.encode()),
        "a folder": replaced,
    }


def damaged(run: Path, damage: Damage) -> Callable[[Path], None]:
    """Returns what copies a run and damages it."""

    def make(path: Path) -> None:
        shutil.copytree(run, path)
        damage(path)

    return make


def _same_weights(run: Path) -> Check:
    def check(outcome: Outcome) -> str | None:
        name = "model.safetensors"
        same = (outcome.folder / "run" / name).read_bytes() == (run / name).read_bytes()
        return None if same else "other weights"

    return check


ANY = ("run/*", "run/*/*")


def _runs(kit: Kit) -> Iterator[Case]:
    """Finished runs: what is missing is written again from the state, or it is said what is broken."""
    run, call = trained(kit), (*TRAIN, "-o", "run")
    right: dict[str, Any] = {"check": _same_weights(run)}

    def case(what: str, damage: Damage, **how: Any) -> Case:
        return Case(
            "finished run", what, call, {"tiny.toml": PRESET, "run": damaged(run, damage)}, **{**right, **how}
        )

    yield case("as it was", lambda folder: None, expect="answered", says="already holds all 4 steps")
    for name in ("model.safetensors", "config.json", "scheduler_config.json", "igm.json"):
        for what, damage in damages(name).items():
            if what == "a byte short" and name != "model.safetensors":
                continue
            expect = "refused" if what == "a folder" else "answered"
            yield case(f"{name} {what}", damage, expect=expect, may_change=ANY)
    for name in ("run.json", "state.pt"):
        for what, damage in damages(name).items():
            if name == "run.json" and what == "a byte short":
                continue
            again = name == "state.pt" and what in ("missing",)
            yield case(f"{name} {what}", damage, expect="answered" if again else "refused")

    def weights(change: Callable[[dict[str, Any]], object]) -> Damage:
        def act(folder: Path) -> None:
            from safetensors.torch import load_file, save_file

            tensors = load_file(folder / "model.safetensors")
            change(tensors)
            save_file(tensors, folder / "model.safetensors")

        return act

    first = sorted(_tensors(run))[0]
    for what, change in {
        "a NaN": lambda x: x[first].view(-1)[:1].fill_(float("nan")),
        "an infinity": lambda x: x[first].view(-1)[:1].fill_(float("inf")),
        "one missing": lambda x: x.pop(first),
        "one of another shape": lambda x: x.update({first: x[first].repeat(2, *[1] * (x[first].ndim - 1))}),
        "one more": lambda x: x.update({"mine": x[first].clone()}),
    }.items():
        yield case(f"weights with {what}", weights(change), expect="answered", may_change=ANY)

    def state(change: Callable[[dict[str, Any]], object]) -> Damage:
        def act(folder: Path) -> None:
            import torch

            known = torch.load(folder / "state.pt", weights_only=True)
            change(known)
            torch.save(known, folder / "state.pt")
            (folder / "model.safetensors").unlink()  # so that the state is needed

        return act

    for key in ("step", "spent", "model", "average", "optimizer"):
        yield case(f"a state without {key}", state(lambda x, key=key: x.pop(key)))
        for value in (None, "x", [], -1):
            if key == "spent" and value == -1:
                continue
            yield case(f"a state with {key} = {value!r}", state(lambda x, key=key, v=value: x.update({key: v})))
    for key in ("model", "average"):
        nan: Damage = state(lambda x, key=key: _floats(x[key])[0].fill_(float("nan")))
        yield case(f"a state with NaN in {key}", nan, says="not finite")
    others = {"--steps": "3", "--seed": "5", "--batch-size": "4", "--limit": "3"}
    for option, value in others.items():
        command = (*call, option, value)
        yield Case("finished run", f"with {option} {value}", command, {"tiny.toml": PRESET, "run": damaged(run, id)},
                   expect="answered" if option == "--steps" else "refused")  # fmt: skip


def _floats(tensors: dict[str, Any]) -> list[Any]:
    return [x for x in tensors.values() if x.is_floating_point()]


def _tensors(run: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(run / "model.safetensors", "pt") as file:
        return list(file.keys())


def _unfinished(kit: Kit) -> Iterator[Case]:
    """A run of two steps that goes on to four: the same weights and figures as without a break."""
    run, half, call = trained(kit), trained(kit, 2), (*TRAIN, "-o", "run")

    def figures(folder: Path) -> list[Any]:
        known = [json.loads(x) for x in (folder / "metrics.jsonl").read_bytes().splitlines()]
        return [(x["step"], x.get("loss")) for x in known]

    def check(outcome: Outcome) -> str | None:
        same = figures(outcome.folder / "run") == figures(run)
        return _same_weights(run)(outcome) if same else "other figures"

    def case(what: str, damage: Damage, **how: Any) -> Case:
        files: dict[str, Content] = {"tiny.toml": PRESET, "run": damaged(half, damage)}
        return Case("run that goes on", what, call, files, **{"check": check, "may_change": ANY, **how})

    def add(data: bytes) -> Damage:
        def act(folder: Path) -> None:
            with (folder / "metrics.jsonl").open("ab") as file:
                file.write(data)

        return act

    yield case("as it was", lambda folder: None, expect="answered")
    yield case("half a line of metrics", add(b'{"step": 3, "lo'), expect="answered")
    yield case("metrics of later steps", add(b'{"step": 3, "loss": 9.0}\n'), expect="answered")
    for what, data in {
        "a note": b"a note\n", "a list": b"[]\n", "a number": b"3\n", "an empty line": b"\n", "no step": b'{"loss": 1}\n',
        "a step of text": b'{"step": "3"}\n', "deep nesting": DEEP.encode() + b"\n", "not UTF-8": b"\xff\n",
    }.items():  # fmt: skip
        yield case(f"metrics with {what}", add(data), says="metrics.jsonl", may_change=("run/run.json",))
    left = ".model.safetensors.abcd.igm-tmp"
    yield case("an unfinished file", lambda folder: (folder / left).write_bytes(b"half"), expect="answered",
               check=lambda outcome: check(outcome) or ("it is left" if (outcome.folder / "run" / left).exists() else None))  # fmt: skip
    yield case("no weights", lambda folder: (folder / "model.safetensors").unlink(), expect="answered")


def _weights(kit: Kit) -> Iterator[Case]:
    """Models whose weights are missing, cut or no numbers say so and answer nothing."""
    for what, model, call in (
        ("positions", kit.positions, ("invert", "a.png", "--model", "m", *QUICK)),
        ("attributes", kit.attributes, ("invert", "a.png", "--model", "m", *QUICK)),
        ("generate", kit.positions, ("generate", "pos(0.5,0.5)", "--model", "m", *DRAW)),
        ("pipeline", pipeline(kit), ("zero-shot", "a.png", "--model", "m", *QUICK)),
    ):
        for part in model.rglob("*.safetensors"):
            name = part.relative_to(model).as_posix()
            every = dict(damages(name))
            for value in ("nan", "inf", "-inf"):

                def poison(folder: Path, name: str = name, value: str = value) -> None:
                    from safetensors.torch import load_file, save_file

                    tensors = load_file(folder / name)
                    floats = _floats(tensors)
                    floats[len(floats) // 2].view(-1)[-1] = float(value)
                    save_file(tensors, folder / name, {"format": "pt"})

                every[f"with {value}"] = poison
            for how, damage in every.items():
                files: dict[str, Content] = {"a.png": kit.picture, "m": damaged(model, damage)}
                yield Case("weights", f"{what}, {name} {how}", call, files)


def _full(kit: Kit) -> Iterator[Case]:
    """A disk that is full: it is said at once, with what is done, and no half line or file stays."""
    images: dict[str, Content] = {f"{i}.png": kit.picture for i in range(9)}
    names = tuple(images)
    call = kit.invert(*names)

    def full(name: str, command: tuple[str, ...], files: dict[str, Content], largest: int, says: str) -> Case:
        return Case("full disk", name, command, files, codes=(3,), says=says, largest=largest)

    for largest in (2000, 3500, 5000):
        yield full(
            f"results of {largest} bytes",
            (*call, "-o", "r.jsonl"),
            images,
            largest,
            r"[1-8] of 9 images are done",
        )
    for option in ("--overlay", "--map"):
        yield full(f"{option}", (*kit.invert("0.png"), option, "x.png"), images, 300, "cannot write x.png")
        yield full(f"{option}, a folder", (*call, option, "x"), images, 300, "0 of 9 images are done")
    yield full("--csv", (*call, "--k", "2", "--csv", "x.csv"), images, 500, "cannot write x.csv")
    yield full("--coco", (*call, "--k", "2", "--coco", "x.json"), images, 500, "cannot write x.json")
    taken = (
        "decompose",
        str(vectors(kit) / "v.npy"),
        "--codebooks",
        str(vectors(kit) / "books.safetensors"),
        *CPU,
    )
    yield full("results of vectors", (*taken, "-o", "r.jsonl"), {}, 900, "cannot grow")
    drawing = ("generate", "pos(0.5,0.5)", "--model", str(kit.positions), *DRAW)
    yield full("generate", (*drawing, "-o", "d"), {}, 400, "cannot write d/")
    yield full(
        "generate --grid",
        (*drawing, "-o", "d", "-n", "9", "--grid", "g.png"),
        {},
        20_000,
        "cannot (write|grow)",
    )
    run = trained(kit)
    weights, state = ((run / name).stat().st_size for name in ("model.safetensors", "state.pt"))
    preset: dict[str, Content] = {"tiny.toml": PRESET}
    assert weights < state
    yield full("a state", (*TRAIN, "-o", "run"), preset, (weights + state) // 2, "cannot write run/state.pt")
    yield full("a benchmark", (*BENCHMARK, "--out", "out"), {}, 1000, "cannot (write|grow)")


def _interrupted() -> Iterator[Case]:
    """Ctrl-C and SIGTERM during imports, whatever the library that is imported makes of it."""
    for what, number, code in (
        ("Ctrl-C", "SIGINT", 130),
        ("SIGTERM", "SIGTERM", 143),
        ("SIGHUP", "SIGHUP", 143),
    ):
        stop = f"import os, signal\nos.kill(os.getpid(), signal.{number})\n"
        swallowed = f"import os, signal\ntry:\n    os.kill(os.getpid(), signal.{number})\n"
        swallowed += "    import time; time.sleep(1)\nexcept BaseException:\n    raise ImportError('a part is missing')\n"
        for how, text in {
            "": stop + "import time\ntime.sleep(5)\n",
            ", taken for something else": swallowed,
        }.items():
            files: dict[str, Content] = {"stopping.py": text}
            yield Case("interrupt in an import", f"{what}{how}", ("train", "stopping:Data"), files, codes=(code,),
                       says="igm: interrupted", process=True)  # fmt: skip
