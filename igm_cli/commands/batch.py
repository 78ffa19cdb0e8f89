"""Many images, one after the other or shared between processes; one that is bad stops no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from igm_cli.commands.results import ResultFile, picture_targets, save_picture
from igm_cli.errors import InputError
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

Record: TypeAlias = Mapping[str, Any]


def find_images(paths: Sequence[str], target: Path | None, option: str) -> tuple[list[Path], dict[str, Path]]:
    """The images that arguments name, and where the picture of each goes.

    Args:
        paths: Images, folders or patterns.
        target: A file or a folder for pictures, if they are wanted.
        option: Name of the option that says so.

    Raises:
        InputError: If there is no image, or the only one cannot be read.
        UsageError: If pictures cannot go there.
    """
    from igm_cli.imaging import expand_inputs, read_image

    images = expand_inputs(paths)
    if len(images) == 1:
        read_image(images[0])  # a mistake is told before the model is loaded
    return images, picture_targets(images, target, option)


@dataclass(frozen=True)
class Batch:
    """The images of one call and what is done with them.

    Attributes:
        images: Which.
        pictures: Where the picture of an image goes.
        store: Where records are kept, and which are there already.
        work: Image to record.
        draw: Record to picture.
        show: Shows a record; called in the order of the images.
        sink: For results, progress and messages.
    """

    images: Sequence[Path]
    pictures: Mapping[str, Path]
    store: ResultFile | None
    work: Callable[[Path], dict[str, Any]]
    draw: Callable[[Record], Image]
    show: Callable[[Record], None]
    sink: Output

    def run(self, *, on_cpu: bool) -> int:
        """Works through the images; one that cannot be used is reported and the others go on.

        Under torch.distributed every process takes its share and the main one shows all results, in
        the order of the images.

        Args:
            on_cpu: Whether processes talk through the CPU.

        Returns:
            How many images failed, over all processes.
        """
        rank, world = process_rank()
        if world > 1:
            _meet(on_cpu)
        records, failed = self._work_through(self.images[rank::world], show=world == 1)
        if world > 1:
            gathered = _gather((records, failed))
            records = {image: record for part, _ in gathered for image, record in part.items()}
            failed = sum(count for _, count in gathered)
        if rank == 0 and self.store:  # one process too: several may have begun what it has ended
            self.store.merge([str(path) for path in self.images])
        if world > 1 and rank == 0:
            for path in self.images:
                if str(path) in records:
                    self._show(records[str(path)])
        return failed

    def _work_through(self, share: Sequence[Path], *, show: bool) -> tuple[dict[str, dict[str, Any]], int]:
        """The records of a share of the images, each shown at once if so wanted, and how many failed."""
        records: dict[str, dict[str, Any]] = {}
        failed = 0
        with self.sink.progress() as progress:
            for number, path in enumerate(share):
                progress("images", number, len(share))
                try:
                    record = self._record(path)
                except InputError as error:
                    if len(self.images) == 1:
                        raise
                    failed += 1
                    self.sink.error(str(error))
                    continue
                records[str(path)] = record
                if show:
                    self._show(record)
            progress("images", len(share), len(share))
        return records, failed

    def _record(self, path: Path) -> dict[str, Any]:
        if self.store and str(path) in self.store.done:
            return self.store.done[str(path)]
        record = self.work(path)
        if str(path) in self.pictures:
            save_picture(self.draw(record), self.pictures[str(path)])
        if self.store:
            self.store.add(record)
        return record

    def _show(self, record: Record) -> None:
        picture = self.pictures.get(record["image"])
        if picture and not picture.exists():  # kept from an earlier call that drew nothing
            save_picture(self.draw(record), picture)
        self.sink.result(record)
        self.show(record)


def exit_if_failed(failed: int, images: int, sink: Output, noun: str = "images") -> None:
    """Ends the command if an image, or another input, failed.

    Raises:
        Exit: With exit code 3, if so.
    """
    if failed:
        sink.note(f"igm: {failed} of {images} {noun} could not be used; the others are done")
        raise typer.Exit(3)


def _meet(on_cpu: bool) -> None:
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
