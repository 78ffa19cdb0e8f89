"""SECURITY.md: it speaks of every door that the fault suite tries."""

from __future__ import annotations

import re
from pathlib import Path

from faults.code import DOORS

ROOT = Path(__file__).resolve().parent.parent


def test_security_names_every_door() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    assert [name for name in DOORS if not any(row.startswith(name) for row in rows)] == []
    assert len(rows) == len(DOORS) + 1 and "tests/faults/code.py" in text
    source = (ROOT / "tests/faults/code.py").read_text(encoding="utf-8")
    tried = set(re.findall(r'_case\(\s*kit,\s*"(\w+)"', source))
    assert tried == set(DOORS)
