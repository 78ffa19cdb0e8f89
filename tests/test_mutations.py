"""The list of ``make mutation`` keeps step with the code; the changes themselves are tried by hand."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tools" / "mutation.py"


def test_every_change_fits_the_code() -> None:
    changes = list(runpy.run_path(str(SCRIPT))["changes"]())
    assert len(changes) >= 120
    assert [problem for change in changes if (problem := change.problem())] == []
