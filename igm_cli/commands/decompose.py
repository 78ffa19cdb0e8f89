"""``igm decompose``: finds the codewords of bound vectors, or counts the products in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.commands.show import DETAILED, cell
from igm_cli.core.files import home_expanded
from igm_cli.errors import UsageError
from igm_cli.output import Output, Record, process_rank

if TYPE_CHECKING:
    from igm_cli.core.decomposition.codebooks import Codebooks
    from igm_cli.vectors import VectorSession

MOST = 1000
"""Maximum number of products of a vector."""

MOST_ROWS = 100  # in a table of vectors


def decompose(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATHS...",
            help="Bound vectors (.npy, .npz, .safetensors), folders of them or quoted patterns.",
        ),
    ],
    codebooks: Annotated[Path, o.ask("A .safetensors file of codebooks.", "FILE")],
    concepts: Annotated[str | None, o.ask("Concept parser of vectors.  Default: codebook.", "NAME")] = None,
    k: Annotated[
        int | None, o.ask("Number of products that were added up.  Default: 1.", "N", min=1, max=MOST)
    ] = None,
    count: Annotated[bool, o.ask("Count the products, instead of taking them apart.", None, "--count")] = False,
    k_max: Annotated[int | None, o.ask("Most products considered.  Default: 8.", "N", min=1, max=MOST)] = None,
    binding: Annotated[
        Literal["map", "hrr", "fhrr"] | None,
        o.ask("How the vectors are bound.  Default: what the file of codebooks says."),
    ] = None,
    method: Annotated[
        Literal["auto", "coupled", "attention", "resonator", "factorizer", "exhaustive"] | None,
        o.search(
            "How one product is taken apart: auto (the default), coupled, attention, resonator, factorizer or exhaustive.",
            "NAME",
        ),
    ] = None,
    iterations: Annotated[
        int | None, o.search("Iterations of the iterative methods.  Default: 100.", "N", min=1)
    ] = None,
    seed: o.FixedSeed = 0,
    device: o.Device = "auto",
    as_json: o.Json = False,
    csv: o.Csv = None,
    output: o.Results = None,
) -> None:
    """Take bound vectors apart into the codewords that they were bound from.

    JSON lines follow the schema igm.decompose/1, or igm.decompose-k/1 with --count.
    """
    from igm_cli.commands.runner import Runner
    from igm_cli.vectors import MOST_PRODUCTS, open_vectors, vector_settings

    sink = Output.of_process(as_json)
    if count:
        o.refuse(
            "taking apart; leave it out or leave out --count",
            k=k,
            method=method,
            iterations=iterations,
            csv=csv,
        )
        settings: dict[str, Any] = {"k_max": k_max or MOST_PRODUCTS}
    else:
        if k_max is not None:
            raise UsageError("--k-max belongs to --count; add that or leave it out")
        settings = vector_settings(k, method, iterations)
    if process_rank()[1] > 1:
        raise UsageError("bound vectors are taken apart by one process; start igm without accelerate launch")
    source = home_expanded(codebooks)
    session = open_vectors(
        source, settings=settings, concepts=concepts, binding=binding, seed=seed, device=device
    )
    if session.codebooks.guessed:
        name = session.codebooks.binding.name
        sink.note(
            f"igm: {source} does not name a binding; {name} is assumed, since its codewords look like those of {name}, "
            "and --binding names another"
        )
    note_duplicates(session.codebooks, sink)
    report = VectorReport(sink, session)
    schema = "igm.decompose-k/1" if count else "igm.decompose/1"
    how: dict[str, Any] = {"count": count, "sources": [source]}
    if csv:
        from igm_cli.commands.exports import table

        how["exports"] = [table(csv, session.key)]
    Runner(session, paths, schema, report, sink, output, **how).run()


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
        if len(self.records) < MOST_ROWS:
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


def note_duplicates(codebooks: Codebooks, sink: Output) -> None:
    """Reports codewords that are identical and so cannot be told apart."""
    from igm_cli.core.decomposition.codebooks import duplicates

    for number, book in enumerate(codebooks.spectra):
        same = duplicates(book).nonzero()[:, 0].tolist()
        if same:
            some = ", ".join(map(str, same[:6])) + (", ..." if len(same) > 6 else "")
            sink.note(
                f"igm: codebook {number} has codewords that occur more than once ({some}); "
                "which of them was bound cannot be told"
            )
