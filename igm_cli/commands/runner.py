"""Many inputs, one after the other or shared between processes; one that is bad stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import typer

from igm_cli.errors import InputError
from igm_cli.imaging import expand_inputs
from igm_cli.output import Output, ProgressReport, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.commands.results import ResultFile
    from igm_cli.session import ImageSession, Input
    from igm_cli.vectors import VectorSession

    Session: TypeAlias = ImageSession | VectorSession

Record: TypeAlias = Mapping[str, Any]


class Report(Protocol):
    """Shows people what was found."""

    def add(self, record: Record) -> None:
        """One more record, in the order of the inputs."""
        ...

    def end(self) -> None:
        """It was the last one."""
        ...


@dataclass(frozen=True)
class Call:
    """What a command is asked for besides its settings.

    Attributes:
        paths: Files, folders and patterns.
        as_json: Whether stdout carries JSON lines.
        output: Where results are kept.
        pictures: A file or folder for pictures.
        option: The option that ``pictures`` comes from.
    """

    paths: Sequence[str]
    as_json: bool
    output: Path | None
    pictures: Path | None = None
    option: str = "--overlay"

    @property
    def sink(self) -> Output:
        """Where results, progress and messages go."""
        return Output(as_json=self.as_json, quiet=process_rank()[0] != 0)


def understand(
    session: Session,
    call: Call,
    schema: str,
    report: Callable[[Output, int], Report],
    *,
    draw: Callable[[Record, Input[Image]], Image] | None = None,
    count: bool = False,
    sources: Sequence[Path] = (),
    announce: Callable[[int], None] = lambda files: None,
) -> None:
    """Inverts every image or vector, or counts, and shows, draws and keeps what is found.

    Args:
        session: What it is done with.
        call: What is asked for.
        schema: Schema of the records.
        report: Makes the report for people, for a number of files.
        draw: Record and input to picture.
        count: Whether only the number of concepts is wanted.
        sources: Further files that are read, so that nothing is written over them.
        announce: Called with the number of files that are left to do.

    Raises:
        IgmError: If the only file, or what is asked for, cannot be used.
        Exit: With exit code 3, if a file of several could not be used.
    """
    files, ahead, pictures = expand_inputs(call.paths, session.suffixes, session.noun), {}, {}
    kept: Any = nullcontext()
    if call.pictures or call.output:
        from igm_cli.commands.results import open_results, picture_targets

        pictures = picture_targets(files, call.pictures and call.pictures.expanduser(), call.option)
        kept = open_results(call.output, schema, session.run, session.key, [*files, *sources])
    if len(files) == 1:
        ahead[files[0]] = session.read(files[0])
        _ = ahead[files[0]][0].data  # a mistake is told before the model is loaded
    work = session.count if count else session.invert
    with kept as store:
        announce(sum(str(path) not in store.done for path in files) if store else len(files))
        Runner(
            session, work, files, store, report(call.sink, len(files)), call.sink, pictures, ahead, draw
        ).run()


@dataclass
class Runner:
    """The files of one call and what is done with them.

    Attributes:
        session: Reads files and works inputs out.
        work: Inputs that are worked out together to their results.
        files: Images, or files of vectors.
        store: Where records are kept, and which are there already.
        report: For people.
        sink: For results, progress and messages.
        pictures: Where the picture of an image goes.
        ahead: Inputs of files that are read already.
        draw: Record and input to picture.
    """

    session: Session
    work: Callable[..., Sequence[Any]]
    files: Sequence[Path]
    store: ResultFile | None
    report: Report
    sink: Output
    pictures: Mapping[str, Path] = field(default_factory=dict)
    ahead: dict[Path, list[Input[Any]]] = field(default_factory=dict)
    draw: Callable[[Record, Input[Image]], Image] | None = None
    failed: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Works through the files; one that cannot be used is reported and the others go on.

        Under torch.distributed every process takes its share and the main one shows all results, in
        the order of the files.

        Raises:
            Exit: With exit code 3, if a file could not be used.
        """
        rank, world = process_rank()
        if world > 1:
            _meet(on_cpu=self.session.device.type == "cpu")
        records = self._work_through(self.files[rank::world], show=world == 1)
        if world > 1:
            gathered = _gather((records, self.failed))
            records = {about: record for part, _ in gathered for about, record in part.items()}
            self.failed = {name for _, failed in gathered for name in failed}
        if rank == 0 and self.store:  # one process too: several may have begun what it has ended
            self.store.merge([str(path) for path in self.files] if world > 1 else list(records))
        if world > 1 and rank == 0:
            for path in self.files:
                if str(path) in records:
                    self._show(records[str(path)])
        self.report.end()
        if self.failed:
            noun = "files" if self.session.together else "images"
            self.sink.note(
                f"igm: {len(self.failed)} of {len(self.files)} {noun} could not be used; the others are done"
            )
            raise typer.Exit(3)

    def _work_through(self, share: Sequence[Path], *, show: bool) -> dict[str, Record]:
        """The records of a share of the files; those that are shown at once are not kept, only their order."""
        records: dict[str, Record] = {}
        with self.sink.progress() as progress:
            for batch in self._batches(share, progress):
                try:
                    found = self._records(batch, progress)
                except InputError as error:
                    self._fail(error, *(str(each.about[self.session.key[0]]) for each in batch))
                    continue
                for each, record in zip(batch, found, strict=True):
                    records[self._about(each)] = {} if show else record
                    if show:
                        self._show(record, each)
        return records

    def _fail(self, error: InputError, *names: str) -> None:
        """Says that inputs cannot be used; the only one ends the run."""
        if len(self.files) == 1:
            raise error
        self.failed.update(names)
        self.sink.error(str(error))

    def _batches(self, share: Sequence[Path], progress: ProgressReport) -> Iterator[list[Input[Any]]]:
        """Inputs that are worked out together: vectors of one file, images of several."""
        waiting: list[Input[Any]] = []
        size = self.session.batch_size
        for number, path in enumerate(share):
            if not self.session.together:
                progress("images", number, len(share))
            try:
                inputs = self.ahead.pop(path, None) or self.session.read(path)
                if not self.session.together:
                    _ = [each.data for each in inputs if self._kept(each) is None]  # an image may be damaged
            except InputError as error:
                self._fail(error, str(path))
                continue
            if self.session.together:
                for first in range(0, len(inputs), size):
                    progress(f"vectors: {path.name}", first, len(inputs))
                    yield inputs[first : first + size]
                progress(f"vectors: {path.name}", len(inputs), len(inputs))
                continue
            waiting += inputs
            if len(waiting) >= size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting
        if not self.session.together:
            progress("images", len(share), len(share))

    def _records(self, batch: Sequence[Input[Any]], progress: ProgressReport) -> list[Record]:
        """The records of a batch: those kept, and new ones.

        What may depend on the others of its batch is worked out with all of them, so that it is the same when a run
        goes on.
        """
        kept = [self._kept(each) for each in batch]
        missing = [each for each, old in zip(batch, kept, strict=True) if old is None]
        if not missing:
            return [record for record in kept if record is not None]
        todo = batch if self.session.together else missing
        new = {
            self._about(each): result.to_dict()
            for each, result in zip(todo, self.work(todo, progress), strict=True)
        }
        records = []
        for each, old in zip(batch, kept, strict=True):
            record = old or new[self._about(each)]
            if old is None:
                self._picture(record, each)
                if self.store:
                    self.store.add(record)
            records.append(record)
        return records

    def _kept(self, each: Input[Any]) -> Record | None:
        """The record that is kept of an input, if it is of the same content."""
        old = self.store.done.get(self._about(each)) if self.store else None
        if old is not None and old.get("sha256") != each.sha256:
            assert self.store
            self.store.forget(self._about(each))
            self.sink.error(f"{self._about(each)} is not what its result was kept of; it is worked out anew")
            return None
        return old

    def _about(self, each: Input[Any]) -> str:
        return " ".join(str(each.about[name]) for name in self.session.key)

    def _picture(self, record: Record, each: Input[Any]) -> None:
        target = self.pictures.get(self._about(each))
        if target and self.draw:
            from igm_cli.commands.results import save_picture

            save_picture(self.draw(record, each), target)

    def _show(self, record: Record, each: Input[Any] | None = None) -> None:
        target = self.pictures.get(record.get("image", ""))
        if target and not target.exists():  # kept from an earlier call that drew nothing
            (found,) = [each] if each else self.session.read(Path(record["image"]))
            self._picture(record, found)
        self.sink.result(record)
        self.report.add(record)


def _meet(*, on_cpu: bool) -> None:
    """Joins the processes before the work, with time enough for a slow one to end."""
    from accelerate import PartialState

    PartialState(cpu=on_cpu, timeout=timedelta(days=7))


def _gather(value: Any) -> list[Any]:
    """The value of every process, on every process."""
    import torch.distributed as dist
    from accelerate import PartialState

    state = PartialState()
    values: list[Any] = [None] * state.num_processes
    dist.all_gather_object(values, value)
    state.wait_for_everyone()
    state.destroy_process_group()
    return values
