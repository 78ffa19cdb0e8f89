"""Readable output: tables, curves, and warnings, such as that an answer is a guess or that objects touch.

Programs read the records themselves.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import counted
from igm_cli.output import Output, Record, called

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.open_model import OpenModel
    from igm_cli.vectors import VectorSession

LONG, NEAR = 24, 8
"""Length from which only a part of a curve is shown, and how far that part reaches from the chosen K."""

MOST_ROWS, MOST_SEEN = 1000, 20
"""Maximum number of objects listed per image, in a file and on a terminal; programs get all of them."""

NO_CURVE = "it was inverted in tiles, which have no common curve"

MOST_VECTORS = 100  # in the table of a file's vectors
DETAILED = 4  # up to this many images, or vectors of a file, each gets a table; this many warnings are shown
SHOWN = 6  # up to this many images with something in common, each has a column of confidences
LISTED = 10  # up to this many candidates, all are listed

TOUCHING = 0.3
"""Overlap of contributions that causes a warning."""


class ImageReport:
    """The readable report: a table per image if ``detailed``, or one table of many images; for counts the error over K."""

    def __init__(self, sink: Output, space: ConceptSpace) -> None:
        self.sink, self.space, self.detailed = sink, space, True
        self.rows: list[dict[str, str]] = []

    def add(self, record: Record) -> None:
        """Shows an image now, or keeps it for the table."""
        countable, k = self.space.countable, str(record["k"])
        most = MOST_SEEN if countable and "items" in record and sys.stdout.isatty() else MOST_ROWS
        if self.detailed:
            how = f" ({record['k_source']})" if "items" in record else ""
            title = f"{called(record)}: " + (f"K = {k}{how}, " if countable else "")
            title = f"{title}{record['seconds']:.2f} s"
            columns, rows = image_table(record, self.space.plural)
            if rows:
                self.sink.table(title, columns, rows[:most])
                if more := len(rows[most:]):
                    known = f"; the confidence of all is {sure}" if (sure := sureness(record)) else ""
                    self.sink.say(f"and {more} more, which --csv and --json give{known}")
            else:
                self.sink.say(f"{title}; {'nothing was found' if 'items' in record else NO_CURVE}")
            return
        row = {"image": called(record), **({"K": k} if countable else {})}
        if "items" in record:
            rest = f" and {len(record['items']) - most} more" if len(record["items"]) > most else ""
            row |= {"confidence": sureness(record), "found": items_text(record["items"][:most]) + rest}
        else:
            from igm_cli.core.inference.typicality import is_untypical

            row["K"] += " (a guess)" * is_untypical(record.get("typicality"))
            row["error"] = _figure(record["denoising_error"])
        self.rows.append(row)

    def end(self) -> None:
        """Shows the table of many images."""
        if self.rows:
            self.sink.table("", list(self.rows[0]), [list(row.values()) for row in self.rows])


class VectorReport:
    """The readable report: a table per vector, or one table for a file's vectors, and the number of doubtful vectors."""

    def __init__(self, sink: Output, session: VectorSession) -> None:
        self.sink, self.doubt, self.counts = sink, session.doubt, session.products is None
        self.records: list[Record] = []  # the first ones of a file
        self.doubts: Counter[str] = Counter()
        self.vectors = 0

    def add(self, record: Record) -> None:
        """Adds a vector."""
        if self.records and record["input"] != self.records[0]["input"]:
            self.end()
        self.vectors += 1
        self.doubts[self.doubt(record)[0]] += 1
        if len(self.records) < MOST_VECTORS:
            self.records.append(record)

    def end(self) -> None:
        """Shows the vectors of a file."""
        source = self.records[0]["input"] if self.records else ""
        if self.vectors > DETAILED:
            self._show_many(source)
        else:
            for record in self.records:
                about = source + (f", vector {record['vector']}" if self.vectors > 1 else "")
                self.sink.table(*self._table(about, record))
                if sentence := self.doubt(record)[1]:
                    self.sink.note(f"igm: {about}: {sentence}")
        self.records, self.doubts, self.vectors = [], Counter(), 0

    def _show_many(self, source: str) -> None:
        """Shows one table of a file's vectors."""
        from igm_cli.vectors import MEANING

        found = ["K", "unexplained"] if self.counts else ["indices", "similarity", "confidence", ""]
        rows = [self._row(record, self.doubt(record)[0]) for record in self.records]
        self.sink.table(f"{source}: {self.vectors} vectors", ["vector", *found], rows)
        if more := self.vectors - len(rows):
            self.sink.say(f"... and {more} more; --json and --output have all of them")
        for kind, count in self.doubts.items():
            if kind:
                meaning = MEANING.get(kind, kind)
                self.sink.note(f"igm: {count} of {self.vectors} vectors of {source}: {meaning}")

    def _table(self, about: str, record: Record) -> tuple[str, list[str], list[list[str]]]:
        if self.counts:
            title, curve = f"{about}: K = {record['k']}, {record['seconds']:.2f} s", record["k_curve"]
            chosen = ["◯" if p["k"] == record["k"] else "" for p in curve]
            rows = [[str(p["k"]), f"{p['unexplained']:.6f}", x] for p, x in zip(curve, chosen, strict=True)]
            return title, ["K", "unexplained", ""], rows
        how = f"similarity {record['similarity']:.3f} by {record['method']}, {record['seconds']:.2f} s"
        names = list(dict.fromkeys(name for item in record["items"] for name in item))
        rows = [[cell(name, item.get(name, "")) for name in names] for item in record["items"]]
        return f"{about}: {how}", names, rows

    def _row(self, record: Record, kind: str) -> list[str]:
        if self.counts:
            return [str(record["vector"]), str(record["k"]), f"{record['k_curve'][-1]['unexplained']:.6f}"]
        products: dict[int, list[str]] = {}
        for item in record["items"]:
            products.setdefault(item.get("product", 0), []).append(str(item["index"]))
        indices = " + ".join(", ".join(row) for row in products.values())
        least = min((item["confidence"] for item in record["items"]), default=0.0)
        return [str(record["vector"]), indices, f"{record['similarity']:.3f}", f"{least:.3f}", kind]


def image_table(record: Record, plural: str) -> tuple[list[str], list[list[str]]]:
    """Returns columns and rows of the items found, numbered; for a count those of the error over K.

    If the record has all candidates, in the field ``plural``, and they are few, the others follow without a number.
    """
    if "items" not in record:
        return curve_table(record)
    items, every = [_doubts_beside(item) for item in record["items"]], record.get(plural)
    rows = [[str(i), *(cell(k, v) for k, v in item.items())] for i, item in enumerate(items, 1)]
    if every is None:
        return ["#", *(items[0] if items else ())], rows
    shown = {row[1] for row in rows}
    if len(every) <= LISTED:
        others = [[cell(k, v) for k, v in candidate.items()] for candidate in every]
        rows += [["", *row] for row in others if row[0] not in shown]
    return ["#", *every[0]], rows


def _doubts_beside(item: Record) -> Record:
    """Returns an item without the confidences of its values; those of doubtful ones stand beside them."""
    from igm_cli.plugins.overlays import CONFIDENT

    sure = item.get("value_confidence")
    if sure is None:
        return item
    told = {f: value + f" ({sure[f]:.2f})" * (sure[f] < CONFIDENT) for f, value in item["values"].items()}
    return {name: told if name == "values" else value for name, value in item.items() if value is not sure}


def show_shared(sink: Output, record: Record) -> None:
    """Shows what images have in common: a row for each item, with its confidence in all images and in each."""
    images, items = record["images"], record["items"]
    title = f"{len(images)} images: K = {record['k']} in common ({record['k_source']}), "
    title += f"{record['seconds']:.2f} s"
    if not items:
        sink.say(title)
        return
    names = [name for name in items[0] if name != "confidence"]
    columns = ["#", *names, "all", *(Path(image["image"]).name for image in images[:SHOWN])]
    rows = []
    for number, item in enumerate(items):
        sure = [item["confidence"], *(image["items"][number]["confidence"] for image in images[:SHOWN])]
        rows.append([str(number + 1), *(cell(n, item[n]) for n in names), *(cell("", p) for p in sure)])
    sink.table(title, columns, rows)


def curve_table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Returns columns and rows of the error over K, with the minimised sum of error and penalty, and the chosen K circled.

    Of a long curve only the part near the chosen K is shown.
    """
    cost = record["k_penalty"]
    columns = ["K", "error", "standard error", *(["error + cost of K"] if cost else []), ""]
    rows = []
    curve = record["k_curve"]
    if len(curve) > LONG:
        curve = [point for point in curve if abs(point["k"] - record["k"]) <= NEAR]
    for point in curve:
        error, deviation = _figure(point["error"]), _figure(point["stderr"])
        whole = [_figure(None if point["error"] is None else point["error"] + cost * point["k"])]
        chosen = "◯" if point["k"] == record["k"] else ""
        rows.append([str(point["k"]), error, f"± {deviation}", *(whole if cost else []), chosen])
    return columns, rows


def draw_curve(record: Record) -> Image:
    """Returns a plot of the error over K with error bars."""
    from igm_cli.commands.figures import new_figure, to_picture

    curve = record["k_curve"]
    ks = [p["k"] for p in curve]
    errors = [math.nan if p["error"] is None else p["error"] for p in curve]
    bars = [0.0 if p["stderr"] is None else max(0.0, p["stderr"]) for p in curve]
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.errorbar(ks, errors, yerr=bars, marker="o", markersize=4, capsize=3, color="#1f5fa8")
    for k, error in zip(ks, errors, strict=True):
        if k == record["k"]:
            axes.plot([k], [error], "o", markersize=11, fillstyle="none", color="#c0392b")
    circled = f"circled: least error + {record['k_penalty']:.1e} · K" if record["k_penalty"] else ""
    if len(ks) <= LONG:
        axes.set_xticks(ks)
    axes.set_xlabel(f"number of concepts K\n{circled}".strip())
    axes.set_ylabel("denoising error under the best K concepts")
    axes.set_title(f"{Path(called(record)).name}: K = {record['k']}")
    axes.grid(alpha=0.3)
    if not curve:
        axes.text(0.5, 0.5, NO_CURVE, transform=axes.transAxes, ha="center")
    return to_picture(figure)


def items_text(items: Sequence[Record]) -> str:
    """Returns items on one line, without pixels and confidences, which JSON has."""
    rows = [{k: v for k, v in item.items() if not k.endswith(("confidence", "_px"))} for item in items]
    if all(isinstance(value, str) for row in rows for value in row.values()):  # "Smiling: yes, hair: black"
        return ", ".join(": ".join(row.values()) for row in rows)
    return " ".join(f"({', '.join(cell(k, v) for k, v in row.items())})" for row in rows)


def sureness(record: Record) -> str:
    """Returns the range of confidences in an image, marked as a guess if the image is not typical."""
    from igm_cli.core.inference.typicality import is_untypical

    known = [item["confidence"] for item in record["items"] if item.get("confidence") is not None]
    low, high = (f"{bound:.2f}" for bound in (min(known), max(known))) if known else ("", "")
    said = low if low == high else f"{low} to {high}"
    return f"{said} (a guess)".strip() if is_untypical(record.get("typicality")) else said


def cell(key: str, value: Any) -> str:
    """Returns a field of an item as a table cell."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, Mapping):
        return " ".join(cell(key, each) for key, each in value.items())
    if isinstance(value, float):
        return f"{value:.1f}" if key.endswith("_px") else f"{value:.3f}"
    return "" if value is None else str(value)


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.6f}"


def warning(record: Record, way_out: str = "raise --k-max") -> str:
    """Returns the warning about an answer; empty if there is none.

    ``way_out`` says what to do if as many concepts were found as were looked for.
    """
    from igm_cli.core.inference.typicality import is_untypical

    if is_untypical(record.get("typicality")):
        chosen = record["k_source"] == "given" and bool(record["k_curve"]) and record["k_curve"][0]["k"] == 0
        number = counted(record["k"], "concept")
        otherwise = ", or shows none of the labels asked for" * (record["schema"] == "igm.zero-shot/1")
        otherwise += f", or does not hold {number}" * chosen  # the user said how many
        most = bool(record.get("k_at_maximum"))
        otherwise += f", or holds more than {number}" * most
        doubt = unlike(called(record), record["model"], record, "the answer", otherwise)
        return doubt + f"; to find more, {way_out}" * most
    if record.get("k_at_maximum"):
        number = counted(record["k"], "concept")
        return f"in {called(record)} {number} were found, the most that were looked for; there may be more: {way_out}"
    return ""


def unlike(name: str, model: str, record: Record, what: str, otherwise: str = "") -> str:
    """Returns the warning that an image is unlike those that a model was trained on, so that ``what`` was found is a guess."""
    typical = f"(typicality {record['typicality']:.2f})"
    return (
        f"{name} is unlike what {model} was trained on{otherwise} {typical}; {what} is little more than a guess"
    )


def touching(models: Sequence[OpenModel], records: Sequence[Record]) -> str:
    """Returns a sentence about the number of images in which concepts merge; empty if there are none."""
    local = any(getattr(model.parser.space, "local", False) for model in models)
    number = local * sum(record["overlap"] > TOUCHING for record in records)
    if not number:
        return ""
    return f"in {number} of {counted(len(records), 'image')} concepts touch, so they may merge into one"
