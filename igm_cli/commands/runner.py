"""Runs a command on its inputs, in sequence or shared among processes: a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from igm_cli.commands.show import DETAILED, ImageReport, VectorReport, draw_curve, show_shared, unlike, warning
from igm_cli.errors import InputError, OutputError, UsageError, counted, need, out_of_memory
from igm_cli.folders import STDIN, Source, expand_inputs
from igm_cli.inputs import fields_of, shared_key, what_about
from igm_cli.interrupts import saying
from igm_cli.output import Output, ProgressReport, Record, process_rank

if TYPE_CHECKING:
    from igm_cli.commands.drawings import Drawing
    from igm_cli.commands.exports import Export
    from igm_cli.commands.results import ResultFile
    from igm_cli.inputs import Input
    from igm_cli.session import ImageSession
    from igm_cli.vectors import VectorSession


def find_inputs(session: ImageSession | VectorSession, paths: Sequence[str], sink: Output) -> list[Source]:
    """Returns the sources that the paths and addresses of a call name."""
    anywhere = session.reads == "images"
    files = expand_inputs(paths, session.suffixes, session.noun, sink.warn, anywhere=anywhere)
    if anywhere and process_rank()[1] > 1 and any(source.name == STDIN for source in files):
        raise UsageError("- is the standard input of one process; save the image as a file for several")
    return files


@dataclass
class Runner:
    """Processes the files of one call and delivers the results."""

    session: ImageSession | VectorSession  # reads files and turns inputs into results
    paths: Sequence[str]  # files, folders, patterns and addresses as given
    schema: str  # schema of the records
    report: ImageReport | VectorReport | None  # the readable report; None with ``--json``
    sink: Output  # takes results, progress and messages
    output: Path | None  # where results are saved
    count: bool = False  # whether to find only the number of concepts
    drawings: Sequence[Drawing] = ()  # pictures drawn for every image
    exports: Sequence[Export] = ()  # files of everything found
    sources: Sequence[Path] = ()  # further files that are read and so must not be overwritten
    announce: Callable[[int], None] = lambda files: None  # called with the number of inputs left to do
    doubt: str = ""  # a warning about all results, given once
    _store: ResultFile | None = None
    _failed: set[str] = field(default_factory=set)
    _made: int = 0
    _shown: int = 0
    _warned: int = 0
    _halved: bool = False
    _begun: Iterator[Input[Any]] | None = None

    def run(self) -> None:
        """Processes the files; bad ones among several are reported and lead to exit code 3."""
        kept = self._opened(self.schema, self.session.key)
        if len(self.files) == 1:
            begun = self._inputs(self.files[0])
            self._begun = chain([next(begun)], begun)  # reports a mistake before the model is loaded
        tables = "tables are written when all is done; " if self.exports else ""
        goes_on = f"the same command continues with the {self._noun} that are not done"
        if not self.output:
            goes_on = "with --output the same command continues where it stopped"
        with saying(f"{tables}{goes_on}"), kept as self._store:
            done = self._store.done if self._store else {}
            self.announce(sum(self.session.expected(f) for f in self.files if self._named(f) not in done))
            try:
                self._share_out()
            except OutputError as error:
                done_so_far = f"; {self._made} of {len(self.files)} {self._noun} are done"
                raise OutputError(f"{error}{done_so_far * (len(self.files) > 1)}") from error
        if process_rank()[0] == 0:
            for export in self.exports:
                export.write()
        if self.doubt and self._shown:
            self.sink.warn(self.doubt)
        if (more := self._warned - DETAILED) > 0:
            which = "--json says of which, by typicality and k_at_maximum"
            self.sink.note(f"igm: {more} more of {self._shown} images have such a warning; {which}")
        if self.report:
            self.report.end()
            self._say_where()
        if self._failed:
            others = "; the others are done" * (len(self._failed) < len(self.files))
            failed = f"{len(self._failed)} of {len(self.files)} {self._noun}"
            if len(self.files) > 1:
                self.sink.note(f"igm: {failed} could not be used{others}")
            raise typer.Exit(3)

    def run_shared(self) -> None:
        """Finds what all images have in common, one record; only the main one of several processes does it."""
        from igm_cli.core.inference.typicality import is_untypical

        if process_rank()[0]:
            return
        session: Any = self.session
        images = [image for source in self.files for image in session.read(source)]
        if len(images) < 2:
            name = self.files[0].name
            raise UsageError(f"--shared needs two images or more, and {name} is one; leave out --shared")
        kept = self._opened("igm.invert-shared/1", ("sha256",))
        _ = [image.data for image in images]  # reports a mistake before the model is loaded
        about = what_about(shared_key(images), ("sha256",))
        with kept as self._store:
            record = self._store.done.get(about) if self._store else None
            if record is None:
                self.announce(len(images))
                with self.sink.progress() as progress:
                    record = session.invert_shared(images, progress).to_dict()
                if self._store:
                    self._store.add(record)
        for shown, image in zip(record["images"], images, strict=True):
            for drawing in self.drawings:
                drawing.make(shown, image)
            for export in self.exports:
                export.add(shown)
        for export in self.exports:
            export.write()
        self.sink.result(record)
        if self.doubt:
            self.sink.warn(self.doubt)
        for image in record["images"]:
            name, what = Path(image["image"]).name, "what it has in common with others"
            if is_untypical(image.get("typicality")):
                self.sink.warn(unlike(name, record["model"], image, what))
        if self.report:
            self._shown = 1
            show_shared(self.sink, record)
            self._say_where()
        if not record["items"]:
            self.sink.warn(
                "as far as can be told no concept is in all of the images; --k 1 asks for the likeliest one"
            )

    def _opened(self, schema: str, key: Sequence[str]) -> AbstractContextManager[ResultFile | None]:
        """Decides where everything goes, and opens the file of results; refuses what would overwrite other files."""
        if not (self.drawings or self.exports or self.output):
            return nullcontext()
        from igm_cli.commands.drawings import aim
        from igm_cli.commands.results import differing, open_results

        read = aim(self.drawings, self.exports, self.output, self.files, self.sources)
        asked = self.session.asked
        how = {"differences": lambda line: differing(asked(line), asked())}
        return open_results(self.output, schema, self.session.run, key, read, **how)

    def _say_where(self) -> None:
        """Reports where pictures, tables and results are."""
        for drawing in self.drawings:
            if drawing.targets:
                self.sink.say(f"drawn: {drawing.where}")
        for export in self.exports:
            self.sink.say(f"written: {export.path}")
        if self.output and self._store:
            others = len(self._store.done) - self._shown
            of_others = f", {others} of inputs that this call did not name" if others > 0 else ""
            self.sink.say(f"kept: {self.output}, {counted(len(self._store.done), 'result')}{of_others}")

    @cached_property
    def files(self) -> list[Source]:
        """The sources that the paths name."""
        return find_inputs(self.session, self.paths, self.sink)

    @property
    def _noun(self) -> str:
        return "files" if self.session.reads == "vectors" else "images"

    def _share_out(self) -> None:
        """Processes all files; each of several processes takes its share, and the main one shows all results."""
        rank, world = process_rank()
        if world == 1:
            records = self._work_through(self.files, show=True)
            if self._store:  # several processes may have started the run
                self._store.merge([about for each in records.values() for about in each])
            return
        meet(on_cpu=self.session.device.type == "cpu")
        gathered = gather((self._work_through(self.files[rank::world], show=False), self._failed))
        records = {name: each for part, _ in gathered for name, each in part.items()}
        self._failed = {name for _, failed in gathered for name in failed}
        if rank == 0:
            found = [records.get(source.name, {}) for source in self.files]
            if self._store:
                self._store.merge([about for each in found for about in each])
            for source, each in zip(self.files, found, strict=True):
                self._show_all(source, each)

    def _work_through(self, share: Sequence[Source], *, show: bool) -> dict[str, dict[str, Record]]:
        """Returns the records of a share of the files, by file; with ``show``, shows them at once and keeps only their order."""
        records: dict[str, dict[str, Record]] = {}
        with self.sink.progress() as progress:
            for batch in self._batches(share, progress):
                try:
                    found = self._records(batch, progress)
                except InputError as error:
                    self._fail(error, *(str(each.about[self.session.key[0]]) for each in batch))
                    continue
                for each, record in zip(batch, found, strict=True):
                    file = str(each.about[self.session.key[0]])
                    records.setdefault(file, {})[self._about(each)] = {} if show else record
                    if show:
                        self._show(record, each)
        return records

    def _fail(self, error: InputError, *names: str, among: bool = False) -> None:
        """Reports that inputs cannot be used; the run ends if it has only one file, and no other part of it (``among``) is done."""
        if len(self.files) == 1 and not among:
            raise error
        self._failed.update(names)
        self.sink.error(str(error))

    def _batches(self, share: Sequence[Source], progress: ProgressReport) -> Iterator[list[Input[Any]]]:
        """Yields batches of inputs: vectors of one file, or images of several."""
        if self.session.reads == "vectors":
            yield from self._batches_of_vectors(share, progress)
            return
        waiting: list[Input[Any]] = []
        for number, source in enumerate(share):
            progress("images", number - len({str(each.about["image"]) for each in waiting}), len(share))
            expected = self.session.expected(source) if source.is_video else 0
            what = f"frames: {Path(source.name).name}"
            for frame, each in enumerate(self._begun or self._inputs(source)):
                if expected:
                    progress(what, min(frame, expected), expected)
                if waiting and self._kept(each) is None and self.session.is_full([each]):
                    yield waiting  # small images need not wait for a large one
                    waiting = []
                waiting.append(each)
                undone = [one for one in waiting if self._kept(one) is None]
                if len(waiting) >= self.session.batch_size or self.session.is_full(undone):
                    yield waiting
                    waiting = []
            if expected:
                progress(what, expected, expected)
        if waiting:
            yield waiting
        progress("images", len(share), len(share))

    def _batches_of_vectors(
        self, share: Sequence[Source], progress: ProgressReport
    ) -> Iterator[list[Input[Any]]]:
        for source in share:
            inputs, size = list(self._begun or self._inputs(source)), self.session.batch_size
            what = f"vectors: {Path(source.name).name}"
            for first in range(0, len(inputs), size):
                progress(what, first, len(inputs))
                yield inputs[first : first + size]
            progress(what, len(inputs), len(inputs))

    def _inputs(self, source: Source) -> Iterator[Input[Any]]:
        """Yields the inputs in a file; checks an image, as it may be damaged, unless its result exists already."""
        begun, session = False, cast(Any, self.session)
        try:
            for each in session.read(source):
                if session.reads == "images" and self._kept(each) is None:
                    session.check(each)
                yield each
                begun = True
        except InputError as error:
            self._fail(error, source.name, among=begun)

    def _records(self, batch: Sequence[Input[Any]], progress: ProgressReport) -> list[Record]:
        """Returns the records of a batch, existing and new ones."""
        kept = {self._about(each): self._kept(each) for each in batch}
        todo = [each for each in batch if kept[self._about(each)] is None]
        if todo and self.session.together:  # so that results do not change when a run continues
            todo = list(batch)
        results = self._results(todo, progress)
        if results is None:
            middle = batch.index(todo[self.session.batch_size])
            return [*self._records(batch[:middle], progress), *self._records(batch[middle:], progress)]
        for each, result in zip(todo, results, strict=True):
            about = self._about(each)
            if kept[about] is None:
                kept[about] = record = result.to_dict()
                for drawing in self.drawings:
                    drawing.make(record, each)
                if self._store:
                    self._store.add(record)
            self._made += 1
        return [record for record in kept.values() if record is not None]

    def _results(self, batch: Sequence[Input[Any]], progress: ProgressReport) -> Sequence[Any] | None:
        """Returns the results of a batch; None if memory ran out for the first time, so that the batch is halved."""
        work: Callable[..., Sequence[Any]] = self.session.count if self.count else self.session.invert
        try:
            return work(batch, progress) if batch else ()
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or self._halved or len(batch) < 2 or self.session.together:
                raise
        self._halved, self.session.batch_size = True, (len(batch) + 1) // 2
        fewer = f"going on with {self.session.batch_size}"
        self.sink.note(f"igm: not enough memory for {len(batch)} images at once; {fewer}")
        if self.session.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()
        return None

    def _kept(self, each: Input[Any]) -> Record | None:
        """Returns the existing record of an input, if the content is the same."""
        about = self._about(each)
        old = self._store.done.get(about) if self._store else None
        if self._store and old and old.get("sha256") != each.sha256:
            self._store.forget(about)
            name = " ".join(str(each.about[name]) for name in self.session.key if name in each.about)
            self.sink.error(f"{name} has changed since its result was kept; it is done again")
            return None
        return old

    def _about(self, each: Input[Any]) -> str:
        return what_about({**each.about, "sha256": each.sha256}, self.session.key)

    def _named(self, source: Source) -> str:
        """Returns the key fields of an image file's record."""
        return what_about(fields_of(source, self.session.key[0]), self.session.key)

    def _show_all(self, source: Source, records: Mapping[str, Record]) -> None:
        """Shows what processes found in a file; reads it again if something has yet to be drawn."""
        lacking = any(each.missing(record) for each in self.drawings for record in records.values())
        again: Iterator[Input[Any]] = iter(self.session.read(source) if lacking else ())
        for about, record in records.items():
            self._show(record, next((each for each in again if self._about(each) == about), None))

    def _show(self, record: Record, each: Input[Any] | None = None) -> None:
        self._shown += 1
        for drawing in self.drawings:
            # The result is from an earlier call that drew nothing, or from another process.
            if each is not None and drawing.missing(record):
                drawing.make(record, each)
        for export in self.exports:
            export.add(record)
        self.sink.result(record)
        if text := warning(record):
            self._warned += 1
            if self._warned <= DETAILED:
                self.sink.note(f"igm: {text}")
        if self.report:
            self.report.add(record)


def understand_images(
    session: ImageSession,
    paths: Sequence[str],
    schema: str,
    sink: Output,
    output: Path | None,
    *,
    count: bool = False,
    pictures: Path | None,
    labels: bool = False,
    maps: Path | None = None,
    **options: Any,
) -> None:
    """Inverts every image, counts its concepts or finds what all share, and shows, draws and saves the results.

    ``pictures`` and energy ``maps`` go into a file or folder; with ``count``, pictures show the error over K.  ``labels``
    writes beside each object what it is.  All other arguments are fields of :class:`Runner`.
    """
    if count and pictures:
        need("plots")
    report = None if sink.as_json else ImageReport(sink, session.parser.space)
    drawings = []
    if pictures or maps:
        from igm_cli.commands.drawings import Drawing
    if pictures and count:
        drawings.append(Drawing("--plot", pictures, lambda record, _: draw_curve(record)))
    elif pictures:
        from igm_cli.core.inference.typicality import is_untypical
        from igm_cli.plugins.overlays import marked_as_guess

        draw = session.parser.draw_labels if labels else session.parser.draw  # type: ignore[attr-defined]

        def overlay(record: Record, image: Input[Any]) -> Any:
            drawn = draw(image.data, record["items"])
            return marked_as_guess(drawn) if is_untypical(record.get("typicality")) else drawn

        drawings.append(Drawing("--overlay", pictures, overlay, labels=labels))
    if maps:
        from igm_cli.energy_map import energy_map, map_axes

        map_axes(session.parser.space, (2, 2))  # refuses a space without a map
        drawings.append(Drawing("--map", maps, lambda _, image: energy_map(session, image), True))
    runner = Runner(session, paths, schema, report, sink, output, count=count, drawings=drawings, **options)
    if report:
        report.detailed = len(runner.files) <= DETAILED and not any(f.is_video for f in runner.files)
    if session.shared:
        runner.run_shared()
    else:
        runner.run()


def meet(*, on_cpu: bool) -> None:
    """Joins the processes before the work, with a timeout long enough for slow ones."""
    need("train", "accelerate")
    from accelerate import PartialState

    PartialState(cpu=on_cpu, timeout=timedelta(days=7))


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, on every process."""
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState()
    values: list[Any] = [None] * state.num_processes
    dist.all_gather_object(values, value)
    state.wait_for_everyone()
    state.destroy_process_group()
    return values
