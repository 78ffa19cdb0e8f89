"""Installs packages as pip does, in a tenth of the time.

Takes the arguments of ``pip install``.  uv installs the packages, with pip's settings; where it cannot, pip does.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

PIP = [sys.executable, "-m", "pip"]

SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
}
"""Settings of pip that uv needs, and its names for them."""


def settings() -> dict[str, str]:
    """Returns pip's settings as environment variables of uv."""
    said = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():  # such as global.find-links='/srv/wheels'
        key, _, value = line.partition("=")
        if name := SETTINGS.get(key.rpartition(".")[2]):
            words = str(ast.literal_eval(value)).split()
            found[name] = ("," if name == "UV_FIND_LINKS" else " ").join(words)
    return found


def main(wanted: list[str]) -> int:
    """Installs what is wanted; returns the exit code."""
    if subprocess.run([*PIP, "install", "--quiet", "-c", "constraints.txt", "uv"], check=False).returncode == 0:
        uv = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
        how = ["--quiet", "--index-strategy", "unsafe-best-match"]
        if subprocess.run([*uv, *how, *wanted], env={**settings(), **os.environ}, check=False).returncode == 0:
            return 0
    return subprocess.run([*PIP, "install", "--quiet", "--no-compile", *wanted], check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
