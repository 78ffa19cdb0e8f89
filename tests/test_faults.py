"""A sample of the fault suite; ``make faults`` runs all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SAMPLE = 24
AREAS = (
    "outputs",
    "images",
    "names",
    "datasets_read",
    "options",
    "code",
    "plugin_faults",
    "readings",
    "elsewhere",
)
"""Those whose cases are listed quickly: others train and invert first."""


def test_a_sample_of_bad_inputs_and_planted_files() -> None:
    command = [sys.executable, "-m", "faults", *AREAS, "--sample", str(SAMPLE), "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " as they must be" in done.stdout
