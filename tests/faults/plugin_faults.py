"""Plugins of other packages that break: contained, named, exit code 5, and nothing of theirs on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from faults.case import Case, Content, Outcome
from faults.kit import CPU, Kit
from faults.options import edited, with_data

PARSER = """
import math, os, sys
import torch
from igm_cli.plugins.positions import Positions

class Odd(BaseException):
    pass

class Plugin(Positions):
    name = "loud"
    summary = "broken on purpose"
{body}
"""

DATASET = """
import math, os, sys

class Plugin:
    name = "loud"
    licence = source = "none"
    splits = ("train",)
    image_size = (32, 32)
    concepts = "pos"
    options = {{}}
    presets = {{}}
    def load(self, split, **options):
        from igm_cli.plugins import registry
        return registry.dataset("objects").load("train", data_root=options["data_root"])
{body}
"""

ENDS = {
    "exits with 0": "sys.exit(0)", "exits with 1": "sys.exit(1)", "exits with text": "sys.exit('text')", "raises": "raise KeyError('rows')",
    "raises what is no Exception": "raise Odd()", "raises a page": "raise ValueError('x' * 5000)", "raises lines": "raise ValueError('a\\nb')",
    "raises controls": "raise ValueError('\\x1b[31m\\u202e')", "raises StopIteration": "raise StopIteration", "raises GeneratorExit": "raise GeneratorExit",
    "recurses": "return self.{name}(*values)", "asserts": "assert False",
}  # fmt: skip
"""Ways in which a method ends."""

ITEMS = {
    "None": "None", "a tensor": "torch.ones(len(values[0]), 2)", "a set": "{1, 2}", "text": "'xy'", "a table": "{'x': 1}",
    "too few": "super().decode(*values)[:-1]", "too many": "super().decode(*values) * 2", "items that are none": "[1] * len(values[0])",
    "NaN": "[{'x': math.nan}] * len(values[0])", "infinity": "[{'x': math.inf}] * len(values[0])", "keys of numbers": "[{1: 2}] * len(values[0])",
    "a tensor inside": "[{'x': torch.ones(1)}] * len(values[0])", "bytes inside": "[{'x': b'1'}] * len(values[0])",
    "keys of numbers inside": "[{'x': {1: 2}}] * len(values[0])", "a generator": "(each for each in [])", "NaN in a list": "[{'x': [math.nan]}] * len(values[0])",
}  # fmt: skip
"""What decode returns."""

NAMED = r"loud-pack"


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    for name, end in ENDS.items():
        yield _concepts(kit, f"decode {name}", _method("decode", end))
        yield _concepts(
            kit,
            f"space {name}",
            f"    @property\n    def space(self):\n        values = ()\n        {end.format(name='space').replace('(*values)', '')}",
        )
    for name, value in ITEMS.items():
        yield _concepts(kit, f"decode returns {name}", _method("decode", f"return {value}"))
    for name, value in {"None": "None", "text": "'x'", "a number": "3"}.items():
        yield _concepts(kit, f"space is {name}", f"    space = {value}")
    for name, body in {
        "of none": "    name = None",
        "of a number": "    name = 3",
        "of nothing": "    name = ''",
    }.items():
        yield _concepts(kit, f"a name {name}", body)
    for name, value in {"None": "None", "text": "'x'", "a tensor": "torch.ones(2)"}.items():
        yield _concepts(kit, f"draw returns {name}", _method("draw", f"return {value}"), "--overlay", "o.png")
    yield _concepts(kit, "draw exits", _method("draw", "sys.exit(0)"), "--overlay", "o.png")
    says = "return super().decode(*values)"
    for name, line in {"prints": "print('noise')", "writes to descriptor 1": "os.write(1, b'noise')", "writes to stdout": "sys.stdout.write('noise')", "writes to the first stdout": "sys.__stdout__.write('noise')"}.items():  # fmt: skip
        yield _concepts(
            kit,
            f"decode {name}",
            _method("decode", f"{line}\n        {says}"),
            expect="answered",
            check=_one_line,
        )
    for name, text in {"exits with 0": "import sys; sys.exit(0)", "exits with 1": "import sys; sys.exit(1)", "exits with text": "import sys; sys.exit('text')",
                       "raises": "1 / 0", "is no Python": "def", "lacks a module": "import nosuch_module", "lacks the class": "x = 1",
                       "has no members": "class Plugin: pass", "has a class that exits": "import sys\nclass Plugin:\n    def __init__(self): sys.exit(0)",
                       "has a NUL byte": "x = '\0'", "prints and exits": "print('noise')\nimport os; os.write(1, b'noise')\nraise SystemExit"}.items():  # fmt: skip
        yield _case(kit, "import", name, _invert(), {**_model(kit), **_package("concepts", text)})
    yield from _datasets(kit)
    yield from _claims(kit)


def _datasets(kit: Kit) -> Iterator[Case]:
    train = ("train", "loud", "--data-root", "data", "-o", "run", "--dry-run", *CPU)
    bodies = {f"load {name}": _method("load", end, "self, *values, **options") for name, end in ENDS.items()}
    bodies |= {f"load returns {name}": f"    def load(self, split, **options):\n        return {value}"
               for name, value in {"None": "None", "a list": "[1, 2]", "a table": "{'image': []}", "text": "'x'", "a number": "3"}.items()}  # fmt: skip
    bodies |= {
        f"splits are {name}": f"    splits = {value}"
        for name, value in {"None": "None", "none": "()", "text": "'train'", "numbers": "(1,)"}.items()
    }
    bodies |= {f"image_size is {name}": f"    image_size = {value}" for name, value in
               {"None": "None", "one number": "(32,)", "text": "('a', 'b')", "NaN": "(float('nan'), 32)", "below 0": "(-32, 32)", "huge": "(10**9, 10**9)"}.items()}  # fmt: skip
    bodies |= {
        "concepts are None": "    concepts = None",
        "concepts are of code": "    concepts = 'nosuch:P'",
        "name is None": "    name = None",
    }
    for name, body in bodies.items():
        says = "nosuch" if "of code" in name else NAMED
        yield _case(
            kit,
            "dataset",
            name,
            train,
            {**with_data(kit), **_package("datasets", DATASET.format(body=body))},
            says=says,
        )
    lines = "\n".join(f"        {line}" for line in ("print('hullabaloo')", "os.write(1, b'hullabaloo')", "from igm_cli.plugins import registry",
                                                      "return registry.dataset('objects').load('train', data_root=options['data_root'])"))  # fmt: skip
    body = f"    def load(self, split, **options):\n{lines}"
    files = {**with_data(kit), **_package("datasets", DATASET.format(body=body))}

    def quiet(outcome: Outcome) -> str | None:
        return f"on stdout: {outcome.out[:80]!r}" if "hullabaloo" in outcome.out else None

    yield _case(
        kit,
        "dataset",
        "load prints",
        (*train, "--set", "model.image_size=[32,32]"),
        files,
        expect="answered",
        says="",
        check=quiet,
    )


def _claims(kit: Kit) -> Iterator[Case]:
    """Names of built-in plugins: the built-in one wins, and the other is named in full."""
    taken = "raise RuntimeError('imported')"
    for group, name in (
        ("concepts", "pos"),
        ("datasets", "clevr"),
        ("benchmarks", "objects"),
        ("concepts", "labels"),
        ("datasets", "objects"),
    ):

        def listed(outcome: Outcome, group: str = group, name: str = name) -> str | None:
            rows = [row for row in outcome.json() if row["kind"] == group]
            own = [row for row in rows if row["name"] == name]
            other = [row for row in rows if row["name"] == "loud_plugin:Plugin"]
            if [row["ok"] for row in own] != [True] or not own[0]["target"].startswith("igm_cli."):
                return f"{name} is {own}"
            return None if other and other[0]["packages"] == ["loud-pack"] else f"the other is {other}"

        files = {**_model(kit), **_package(group, taken, name)}
        yield _case(
            kit,
            "claims",
            f"{group} {name}, listed",
            ("plugins", "--json"),
            files,
            expect="answered",
            says="",
            check=listed,
        )
        yield _case(
            kit,
            "claims",
            f"{group} {name}, used",
            kit.invert("a.png", "--json"),
            files,
            expect="answered",
            says="",
            check=_one_line,
        )
    files = {**with_data(kit), **_package("datasets", taken, "objects")}
    train = (
        "train",
        "objects",
        "--data-root",
        "data",
        "-o",
        "run",
        "--dry-run",
        "--set",
        "model.image_size=[32,32]",
        *CPU,
    )
    yield _case(kit, "claims", "datasets objects, trained on", train, files, expect="answered", says="")
    good = PARSER.format(body="")
    files = {**_model(kit), **_package("concepts", good, "pos")}
    command = (*kit.invert("a.png"), "--concepts", "loud_plugin:Plugin")
    yield _case(
        kit,
        "claims",
        "the other one by its full name, for a model of another",
        command,
        files,
        codes=(3,),
        says="",
    )
    once = {**_model(kit), **_package("concepts", good, "loud"), **_package("concepts", good, "loud", "second")}
    yield _case(kit, "claims", "one name of two packages", _invert(), once, says="loud-pack and second-pack")
    fresh = (*_invert(), "--json")
    broken = "import sys, os; print('noise'); os.write(1, b'noise\\n'); sys.exit('text')"
    yield _case(
        kit,
        "import",
        "in a process of its own",
        fresh,
        {**_model(kit), **_package("concepts", broken)},
        process=True,
        env={"PYTHONPATH": "."},
    )


def _case(
    kit: Kit, kind: str, name: str, command: tuple[str, ...], files: Mapping[str, Content], *, codes: tuple[int, ...] = (5,),
    says: str = NAMED, **more: Any,
) -> Case:  # fmt: skip
    guarded = not more.get("process", False)
    return Case(
        f"plugin: {kind}",
        name,
        command,
        {"a.png": kit.picture, **files},
        codes=codes,
        says=says,
        guarded=guarded,
        **more,
    )


def _concepts(kit: Kit, name: str, body: str, *words: str, expect: Any = "refused", **more: Any) -> Case:
    files = {**_model(kit), **_package("concepts", PARSER.format(body=body))}
    says = "" if expect == "answered" else NAMED
    return _case(kit, "concepts", name, (*_invert(), "--json", *words), files, expect=expect, says=says, **more)


def _invert() -> tuple[str, ...]:
    return ("invert", "a.png", "--model", "m", "--draws", "2", "--k", "2", *CPU)


def _model(kit: Kit) -> dict[str, Content]:
    return {"m": edited(kit, "igm.json", ["concepts"], "loud")}


def _method(name: str, end: str, parameters: str = "self, *values") -> str:
    return f"    def {name}({parameters}):\n        {end.format(name=name) if '{name}' in end else end}"


def _package(group: str, text: str, name: str = "loud", package: str = "loud") -> dict[str, Content]:
    """What a wheel leaves behind: a module and the description of its distribution."""
    info = f"{package}_pack-1.0.dist-info"
    return {
        f"{package}_plugin.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}-pack\nVersion: 1.0\n",
        f"{info}/entry_points.txt": f"[igm_cli.{group}]\n{name} = {package}_plugin:Plugin\n",
    }


def _one_line(outcome: Outcome) -> str | None:
    try:
        (record,) = outcome.json()
    except (ValueError, json.JSONDecodeError):
        return f"stdout is {outcome.out[:120]!r}"
    return None if record["schema"] == "igm.invert/1" and Path(record["image"]).name == "a.png" else f"{record}"
