"""``igm doctor``: reports what igm finds on this machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from igm_cli import __version__
from igm_cli.commands import options as o
from igm_cli.commands.plugins import HEADINGS, plugin_states, say_problems
from igm_cli.errors import EXTRAS, ExtraError, missing
from igm_cli.output import Output

_NEEDED = (
    "torch", "numpy", "scipy", "pillow", "pydantic", "safetensors", "huggingface_hub", "filelock", "typer", "rich",
)  # fmt: skip
_OPTIONAL = (
    "accelerate", "av", "datasets", "diffusers", "gradio", "matplotlib", "tensorboard", "transformers",
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
    built = f"for CUDA {report['cuda']}" if report["cuda"] else "without CUDA"
    found = {
        **{name: report[name] for name in ("igm", "python", "platform")},
        **{name: version or "missing" for name, version in report["packages"].items()},
        **{f"extra {name}": _lacks(name, absent) for name, absent in report["extras"].items()},
        "devices": ", ".join(report["devices"]) or "none",
        **{gpu["device"]: _gpu_line(gpu) for gpu in report["gpus"]},
        **({} if report["gpus"] else {"GPU": "none"}),
        "GPU driver": f"{report['driver'] or 'none'}; torch is built {built}",
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
    lacking = [name for name, absent in report["extras"].items() if absent]
    broken = [f"{HEADINGS[p['kind']]} {p['name']}" for p in report["plugins"] if not p["ok"]]
    sink.say("igm works here" + (f", but {' and '.join(broken)} of other packages" if broken else ""))
    if lacking:
        sink.say(f"what is not installed, where you want it: pip install 'igm-cli[{','.join(lacking)}]'")


def examine() -> dict[str, Any]:
    """Returns the record of ``igm doctor``."""
    packages = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    checkpoints, sound = _checkpoints()
    return {
        "schema": "igm.doctor/1",
        "igm": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "extras": {name: missing(*libraries) for name, (_, libraries) in EXTRAS.items()},
        "xformers": _version("xformers"),
        **_compute(),
        "driver": _driver(),
        "checkpoints": checkpoints,
        "plugins": plugin_states(),
        "caches": _caches(),
        "ok": all(packages[name] for name in _NEEDED) and sound,
    }


def _caches() -> dict[str, str]:
    if missing("huggingface_hub"):
        return {}
    from huggingface_hub import constants

    datasets = os.environ.get("HF_DATASETS_CACHE") or str(Path(constants.HF_HOME, "datasets"))
    return {"hub": constants.HF_HUB_CACHE, "datasets": datasets}


def _compute() -> dict[str, Any]:
    if missing("torch"):
        return {"devices": [], "gpus": [], "cuda": None, "bf16": {}, "threads": os.cpu_count() or 1}
    import torch

    from igm_cli.core.device import gpu_state, has_bf16

    gpus = [gpu_state(number) for number in range(torch.cuda.device_count())]
    plain = ["cpu", *(["mps"] if torch.backends.mps.is_available() else [])]
    bf16 = {gpu["device"]: gpu["bf16"] for gpu in gpus} | {name: has_bf16(torch.device(name)) for name in plain}
    devices = [plain[0], *(gpu["device"] for gpu in gpus), *plain[1:]]
    return {
        "devices": devices,
        "gpus": gpus,
        "cuda": torch.version.cuda or torch.version.hip,
        "bf16": {name: bf16[name] for name in devices},
        "threads": torch.get_num_threads(),
    }


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver, which torch does not report."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(said.stdout.split()), None) if said.returncode == 0 else None


def _gpu_line(gpu: dict[str, Any]) -> str:
    """Returns the readable line about a GPU."""
    if gpu["problem"]:
        return f"cannot be used: {gpu['problem']}"
    memory = f"{gpu['free_gb']} of {gpu['memory_gb']} GB free"
    return (
        f"{gpu['name']}, {memory}, capability {gpu['capability']}, {'with' if gpu['tf32'] else 'without'} TF32"
    )


def _checkpoints() -> tuple[list[dict[str, Any]], bool]:
    """Loads every bundled checkpoint; returns their states and whether all are sound (lacking only an extra is sound)."""
    if missing("torch"):
        return [], True
    from igm_cli.bundled import bundled

    found, sound = [], True
    for name, folder in bundled().items():
        entry = {"name": name, "concepts": "", "problem": ""}
        try:
            from igm_cli.api import load

            entry["concepts"] = load(folder, device="cpu").parser.name
        except Exception as error:  # a damaged checkpoint may raise anything
            entry["problem"] = " ".join(str(error).split()) or type(error).__name__
            sound = sound and isinstance(error, ExtraError)
        found.append(entry)
    return found, sound


def _lacks(extra: str, libraries: list[str]) -> str:
    return f"lacks {', '.join(libraries)}; pip install 'igm-cli[{extra}]'" if libraries else "ok"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
