"""Hooks of mkdocs: make the README the site's first page, and include the repository's files that pages link to.

The repository has no public address, so a link cannot lead there; a link to a folder becomes plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)")
HOME = "index.md"
KEPT = "repository"
"""The site's folder for files of the repository."""


def on_files(files: Any, config: Any) -> Any:
    """Adds the README, and every file outside docs/ that a page links to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, HOME, content=readme))
    pages = [(ROOT, readme), *((ROOT / "docs", page.content_string) for page in files.documentation_pages())]
    for folder, text in pages:
        for _, _, target, _ in LINK.findall(text):
            path = (folder / target).resolve()
            if (name := _kept(path)) and path.is_file() and not files.get_file_from_path(name):
                content = path.read_bytes()
                files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Redirects links to the places of their targets in the site."""
    folder = ROOT if page.file.src_uri == HOME else ROOT / "docs"

    def lead(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(ROOT / "docs"):
            return f"{picture}[{text}]({path.relative_to(ROOT / 'docs').as_posix()}{anchor or ''})"
        if not path.exists():
            return link[0]  # mkdocs reports it
        return f"{picture}[{text}]({_kept(path)})" if path.is_file() else text

    return LINK.sub(lead, markdown)


def _kept(path: Path) -> str:
    """Returns the path in the site of a repository file; a Markdown file is not built into a page."""
    if path.is_relative_to(ROOT / "docs") or not path.is_relative_to(ROOT):
        return ""
    name = str(PurePosixPath(KEPT, os.path.relpath(path, ROOT)))
    return (
        f"{name}.txt" if path.suffix in (".md", ".toml", ".py", ".ipynb", ".json") or not path.suffix else name
    )
