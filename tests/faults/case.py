"""A case: one call of igm among some files, and what it must do."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

LONGEST = 300
"""Characters of a message at most, whatever it quotes."""

SECONDS = 20.0
"""Time after which a call hangs."""

Content: TypeAlias = "bytes | str | Path | Callable[[Path], object]"
"""What a file holds; a path is linked to or copied, a function is called with the file's path to make whatever it likes."""


@dataclass(frozen=True)
class Outcome:
    """What a call did."""

    code: int | None  # None if it hung; negative for a signal
    out: str
    err: str
    folder: Path  # where it ran
    changed: tuple[str, ...] = ()  # files that were there and are not what they were
    alarm: str = ""  # what a guarded case ran, read or asked for that it must not

    def json(self) -> list[dict[str, Any]]:
        """The lines of stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


Check: TypeAlias = Callable[[Outcome], "str | None"]
"""Returns what is wrong with an answer; None if it is right."""


@dataclass(frozen=True)
class Case:
    """A call of igm and what it must do.

    Attributes:
        kind: The kind of fault, a row of the report.
        name: What tells it from others of its kind.
        command: The words after ``igm``.  ``%s`` of a surrogate or a NUL byte may be among them.
        files: What stands in its folder before, by relative path.
        expect: ``refused`` (a sentence and one of ``codes``), ``answered`` (exit code 0 and ``check``), or ``either``.
        codes: Exit codes of a refusal that are right.
        says: A pattern that a refusal, or a warning, must match.
        check: Looks at an answer.
        env: Further environment variables.
        may_change: Patterns of files that may change, such as a results file of igm's own.
        encoding: Of stdout and stderr.
        closed: Which of the streams 0, 1 and 2 are closed.
        guarded: Whether its folder is on the path of imports, and what it runs, reads and asks for is watched.
        process: Whether it needs a process started afresh, such as for what happens during imports.
        seconds: Time after which it hangs; cases that are given more than usual are in no sample.
        largest: Bytes that a file may hold at most, as if the disk were full; 0 does not limit them.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    expect: Literal["refused", "answered", "either"] = "refused"
    codes: tuple[int, ...] = (2, 3, 4, 5)
    says: str = ""
    check: Check = lambda outcome: None
    env: Mapping[str, str] = field(default_factory=dict)
    may_change: tuple[str, ...] = ()
    encoding: str = "utf-8"
    closed: tuple[int, ...] = ()
    guarded: bool = False
    process: bool = False
    seconds: float = SECONDS
    largest: int = 0

    def place(self, folder: Path) -> None:
        """Makes the files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.symlink_to(content)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                content(path)

    def verdict(self, outcome: Outcome) -> str:
        """Returns ``sentence`` or ``right`` where all is as it must be; else, in capitals, what is not."""
        said = outcome.err.strip().splitlines()
        if outcome.code is None:
            return f"HANG above {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in outcome.err or "this is a bug" in outcome.err:
            return f"BUG: {said[-1][:200]}"
        if outcome.alarm:
            return f"DID {outcome.alarm}"
        if outcome.code < 0 or outcome.code == 1:
            return f"BUG: exit code {outcome.code}"
        if changed := [n for n in outcome.changed if not any(Path(n).match(p) for p in self.may_change)]:
            return f"CHANGED {', '.join(changed[:3])}"
        if control := _controls(outcome.err) or _controls(outcome.out):
            return f"CONTROL CHARACTER {control}"
        if self.says and not re.search(self.says, outcome.err):
            return f"SAYS NOT {self.says!r}: {outcome.err.strip()[-300:]!r}"
        if outcome.code == 0:
            if self.expect == "refused":
                return f"SILENT: {outcome.out.strip()[:150]!r}"
            wrong = self.check(outcome)
            return f"WRONG: {wrong}" if wrong else "right"
        if self.expect == "answered" or outcome.code not in self.codes:
            return f"EXIT CODE {outcome.code}: {outcome.err.strip()[-200:]!r}"
        sentences = [line for line in said if line.startswith("igm: ")]
        if not sentences or not outcome.err.strip():
            return f"NO SENTENCE: {outcome.err[-200:]!r}"
        if len(longest := max(said, key=len)) > LONGEST:
            return f"LONG: {len(longest)} characters: {longest[:100]!r}"
        return "sentence"


def _controls(text: str) -> str:
    """The first character that moves a terminal's cursor, its colours or the direction of writing."""
    for character in text:
        if character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp"):
            return f"U+{ord(character):04X}"
    return ""


def contents(folder: Path) -> dict[str, str]:
    """Returns the hash of every file in a folder, links not followed, with what links point at."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"link to {os.readlink(path)}"  # noqa: PTH115
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = f"no file, of kind {stat.S_IFMT(path.stat().st_mode)}"
    return found
