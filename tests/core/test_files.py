"""Files are written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from igm_cli.core import files
from igm_cli.core.files import TEMPORARY, exclusive, read_json, temporary_beside, write_atomically, write_json
from igm_cli.core.weights import write_weights
from igm_cli.errors import OutputError


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "data.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OutputError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["data.json"]


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space or choose another path"),
        (errno.EACCES, r"\(permission denied\); choose another path"),
    ],
)
def test_what_to_do_depends_on_why_it_cannot_be_written(tmp_path, number, way_out):
    def fail(temporary):
        raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=way_out):
        write_atomically(tmp_path / "a.json", fail)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody writes to")
def test_a_lock_that_cannot_be_written_is_no_other_run():
    with pytest.raises(OutputError, match=r"cannot write /proc/r.jsonl \(.*\); choose another path"):  # noqa: SIM117
        with exclusive(Path("/proc/r.jsonl")):
            pass


def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
        write_weights(tmp_path / "w.safetensors", {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


def test_a_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "a.json"
    for mode in (0o600, 0o444):
        write_json(path, {})
        path.chmod(mode)
        write_json(path, {"a": 1})
        assert path.stat().st_mode & 0o777 == mode


def test_long_names_are_written(tmp_path):
    path = tmp_path / ("名" * 80 + ".json")  # 245 bytes of the 255 that a name may have
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="sees open files in /proc")
def test_files_are_flushed_and_renamed_as_windows_allows(tmp_path, monkeypatch):
    """Windows flushes only files open for writing, and renames only closed ones."""
    import fcntl

    access, replace, renamed = fcntl.F_GETFL, Path.replace, []

    def flush(handle):
        assert fcntl.fcntl(handle, access) & os.O_ACCMODE == os.O_RDWR

    def rename(self, target):
        assert self not in [handle.resolve() for handle in Path("/proc/self/fd").iterdir()]
        renamed.append(target)
        return replace(self, target)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", rename)
    write_json(tmp_path / "a.json", {})
    assert renamed == [tmp_path / "a.json"] == list(tmp_path.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    with temporary_beside(tmp_path / "b.json") as mine:
        (left := tmp_path / f".a.json.x{TEMPORARY}").write_text("half")
        (folder := tmp_path / f".run.x{TEMPORARY}").mkdir()
        script = "import sys; from pathlib import Path; from igm_cli.core.files import write_json\n"
        script += "write_json(Path(sys.argv[1]) / 'a.json', {})"
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
        assert mine.exists() and not left.exists() and not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
