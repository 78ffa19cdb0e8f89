"""Files are written as a whole or not at all."""

from __future__ import annotations

import pytest

from igm_cli.core.files import write_atomically, write_json
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
