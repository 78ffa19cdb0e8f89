"""Atomic writes and locks: a reader sees the old file or the new one, never half of it, and one run writes at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""How a model of the Hugging Face hub is named, ``owner/name``."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a temporary path beside ``path``, flushes what it wrote to disk, then renames it into place.

    The temporary file has a random name and is created exclusively, so that nothing planted beside ``path`` is
    ever written to; it is removed if ``write`` fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        os.close(handle)
        temporary.chmod(0o666 & ~_umask())
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Writes data as indented JSON, atomically."""
    text = json.dumps(data, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object that a file holds, or raises an :class:`InputError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no valid JSON file: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a JSON object")
    return data


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML document; raises a ValueError if it is none."""
    tables: dict[str, Any] = tomllib.loads(text)
    return tables


def file_hash(*paths: Path) -> str:
    """Returns the SHA-256 of what files hold, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_of(identity: Any, length: int = 16) -> str:
    """Returns the first characters of the SHA-256 of JSON data: the fingerprint of a configuration."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:length]


def home_expanded(path: str | Path) -> Path:
    """Returns a path with the home folder for ``~`` at its beginning; ``~name`` stays where nobody has that name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser fails there


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds an advisory lock on a file or folder, so that two runs do not write to it at once.

    The lock is a hidden file beside ``path`` (``.NAME.lock``); the system releases it when the process ends, however
    it ends, so there are no stale locks.

    Args:
        path: File or folder that is written to; it need not exist yet.

    Raises:
        InputError: If another process holds the lock.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s to import

    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another igm is writing to {path}; wait for it, or choose another path") from error
    try:
        yield
    finally:
        with suppress(OSError):  # some systems do not remove a file that is open
            Path(lock.lock_file).unlink()
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
