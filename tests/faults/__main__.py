"""``make faults``: every case of every area, and what became of it by kind.

make faults ARGS="inputs --only tiff"        one area, and of it the cases whose kind or name holds a word
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})

import faults
from faults import forked, kills
from faults.case import SECONDS, Case
from faults.kit import Kit

FINE = ("sentence", "right")


def areas() -> list[str]:
    """Names of the modules that list cases."""
    names = [module.name for module in pkgutil.iter_modules(faults.__path__)]
    return [name for name in names if hasattr(importlib.import_module(f"faults.{name}"), "cases")]


def collect(kit: Kit, wanted: list[str], word: str = "") -> dict[str, list[Case]]:
    """The cases by area."""
    found = {}
    for area in wanted:
        cases = list(importlib.import_module(f"faults.{area}").cases(kit))
        found[area] = [case for case in cases if word in f"{case.kind} {case.name}"]
    return found


def sample(every: list[tuple[str, Case]], count: int, kit: Kit) -> list[tuple[str, Case]]:
    """Draws cases, one of every kind before a second one, none that needs a process started afresh or much time."""
    every = [each for each in every if not each[1].process and each[1].seconds <= SECONDS]
    kit.random.shuffle(every)
    seen: Counter[tuple[str, str]] = Counter()
    rank = []
    for area, case in every:
        rank.append(seen[area, case.kind])
        seen[area, case.kind] += 1
    order = sorted(range(len(every)), key=lambda number: rank[number])
    return [every[number] for number in order[:count]]


def main() -> int:
    """Runs the cases and prints the table; returns 1 if one did not do as it must."""
    for number in (
        signal.SIGINT,
        signal.SIGHUP,
    ):  # which a shell may have the background ignore, and all cases with it
        signal.signal(number, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument(
        "areas", nargs="*", metavar="AREA", help=f"of {', '.join(areas())}, kills; default: all"
    )
    parser.add_argument("--only", default="", help="a word of the kind or name")
    parser.add_argument("--sample", type=int, help="so many cases, of every kind some, instead of all")
    parser.add_argument(
        "--kills", type=int, default=200, help="so many kills of running commands; none in a sample"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="print every case with what igm said")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="igm-faults-") as temporary:
        kit = Kit(Path(temporary) / "kit", asked.seed)
        chosen = [area for area in asked.areas if area != "kills"] if asked.areas else areas()
        found = collect(kit, chosen, asked.only)
        table: dict[str, Counter[str]] = defaultdict(Counter)
        failures = []
        every = [(area, case) for area, cases in found.items() for case in cases]
        if asked.sample:
            every = sample(every, asked.sample, kit)
        area_of = {id(case): area for area, case in every}
        left = Counter(area for area, _ in every)
        for case, outcome in forked.run([case for _, case in every], Path(temporary) / "run", asked.jobs):
            verdict = case.verdict(outcome)
            row = f"{area_of[id(case)]}: {case.kind}"
            word = verdict if verdict in FINE else verdict.split(":")[0].split(" ")[0].lower()
            table[row][word] += 1
            if asked.verbose:
                say(f"{row}, {case.name}: {verdict} | {outcome.err.strip()[:400]!r}")
            if verdict not in FINE:
                failures.append(f"{row}, {case.name}: {verdict}")
                say(failures[-1])
            left[area_of[id(case)]] -= 1
            if not left[area_of[id(case)]]:
                say(f"{area_of[id(case)]} is done, {time.monotonic() - began:.0f} s")
        if "kills" in asked.areas or not (asked.areas or asked.sample or asked.only):
            for line in kills.report(kit, asked.kills, asked.seed, failures.append):
                say(line)
    words = [*FINE, *sorted({word for row in table.values() for word in row} - {*FINE})]
    width = max(map(len, table), default=10)
    say(f"{'':{width}}  {'cases':>6}  " + "  ".join(f"{word:>8}" for word in words))
    for row in sorted(table):
        say(f"{row:{width}}  {table[row].total():>6}  " + "  ".join(f"{table[row][w] or '':>8}" for w in words))
    total = sum((row for row in table.values()), Counter[str]())
    say(f"{'in all':{width}}  {total.total():>6}  " + "  ".join(f"{total[word] or '':>8}" for word in words))
    for failure in failures:
        say(failure)
    fine = sum(total[word] for word in FINE)
    say(f"{fine} of {total.total()} as they must be; seed {asked.seed}, {time.monotonic() - began:.0f} s")
    return int(bool(failures))


def say(text: str) -> None:
    """Prints a line, whatever characters it holds."""
    sys.stdout.write(text.encode("ascii", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
