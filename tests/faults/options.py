"""Numbers and words that cannot be meant: of every option, every key of a preset and of a checkpoint, every variable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from faults.case import Case, Content
from faults.kit import CPU, Kit
from faults.outputs import vectors

NUMBERS = ("nan", "inf", "-inf", "x", "\N{SUPERSCRIPT TWO}", "0x10", "\udcff", "1e999", "9" * 5000)
"""What no option takes for a number."""

WHOLE = ("-1", "1.5", "1" + "0" * 12, "1" + "0" * 30)
"""What no option of whole numbers takes, besides."""

WORDS = ("", "\udcff", "x" * 5000, "no such")
"""What no option of one word takes."""

PATHS = ("", "~nosuch/x", "x" * 5000, "a\0b")
"""What no path can be."""

VALUES: Mapping[str, Any] = {
    "nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "1e30": 10**30, "-1e30": -(10**30),
    "-7": -7, "text": "many", "true": True, "list": [[]], "table": {"a": 1},
}  # fmt: skip
"""What no number of a preset or a checkpoint is."""

FINE = {("inference.power", "-7"), ("inference.views", "true"), ("inference.method", "text")}
"""Of these the ones that may be."""


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _options(kit)
    yield from _keys(kit)
    yield from _mistyped(kit)
    yield from _fields(kit)
    yield from _words(kit)
    yield from _variables(kit)


def _commands(kit: Kit) -> dict[str, tuple[str, ...]]:
    """A quick call of every command that takes an option with a value."""
    model, books = ("--model", str(kit.positions)), vectors(kit)
    return {
        "invert": kit.invert("a.png"),
        "estimate-k": ("estimate-k", "a.png", *model, "--draws", "2", *CPU),
        "zero-shot": ("zero-shot", "a.png", "--labels", "cat,dog", "--draws", "2", "--max-draws", "2", *CPU),
        "generate": ("generate", "pos(0.3,0.5)", *model, "--steps", "2", *CPU),
        "decompose": (
            "decompose",
            str(books / "v.npy"),
            "--codebooks",
            str(books / "books.safetensors"),
            *CPU,
        ),
        "train": train(),
        "evaluate": ("evaluate", *model, "--data-root", "data", "--split", "train", *CPU),
        "push": ("push", str(kit.positions), "user/name", "--dry-run"),
        "benchmark": ("benchmark", "decomposition", "--limit", "1", "--methods", "coupled", *CPU),
        "ui": ("ui", "--no-browser", *CPU),
    }


def train(*words: str) -> tuple[str, ...]:
    small = (
        "model.channels=[8,8,8]",
        "model.blocks=1",
        "model.head_channels=8",
        "model.head_layers=1",
        "model.window=3",
    )
    sets = [word for each in (*small, "batch_size=1", "model.image_size=[32,32]") for word in ("--set", each)]
    return ("train", "objects", "--data-root", "data", "-o", "run", *sets, "--set", "steps=1", *CPU, *words)


def with_data(kit: Kit) -> dict[str, Content]:
    """A folder that objects are learnt of, and a picture."""
    return {"a.png": kit.picture, "data/train/1.png": kit.picture, "data/train/1.txt": "0 0.4 0.4 0.2 0.2\n",
            "data/classes.txt": "thing\n"}  # fmt: skip


def _options(kit: Kit) -> Iterator[Case]:
    """Every option of every command, as the command line lists them."""
    import typer

    from igm_cli.app import command_line

    group: Any = typer.main.get_command(command_line())
    for name, base in _commands(kit).items():
        for option in group.commands[name].params:
            kind = option.type_descriptor.annotation if hasattr(option, "type_descriptor") else str
            if kind is bool or not option.opts[0].startswith("-"):
                continue
            flag = option.opts[0]
            choices = getattr(kind, "__args__", ())
            if kind in (int, float):
                values = NUMBERS + (WHOLE if kind is int else ())
            elif kind is Path or kind == list[Path]:
                values = PATHS
            elif choices and not isinstance(choices[0], type):
                values = WORDS
            else:
                values = WORDS[:2]
            for value in values:
                shown = value if len(value) < 40 else f"{value[:8]} ({len(value)} characters)"
                yield Case(f"options of {name}", f"{flag} {shown!r}", (*base, flag, value), with_data(kit))


def _keys(kit: Kit) -> Iterator[Case]:
    """Every number of a preset."""
    for table, config in _tables().items():
        for key, name, value in _wrong(table, config):
            text = (
                "nan"
                if value != value
                else json.dumps(value).replace("Infinity", "inf").replace("{", "{ ").replace(": ", " = ")
            )
            setting = f"{key}={text}"
            yield Case("keys of a preset", f"{key} {name}", train("--set", setting), with_data(kit))
    for name, part in {
        "limit = -3": "limit = -3", "limit = 0": "limit = 0", "seed = -1": "seed = -1", "seed huge": "seed = 99999999999999999999999",
        "limit = nan": "limit = nan", "split of another type": "split = 3", "unknown source": 'data_root = "mine"',
        "an unknown key": "limits = 3", "no table": "options = 3",
    }.items():  # fmt: skip
        files = {**with_data(kit), "p.toml": f"[[data]]\n{part}\n"}
        yield Case("keys of a preset", name, train("--preset", "p.toml"), files)
    for name, text in {
        "no TOML": "a = = 3", "an unknown table": "[modl]\na = 1\n", "a table that is none": "model = 3\n",
        "data that is no list": "[data]\nlimit = 3\n", "extends nothing": 'extends = ""\n', "extends itself": 'extends = "p.toml"\n',
        "extends a number": "extends = 3\n", "a parser that is a number": "parser = 3\n", "UTF-16": "\ufeffa\0b",
        "a value of 5000 characters": f'[train]\nprecision = "{"x" * 5000}"\n', "a key of 5000 characters": f"[train]\n{'x' * 5000} = 1\n",
        "a surrogate": '[train]\nprecision = "\\ud800"\n',
    }.items():  # fmt: skip
        yield Case("keys of a preset", name, train("--preset", "p.toml"), {**with_data(kit), "p.toml": text})
    yield Case(
        "keys of a preset", "a grid of one number", train("--set", "inference.grid=[12]"), with_data(kit)
    )
    yield Case(
        "keys of a preset", "a grid of three", train("--set", "inference.grid=[12,12,3]"), with_data(kit)
    )


MISTYPED = {
    "stepz=5": "'stepz'.*mean steps \\(a whole number\\)", "train.step=5": "'step'.*mean steps",
    "precison=no": "'precison'.*precision \\(one of no, bf16, fp16, auto\\)", "learning-rate=1e-3": "learning_rate \\(a number\\)",
    "mirrors=true": "mean mirror \\(true or false\\)", "steps=many": "'steps' must be a whole number, not 'many'",
    "steps=0": "'steps' must be at least 1", "steps=1.5": "'steps' must be a whole number", "batch_size=-4": "'batch_size' must be at least 1",
    "learning_rate=fast": "'learning_rate' must be a number", "learning_rate=0": "'learning_rate' must be above 0",
    "decay=2": "'decay' must be at most 1", "ema=1": "'ema' must be below 1", "mirror=maybe": "'mirror' must be true or false",
    "precision=bf17": "'no', 'bf16', 'fp16' or 'auto', not 'bf17'", "modl.blocks=2": "table 'modl'; did you mean model",
    "model.channel=[8]": "mean channels \\(a list\\)", "model.channels=64": "'channels' must be a list, not 64",
    "model.channels=[8,8]": "'channels' must have 3 values or more", "model.blocks=two": "'blocks' must be a whole number",
    "model.architecture=unett": "mean unet", "model.composition=sums": "'sum' or 'mean', not 'sums'",
    "schedule.prediction=v": "mean prediction_type", "schedule.beta_schedule=cosine": "'linear', 'scaled_linear'",
    "crops.scale=-1": "'scale' must be at least 0.001", "crops.mosst=3": "mean most \\(a whole number\\)",
    "inference.kmax=5": "mean k_max \\(a whole number\\)", "inference.penalty=low": "'penalty' must be a number",
    "inference.grid=[12]": "'grid' must be 2 numbers", "inference.method=evidense": "unknown method 'evidense'; choose",
    "data.formt=coco": "no option 'formt'; did you mean format", "data.shares=1/2": "shares must look like 80/10/10, not '1/2'",
    "concepts.regions=1": "no option 'regions'; did you mean region", "concepts.distance=a": "distance must be a number",
}  # fmt: skip
"""What people mistype, and what must be said of it: the key, the type or the range, the nearest key that there is."""


def _mistyped(kit: Kit) -> Iterator[Case]:
    for setting, says in MISTYPED.items():
        yield Case(
            "mistyped settings", setting, train("--set", setting), with_data(kit), codes=(2, 3), says=says
        )
    for words, says in {
        ("--preset", "finetun"): "no preset 'finetun'", ("--preset", "nosuch.toml"): "no preset file nosuch.toml",
        ("--init", "clevr-poss"): "clevr-pos", ("--tracker", "tensorbord"): "mean tensorboard",
        ("--data-root", "nosuch"): "nosuch",
    }.items():  # fmt: skip
        command = train(*words)
        yield Case("mistyped settings", " ".join(words), command, with_data(kit), codes=(2, 3, 4), says=says)


def _tables() -> dict[str, Any]:
    """The tables of a preset, and what reads them."""
    from igm_cli.core.models.factored import FactoredConfig
    from igm_cli.core.noise_schedule import ScheduleConfig
    from igm_cli.core.training.config import TrainConfig
    from igm_cli.core.types import InversionSettings
    from igm_cli.plugins.crops import Crops

    return {
        "train": TrainConfig,
        "model": FactoredConfig,
        "schedule": ScheduleConfig,
        "inference": InversionSettings,
        "crops": Crops,
    }


def _wrong(table: str, config: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields keys of a table with what they cannot be."""
    for field in dataclasses.fields(config):
        default = field.default
        listed = isinstance(default, tuple)
        if isinstance(default, str):
            names = ["nan", "list", "-7", "text"] if field.name != "method" else ["nan", "list", "text"]
        elif isinstance(default, bool):
            names = ["nan", "text", "-7"]
        else:
            names = list(VALUES)
        for name in names:
            key = f"{table}.{field.name}"
            if (key, name) not in FINE:
                value = VALUES[name]
                yield (
                    key,
                    name,
                    [value] * max(1, len(default)) if listed and not isinstance(value, list) else value,
                )


def _fields(kit: Kit) -> Iterator[Case]:
    """Every number of a checkpoint."""
    places = {
        "inference": ("igm.json", "inference"),
        "model": ("config.json", ""),
        "schedule": ("scheduler_config.json", ""),
    }
    tables = _tables()
    for table, (file, inside) in places.items():
        for key, name, value in _wrong(table, tables[table]):
            edit = edited(kit, file, [*filter(None, [inside]), key.partition(".")[2]], value)
            yield _checkpoint(kit, f"{key} {name}", edit)
    for path, values in {
        "format": [0, 99, "1", None, 10**30],
        "image_size": [[32], [32, -32], [0, 0], ["a", "b"], 32, [10**9, 10**9], [float("nan"), 32]],
        "composition": ["product", 3, None],
        "concepts": [3, "", None, ["pos"], "x" * 5000, "nosuch"],
        "space": [
            {},
            None,
            3,
            {"kind": "nosuch"},
            {"kind": "continuous", "names": ["x"], "low": [0.0, 0.0], "high": [1.0, 1.0]},
        ],
        "scale": [-1, float("nan"), float("inf"), "a", 1e300],
        "margin": [-1, 10**30, 0.5, "a"],
        "info": [3, None],
        "concept_options": [3, {"nosuch": 1}],
        "unheard_of": [1],
    }.items():
        for value in values:
            yield _checkpoint(kit, f"{path} = {str(value)[:40]}", edited(kit, "igm.json", [path], value))
    for path, high in {"space.low": float("nan"), "space.high": float("inf"), "space.names": 3}.items():
        yield _checkpoint(
            kit,
            f"{path} = {high}",
            edited(kit, "igm.json", path.split("."), high if path.endswith("names") else [high, high]),
        )
    for name, text in {
        "nothing": "", "no JSON": "{", "a list": "[]", "a number": "3", "null": "null", "UTF-16": "\ufeff{}".encode("utf-16"),
        "deep": "[" * 100_000, "a huge number": '{"format": ' + "9" * 5000 + "}", "binary": bytes(range(256)),
    }.items():  # fmt: skip
        for file in ("igm.json", "config.json", "scheduler_config.json"):

            def damaged(path: Path, file: str = file, text: str | bytes = text) -> None:
                copy(kit.positions, path)
                (path / file).write_bytes(text if isinstance(text, bytes) else text.encode())

            yield _checkpoint(kit, f"{file} holds {name}", damaged)


def _checkpoint(kit: Kit, name: str, make: Callable[[Path], object]) -> Case:
    command = ("invert", "a.png", "--model", "m", "--json", *CPU)
    return Case("fields of a checkpoint", name, command, {"a.png": kit.picture, "m": make}, codes=(2, 3, 4, 5))


def edited(kit: Kit, file: str, keys: list[str], value: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        copy(kit.positions, path)
        data = json.loads((path / file).read_text())
        inner = data
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        (path / file).write_text(json.dumps(data))

    return make


def copy(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder)


def _words(kit: Kit) -> Iterator[Case]:
    """Single values that were once taken, or once broke something."""
    files, invert = with_data(kit), kit.invert
    for name, command in {
        "no input": invert(""),
        "an input of 5000 characters": invert("x" * 5000),
        "an input with a NUL": invert("a\0b"),
        "an input with half a character": invert("\udcff.png"),
        "a home of nobody": invert("~nosuch/x.png"),
        "a pattern of nobody": invert("~nosuch/*.png"),
        "device cuda:\N{SUPERSCRIPT TWO}": ("invert", "a.png", "--device", "cuda:\N{SUPERSCRIPT TWO}"),
        "device cuda:-1": ("invert", "a.png", "--device", "cuda:-1"),
        "device cuda:": ("invert", "a.png", "--device", "cuda:"),
        "device cpu:9": ("invert", "a.png", "--device", "cpu:9"),
        "device cuda:9...": ("invert", "a.png", "--device", "cuda:" + "9" * 5000),
        "device CUDA": ("invert", "a.png", "--device", "CUDA"),
        "batch size 0": invert("a.png", "--batch-size", "0"),
        "batch size \N{SUPERSCRIPT TWO}": invert("a.png", "--batch-size", "\N{SUPERSCRIPT TWO}"),
        "batch size huge": invert("a.png", "--batch-size", "9" * 30),
        "more concepts than a grid tells apart": invert("a.png", "--k", "1000"),
        "scale 0": invert("a.png", "--scale", "0"),
        "k and k-max": invert("a.png", "--k", "2", "--k-max", "3"),
        "an unknown option": invert("a.png", "--nosuch"),
        "an unknown option of 5000 characters": invert("a.png", "--" + "x" * 5000),
        "an option without a value": (*invert("a.png"), "--k"),
        "an empty value behind =": invert("a.png", "--overlay="),
        "an unknown command": ("inverse", "a.png"),
        "a command of nothing": ("",),
        "labels of commas": ("zero-shot", "a.png", "--labels", ",,,"),
        "one label": ("zero-shot", "a.png", "--labels", "cat"),
        "labels twice": ("zero-shot", "a.png", "--labels", "cat,CAT"),
        "labels of half a character": ("zero-shot", "a.png", "--labels", "cat,\udcff"),
        "labels of 5000 characters": ("zero-shot", "a.png", "--labels", "cat," + "x" * 5000),
        "labels of a NUL": ("zero-shot", "a.png", "--labels", "cat,a\0b"),
        "more labels than pairs can be tried of": ("zero-shot", "a.png", "--labels", ",".join(f"l{n}" for n in range(30_000))),
        "a template without a label": ("zero-shot", "a.png", "--labels", "cat,dog", "--template", "a photo"),
        "a template of half a character": ("zero-shot", "a.png", "--labels", "cat,dog", "--template", "\udcff {label}"),
        "timesteps from above": ("zero-shot", "a.png", "--labels", "cat,dog", "--timesteps", "0.7-0.1"),
        "timesteps of digits": ("zero-shot", "a.png", "--labels", "cat,dog", "--timesteps", "\N{SUPERSCRIPT TWO}-3"),
        "timesteps beyond": ("zero-shot", "a.png", "--labels", "cat,dog", "--timesteps", "0-99999"),
        "views of three": ("zero-shot", "a.png", "--labels", "cat,dog", "--views", "3"),
        "size 9": ("zero-shot", "a.png", "--labels", "cat,dog", "--size", "9"),
        "size huge": ("zero-shot", "a.png", "--labels", "cat,dog", "--size", "1000000000000"),
        "weighting huge": ("zero-shot", "a.png", "--labels", "cat,dog", "--weighting", "1e300"),
        "k of no number": ("zero-shot", "a.png", "--labels", "cat,dog", "--k", "\N{SUPERSCRIPT TWO}"),
        "k above the labels": ("zero-shot", "a.png", "--labels", "cat,dog", "--k", "7"),
        "k huge": ("zero-shot", "a.png", "--labels", "cat,dog", "--k", "9" * 5000),
        "an expression of nothing": ("generate", " "),
        "an expression of half a character": ("generate", "\udcff"),
        "an expression of 5000 characters": ("generate", "x" * 5000),
        "an expression of brackets": ("generate", "(" * 5000),
        "an expression of NaN": ("generate", "pos(nan,0.5)"),
        "an expression beyond": ("generate", "pos(1e999,0.5)"),
        "a weight of NaN": ("generate", "pos(0.3,0.5):nan"),
        "a weight beyond": ("generate", "pos(0.3,0.5):1e999"),
        "a count beyond": ("generate", "99999999999999999999 pos"),
        "a count from above": ("generate", "5-3 pos"),
        "a count of digits": ("generate", "\N{SUPERSCRIPT TWO} pos"),
        "guidance NaN": ("generate", "pos(0.3,0.5)", "--guidance", "nan"),
        "guidance huge": ("generate", "pos(0.3,0.5)", "--guidance", "1e300"),
        "set without =": train("--set", "blocks"),
        "set of nothing": train("--set", "=3"),
        "set of an unknown table": train("--set", "nosuch.blocks=3"),
        "set of an unknown key": train("--set", "blocksize=3"),
        "set of an empty key": train("--set", "model.=3"),
        "set of half a character": train("--set", "model.blocks=\udcff"),
        "set of shares of nothing": train("--set", "data.shares=0/0/0"),
        "set of shares of NaN": train("--set", "data.shares=nan/1/1"),
        "set of an unknown format": train("--set", "data.format=\N{SUPERSCRIPT TWO}"),
        "set of a seed of shares": train("--set", "data.split_seed=x"),
        "set of a seed of shares that is infinite": train("--set", "data.split_seed=inf"),
        "an unknown preset": train("--preset", "nosuch"),
        "a dataset of nothing": ("train", ""),
        "a dataset of 5000 characters": ("train", "x" * 5000),
        "a module of nothing": ("train", ":"),
        "a module of dots": ("train", "..:x"),
        "a module of half a character": ("train", "\udcff:x"),
        "a budget of nothing": ("benchmark", "decomposition", "--train-budget", "0m"),
        "a budget of NaN": ("benchmark", "decomposition", "--train-budget", "nanm"),
        "a budget of digits": ("benchmark", "decomposition", "--train-budget", "\N{SUPERSCRIPT TWO}m"),
        "a budget beyond": ("benchmark", "decomposition", "--train-budget", "9" * 400 + "m"),
        "a budget of steps beyond": ("benchmark", "decomposition", "--train-budget", "9" * 30 + "steps"),
        "methods of commas": ("benchmark", "decomposition", "--methods", ",,"),
        "an unknown split": ("benchmark", "decomposition", "--splits", "nosuch"),
        "an option of no suite": ("benchmark", "decomposition", "--set", "nosuch=3"),
    }.items():  # fmt: skip
        yield Case("words", name, command, files)
    numbers = {"attributes": "exact_images", "composition": "steps", "cost": "objects", "decomposition": "size"}
    for suite, option in numbers.items():
        for value in (
            "nan",
            "-1",
            "99999999999999999999",
            "x" * 5000,
            "[]",
            "true",
            "1e999",
            "\N{SUPERSCRIPT TWO}",
        ):
            command = ("benchmark", suite, "--set", f"{option}={value}", "--limit", "1", "--out", "b", *CPU)
            yield Case("numbers of a suite", f"{suite} {option}={value[:25]}", command, files)


def _variables(kit: Kit) -> Iterator[Case]:
    """Variables of the environment."""
    files: dict[str, Content] = {"a.png": kit.picture}
    together = {"WORLD_SIZE": "2", "RANK": "0"}
    for name, env in {
        "WORLD_SIZE without MASTER_ADDR": together,
        "WORLD_SIZE without RANK": {"WORLD_SIZE": "2"},
        "WORLD_SIZE of no number": {"WORLD_SIZE": "many"},
        "WORLD_SIZE of a digit": {"WORLD_SIZE": "\N{SUPERSCRIPT TWO}"},
        "WORLD_SIZE below 1": {"WORLD_SIZE": "-1"},
        "WORLD_SIZE 0": {"WORLD_SIZE": "0"},
        "WORLD_SIZE huge": {"WORLD_SIZE": "9" * 30, "RANK": "0"},
        "RANK without WORLD_SIZE": {"RANK": "3"},
        "RANK beyond WORLD_SIZE": {**together, "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        "RANK below 0": {**together, "RANK": "-1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
        "RANK of no number": {**together, "RANK": "x"},
        "MASTER_PORT missing": {**together, "MASTER_ADDR": "localhost"},
        "MASTER_PORT of no number": {**together, "MASTER_ADDR": "localhost", "MASTER_PORT": "x"},
        "MASTER_PORT beyond": {**together, "MASTER_ADDR": "localhost", "MASTER_PORT": "99999"},
    }.items():
        yield Case("variables", name, kit.invert("a.png"), files, env=env)
    for name, env in {
        "COLUMNS of no number": {"COLUMNS": "x"},
        "COLUMNS below 0": {"COLUMNS": "-5"},
        "COLUMNS huge": {"COLUMNS": "9" * 30},
        "IGM_DEBUG of whatever": {"IGM_DEBUG": "\udcff"},
        "LOCAL_RANK of no number": {"LOCAL_RANK": "x"},
        "LOCAL_RANK of a digit": {"LOCAL_RANK": "\N{SUPERSCRIPT TWO}"},
    }.items():
        yield Case("variables", name, kit.invert("a.png"), files, "answered", env=env)
    for name, value in {
        "a file": "a.png",
        "nobody's home": "~nosuch/x",
        "nothing to write to": "/proc/igm",
    }.items():
        command = ("benchmark", "objects", "--limit", "1", "--methods", "nosuch", *CPU)
        yield Case("variables", f"IGM_CACHE is {name}", command, files, env={"IGM_CACHE": value})
