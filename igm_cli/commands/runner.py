"""Many inputs, one after the other or shared between processes; one that is bad stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from igm_cli.core.files import home_expanded
from igm_cli.errors import InputError, OutputError, UsageError, need, out_of_memory
from igm_cli.folders import STDIN, Source, expand_inputs
from igm_cli.output import Output, ProgressReport, Record, called, process_rank
from igm_cli.session import fields_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.commands.exports import Export
    from igm_cli.commands.results import ResultFile
    from igm_cli.commands.show import ImageReport
    from igm_cli.session import ImageSession, Input
    from igm_cli.vectors import VectorSession


DETAILED = 4  # images, or vectors of a file, up to which each gets a table


def understand_images(
    session: ImageSession,
    paths: Sequence[str],
    schema: str,
    sink: Output,
    output: Path | None,
    *,
    count: bool = False,
    pictures: Path | None,
    option: str = "--overlay",
    labels: bool = False,
    maps: Path | None = None,
    **options: Any,
) -> None:
    """Inverts a model on every image, or counts, and shows, draws and keeps what is found.

    Args:
        session: The model with its settings.
        paths: Images, folders, patterns and addresses.
        schema: Schema of the records.
        sink: For results, progress and messages.
        output: Where results are kept.
        count: Whether only the number of concepts is wanted.
        pictures: A file or folder for pictures.
        option: The option that gives it.
        labels: Whether the pictures say of every object what it is.
        maps: A file or folder for energy maps.
        **options: Further fields of :class:`Runner`.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    if count and pictures:
        need("plots")

    def draw(record: Record, image: Input[Image]) -> Image:
        if not count:
            return drawer(session, labels)(image.data, record["items"])
        from igm_cli.commands.show import draw_curve

        return draw_curve(record)

    report: ImageReport | None = None
    if not sink.as_json:
        from igm_cli.commands.show import ImageReport

        report = ImageReport(sink, session.parser.space)
    drawings = []
    if pictures:
        drawings.append(Drawing(option, home_expanded(pictures), draw, anew=labels))
    if maps:
        drawings.append(Drawing("--map", home_expanded(maps), lambda _, image: session.energy_map(image), True))
        session.require_map()
    runner = Runner(session, paths, schema, report, sink, output, count=count, drawings=drawings, **options)
    if report:
        report.detailed = len(runner.files) <= DETAILED and not any(f.is_video for f in runner.files)
    runner.run()


def understand_shared(
    session: ImageSession,
    paths: Sequence[str],
    sink: Output,
    output: Path | None,
    *,
    pictures: Path | None,
    labels: bool = False,
    exports: Sequence[Export] = (),
    sources: Sequence[Path] = (),
    announce: Callable[[int], None] = lambda images: None,
) -> None:
    """Finds what all images have in common, which is one record, and shows, draws and keeps it.

    Of several processes, the main one does it.

    Args:
        session: The model with its settings, ``shared``.
        paths: Images, folders, patterns and addresses.
        sink: For the result, progress and messages.
        output: Where the result is kept.
        pictures: A folder for pictures.
        labels: Whether they say of every object what it is.
        exports: Files of all that is found.
        sources: Further files that are read, so that nothing is written over them.
        announce: Called with the number of images before they are worked out.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.commands.results import open_results, paths_of
    from igm_cli.session import shared_hash

    if process_rank()[0]:
        return
    files = find_inputs(session, paths, sink)
    images = [image for source in files for image in session.read(source)]
    if len(images) < 2:
        raise UsageError(f"--shared needs two images or more, and {files[0].name} is one; leave out --shared")
    read = [*paths_of(files), *sources]
    drawing = None
    if pictures:
        draw = drawer(session, labels)
        drawing = Drawing(
            "--overlay", home_expanded(pictures), lambda shown, image: draw(image.data, shown["items"])
        )
        drawing.aim(files)
    aim_apart([drawing] if drawing else [], exports, output, read)
    _ = [image.data for image in images]  # a mistake is told before the model is loaded
    about = shared_hash(images)
    with open_results(output, "igm.invert-shared/1", session.run, ("sha256",), read) as store:
        record = store.done.get(about) if store else None
        if record is None:
            announce(len(images))
            with sink.progress() as progress:
                record = session.invert_shared(images, progress).to_dict()
            if store:
                store.add(record)
    for shown, image in zip(record["images"], images, strict=True):
        if drawing:
            drawing.make(shown, image)
        for export in exports:
            export.add(shown)
    for export in exports:
        export.write()
    sink.result(record)
    if not sink.as_json:
        from igm_cli.commands.show import show_shared

        show_shared(sink, record)


def find_inputs(session: ImageSession | VectorSession, paths: Sequence[str], sink: Output) -> list[Source]:
    """Returns what the paths and addresses of a call name.

    Raises:
        IgmError: If one names nothing, or what the session does not read.
    """
    anywhere = not session.together
    files = expand_inputs(paths, session.suffixes, session.noun, sink.warn, anywhere=anywhere)
    if anywhere and process_rank()[1] > 1 and any(source.name == STDIN for source in files):
        raise UsageError("- is the standard input of one process; save the image as a file for several")
    return files


def drawer(session: ImageSession, labels: bool) -> Callable[[Image, Sequence[Any]], Image]:
    """Returns what draws items on a copy of an image; with ``labels`` the session must have been asked for them."""
    draw: Callable[[Image, Sequence[Any]], Image]
    draw = session.parser.draw_labels if labels else session.parser.draw  # type: ignore[attr-defined]
    return draw


def aim_apart(
    drawings: Sequence[Drawing], exports: Sequence[Export], output: Path | None, inputs: Sequence[Path]
) -> None:
    """Refuses files that cannot be written, and options that would write the same one.

    Args:
        drawings: Pictures, which know where they go.
        exports: Files of all that is found.
        output: Where results are kept.
        inputs: Files that are read.
    """
    from igm_cli.commands.results import refuse_inputs

    for export in exports:
        export.check(inputs)
    if output:
        refuse_inputs([home_expanded(output)], inputs, "--output")
    written = [(each.option, path) for each in drawings for path in each.targets.values()]
    written += [
        (each.option, p.with_suffix(".npy")) for each in drawings if each.is_map for p in each.targets.values()
    ]
    written += [(each.option, each.path) for each in exports]
    written += [("--output", home_expanded(output))] if output else []
    owner: dict[Path, str] = {}
    for option, path in written:
        other = owner.setdefault(path.resolve(), option)
        if other != option:
            raise UsageError(f"{other} and {option} would write the same file; give each a path of its own")


def warning(record: Record, way_out: str = "raise --k-max") -> str:
    """Returns what people are warned about in an answer; nothing where there is no need to.

    ``way_out`` says what to do where as many concepts were found as were looked for.
    """
    from igm_cli.core.inference.typicality import is_untypical

    if is_untypical(record.get("typicality")):
        return (
            f"{called(record)} is unlike what {record['model']} was trained on "
            f"(typicality {record['typicality']:.2f}); what is said of it is little more than a guess"
        )
    if record.get("k_at_maximum"):
        return (
            f"in {called(record)} as many concepts were found as were looked for, {record['k']}; there may be more, "
            f"{way_out}"
        )
    return ""


class Report(Protocol):
    """What people read of records."""

    def add(self, record: Record) -> None:
        """Shows a record now, or keeps it."""
        ...

    def end(self) -> None:
        """Shows what was kept."""
        ...


@dataclass
class Drawing:
    """What is drawn of every image.

    Attributes:
        option: The option that asks for it.
        where: A file or folder.
        draw: Makes a picture, or a map, of a record and its input.
        is_map: Whether it is a map, which has an array beside it.
        targets: Where the picture of each image goes.
        anew: Whether pictures that are there are drawn again.
    """

    option: str
    where: Path
    draw: Callable[[Record, Input[Image]], Any]
    is_map: bool = False
    targets: Mapping[str, Path] = field(default_factory=dict)
    anew: bool = False
    _made: set[Path] = field(default_factory=set)

    def aim(self, files: Sequence[Source]) -> None:
        """Decides where the pictures go; what is not igm's own is not written over."""
        from igm_cli.commands.results import known_pictures, picture_targets, refuse_arrays

        self.targets = picture_targets(files, self.where, self.option)
        if self.is_map:
            refuse_arrays(known_pictures(files, self.targets), self.option)

    def missing(self, record: Record) -> bool:
        """Returns whether the picture of an image is still to be drawn."""
        target = self._target(record)
        if self.anew and target not in self._made:
            return target is not None
        every = [target, *([target.with_suffix(".npy")] if self.is_map else [])] if target else []
        return not all(path.exists() for path in every)

    def make(self, record: Record, each: Input[Image]) -> None:
        """Draws an image."""
        if target := self._target(record):
            from igm_cli.commands.results import save_map, save_picture

            save = save_map if self.is_map else save_picture
            save(self.draw(record, each), target)
            self._made.add(target)

    def _target(self, record: Record) -> Path | None:
        """Where the picture of an image goes; of a frame into the folder of its video."""
        target = self.targets.get(record["image"])
        return target / f"{record['frame']:06d}.png" if target and "frame" in record else target


@dataclass
class Runner:
    """The files of one call, what is done with each, and where the results go.

    Attributes:
        session: Reads files and turns inputs into results.
        paths: Files, folders, patterns and addresses as given.
        schema: Schema of the records.
        report: What people read; None where programs read.
        sink: Takes results, progress and messages.
        output: Where results are kept.
        count: Whether only the number of concepts is wanted.
        drawings: What is drawn of every image.
        exports: Files of all that is found.
        sources: Further files that are read, so that nothing is written over them.
        announce: Called with the number of files that are left to do.
    """

    session: ImageSession | VectorSession
    paths: Sequence[str]
    schema: str
    report: Report | None
    sink: Output
    output: Path | None
    count: bool = False
    drawings: Sequence[Drawing] = ()
    exports: Sequence[Export] = ()
    sources: Sequence[Path] = ()
    announce: Callable[[int], None] = lambda files: None
    _store: ResultFile | None = None
    _failed: set[str] = field(default_factory=set)
    _made: int = 0
    _halved: bool = False
    _begun: Iterator[Input[Any]] | None = None

    def run(self) -> None:
        """Works through the files; one of several that cannot be used is reported, and ends with exit code 3."""
        kept: Any = nullcontext()
        if self.drawings or self.exports or self.output:
            from igm_cli.commands.results import open_results, paths_of

            for drawing in self.drawings:
                drawing.aim(self.files)
            session, inputs = self.session, [*paths_of(self.files), *self.sources]
            aim_apart(self.drawings, self.exports, self.output, inputs)
            kept = open_results(self.output, self.schema, session.run, session.key, inputs)
        if len(self.files) == 1:
            self._begun = self._inputs(self.files[0])
            self._begun = chain(
                [next(self._begun)], self._begun
            )  # a mistake is told before the model is loaded
        with kept as self._store:
            done = self._store.done if self._store else {}
            self.announce(sum(self.session.expected(f) for f in self.files if self._named(f) not in done))
            try:
                self._share_out()
            except OutputError as error:
                raise OutputError(
                    f"{error}; {self._made} of {len(self.files)} {self._noun} are done"
                ) from error
        if process_rank()[0] == 0:
            for export in self.exports:
                export.write()
        if self.report:
            self.report.end()
            self._tell_where()
        if self._failed:
            self.sink.note(
                f"igm: {len(self._failed)} of {len(self.files)} {self._noun} could not be used; the others are done"
            )
            raise typer.Exit(3)

    def _tell_where(self) -> None:
        """Says where pictures, tables and results are."""
        for drawing in self.drawings:
            if drawing.targets:
                self.sink.say(f"drawn: {drawing.where}")
        for export in self.exports:
            self.sink.say(f"written: {export.path}")
        if self.output and self._store:
            count = len(self._store.done)
            self.sink.say(f"kept: {self.output}, {count} result{'s' * (count != 1)}")

    @cached_property
    def files(self) -> list[Source]:
        """What the paths name."""
        return find_inputs(self.session, self.paths, self.sink)

    @property
    def _noun(self) -> str:
        return "files" if self.session.together else "images"

    def _share_out(self) -> None:
        """Works through all files; of several processes each takes its share and the main one shows all results."""
        rank, world = process_rank()
        if world == 1:
            records = self._work_through(self.files, show=True)
            if self._store:  # several processes may have begun what this one has ended
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
        """The records of a share of the files, by file; those that are shown at once are not kept, only their order."""
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

    def _fail(self, error: InputError, *names: str) -> None:
        """Says that inputs cannot be used; the only one ends the run."""
        if len(self.files) == 1:
            raise error
        self._failed.update(names)
        self.sink.error(str(error))

    def _batches(self, share: Sequence[Source], progress: ProgressReport) -> Iterator[list[Input[Any]]]:
        """Inputs that are worked out together: vectors of one file, images of several."""
        if self.session.together:
            yield from self._batches_of_vectors(share, progress)
            return
        waiting: list[Input[Any]] = []
        for number, source in enumerate(share):
            progress("images", number, len(share))
            expected = self.session.expected(source) if source.is_video else 0
            what = f"frames: {Path(source.name).name}"
            for frame, each in enumerate(self._begun or self._inputs(source)):
                if expected:
                    progress(what, min(frame, expected), expected)
                if waiting and self._kept(each) is None and self.session.is_full([each]):
                    yield waiting  # what is small need not wait for what is large
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
        """The inputs in a file one by one; an image is decoded, as it may be damaged, unless its result is kept."""
        try:
            for each in self.session.read(source):
                if not self.session.together and self._kept(each) is None:
                    _ = each.data
                yield each
        except InputError as error:
            self._fail(error, source.name)

    def _records(self, batch: Sequence[Input[Any]], progress: ProgressReport) -> list[Record]:
        """The records of a batch: those kept, and new ones."""
        kept = {self._about(each): self._kept(each) for each in batch}
        todo = [each for each in batch if kept[self._about(each)] is None]
        if todo and self.session.together:  # so that a result is the same when a run goes on
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
        """The results of a batch; None if memory ran out for the first time, and the batch is to be halved."""
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
        """The record that is kept of an input, if it is of the same content."""
        about = self._about(each)
        old = self._store.done.get(about) if self._store else None
        if self._store and old and old.get("sha256") != each.sha256:
            self._store.forget(about)
            name = " ".join(str(each.about[name]) for name in self.session.key if name in each.about)
            self.sink.error(f"{name} is not what its result was kept of; it is worked out anew")
            return None
        return old

    def _about(self, each: Input[Any]) -> str:
        from igm_cli.commands.results import what_about

        return what_about(each.about, self.session.key)

    def _named(self, source: Source) -> str:
        """What the record of an image file is about."""
        from igm_cli.commands.results import what_about

        return what_about(fields_of(source, self.session.key[0]), self.session.key)

    def _show_all(self, source: Source, records: Mapping[str, Record]) -> None:
        """Shows what processes found in a file; it is read again if something is still to be drawn."""
        lacking = any(each.missing(record) for each in self.drawings for record in records.values())
        again: Iterator[Input[Any]] = iter(self.session.read(source) if lacking else ())
        for about, record in records.items():
            self._show(record, next((each for each in again if self._about(each) == about), None))

    def _show(self, record: Record, each: Input[Any] | None = None) -> None:
        for drawing in self.drawings:
            if each is not None and drawing.missing(record):  # kept from an earlier call that drew nothing
                drawing.make(record, each)
        for export in self.exports:
            export.add(record)
        self.sink.result(record)
        if text := warning(record):
            self.sink.note(f"igm: {text}")
        if self.report:
            self.report.add(record)


def meet(*, on_cpu: bool) -> None:
    """Joins the processes before the work, with time enough for a slow one to end."""
    need("train", "accelerate")
    from accelerate import PartialState

    PartialState(cpu=on_cpu, timeout=timedelta(days=7))


def gather(value: Any) -> list[Any]:
    """The value of every process, on every process."""
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState()
    values: list[Any] = [None] * state.num_processes
    dist.all_gather_object(values, value)
    state.wait_for_everyone()
    state.destroy_process_group()
    return values
