"""What people read of bound vectors: tables, and what cannot be relied on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.output import Output

if TYPE_CHECKING:
    from igm_cli.commands.codebook_session import CodebookSession
    from igm_cli.core.decomposition.codebooks import Codebooks

UNSURE = 0.5
"""Confidence below which people are warned; JSON has the figure."""

BEYOND = 0.999
"""Probability that no random product is as similar, below which people are warned: a vector that was bound from other
codewords has anything between 0 and 1."""

DETAILED = 4  # vectors of a file up to which each gets a table
MOST_ROWS = 100  # of the one table else

EXPLAINED = 1e-4
"""Unexplained share of a vector below which there is nothing left to look for."""


def note_duplicates(session: CodebookSession, sink: Output) -> None:
    """Says which codewords are the same, so that nobody could tell them apart."""
    from igm_cli.core.decomposition.codebooks import duplicates

    for number, book in enumerate(session.codebooks.spectra):
        same = duplicates(book).nonzero()[:, 0].tolist()
        if same:
            some = ", ".join(map(str, same[:6])) + (", ..." if len(same) > 6 else "")
            sink.note(
                f"igm: codebook {number} has codewords that occur more than once ({some}); "
                "which of them was bound cannot be told"
            )


class _FileReport:
    """What both reports keep of a file's vectors: rows of its table, and how many vectors there is a doubt about."""

    def __init__(self, sink: Output) -> None:
        self.sink = sink
        self.begin(Path(), 0)

    def begin(self, path: Path, vectors: int) -> None:
        """A file of so many vectors comes."""
        self.path, self.vectors = path, vectors
        self.rows: list[list[str]] = []
        self.doubts: dict[str, int] = {}

    def _keep(self, row: list[str], doubt: str) -> None:
        """A row of the file's table, as long as there is room, and its doubt, if there is one."""
        if doubt:
            self.doubts[doubt] = self.doubts.get(doubt, 0) + 1
        if len(self.rows) < MOST_ROWS:
            self.rows.append(row)


class ProductReport(_FileReport):
    """A table a vector, or one table of a file's vectors; a note of what cannot be relied on.

    Args:
        codebooks: To tell a similarity from chance.
        products: How many a vector is the sum of.
        sink: For all of it.
    """

    def __init__(self, codebooks: Codebooks, products: int, sink: Output) -> None:
        super().__init__(sink)
        self.codebooks, self.products = codebooks, products

    def add(self, record: Mapping[str, Any]) -> None:
        """Shows a vector, or keeps it for the table."""
        doubt, sentence = self._doubt(record)
        if self.vectors <= DETAILED:
            self._detailed(record)
            if sentence:
                self.sink.note(f"igm: {_about(record, self.vectors)}: {sentence}")
            return
        self._keep([str(record["vector"]), *_brief(record), doubt], doubt)

    def end(self) -> None:
        """Shows the table and how many vectors there is a doubt about."""
        if self.vectors <= DETAILED:
            return
        columns = ["vector", "indices", "similarity", "confidence", ""]
        _end(self.sink, self.path, self.vectors, columns, self.rows)
        for doubt, count in self.doubts.items():
            self.sink.note(f"igm: {count} of {self.vectors} vectors of {self.path}: {_MEANING[doubt]}")

    def _detailed(self, record: Mapping[str, Any]) -> None:
        how = f"similarity {record['similarity']:.3f} by {record['method']}, {record['seconds']:.2f} s"
        named = list(dict.fromkeys(name for item in record["items"] for name in item))
        rows = [[_cell(item.get(name, "")) for name in named] for item in record["items"]]
        self.sink.table(f"{_about(record, self.vectors)}: {how}", named, rows)

    def _doubt(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """What kind of doubt there is about a record, and a sentence about it; both empty if there is none."""
        if self.products > 1 and record["k"] < self.products:
            found = f"{record['k']} of {self.products} products found"
            if record["similarity"] ** 2 > 1 - EXPLAINED:
                return "fewer", f"{found}, and nothing is left to explain"
            return "chance", f"{found}; what is left is no product of these codewords as far as can be told"
        items = record["items"]
        if self.products == 1 and self._chance(record["similarity"]):
            way_out = "" if record["method"] in ("auto", "exhaustive") else "; --method auto may find one"
            says = f"similarity {record['similarity']:.2f} is what chance gives"
            return "chance", f"no product of these codewords as far as can be told, {says}{way_out}"
        tied = [_place(item) for item in items if item.get("ambiguous")]
        if tied:
            return "ambiguous", f"another codeword would do as well for {', '.join(tied)}"
        unsure = [_place(item) for item in items if item["confidence"] < UNSURE]
        if unsure:
            return "unsure", f"{', '.join(unsure)} could well be another codeword"
        return "", ""

    def _chance(self, similarity: float) -> bool:
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


class CountReport(_FileReport):
    """A table a vector, or one table of a file's vectors."""

    def add(self, record: Mapping[str, Any]) -> None:
        """Shows a vector, or keeps it for the table."""
        curve, doubt = record["k_curve"], _count_doubt(record)
        if self.vectors <= DETAILED:
            rows = [
                [str(p["k"]), f"{p['unexplained']:.6f}", "◯" if p["k"] == record["k"] else ""] for p in curve
            ]
            title = f"{_about(record, self.vectors)}: K = {record['k']}, {record['seconds']:.2f} s"
            self.sink.table(title, ["K", "unexplained", ""], rows)
            if doubt:
                self.sink.note(f"igm: {_about(record, self.vectors)}: {doubt}")
            return
        self._keep([str(record["vector"]), str(record["k"]), f"{curve[-1]['unexplained']:.6f}"], doubt)

    def end(self) -> None:
        """Shows the table."""
        if self.vectors > DETAILED:
            _end(self.sink, self.path, self.vectors, ["vector", "K", "unexplained"], self.rows)
        for doubt, count in self.doubts.items():
            self.sink.note(f"igm: {count} of {self.vectors} vectors of {self.path}: {doubt}")


def _count_doubt(record: Mapping[str, Any]) -> str:
    """A sentence about a count that may be none; empty if there is no doubt."""
    if record["k"] == 0:
        return "no product of these codewords is in it as far as can be told"
    if record["k"] == record["k_max"] and record["k_curve"][-1]["unexplained"] > EXPLAINED:
        return f"as many products as --k-max {record['k_max']} lets be found; raise it"
    return ""


def _end(sink: Output, path: Path, vectors: int, columns: list[str], rows: list[list[str]]) -> None:
    """The table of a file's vectors."""
    sink.table(f"{path}: {vectors} vectors", columns, rows)
    if vectors > len(rows):
        sink.say(f"... and {vectors - len(rows)} more; --json and --output have all of them")


def _about(record: Mapping[str, Any], vectors: int) -> str:
    return str(record["input"]) + (f", vector {record['vector']}" if vectors > 1 else "")


def _place(item: Mapping[str, Any]) -> str:
    return f"factor {item['factor']}" + (f" of product {item['product']}" if "product" in item else "")


def _brief(record: Mapping[str, Any]) -> list[str]:
    """Indices, similarity and the least confidence of a record."""
    items = record["items"]
    products: dict[int, list[str]] = {}
    for item in items:
        products.setdefault(item.get("product", 0), []).append(str(item["index"]))
    least = min((item["confidence"] for item in items), default=0.0)
    return [" + ".join(", ".join(row) for row in products.values()), _cell(record["similarity"]), _cell(least)]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
