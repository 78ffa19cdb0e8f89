"""Makes the page of the package index during the build: README.md, with links that work there.

If the repository has a public address, name it when building, and links and pictures lead there:

    IGM_PUBLIC_URL=https://github.com/OWNER/igm python -m build

Without one they would be dead, so pictures are left out, and links become plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)([^)]*)\)\n\n(?:\*[^*]+\*\n\n)?", re.MULTILINE)
"""Matches a picture in the repository, with its caption."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")
"""Matches a link or picture, and its target in the repository."""


class PackagePage(MetadataHookInterface):
    """Adds the page and the project's addresses to the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets ``readme`` and, if the repository has a public address, ``urls``."""
        address = os.environ.get("IGM_PUBLIC_URL", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": page(text, address)}
        metadata["urls"] = urls(address)


def page(text: str, address: str) -> str:
    """Returns a page of the repository with GitHub-style links to a public address, or without links."""
    if not address:
        return LINK.sub(r"\2", PICTURE.sub("", text))
    return LINK.sub(
        lambda link: f"{link[1]}[{link[2]}]({address}/{'raw' if link[1] else 'blob'}/main/{link[3]})", text
    )


def urls(address: str) -> dict[str, str]:
    """Returns the links that the package index shows beside the page."""
    pages = {
        "Homepage": "",
        "Documentation": "/blob/main/docs/tutorial.md",
        "Changelog": "/blob/main/CHANGELOG.md",
    }
    return {name: address + path for name, path in pages.items()} if address else {}
