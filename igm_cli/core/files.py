"""Atomic writes and locks: a reader sees the old file or the new one, never half of it, and one run writes at a time."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from igm_cli.errors import InputError, OutputError, cause

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


CONFIG, SCHEDULE, DESCRIPTION, WEIGHTS = "config.json", "scheduler_config.json", "igm.json", "model.safetensors"
CHECKPOINT, PIPELINE = (DESCRIPTION, CONFIG, SCHEDULE, WEIGHTS), "model_index.json"
"""Files of a checkpoint, and the one that names the parts of a pipeline of diffusers."""

TEMPORARY = ".igm-tmp"
"""Suffix of unfinished files."""

MARK = "written_by"
"""Last column of igm's own tables: in each row the fingerprint of all rows, by which unchanged ones are recognized."""

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""Name of a model on the Hugging Face hub, ``owner/name``."""

HUB = "hf:"
"""Prefix of such a name that makes igm ask the hub; nothing else does."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a temporary path beside ``path``, flushes what it wrote to disk, then renames it into place.

    The temporary file has a random name and is created exclusively, so that nothing planted beside ``path`` is ever
    written to, and gets the permissions of ``path``.  It is removed if ``write`` fails, and if the process is killed, by
    the next one that writes there.

    Raises:
        OutputError: If it cannot be written, or ``path`` is a device, a pipe or a folder, which is left as it is.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a file; choose another path")
    with telling_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            mode = path.stat().st_mode if path.exists() else temporary.stat().st_mode
            temporary.chmod(mode | 0o600)
            write(temporary)
            with temporary.open("r+b") as file:  # Windows flushes only what it may write
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)


@contextmanager
def telling_unwritable(path: Path) -> Iterator[None]:
    """Turns an error of the system within the block into an :class:`OutputError`: ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        may_be_full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)
        way_out = f"{'free some space or ' * may_be_full}choose another path"
        raise OutputError(f"cannot write {path} ({cause(error)}); {way_out}") from error


def require_writable(path: Path) -> None:
    """Raises an :class:`OutputError` if :func:`write_atomically` could not write a file; leaves nothing behind."""
    with telling_unwritable(path):
        there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        with temporary_beside(there / path.name):
            pass


@contextmanager
def temporary_beside(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Makes an empty file, or a ``folder``, of a random name beside ``path``, and removes it unless it was renamed.

    Its lock distinguishes it from what killed processes left.
    """
    _sweep(path.parent.absolute())
    prefix = f".{path.name[:40]}."
    while True:
        if folder:
            name = tempfile.mkdtemp(prefix=prefix, suffix=TEMPORARY, dir=path.parent)
            handle = _locked(name) if fcntl else None
        else:
            handle, name = tempfile.mkstemp(prefix=prefix, suffix=TEMPORARY, dir=path.parent)
            if fcntl:
                fcntl.flock(handle, fcntl.LOCK_EX)
            else:  # Windows neither renames nor removes a file that is open
                os.close(handle)
                handle = None
        if os.path.lexists(name) and (handle is not None or not fcntl):
            break  # else another process took it for left over, before it was locked
        if handle is not None:
            os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod((0o777 if folder else 0o666) & ~_umask())
        yield temporary
    finally:
        _remove(temporary)
        if handle is not None:
            os.close(handle)


@functools.cache
def _sweep(folder: Path) -> None:
    """Removes what killed processes left in a folder; once, at the first write there."""
    for left in folder.glob(f".*{TEMPORARY}") if fcntl else ():
        handle = None if left.is_symlink() else _locked(left)
        if handle is not None:
            _remove(left)
            os.close(handle)


def _locked(path: Path | str) -> int | None:
    """Opens and locks a path, and returns its handle; None if another process has locked it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


LOG = re.compile(r"[^/]+\.(?:out|err|log)")
"""Names of logs, such as slurm-4711.out."""


def foreign_name(folder: Path, own: Collection[str] = ()) -> str | None:
    """Returns the name of a foreign file in a folder; None if it holds only ``own`` files, unfinished ones and logs.

    Schedulers write logs (:data:`LOG`) into the folder of a run before it begins; igm writes no files of such names.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        below = path.is_dir() and any(name.startswith(f"{path.name}/") for name in own)
        for each in [*path.iterdir()] if below else [path]:
            name = each.relative_to(folder).as_posix()
            unfinished = each.name.startswith(".") and name.endswith(TEMPORARY)
            if name not in own and not unfinished and not (each.is_file() and LOG.fullmatch(name)):
                return name
    return None


def write_json(path: Path, data: Any) -> None:
    """Writes data as indented JSON, atomically."""
    text = json.dumps(data, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object that a file holds, or raises an :class:`InputError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a valid JSON file: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold a JSON object")
    return data


def parse_toml(text: str) -> dict[str, Any]:
    """Returns the tables of a TOML document; raises a ValueError if it is none, or holds what JSON has no word for."""
    tables: dict[str, Any] = tomllib.loads(text)
    try:
        json.dumps(tables)
    except TypeError as error:
        raise ValueError("it holds a date or a time; put it in quotation marks") from error
    return tables


def file_hash(*paths: Path) -> str:
    """Returns the SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint_of(identity: Any, length: int = 16) -> str:
    """Returns the first characters of the SHA-256 of JSON data: the fingerprint of a configuration."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:length]


def home_expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with a leading ``~`` or ``~user`` resolved; without such a user, a file of that name is meant.

    Raises:
        InputError: If there is neither such a user nor such a file.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} is not a path: it holds a NUL byte; correct it")
    text = os.fspath(path)  # Path would take ./~ for ~
    expanded = os.path.expanduser(text)  # noqa: PTH111
    first, inside, _ = text.partition(os.sep)
    if inside and expanded == text and text.startswith("~") and not os.path.lexists(first):
        raise InputError(
            f"{first!r} is the home of no user here, nor a file; correct it, or begin the path with ./"
        )
    return Path(expanded)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds an advisory lock on a file or folder, so that two runs do not write to it at once.

    The lock is a hidden file beside ``path`` (``.NAME.lock``); the system releases it when the process ends, however
    it ends, so there are no stale locks.

    Args:
        path: File or folder that is written to; it need not exist yet.

    Raises:
        InputError: If another process holds the lock, or something else stands in its place.
        OutputError: If the lock cannot be written.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s to import

    path = path.absolute()
    name = path.with_name(f".{path.name}.lock")
    if name.is_symlink() or (name.exists() and not (name.is_file() and not name.stat().st_size)):
        raise InputError(f"{name} is not a lock of igm; remove it, or choose another path")
    with telling_unwritable(path):  # filelock would wait for a file that cannot be made
        path.parent.mkdir(parents=True, exist_ok=True)
        name.touch()
    lock = FileLock(name, timeout=0)
    try:
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                f"another igm is writing to {path}; wait for it, or choose another path"
            ) from error
        yield
    finally:  # also where a signal comes while the lock is taken
        if lock.is_locked:
            remove = functools.partial(_remove_open, Path(lock.lock_file))
            try:
                remove()
            except BaseException:  # a signal; no second one comes
                remove()
                raise
            finally:
                lock.release()


def _remove_open(path: Path) -> None:
    """Removes an open file, which some systems do not allow."""
    with suppress(OSError):
        path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
