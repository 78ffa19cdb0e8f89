"""``igm doctor``: what igm finds on this machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from igm_cli import __version__
from igm_cli.commands import options as o
from igm_cli.commands.plugins import HEADINGS, plugin_states, say_problems
from igm_cli.output import Output

_NEEDED = (
    "torch", "diffusers", "accelerate", "transformers", "datasets", "safetensors", "huggingface_hub", "typer", "rich",
    "numpy", "scipy", "pillow", "matplotlib", "tensorboard", "pydantic",
)  # fmt: skip


def doctor(as_json: o.Json = False) -> None:
    """Check this installation: versions, devices, bundled checkpoints, plugins, caches.

    Exit code 4 if something needed is missing; a broken third-party plugin does not count.
    """
    sink, report = Output(as_json=as_json), examine()
    sink.result(report)
    models = [
        (f"model {m['name']}", m["problem"] or f"ok, concepts {m['concepts']}") for m in report["checkpoints"]
    ]
    found = {
        **{name: report[name] for name in ("igm", "python", "platform")},
        **{name: version or "missing" for name, version in report["packages"].items()},
        "xformers": report["xformers"] or "not installed (optional)",
        "devices": ", ".join(report["devices"]) or "none",
        **{f"bf16 on {name}": "yes" if known else "no" for name, known in report["bf16"].items()},
        "threads": str(report["threads"]),
        **dict(models or [("models", "none bundled; train one with igm train")]),
        **{f"{HEADINGS[p['kind']]} {p['name']}": "ok" if p["ok"] else "broken" for p in report["plugins"]},
        **{f"{name} cache": path for name, path in report["caches"].items()},
    }
    sink.table("", ["what", "found"], [list(row) for row in found.items()])
    say_problems(sink, report["plugins"])
    if not report["ok"]:
        sink.error("something needed is missing or damaged, see above; install igm-cli again")
        raise typer.Exit(4)


def examine() -> dict[str, Any]:
    """Everything ``igm doctor`` tells, as its record."""
    import importlib.util

    packages = {name: _version(name) for name in _NEEDED}
    here = importlib.util.find_spec("torch") is not None
    checkpoints = _checkpoints() if here else []
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    return {
        "schema": "igm.doctor/1",
        "igm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "xformers": _version("xformers"),
        **(_compute() if here else {"devices": [], "bf16": {}, "threads": os.cpu_count() or 1}),
        "checkpoints": checkpoints,
        "plugins": plugin_states(),
        "caches": {
            "hub": os.environ.get("HF_HUB_CACHE") or str(home / "hub"),
            "datasets": os.environ.get("HF_DATASETS_CACHE") or str(home / "datasets"),
        },
        "ok": all(packages.values()) and not any(c["problem"] for c in checkpoints),
    }


def _compute() -> dict[str, Any]:
    import torch

    from igm_cli.core.device import has_bf16

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "devices": devices,
        "bf16": {name: has_bf16(torch.device(name)) for name in devices},
        "threads": torch.get_num_threads(),
    }


def _checkpoints() -> list[dict[str, Any]]:
    """Every bundled checkpoint, loaded."""
    from igm_cli.api import load
    from igm_cli.bundled import bundled

    found = []
    for name, folder in bundled().items():
        entry = {"name": name, "concepts": "", "problem": ""}
        try:
            entry["concepts"] = load(folder, device="cpu").parser.name
        except Exception as error:  # whatever is wrong with it
            entry["problem"] = " ".join(str(error).split()) or type(error).__name__
        found.append(entry)
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
