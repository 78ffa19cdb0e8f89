"""Prints the sizes of the wheels of ``pip install igm-cli`` and ``igm-cli[all]``, without PyTorch and its dependencies.

    python tools/wheel_sizes.py [EXTRA ...]          (default: all)

Asks pip what it would install into an empty environment, and the index for the size of each file; only descriptions
are downloaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WITH_TORCH = {"torch", "triton", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "setuptools", "igm-cli"}
"""Left out: PyTorch, its own dependencies, and igm itself."""


def resolved(extra: str) -> list[dict[str, Any]]:
    """Returns what pip would install, from its installation report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        project = f"{ROOT}[{extra}]" if extra else str(ROOT)
        options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            *options,
            "-c",
            str(ROOT / "constraints.txt"),
            project,
        ]
        subprocess.run(command, check=True)
        return list(json.loads(report.read_text(encoding="utf-8"))["install"])


def size(url: str) -> int:
    """Returns the size of an index's file in bytes."""
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
        return int(answer.headers["Content-Length"])


def main() -> None:
    """Prints a line per set of extras."""
    for extra in ("", *(sys.argv[1:] or ["all"])):
        wheels = {p["metadata"]["name"].lower(): p["download_info"]["url"] for p in resolved(extra)}
        sizes = [
            size(url)
            for name, url in wheels.items()
            if name not in WITH_TORCH and not name.startswith(("nvidia-", "cuda-"))
        ]
        label = f"igm-cli[{extra}]" if extra else "igm-cli"
        print(f"{label}: {sum(sizes) / 1e6:.1f} MB in {len(sizes)} wheels, PyTorch aside")


if __name__ == "__main__":
    main()
