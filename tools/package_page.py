"""The page of the package index, made by the build: README.md, with links that lead somewhere from there.

Where the repository has a public address, say it as the package is built, and links and pictures lead there:

    IGM_PUBLIC_URL=https://github.com/OWNER/igm python -m build

Without one they would be dead: pictures are left out, and of links stays what they say.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https?:)([^)]*)\)\n\n(?:\*[^*]+\*\n\n)?", re.MULTILINE)
"""A picture of the repository, with its caption."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")
"""A link or picture, and where it leads in the repository."""


class PackagePage(MetadataHookInterface):
    """Adds the page and the project's addresses to what is known of the package."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets ``readme`` and, where the repository has a public address, ``urls``."""
        address = os.environ.get("IGM_PUBLIC_URL", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": page(text, address)}
        metadata["urls"] = urls(address)


def page(text: str, address: str) -> str:
    """Returns a page of the repository with links to a public address in the manner of GitHub, or without any."""
    if not address:
        return LINK.sub(r"\2", PICTURE.sub("", text))
    return LINK.sub(
        lambda link: f"{link[1]}[{link[2]}]({address}/{'raw' if link[1] else 'blob'}/main/{link[3]})", text
    )


def urls(address: str) -> dict[str, str]:
    """Returns what the package index shows beside the page."""
    pages = {
        "Homepage": "",
        "Documentation": "/blob/main/docs/reference.md",
        "Changelog": "/blob/main/CHANGELOG.md",
    }
    return {name: address + path for name, path in pages.items()} if address else {}
