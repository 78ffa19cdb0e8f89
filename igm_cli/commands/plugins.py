"""``igm plugins``: what there is, and whether it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.commands import options as o
from igm_cli.output import Output

SCHEMA = "igm.plugins/1"
HEADINGS = {"datasets": "dataset", "concepts": "concepts", "benchmarks": "benchmark"}


def plugins(as_json: o.Json = False) -> None:
    """List datasets, concept parsers and benchmarks, and whether each one loads.

    A broken plugin harms only its own use, so the exit code is 0 whatever their state.
    """
    sink = Output(as_json=as_json)
    states = plugin_states()
    for state in states:
        sink.result({"schema": SCHEMA, **state})
    rows = [
        [HEADINGS[s["kind"]], s["name"], ", ".join(s["packages"]), s["summary"] if s["ok"] else "broken"]
        for s in states
    ]
    sink.table("", ["kind", "name", "package", "what it is"], rows)
    say_problems(sink, states)


def say_problems(sink: Output, states: Sequence[Mapping[str, Any]]) -> None:
    """Why broken plugins are broken, a sentence each: in a table's cell it could not be read."""
    for problem in (s["problem"] for s in states if not s["ok"]):
        sink.say(f"broken: {problem}")


def plugin_states() -> list[dict[str, Any]]:
    """Every plugin, loaded in isolation."""
    from igm_cli.plugins import registry

    found = []
    for kind in registry.KINDS:
        for listing in registry.listings(kind):
            state = registry.state(listing)
            found.append(
                {
                    "kind": kind,
                    "name": listing.name,
                    "target": listing.target,
                    "packages": list(listing.packages),
                    "ok": not state.problem,
                    "summary": state.summary,
                    "problem": state.problem,
                }
            )
    return found
