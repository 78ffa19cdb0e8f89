"""A sample of the fault suite; ``make faults`` runs all of it."""

from __future__ import annotations

import signal
import sys

import pytest

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


def test_a_sample_of_bad_inputs_and_planted_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from faults import __main__ as faults

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(sys, "argv", ["faults", *AREAS, "--sample", str(SAMPLE), "--jobs", "1"])
    try:
        failed = faults.main()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    said = capsys.readouterr().out
    assert not failed and f"{SAMPLE} of {SAMPLE} as they must be" in said, said[-3000:]
