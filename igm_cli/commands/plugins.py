"""``igm plugins``: lists the plugins and whether they work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from igm_cli.commands import options as o
from igm_cli.errors import IgmError
from igm_cli.output import Output

HEADINGS = {"datasets": "dataset", "concepts": "concepts", "benchmarks": "benchmark"}


def plugins(as_json: o.Json = False) -> None:
    """List datasets, concept parsers and benchmarks, and whether each one loads.

    A broken plugin affects only its own use, so the exit code is 0 in any case.
    """
    sink, states, rows = Output(as_json=as_json), plugin_states(), []
    for state in states:
        sink.result({"schema": "igm.plugins/1", **state})
        what = state["summary"] if state["ok"] else "broken"
        rows.append([HEADINGS[state["kind"]], state["name"], ", ".join(state["packages"]), what])
    sink.table("", ["kind", "name", "package", "what it is"], rows)
    say_problems(sink, states)


def say_problems(sink: Output, states: Sequence[Mapping[str, Any]]) -> None:
    """Reports in a sentence each why plugins are broken, as a table cell has no room for it."""
    for problem in (s["problem"] for s in states if not s["ok"]):
        sink.say(f"broken: {problem}")


def plugin_states() -> list[dict[str, Any]]:
    """Loads every plugin in isolation and returns their states."""
    from igm_cli.plugins import registry

    found = []
    for listing in (each for kind in registry.KINDS for each in registry.listings(kind)):
        summary = problem = ""
        try:
            summary = str(getattr(registry.load(listing.kind, listing.name), "summary", ""))
        except IgmError as error:
            problem = str(error)
        known = {**asdict(listing), "packages": list(listing.packages)}
        found.append({**known, "ok": not problem, "summary": summary, "problem": problem})
    return found
