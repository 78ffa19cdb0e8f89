"""What people see on a terminal of 80 and of 120 columns, kept as text.

python tests/test_screens.py writes the screens anew: look at the differences before they are committed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from terminal import screen

ROOT = Path(__file__).resolve().parent.parent
SCREENS = ROOT / "tests" / "screens"
IMAGES = ROOT / "examples" / "images"
COMMANDS = {
    "help": "--help",
    "help-train": "train --help",
    "help-invert": "invert --help",
    "help-estimate-k": "estimate-k --help",
    "help-evaluate": "evaluate --help",
    "help-zero-shot": "zero-shot --help",
    "help-generate": "generate --help",
    "help-benchmark": "benchmark --help",
    "help-models": "models --help",
    "help-push": "push --help",
    "help-pull": "pull --help",
    "models-card": "models blood-cells",
    "plugins": "plugins",
    "benchmark": "benchmark",
    "benchmark-about": "benchmark cost --about",
    "train-presets": "train clevr --list-presets",
    "invert": "invert CLEVR_val_000003.png --draws 2 --device cpu",
    "invert-several": "invert CLEVR_val_000003.png CLEVR_val_000007.png CLEVR_val_001023.png --k 3 --draws 2 --device cpu",
    "estimate-k": "estimate-k CLEVR_val_000003.png --draws 2 --device cpu",
    "invert-missing": "invert nosuch.png",
}
WIDTHS = (80, 120)


def seen(name: str, columns: int) -> str:
    """The screen of a command, of results with noughts in place of decimals, which differ from machine to machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("igm_cli.commands.runner.DETAILED", 2)  # so that three images are several
        text = screen(COMMANDS[name].split(), columns, IMAGES)
    if name.startswith("help"):
        return text
    return re.sub(r"\d*\.\d+", lambda number: re.sub(r"\d", "0", number[0]), text)


CASES = [
    pytest.param(
        name,
        columns,
        marks=[pytest.mark.slow] * (columns > 80 and (name.startswith("help-") or "--draws" in COMMANDS[name])),
    )
    for name in COMMANDS
    for columns in WIDTHS
]
"""Every screen; the wide ones of inversions and of the help of commands are among the slow tests."""


@pytest.mark.parametrize(("name", "columns"), CASES)
def test_the_screen_is_as_it_was(name, columns):
    kept = (SCREENS / f"{name}-{columns}.txt").read_text(encoding="utf-8")
    assert seen(name, columns) == kept
    assert max(map(len, kept.splitlines())) <= columns


def test_what_goes_into_a_file_is_not_lost_to_the_bars_of_a_terminal(tmp_path):
    """With stderr on a terminal and stdout in a file, the results are in the file."""
    out = tmp_path / "out.jsonl"
    words = f"invert CLEVR_val_000003.png --k 1 --draws 2 --device cpu --json --output {tmp_path / 'r.jsonl'}".split()
    screen(words, 80, IMAGES, stdout=out)
    assert out.read_text() == (tmp_path / "r.jsonl").read_text()


if __name__ == "__main__":
    SCREENS.mkdir(exist_ok=True)
    for name in sys.argv[1:] or COMMANDS:
        for columns in WIDTHS:
            (SCREENS / f"{name}-{columns}.txt").write_text(seen(name, columns), encoding="utf-8")
