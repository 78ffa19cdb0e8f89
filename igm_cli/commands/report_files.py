"""Writes a benchmark's report as files (JSON, CSV, Markdown, PNG) and on the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from igm_cli.output import Output, json_line

if TYPE_CHECKING:
    from igm_cli.benchmarks.suite import Report

SCHEMA = "igm.benchmark-summary/1"
PROVENANCE = ("command", "machine", "versions", "seed", "device", "checkpoint")
"""Provenance that the Markdown lists first; the rest follows."""

SPECIAL = re.compile(r"[\\|*`~]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w)|\](?=[(\[])|&(?=#?\w+;)")
"""Characters that Markdown would not show as they are."""
FIGURE = re.compile(r"[^A-Za-z]*\d[^A-Za-z]*(e[+-]?\d+[^A-Za-z]*)?[A-Za-zµ]{0,3}")
BREAK = re.compile(r"\r\n|\r|\n")


def write_report(report: Report, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Writes ``summary.json``, ``report.md``, a CSV file per table and a PNG file per figure.

    The CSV files hold ``report.data``, made for scripts, or else the readable tables.  Each file replaces an older one
    atomically; the Markdown comes last, when everything that it shows exists.  ``provenance`` says where the figures come
    from; its ``suite`` is named in the title.

    Raises:
        OutputError: If the folder cannot be written.
    """
    from igm_cli.commands.drawings import save_picture
    from igm_cli.commands.exports import csv_text
    from igm_cli.commands.figures import draw, report_styles
    from igm_cli.core.files import write_atomically, write_json

    def write_text(path: Path, text: str) -> None:
        write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))

    looks = report_styles(report.figures)
    summary, page = folder / "summary.json", folder / "report.md"
    written = [summary, page]
    data = {"schema": SCHEMA, "provenance": provenance, "summary": report.summary}
    write_json(summary, json.loads(json_line(data)))
    for table in report.data or report.tables:
        written.append(folder / f"{table.name}.csv")
        write_text(written[-1], csv_text(table.columns, table.rows))
    for figure in report.figures:
        written.append(folder / f"{figure.name}.png")
        save_picture(draw(figure, looks), written[-1])
    write_text(page, markdown(report, provenance))
    return written


def show_report(sink: Output, report: Report) -> None:
    """Shows the readable tables, each with its note, as far as the terminal has room; nothing with ``--json``."""
    for table in report.tables:
        shown = table.brief or len(table.columns)
        sink.table(table.title, table.columns[:shown], [row[:shown] for row in table.rows])
        if table.note:
            sink.say(table.note)


def markdown(report: Report, provenance: Mapping[str, Any]) -> str:
    """Returns the whole report in GitHub's Markdown; figures are files beside it."""
    parts = [f"# Benchmark {_text(str(provenance.get('suite', '')))}".strip()]
    first = [key for key in PROVENANCE if key in provenance]
    rest = [key for key in provenance if key not in PROVENANCE and key != "suite"]
    lines = [line for key in first + rest for line in _entry(key, provenance[key], "")]
    parts += ["\n".join(lines)] if lines else []
    for table in report.tables:
        parts += [f"## {_text(table.title)}", markdown_table(table.columns, table.rows)]
        parts += [_text(table.note)] if table.note else []
    if report.figures:
        parts.append("## Figures")
    for figure in report.figures:
        title = re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", _text(" ".join(figure.title.split())))
        parts.append(f"![{title}]({quote(figure.name)}.png)")
        parts += [_text(figure.note)] if figure.note else []
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {_text(note)}" for note in report.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table whose columns are aligned in the source too, numbers to the right."""
    lines = [[_text(cell) for cell in line] for line in (columns, *rows)]
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(*lines, strict=True)]
    right = [_is_figures([row[place] for row in rows]) for place in range(len(columns))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [
        [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def _is_figures(cells: Sequence[str]) -> bool:
    """Returns whether most cells that are not empty (``-``) hold numbers rather than words."""
    filled = [cell.strip() for cell in cells if cell.strip() not in ("", "-", "–", "—", "?")]
    return 2 * sum(FIGURE.fullmatch(cell) is not None for cell in filled) > len(filled)


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    """Yields the lines of a list item: a value, or a list below it."""
    head = f"{indent}- {_text(key)}:"
    if isinstance(value, Mapping):
        yield head
        for name, inner in value.items():
            yield from _entry(str(name), inner, indent + "  ")
    elif isinstance(value, list | tuple):
        yield f"{head} {', '.join(_text(str(item)) for item in value)}"
    elif key == "command":
        yield f"{head} {_code(str(value))}"
    else:
        yield f"{head} {'–' if value is None else _text(str(value))}"


def _text(text: str) -> str:
    """Returns text escaped for Markdown, on one line."""
    return BREAK.sub("<br>", SPECIAL.sub(r"\\\g<0>", text.strip()))


def _code(text: str) -> str:
    """Returns text as code, between as many backticks as needed."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    room = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{room}{BREAK.sub(' ', text)}{room}{fence}"
