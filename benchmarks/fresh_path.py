"""A new user's way, timed: from a clone and a folder of annotated photographs to a model that is evaluated, used and shared.

    python benchmarks/fresh_path.py --data FOLDER_IN_PASCAL_VOC_LAYOUT --images 60

Every step is a command of the README, and no file is written by hand.  The hub is one of this machine
(tests/fake_hub.py).  It ends with a table: what was done, how long it took, what came out.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Way:
    """The steps so far, in a separate folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, list[tuple[str, float, str]]()
        self.env = {**os.environ, "PATH": f"{folder / 'igm' / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def do(self, command: str, where: str = ".") -> str:
        """Runs a command, shows its output, and returns its stdout; ends the program if it fails."""
        print(f"\n$ {command}", flush=True)
        began = time.monotonic()
        ran = subprocess.run(
            command, shell=True, cwd=self.folder / where, env=self.env, text=True, stdout=subprocess.PIPE
        )
        seconds = time.monotonic() - began
        print(ran.stdout, end="", flush=True)
        if ran.returncode:
            raise SystemExit(f"{command} ended with {ran.returncode} after {seconds:.0f} s")
        self.steps.append((command, seconds, (ran.stdout.strip().splitlines() or [""])[-1]))
        return ran.stdout

    def came_out(self, text: str) -> None:
        """Records the outcome of the last step."""
        command, seconds, _ = self.steps[-1]
        self.steps[-1] = command, seconds, text

    def table(self) -> Iterator[str]:
        """Yields the steps as a Markdown table."""
        yield "| step | seconds | what came out |"
        yield "|---|---|---|"
        for command, seconds, said in self.steps:
            yield f"| `{command}` | {seconds:.1f} | {said} |"


def photographs(data: Path, folder: Path, count: int) -> list[Path]:
    """Copies the first ``count`` photographs by name, with their annotations, into a folder; returns them."""
    folder.mkdir()
    chosen = []
    for annotation in sorted(data.rglob("*.xml")):
        photo = next(data.rglob(f"{annotation.stem}.jpg"), None)
        if photo and len(chosen) < count:
            shutil.copy(annotation, folder)
            chosen.append(Path(shutil.copy(photo, folder)))
    if len(chosen) < count:
        raise SystemExit(f"{data} has {len(chosen)} annotated photographs, not {count}")
    return chosen


@contextlib.contextmanager
def page(way: Way, command: str) -> Iterator[str]:
    """Starts a command that serves a page; yields its address once it is printed."""
    print(f"\n$ {command}", flush=True)
    server = subprocess.Popen(
        command.split(), cwd=way.folder, env=way.env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout
        said = next(line for line in server.stdout if "http" in line)
        yield next(word for word in said.replace(";", " ").split() if word.startswith("http"))
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)


def main() -> None:
    """Runs all steps and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="photographs annotated in Pascal VOC")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--steps", type=int, help="of the training; default: the preset's")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    import fake_hub

    with tempfile.TemporaryDirectory(prefix="igm-fresh-") as place, fake_hub.serving() as hub:
        way = Way(Path(place))
        way.do(f"git clone -q {ROOT} igm")
        way.came_out("a clone")
        way.do("make .venv/installed", "igm")
        way.came_out("installed")
        way.do("igm doctor")
        chosen = photographs(asked.data, way.folder / "cells", asked.images)
        way.env |= hub.environment(way.folder / "home")
        more = f" --steps {asked.steps}" if asked.steps else ""
        way.do(f"igm train objects --data-root cells{more}")
        way.came_out("runs/objects-pos")
        said = way.do("igm evaluate --model runs/objects-pos --data-root cells --split test --worst worst.png")
        rows = [[cell.strip() for cell in line.split("│")] for line in said.splitlines() if "│" in line]
        way.came_out(", ".join(f"{row[1]} {row[2]}" for row in rows))
        photo = chosen[-1].name
        way.do(f"igm invert cells/{photo} --model runs/objects-pos --overlay found.png --csv found.csv")
        with (way.folder / "found.csv").open(newline="") as file:
            counts = Counter(row["image"] for row in csv.DictReader(file))
        way.came_out(f"{sum(counts.values())} cells in {photo}, found.png")
        way.do("igm push runs/objects-pos user/cells")
        way.do(f"igm invert cells/{photo} --model hf:user/cells --csv again.csv")
        same = (way.folder / "again.csv").read_text().count("\n") == (
            way.folder / "found.csv"
        ).read_text().count("\n")
        way.came_out("as many cells by the model of the hub" if same else "ANOTHER NUMBER OF CELLS")
        command, began = "igm ui --model runs/objects-pos --no-browser --port 7890", time.monotonic()
        with page(way, command) as url, urllib.request.urlopen(url, timeout=60) as answer:
            way.steps.append((command, time.monotonic() - began, f"answers {answer.status} at {url}"))
        way.steps.append(("in all", sum(seconds for _, seconds, _ in way.steps), f"{os.cpu_count()} cores"))
        print("\n" + "\n".join(way.table()))


if __name__ == "__main__":
    main()
