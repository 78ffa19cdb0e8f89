"""The list of ``make mutation`` keeps step with the code; the changes themselves are tried by hand."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "mutation.py"


def test_every_change_fits_the_code() -> None:
    changes = list(runpy.run_path(str(SCRIPT))["changes"]())
    assert len(changes) >= 120
    assert [problem for change in changes if (problem := change.problem())] == []


@pytest.mark.slow
def test_some_changes_are_tried() -> None:
    """In the temporary copy, where the tests pass without them."""
    done = subprocess.run([sys.executable, SCRIPT, "--sample", "8"], capture_output=True, text=True)
    assert done.returncode in (0, 1) and "of 8 caught" in done.stdout, done.stderr
