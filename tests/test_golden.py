"""What the commands answer, frozen: the same sets, K, indices and numbers after every change.

Each file in tests/golden holds cases: a command as a user types it in the repository (``made/`` is a folder of
generated inputs) and the answers, one JSON object per input.  The commands run in this process, in float32 on
one thread, so that the answers do not depend on the machine.  A field that disappears fails, a new one does not.
The order of positions, and of labels, is not compared.

    python tests/test_golden.py                  rewrites the answers of every case, slow ones included
    python tests/test_golden.py codebooks sgd    only of cases whose name contains one of these words

Rewrite them only on purpose, in a commit that says which answers changed and why.  To add a case, write it to a
file with "answers": [], and rewrite it.  A case with "slow": true runs with ``pytest -m slow``.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from safetensors.torch import save_file

from igm_cli import app

GOLDEN = ROOT / "tests" / "golden"
ALWAYS = ("--device", "cpu", "--json")

NOT_COMPARED = ("seconds", "device", "run", "root")
PATHS = ("image", "input", "codebooks")
"""Fields of which only the file's name is compared."""

TOLERANCES = {  # of each field: relative, absolute
    "x": (0, 1e-4),
    "y": (0, 1e-4),
    "x_px": (0, 0.02),
    "y_px": (0, 0.02),
    "network_calls": (
        2e-3,
        0,
    ),  # another processor rounds otherwise, and a candidate on the edge is kept or dropped
    "confidence": (0, 1e-3),
    "probability": (0, 1e-3),
    "typicality": (0, 1e-3),
    "similarity": (0, 1e-3),
    "denoising_error": (1e-4, 1e-6),
    "error": (1e-4, 1e-6),
    "unexplained": (1e-4, 1e-6),
    "stderr": (1e-2, 1e-6),
}
OTHERWISE = (1e-6, 0)


def golden_files() -> dict[str, dict[str, Any]]:
    """All cases, by file and name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GOLDEN.glob("*.json"))}


CASES = {f"{stem}/{name}": case for stem, cases in golden_files().items() for name, case in cases.items()}


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Computes in float32 on one thread, whatever the processor offers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            mock.patch("torch.cpu._is_avx512_bf16_supported", return_value=False),
            mock.patch(
                "igm_cli.commands.zero_shot.seconds_per_call", return_value=0.0
            ),  # which takes time itself
        ):
            yield
    finally:
        torch.set_num_threads(threads)


def make_inputs(folder: Path) -> None:
    """Writes what the commands find under ``made/``: pictures of other sizes, bound vectors, codebooks."""
    with Image.open(ROOT / "examples" / "images" / "CLEVR_val_000007.png") as picture:
        large = picture.convert("RGB").resize((144, 96), Image.Resampling.BICUBIC)
    large.crop((12, 0, 132, 96)).save(folder / "narrow.png")
    for number, binding in enumerate(("map", "hrr", "fhrr")):
        make_products(folder, binding, np.random.default_rng(number))


def make_products(folder: Path, binding: str, random: np.random.Generator) -> None:
    """Writes codebooks of one binding, five products of them (the last two noisy) and two sums of products."""
    factors, words, dim = 3, 20, 512
    shape = (factors, words, dim)
    if binding == "map":
        books = random.choice(np.array([-1.0, 1.0]), size=shape)
    elif binding == "hrr":
        books = random.normal(scale=dim**-0.5, size=shape)
    else:
        books = np.exp(2j * np.pi * random.random(shape))
    truth = random.integers(words, size=(5, factors))
    chosen = np.stack([books[factor, truth[:, factor]] for factor in range(factors)])
    products = np.fft.irfft(np.fft.rfft(chosen).prod(0), dim) if binding == "hrr" else chosen.prod(0)
    scale = np.sqrt(np.mean(np.abs(products) ** 2))
    noise = np.array([0, 0, 0, 0.3, 0.6])[:, None] * random.normal(scale=scale, size=products.shape)
    kind = np.complex64 if binding == "fhrr" else np.float32
    np.save(folder / f"{binding}.npy", (products + noise).astype(kind))
    np.save(folder / f"{binding}-sums.npy", np.stack([products[:2].sum(0), products[:3].sum(0)]).astype(kind))
    tensors = {f"factor_{factor}": torch.from_numpy(books[factor].astype(kind)) for factor in range(factors)}
    save_file(tensors, folder / f"{binding}.safetensors", metadata={"binding": binding})


def run(command: str, made: Path) -> list[dict[str, Any]]:
    """Runs ``igm`` with a command's arguments; returns its JSON lines without what is not compared."""
    arguments = [
        str(made / word[5:]) if word.startswith("made/") else str(ROOT / word) if word.startswith("examples/") else word
        for word in command.split()
    ]  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    with steady(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = app.main([*arguments, *ALWAYS])
    assert code == 0, f"igm {command}: exit code {code}: {err.getvalue()}"
    return [comparable(json.loads(line)) for line in out.getvalue().splitlines()]


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from run to run, and with files' names for their paths."""
    kept = {name: value for name, value in answer.items() if name not in NOT_COMPARED}
    return kept | {name: Path(kept[name]).name for name in PATHS if name in kept}


def have(values: list[Any], field: str) -> bool:
    """True if every value has the field."""
    return all(isinstance(value, dict) and field in value for value in values)


def by_label(values: list[Any]) -> dict[str, Any]:
    """A list of labels as a mapping: the order of equally probable ones is chance."""
    return {str(value["label"]): value for value in values}


def matched(positions: list[Any], golden: list[Any]) -> list[Any]:
    """Positions in the order of the golden ones nearest to them: which of two alike is found first is chance."""
    left, ordered = list(positions), []
    for item in golden[: len(positions)]:
        ordered.append(min(left, key=lambda other: abs(other["x"] - item["x"]) + abs(other["y"] - item["y"])))
        left.remove(ordered[-1])
    return ordered + left


def differences(golden: object, now: object, where: str = "") -> Iterator[str]:
    """Yields a sentence per field of the golden answer that is gone or has another value now.

    Args:
        golden: The frozen value.
        now: The value of this run.
        where: Path of the field, such as ``items[2].x``.
    """
    if isinstance(golden, dict) and isinstance(now, dict):
        for name, value in golden.items():
            if name in now:
                yield from differences(value, now[name], f"{where}.{name}".lstrip("."))
            else:
                yield f"{where}.{name}".lstrip(".") + f": golden {value!r}, now gone"
    elif isinstance(golden, list) and isinstance(now, list):
        if golden and have(golden + now, "label"):
            yield from differences(by_label(golden), by_label(now), where)
        else:
            ordered = matched(now, golden) if have(golden + now, "x") and have(golden + now, "y") else now
            for number, (value, other) in enumerate(zip(golden, ordered, strict=False)):
                yield from differences(value, other, f"{where}[{number}]")
        if len(golden) != len(now):
            yield f"{where}: golden has {len(golden)} entries, now {len(now)}"
    elif not equal(golden, now, where.rpartition(".")[2]):
        relative, absolute = TOLERANCES.get(where.rpartition(".")[2], OTHERWISE)
        allowed = f" (tolerance {absolute:g} + {relative:g} relative)" if isinstance(golden, float) else ""
        yield f"{where}: golden {golden!r}, now {now!r}{allowed}"


def equal(golden: object, now: object, field: str) -> bool:
    """True if two values are the same: numbers within the field's tolerance, anything else exactly."""
    if (isinstance(golden, float) and isinstance(now, (int, float))) or field == "network_calls":
        assert isinstance(golden, (int, float)) and isinstance(now, (int, float))
        relative, absolute = TOLERANCES.get(field, OTHERWISE)
        return abs(now - golden) <= absolute + relative * abs(golden)
    return type(golden) is type(now) and golden == now


def compare(name: str, golden: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """The differences of a case's answers, each with the name of the case and of the input."""
    found = [] if len(golden) == len(now) else [f"{name}: golden has {len(golden)} answers, now {len(now)}"]
    for expected, answer in zip(golden, now, strict=False):
        given = f"{expected.get('image', expected.get('input'))} {expected.get('vector', '')}".strip()
        found += [f"{name} · {given} · {sentence}" for sentence in differences(expected, answer)]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_inputs(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if case.get("slow") else []) for name, case in CASES.items()],
)
def test_answers_are_the_golden_ones(made: Path, name: str) -> None:
    found = compare(name, CASES[name]["answers"], run(CASES[name]["command"], made))
    assert not found, "\n".join([f"igm {CASES[name]['command']}", *found[:20]])


def test_every_case_has_answers() -> None:
    assert CASES
    assert [name for name, case in CASES.items() if not case["answers"]] == []


def change(answer: dict[str, Any], *keys: str | int, to: Any) -> None:
    *path, last = keys
    for key in path:
        answer = answer[key]  # type: ignore[index]
    answer[last] = to  # type: ignore[index]


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (lambda a: change(a, "k", to=3), ["k: golden 2, now 3"]),
        (lambda a: change(a, "items", 1, "x", to=0.7002), ["items[1].x: golden 0.7, now 0.7002"]),
        (lambda a: change(a, "items", 1, "x", to=0.70005), []),
        (lambda a: change(a, "items", 0, "confidence", to=None), ["items[0].confidence: golden 0.9, now None"]),
        (lambda a: change(a, "k_curve", 0, "error", to=0.0101), ["k_curve[0].error: golden 0.01, now 0.0101"]),
        (lambda a: change(a, "network_calls", to=41), ["network_calls: golden 40, now 41"]),
        (lambda a: a["items"].pop(), ["items: golden has 2 entries, now 1"]),
        (lambda a: a.pop("k_curve"), ["k_curve: golden [{'k': 0, 'error': 0.01}], now gone"]),
        (lambda a: a.update(new_field=1), []),
        (lambda a: a["labels"].reverse(), []),
        (lambda a: a["items"].reverse(), []),
        (lambda a: change(a, "labels", 0, "label", to="fox"), ["labels.dog: golden", "now gone"]),
    ],
)  # fmt: skip
def test_a_changed_answer_is_named(alter: Callable[[dict[str, Any]], object], says: list[str]) -> None:
    golden: dict[str, Any] = {
        "image": "a.png",
        "k": 2,
        "k_curve": [{"k": 0, "error": 0.01}],
        "network_calls": 40,
        "items": [{"x": 0.2, "y": 0.5, "confidence": 0.9}, {"x": 0.7, "y": 0.5, "confidence": 1.0}],
        "labels": [{"label": "dog", "probability": 0.5}, {"label": "cat", "probability": 0.5}],
    }
    now = json.loads(json.dumps(golden))
    alter(now)
    found = compare("case", [golden], [now])
    assert len(found) == bool(says)
    for part in says:
        assert part in found[0]
        assert found[0].startswith("case · a.png · ")


def rewrite(words: list[str]) -> None:
    """Rewrites the golden answers of the cases whose name contains one of the words, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for stem, cases in golden_files().items():
            for name, case in cases.items():
                if not words or any(word in f"{stem}/{name}" for word in words):
                    case["answers"] = run(case["command"], Path(folder))
                    print(f"{stem}/{name}: {len(case['answers'])} answers")
            (GOLDEN / f"{stem}.json").write_text(as_text(cases), encoding="utf-8")


def as_text(cases: dict[str, Any]) -> str:
    """Cases as JSON with one line per answer, so that a diff shows which one changed."""
    written = []
    for name, case in cases.items():
        head = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in case.items() if key != "answers"]
        answers = ",\n".join(f"   {json.dumps(answer)}" for answer in case["answers"])
        written.append("\n".join([f" {json.dumps(name)}: {{", *head, f'  "answers": [\n{answers}\n  ]', " }"]))
    return "{\n" + ",\n".join(written) + "\n}\n"


if __name__ == "__main__":
    rewrite(sys.argv[1:])
