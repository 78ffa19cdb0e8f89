"""Errors a user can do something about.  One sentence, with the way out; the class sets the exit code.

A leaf module: every layer may import it, it imports none.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class IgmError(Exception):
    """Base of the errors that are shown as one sentence without a traceback."""

    exit_code = 1


class UsageError(IgmError):
    """The command line asks for what cannot be (exit code 2)."""

    exit_code = 2


class InputError(IgmError):
    """An input or a configuration cannot be used (exit code 3)."""

    exit_code = 3


class MissingError(IgmError):
    """Weights or data are not here and cannot be fetched (exit code 4)."""

    exit_code = 4


class PluginError(IgmError):
    """A plugin is unknown, ambiguous or broken (exit code 5)."""

    exit_code = 5


def near_names(name: str, known: Sequence[str], otherwise: str = "known are") -> str:
    """Which known names a mistyped one may mean, for the sentence that refuses it; all of them if none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.45)
    return f"did you mean {' or '.join(near)}?" if near else f"{otherwise} {', '.join(known) or 'none'}"


def cause(error: OSError) -> str:
    """Returns why the system refused something, in its own words."""
    return (error.strerror or str(error)).lower()


def kind_and_message(error: BaseException) -> str:
    """Returns the class of somebody else's error and what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
