"""The images of ``igm generate``: their files and their records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from igm_cli.commands.drawings import refuse_others_pictures, require_picture, save_picture, sheet
from igm_cli.commands.results import ResultFile, differing, open_results, refuse_inputs
from igm_cli.commands.runner import gather, meet
from igm_cli.commands.show import items_text, touching
from igm_cli.core.files import foreign_name
from igm_cli.errors import UsageError, counted
from igm_cli.folders import SUFFIXES
from igm_cli.imaging import open_image
from igm_cli.interrupts import saying
from igm_cli.output import Output, ProgressReport, Record, process_rank

if TYPE_CHECKING:
    from igm_cli.generation import Generation
    from igm_cli.wishes import Wish

SCHEMA = "igm.generate/1"
LISTED = 12  # maximum number of images listed individually
MOST_COLUMNS = 9  # on a sheet without a row per expression
GAP = 4  # pixels between the pictures of a sheet
MOST_IN_A_ROW = 60  # of an expression's own; formats limit the width of a picture


class Gallery:
    """The images of one call, several per wish, with their files and records.

    The file ``grid`` shows all of them on one sheet; the ``inputs`` are never overwritten.
    """

    def __init__(
        self,
        session: Generation,
        wishes: Sequence[Wish],
        number: int,
        folder: Path,
        grid: Path | None,
        sink: Output,
        inputs: Sequence[Path] = (),
    ) -> None:
        self.session, self.wishes, self.number, self.sink = session, wishes, number, sink
        self.folder, self.inputs, self.grid = folder, inputs, grid
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--output {folder} is a file; name a folder")
        if (folder.suffix.lower() in SUFFIXES and not folder.exists()) or folder.name == "-":
            raise UsageError(
                f"--output takes a folder, not {folder.name}; --grid FILE puts all pictures on one sheet"
            )
        if not self._results.exists() and (name := foreign_name(folder)):
            raise UsageError(
                f"--output {folder} holds {name} and no results of igm generate; name another folder"
            )
        self.pictures = [self._path(wish, i) for wish in wishes for i in range(number)]
        if grid:
            require_picture(grid, "--grid")
            if grid.resolve() in (path.resolve() for path in (*self.pictures, self._results)):
                raise UsageError("--grid and --output would write the same file; give --grid another path")
            refuse_inputs([grid], inputs, "--grid")
        refuse_inputs([*self.pictures, self._results], inputs, "--output")
        refuse_others_pictures(self.pictures, "--output")

    @property
    def _results(self) -> Path:
        return self.folder / "results.jsonl"

    def run(self) -> None:
        """Draws the missing images; each of several processes draws its share, and the main one shows all."""
        rank, world = process_rank()
        if world > 1:
            meet(on_cpu=self.session.device.type == "cpu")
        session, how = self.session, {"differences": self._differences}
        goes_on = saying(f"the same command continues in {self.folder}")
        with (
            goes_on,
            open_results(self._results, SCHEMA, session.run, session.key, self.inputs, **how) as store,
        ):
            assert store is not None
            todo = list(self._batches(store))
            with self.sink.progress() as progress:
                done, every = 0, sum(len(numbers) for _, numbers in todo)
                for place, (wish, numbers) in enumerate(todo):
                    progress("images", done, every)
                    if place % world == rank:
                        self._draw(store, wish, numbers, progress)
                    done += len(numbers)
                progress("images", done, every)
            if world > 1:
                gather(None)
            if rank == 0:
                order = [self._about(wish, i) for wish in self.wishes for i in range(self.number)]
                store.merge(order)
                shown = [store.done[about] for about in order]
                paths = map(str, self.pictures)  # the folder may have been moved
                records = [{**record, "image": path} for record, path in zip(shown, paths, strict=True)]
                self._show(records, len(records) - every)

    def _differences(self, line: Record) -> str:
        """Returns the options that differ between an existing line and this call."""
        now = dict(self.session.told)
        if set(str(line.get("model")).split(" + ")) <= set(now["model"].split(" + ")):
            del now["model"]  # an expression need not name all models
        return differing(line, now)

    def _batches(self, store: ResultFile) -> Iterator[tuple[Wish, range]]:
        """Yields batches of the images that are still missing."""
        for wish in self.wishes:
            start = None
            for i in range(self.number + 1):
                there = i == self.number or (
                    (known := store.done.get(self._about(wish, i))) is not None
                    and self._path(wish, i).is_file()
                    and ("check" in known or not self.session.settings.check)
                )
                if start is not None and (there or i - start == self.session.batch_size):
                    yield wish, range(start, i)
                    start = None
                if not there and start is None:
                    start = i

    def _draw(self, store: ResultFile, wish: Wish, numbers: range, progress: ProgressReport) -> None:
        for result in self.session.images(wish, numbers, lambda i: str(self._path(wish, i)), progress):
            record = result.to_dict()
            save_picture(result.picture, Path(record["image"]), record)
            store.add(record)

    def _path(self, wish: Wish, number: int) -> Path:
        """Returns the path of an image, named after the expression as far as possible."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", wish.expression).strip("-.").lower()[:40].strip("-.")
        digest = hashlib.sha256(wish.expression.encode()).hexdigest()[:12]
        return self.folder / f"{words}-{digest}-{number:04}.png"

    def _about(self, wish: Wish, number: int) -> str:
        return f"{wish.expression} {number}"

    def _show(self, records: Sequence[Record], kept: int) -> None:
        """Prints all records, of which ``kept`` are of an earlier run, and puts the pictures on one sheet."""
        for record in records:
            self.sink.result(record)
        if about := touching(self.session.models, records):
            self.sink.warn(about)
        if self.grid:
            in_rows = len(self.wishes) > 1 and 1 < self.number <= MOST_IN_A_ROW
            columns = self.number if in_rows else MOST_COLUMNS
            titles = [wish.expression for wish in self.wishes] if in_rows else ()
            pictures = [open_image(path) for path in self.pictures]
            save_picture(sheet(pictures, columns, gap=GAP, titles=titles), self.grid)
        if len(records) <= LISTED:
            names, rows = ["image", "expression", "asked for"], []
            for record in records:
                rows.append([Path(record["image"]).name, record["clause"], items_text(record["items"])])
                if self.session.settings.check:
                    rows[-1].append(items_text(record["check"]["items"]))
            self.sink.table("", names + ["found again"] * self.session.settings.check, rows)
        where = f" and on {self.grid}" if self.grid else ""
        earlier = f", {kept} of them from an earlier run" if kept else ""
        self.sink.say(f"{counted(len(records), 'image')} in {self.folder}{where}{earlier}")
