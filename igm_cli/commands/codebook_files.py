"""Files of bound vectors, worked through some vectors at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from igm_cli.commands.codebook_session import Asked, CodebookSession
from igm_cli.commands.options import expanded
from igm_cli.commands.results import ResultFile, open_results
from igm_cli.errors import InputError
from igm_cli.output import Output, ProgressReport

if TYPE_CHECKING:
    from torch import Tensor


class Report(Protocol):
    """Shows people what was found."""

    def begin(self, path: Path, vectors: int) -> None:
        """A file of so many vectors comes."""
        ...

    def add(self, record: dict[str, Any]) -> None:
        """One of its vectors."""
        ...

    def end(self) -> None:
        """It was the last one."""
        ...


@dataclass(frozen=True)
class VectorFiles:
    """The files of one call and what is done with their vectors.

    Attributes:
        session: The codebooks and the files.
        store: Where records are kept, and which are there already.
        work: File, some of its vectors ``[B,D]`` and the number of the first one to their records.
        at_once: How many vectors.
        report: For people.
        sink: For results, progress and messages.
    """

    session: CodebookSession
    store: ResultFile | None
    work: Callable[[Path, Tensor, int], list[dict[str, Any]]]
    at_once: int
    report: Report
    sink: Output

    def run(self) -> int:
        """Works through the files; one that cannot be used is reported and the others go on.

        Returns:
            How many files failed.
        """
        failed = 0
        with self.sink.progress() as progress:
            for path in self.session.files:
                try:
                    vectors = self.session.parser.read_vectors(path, self.session.codebooks)
                except InputError as error:
                    if len(self.session.files) == 1:
                        raise
                    failed += 1
                    self.sink.error(str(error))
                    continue
                self._file(path, vectors, progress)
        return failed

    def _file(self, path: Path, vectors: Tensor, progress: ProgressReport) -> None:
        total = len(vectors)
        self.report.begin(path, total)
        for first in range(0, total, self.at_once):
            progress(f"vectors: {path.name}", first, total)
            for record in self._records(path, vectors[first : first + self.at_once], first):
                self.sink.result(record)
                self.report.add(record)
        progress(f"vectors: {path.name}", total, total)
        self.report.end()

    def _records(self, path: Path, vectors: Tensor, first: int) -> list[dict[str, Any]]:
        """Records of some vectors; worked out together, so that a result is the same when a run goes on."""
        numbers = range(first, first + len(vectors))
        done = self.store.done if self.store else {}
        kept = [done.get(f"{path} {number}") for number in numbers]
        if None not in kept:
            return [record for record in kept if record]
        records = []
        for old, new in zip(kept, self.work(path, vectors, first), strict=True):
            if self.store and old is None:
                self.store.add(new)
            records.append(old or new)
        return records


def store_of(asked: Asked, schema: str, session: CodebookSession) -> ResultFile | None:
    """The file of ``--output``."""
    return open_results(expanded(asked.output), schema, session.run, key=("input", "vector"))
