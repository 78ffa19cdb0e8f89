"""``igm plugins``: what there is, and whether it works."""

from __future__ import annotations

from typing import Any

from igm_cli.commands import options as o
from igm_cli.output import Output

SCHEMA = "igm.plugins/1"
_HEADINGS = {"datasets": "dataset", "concepts": "concepts", "benchmarks": "benchmark"}


def plugins(as_json: o.Json = False) -> None:
    """List datasets, concept parsers and benchmarks, and whether each one loads.

    A broken plugin harms only its own use, so the exit code is 0 whatever their state.
    """
    sink = Output(as_json=as_json)
    states = plugin_states()
    for state in states:
        sink.result({"schema": SCHEMA, **state})
    rows = [
        [
            _HEADINGS[s["kind"]],
            s["name"],
            ", ".join(s["packages"]),
            "ok" if s["ok"] else "broken",
            s["summary"] or s["problem"],
        ]
        for s in states
    ]
    sink.table("", ["kind", "name", "package", "state", ""], rows)


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
