"""Changes one line of the code at a time and tells whether the tests notice.

    python tools/mutation.py                     all changes of mutations.toml, each against the tests of its file
    python tools/mutation.py statistics any_set  only those of files whose path contains one of these words
    python tools/mutation.py --sample 25         so many, drawn at random (--seed)

Every change is applied to a temporary copy of the repository, never to the working tree.  It is caught if a test
fails, or if the tests take too long.  Exits with 1 if fewer than 90 % are caught, with 2 if a change or a test file is
not found any more.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("igm_cli", "tests", "pyproject.toml")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "checkpoints", "golden", ".pytest_cache")
LINKED = ("igm_cli/checkpoints", "examples", "benchmarks")
"""What tests read and no change touches."""
CAUGHT_AT_LEAST = 0.9
TIME_LIMIT = 180.0
"""Seconds that the tests of one change may take."""


@dataclass(frozen=True)
class Change:
    """One change to a file, and the tests that should notice it."""

    path: str
    before: str
    after: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """Returns the file's text after the change."""
        return text.replace(self.before, self.after)

    def problem(self) -> str:
        """Returns why the change cannot be tried; empty if it can."""
        files = (self.path, *(test.partition("::")[0] for test in self.tests))
        missing = [name for name in files if not (ROOT / name).exists()]
        if missing:
            return f"{missing[0]} is not there"
        number = (ROOT / self.path).read_text(encoding="utf-8").count(self.before)
        return "" if number == 1 else f"found {number} times in {self.path}: {self.before!r}"


def changes() -> Iterator[Change]:
    """Yields all changes in mutations.toml."""
    with (ROOT / "tools" / "mutations.toml").open("rb") as file:
        files = tomllib.load(file)
    for path, entry in files.items():
        for before, after in entry["changes"]:
            yield Change(path, before, after, tuple(entry["tests"]))


def tests_fail(folder: Path, tests: tuple[str, ...]) -> bool:
    """Returns whether a test of the copy in a folder fails, or the tests take too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return True
    if done.returncode not in (0, 1, 2):  # 2: a file can no longer be imported
        raise SystemExit(done.stdout.decode() + done.stderr.decode())
    return done.returncode != 0


def try_all(todo: list[Change]) -> int:
    """Tries changes one by one, prints a line for each, and returns how many were caught."""
    caught = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            source, copy = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, copy, ignore=NOT_COPIED)
            else:
                shutil.copy(source, copy)
        for part in LINKED:
            (folder / part).symlink_to(ROOT / part)
        sound: set[tuple[str, ...]] = set()
        for change in todo:
            if change.tests not in sound and tests_fail(folder, change.tests):
                raise SystemExit(f"these tests fail without any change: {' '.join(change.tests)}")
            sound.add(change.tests)
            file, started = folder / change.path, time.monotonic()
            text = file.read_text(encoding="utf-8")
            file.write_text(change.applied(text), encoding="utf-8")
            failed = tests_fail(folder, change.tests)
            file.write_text(text, encoding="utf-8")
            caught += failed
            what = (
                f"{change.path.removeprefix('igm_cli/core/')}: {change.before} -> {change.after or '(nothing)'}"
            )
            seconds = time.monotonic() - started
            print(
                f"{'caught  ' if failed else 'SURVIVED'} {seconds:4.0f} s  {' '.join(what.split())}", flush=True
            )
    return caught


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of paths")
    parser.add_argument("--sample", type=int, help="so many changes, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    every = list(changes())
    todo = [c for c in every if not options.words or any(word in c.path for word in options.words)]
    if options.sample is not None:
        todo = random.Random(options.seed).sample(todo, min(options.sample, len(todo)))
    problems = [problem for change in todo if (problem := change.problem())]
    if problems:
        print("\n".join(problems))
        print(f"{len(problems)} of {len(todo)} changes do not fit the code any more: mend tools/mutations.toml")
        return 2
    caught = try_all(todo)
    print(f"{caught} of {len(todo)} caught, {caught / max(1, len(todo)):.0%} ({len(every)} changes are listed)")
    return 0 if caught >= CAUGHT_AT_LEAST * len(todo) else 1


if __name__ == "__main__":
    sys.exit(main())
