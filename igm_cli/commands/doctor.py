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

SCHEMA = "igm.doctor/1"
_NEEDED = (
    "torch",
    "diffusers",
    "accelerate",
    "transformers",
    "datasets",
    "safetensors",
    "huggingface_hub",
    "typer",
    "rich",
    "numpy",
    "scipy",
    "pillow",
    "matplotlib",
    "tensorboard",
)


def doctor(as_json: o.Json = False) -> None:
    """Check this installation: versions, devices, bundled checkpoints, plugins, caches.

    Exit code 4 if something needed is missing; a broken third-party plugin does not count.
    """
    sink = Output(as_json=as_json)
    report = examine()
    sink.result(report)
    rows = [["igm", report["igm"]], ["python", report["python"]], ["platform", report["platform"]]]
    rows += [[name, version or "missing"] for name, version in report["packages"].items()]
    rows.append(["xformers", report["xformers"] or "not installed (optional)"])
    rows.append(["devices", ", ".join(report["devices"]) or "none"])
    rows += [[f"bf16 on {name}", "yes" if known else "no"] for name, known in report["bf16"].items()]
    rows.append(["threads", str(report["threads"])])
    for model in report["checkpoints"]:
        rows.append([f"model {model['name']}", model["problem"] or f"ok, concepts {model['concepts']}"])
    if not report["checkpoints"]:
        rows.append(["models", "none bundled; train one with igm train"])
    for plugin in report["plugins"]:
        rows.append([f"{HEADINGS[plugin['kind']]} {plugin['name']}", "ok" if plugin["ok"] else "broken"])
    rows += [[f"{name} cache", path] for name, path in report["caches"].items()]
    sink.table("", ["what", "found"], rows)
    say_problems(sink, report["plugins"])
    if not report["ok"]:
        sink.error("something needed is missing or damaged, see above; install igm-cli again")
        raise typer.Exit(4)


def examine() -> dict[str, Any]:
    """Everything ``igm doctor`` tells."""
    import importlib.util

    packages = {name: _version(name) for name in _NEEDED}
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "igm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "xformers": _version("xformers"),
        "devices": [],
        "bf16": {},
        "threads": os.cpu_count() or 1,
        "checkpoints": [],
    }
    if importlib.util.find_spec("torch"):
        report |= _compute()
        report["checkpoints"] = _checkpoints()
    report["plugins"] = plugin_states()
    report["caches"] = _caches()
    report["ok"] = all(packages.values()) and not any(c["problem"] for c in report["checkpoints"])
    return report


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
    from igm_cli.bundled import DEFAULT_CONCEPTS, bundled, is_pipeline
    from igm_cli.core.checkpoint import load_checkpoint

    found = []
    for name, folder in bundled().items():
        entry = {"name": name, "concepts": "", "problem": ""}
        try:
            if is_pipeline(folder):
                _load_pipeline(folder)
                entry["concepts"] = DEFAULT_CONCEPTS["pipeline"]
            else:
                entry["concepts"] = load_checkpoint(folder, "cpu").concepts
        except Exception as error:
            entry["problem"] = " ".join(str(error).split()) or type(error).__name__
        found.append(entry)
    return found


def _load_pipeline(folder: Path) -> None:
    import torch

    from igm_cli.core.models.pipeline_description import read_description
    from igm_cli.core.models.pipelines import load_pipeline

    read_description(folder)
    load_pipeline(str(folder), torch.device("cpu"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _caches() -> dict[str, str]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    return {
        "hub": os.environ.get("HF_HUB_CACHE") or str(home / "hub"),
        "datasets": os.environ.get("HF_DATASETS_CACHE") or str(home / "datasets"),
    }
