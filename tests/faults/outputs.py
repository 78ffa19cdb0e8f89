"""Foreign files and folders given as output: not a byte of them changes."""

from __future__ import annotations

from collections.abc import Iterator

from faults.case import Case
from faults.kit import Kit

FOREIGN: dict[str, bytes] = {
    "a note": b"a note\n",
    "a note without a newline": b"a note",
    "JSON": b'{"my": "json"}\n',
    "half a JSON": b'{"my": "json"',
    "an empty line and text": b"\n\ntext",
    "a picture": b"\x89PNG\r\n\x1a\nrest",
    "zero bytes": b"\0" * 64,
    "UTF-16": "notes".encode("utf-16"),
    "a BOM": b"\xef\xbb\xbfnotes\n",
}


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    for name, content in FOREIGN.items():
        command = (*kit.invert("a.png"), "-o", "kept")
        yield Case("results file", name, command, {"a.png": kit.picture, "kept": content})
