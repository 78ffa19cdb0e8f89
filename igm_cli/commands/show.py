"""What people read of results: tables, curves, and what cannot be relied on.  Programs read the records themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.output import Output

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.core.concepts import ConceptSpace
    from igm_cli.core.decomposition.codebooks import Codebooks

Record = Mapping[str, Any]

UNFAMILIAR = 0.5
"""Familiarity below which people are warned."""

UNSURE = 0.5
"""Confidence of a codeword below which people are warned."""

BEYOND = 0.999
"""Probability that no random product is as similar, below which people are warned: a vector that was bound from other
codewords has anything between 0 and 1."""

EXPLAINED = 1e-4
"""Unexplained share of a vector below which there is nothing left to look for."""

DETAILED = 4  # images, or vectors of a file, up to which each gets a table
LISTED = 10  # candidates up to which all are listed in it
MOST_ROWS = 100  # of a table of vectors


class ImageReport:
    """For people: a table per image, or one table of many images.

    Args:
        sink: Where it goes.
        space: The concepts.
        images: How many there are.
    """

    def __init__(self, sink: Output, space: ConceptSpace, images: int) -> None:
        self.sink, self.space, self.detailed = sink, space, images <= DETAILED
        self.rows: list[list[str]] = []

    def add(self, record: Record) -> None:
        """Shows an image now, or keeps it for the table."""
        if record.get("familiarity", 1.0) < UNFAMILIAR:
            self.sink.note(
                f"igm: {record['image']} is unlike what {record['model']} was trained on "
                f"(familiarity {record['familiarity']:.2f}); what is said of it is little more than a guess"
            )
        counted = self.space.fixed_k is None
        if self.detailed:
            how = "given" if record["k_source"] == "given" else "estimated"
            k = f"K = {record['k']} ({how}), " if counted else ""
            self.sink.table(f"{record['image']}: {k}{record['seconds']:.2f} s", *self._table(record))
        else:
            self.rows.append([record["image"], *([str(record["k"])] if counted else []), _brief(record["items"])])

    def end(self) -> None:
        """Shows the table of many images."""
        if self.rows:
            counted = ["K"] if len(self.rows[0]) == 3 else []
            self.sink.table("", ["image", *counted, "found"], self.rows)

    def _table(self, record: Record) -> tuple[list[str], list[list[str]]]:
        """The items found, numbered; where all candidates are reported, the others without a number if they are few."""
        items, every = record["items"], record.get(self.space.plural)
        names = list(items[0]) if items else []
        rows = [[str(i), *(_cell(k, v) for k, v in item.items())] for i, item in enumerate(items, 1)]
        if every is None:
            return ["#", *names], rows
        shown = {row[1] for row in rows}
        if len(every) <= LISTED:
            others = [[_cell(k, v) for k, v in candidate.items()] for candidate in every]
            rows += [["", *row] for row in others if row[0] not in shown]
        return ["#", *every[0]], rows


class CurveReport:
    """For people: the error over K, a table per image."""

    def __init__(self, sink: Output) -> None:
        self.sink = sink

    def add(self, record: Record) -> None:
        """Shows an image."""
        title = f"{record['image']}: K = {record['k']}, {record['seconds']:.2f} s"
        self.sink.table(title, *curve_table(record))

    def end(self) -> None:
        """Nothing is kept back."""


def curve_table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the error over K, the chosen K circled.

    Where a concept costs something, the sum that the choice minimises has a column too.
    """
    cost = record["k_penalty"]
    columns = ["K", "error", "standard error", *(["error + cost of K"] if cost else []), ""]
    rows = []
    for point in record["k_curve"]:
        error, deviation = _figure(point["error"]), _figure(point["stderr"])
        whole = [_figure(None if point["error"] is None else point["error"] + cost * point["k"])]
        chosen = "◯" if point["k"] == record["k"] else ""
        rows.append([str(point["k"]), error, f"± {deviation}", *(whole if cost else []), chosen])
    return columns, rows


def draw_curve(record: Record) -> Image:
    """Error over K with its error bars, as a picture."""
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
    if record["k_penalty"]:
        text = f"circled: least error + {record['k_penalty']:.1e} · K"
        style: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": 8, "color": "#666666"}
        axes.text(0.98, 0.96, text, transform=axes.transAxes, **style)
    axes.set_xticks(ks)
    axes.set_xlabel("number of concepts K")
    axes.set_ylabel("denoising error under the best K concepts")
    axes.set_title(f"{Path(record['image']).name}: K = {record['k']}")
    axes.grid(alpha=0.3)
    return to_picture(figure)


class VectorReport:
    """For people: a table per vector, or one table of a file's vectors, and how many vectors are in doubt.

    Args:
        sink: Where it goes.
        products: How many a vector is the sum of; None where they are counted.
        codebooks: To tell a similarity from chance.
    """

    def __init__(self, sink: Output, products: int | None, codebooks: Codebooks) -> None:
        self.sink, self.products, self.codebooks = sink, products, codebooks
        self.file: list[Record] = []  # the first records of a file
        self.rows: list[list[str]] = []
        self.doubts: dict[str, int] = {}
        self.vectors = 0

    def add(self, record: Record) -> None:
        """One more vector."""
        if self.file and record["input"] != self.file[0]["input"]:
            self.end()
        self.vectors += 1
        if len(self.file) <= DETAILED:
            self.file.append(record)
        kind, _ = self._doubt(record)
        if kind:
            self.doubts[kind] = self.doubts.get(kind, 0) + 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(self._row(record, kind))

    def end(self) -> None:
        """Shows the vectors of a file."""
        if not self.file:
            return
        source = self.file[0]["input"]
        if self.vectors <= DETAILED:
            for record in self.file:
                about = source + (f", vector {record['vector']}" if self.vectors > 1 else "")
                self.sink.table(*self._table(about, record))
                if sentence := self._doubt(record)[1]:
                    self.sink.note(f"igm: {about}: {sentence}")
        else:
            columns = ["K", "unexplained"] if self.products is None else ["indices", "similarity", "confidence", ""]
            self.sink.table(f"{source}: {self.vectors} vectors", ["vector", *columns], self.rows)
            if self.vectors > len(self.rows):
                more = self.vectors - len(self.rows)
                self.sink.say(f"... and {more} more; --json and --output have all of them")
            for kind, count in self.doubts.items():
                self.sink.note(f"igm: {count} of {self.vectors} vectors of {source}: {_MEANING.get(kind, kind)}")
        self.file, self.rows, self.doubts, self.vectors = [], [], {}, 0

    def _table(self, about: str, record: Record) -> tuple[str, list[str], list[list[str]]]:
        if self.products is None:
            title = f"{about}: K = {record['k']}, {record['seconds']:.2f} s"
            rows = [
                [str(p["k"]), f"{p['unexplained']:.6f}", "◯" if p["k"] == record["k"] else ""]
                for p in record["k_curve"]
            ]
            return title, ["K", "unexplained", ""], rows
        how = f"similarity {record['similarity']:.3f} by {record['method']}, {record['seconds']:.2f} s"
        names = list(dict.fromkeys(name for item in record["items"] for name in item))
        rows = [[_cell(name, item.get(name, "")) for name in names] for item in record["items"]]
        return f"{about}: {how}", names, rows

    def _row(self, record: Record, kind: str) -> list[str]:
        if self.products is None:
            return [str(record["vector"]), str(record["k"]), f"{record['k_curve'][-1]['unexplained']:.6f}"]
        products: dict[int, list[str]] = {}
        for item in record["items"]:
            products.setdefault(item.get("product", 0), []).append(str(item["index"]))
        indices = " + ".join(", ".join(row) for row in products.values())
        least = min((item["confidence"] for item in record["items"]), default=0.0)
        return [str(record["vector"]), indices, f"{record['similarity']:.3f}", f"{least:.3f}", kind]

    def _doubt(self, record: Record) -> tuple[str, str]:
        """What kind of doubt there is about a record, and a sentence about it; both empty if there is none."""
        if self.products is None:
            sentence = _count_doubt(record)
            return sentence, sentence
        if self.products > 1 and record["k"] < self.products:
            found = f"{record['k']} of {self.products} products found"
            if record["similarity"] ** 2 > 1 - EXPLAINED:
                return "fewer", f"{found}, and nothing is left to explain"
            return "chance", f"{found}; what is left is no product of these codewords as far as can be told"
        if self.products == 1 and self._by_chance(record["similarity"]):
            way_out = "" if record["method"] in ("auto", "exhaustive") else "; --method auto may find one"
            says = f"similarity {record['similarity']:.2f} is what chance gives"
            return "chance", f"no product of these codewords as far as can be told, {says}{way_out}"
        items = record["items"]
        if tied := [_place(item) for item in items if item.get("ambiguous")]:
            return "ambiguous", f"another codeword would do as well for {', '.join(tied)}"
        if unsure := [_place(item) for item in items if item["confidence"] < UNSURE]:
            return "unsure", f"{', '.join(unsure)} could well be another codeword"
        return "", ""

    def _by_chance(self, similarity: float) -> bool:
        """Whether some product of random codewords may be as similar."""
        import torch

        from igm_cli.core.decomposition.result import beyond_chance

        return float(beyond_chance(self.codebooks, torch.tensor([similarity]))[0]) < BEYOND


_MEANING = {
    "chance": "not found to be products of these codewords, what similarity there is comes by chance",
    "fewer": "fewer products explain them whole",
    "ambiguous": "another codeword would do as well for a factor",
    "unsure": "a factor could well be another codeword",
}


def note_duplicates(codebooks: Codebooks, sink: Output) -> None:
    """Says which codewords are the same, so that nobody could tell them apart."""
    from igm_cli.core.decomposition.codebooks import duplicates

    for number, book in enumerate(codebooks.spectra):
        same = duplicates(book).nonzero()[:, 0].tolist()
        if same:
            some = ", ".join(map(str, same[:6])) + (", ..." if len(same) > 6 else "")
            sink.note(
                f"igm: codebook {number} has codewords that occur more than once ({some}); "
                "which of them was bound cannot be told"
            )


def _count_doubt(record: Record) -> str:
    """A sentence about a count that may be wrong; empty if there is no doubt."""
    if record["k"] == 0:
        return "no product of these codewords is in it as far as can be told"
    if record["k"] == record["k_max"] and record["k_curve"][-1]["unexplained"] > EXPLAINED:
        return f"as many products as --k-max {record['k_max']} lets be found; raise it"
    return ""


def _place(item: Record) -> str:
    return f"factor {item['factor']}" + (f" of product {item['product']}" if "product" in item else "")


def _brief(items: Sequence[Record]) -> str:
    """Items on a line: what they say, less pixels and confidence, which JSON has."""
    rows = [{k: v for k, v in item.items() if k != "confidence" and not k.endswith("_px")} for item in items]
    if all(isinstance(value, str) for row in rows for value in row.values()):  # names: "Smiling: yes, hair: black"
        return ", ".join(": ".join(row.values()) for row in rows)
    return " ".join(f"({', '.join(_cell(k, v) for k, v in row.items())})" for row in rows)


def _cell(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float):
        return f"{value:.1f}" if key.endswith("_px") else f"{value:.3f}"
    return "" if value is None else str(value)


def _figure(value: float | None) -> str:
    return "?" if value is None else f"{value:.6f}"
