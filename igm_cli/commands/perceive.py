"""What ``invert``, ``estimate-k`` and ``zero-shot`` share: a session, files, and what is done with the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands import options as o
from igm_cli.commands.results import open_results, picture_targets
from igm_cli.errors import UsageError
from igm_cli.output import Output, process_rank

if TYPE_CHECKING:
    from igm_cli.commands.runner import Report
    from igm_cli.session import ImageSession, VectorSession

ABOUT_IMAGES = "images; leave it out where bound vectors are taken apart"
ABOUT_VECTORS = "bound vectors; add --codebooks or leave it out"


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


def about_vectors(concepts: str | None, codebooks: Path | None) -> bool:
    """Whether a command is about bound vectors, not images.

    Raises:
        UsageError: If it is and there are no codebooks.
    """
    if codebooks is not None:
        return True
    if concepts is None:
        return False
    from igm_cli.loading import reads_vectors
    from igm_cli.plugins import registry

    if reads_vectors(registry.concept_parser(concepts)):
        raise UsageError(f"--concepts {concepts} needs the codebooks; add --codebooks FILE.safetensors")
    return False


def understand_images(
    session: ImageSession,
    call: Call,
    schema: str,
    *,
    count: bool = False,
    announce: Callable[[int], None] = lambda images: None,
) -> None:
    """Inverts a model on every image, or counts, and shows, draws and keeps what is found.

    Args:
        session: The model with its settings.
        call: What is asked for.
        schema: Schema of the records.
        count: Whether only the number of concepts is wanted.
        announce: Called with the number of images that are left to do.

    Raises:
        IgmError: If the only image, or what is asked for, cannot be used.
    """
    from igm_cli.commands.runner import Runner
    from igm_cli.commands.show import CurveReport, ImageReport, draw_curve
    from igm_cli.imaging import expand_inputs

    images = expand_inputs(call.paths, session.suffixes, session.noun)
    pictures = picture_targets(images, o.expanded(call.pictures), call.option)
    ahead = {}
    if len(images) == 1:
        ahead[images[0]] = session.read(images[0])
        _ = ahead[images[0]][0].data  # a mistake is told before the model is loaded
    sink = call.sink
    report: Report = CurveReport(sink) if count else ImageReport(sink, session.parser.space, len(images))
    with open_results(call.output, schema, session.run, session.key, images) as store:
        work = session.count if count else session.invert
        runner = Runner(session, work, images, store, report, sink, pictures, ahead)
        runner.draw = (
            (lambda record, image: draw_curve(record))
            if count
            else (lambda record, image: session.parser.draw(image.data, record["items"]))
        )
        announce(sum(str(path) not in store.done for path in images) if store else len(images))
        runner.run()


def understand_vectors(
    call: Call, schema: str, *, codebooks: Path | None, settings: dict[str, Any], count: bool = False, **options: Any
) -> None:
    """Takes the bound vectors of files apart, or counts products, and shows and keeps what is found.

    Args:
        call: What is asked for.
        schema: Schema of the records.
        codebooks: Their file.
        settings: See :class:`igm_cli.session.VectorSession`.
        count: Whether only the number of products is wanted.
        **options: Those of :func:`igm_cli.loading.open_vectors`.

    Raises:
        IgmError: With the way out, whatever does not fit.
    """
    from igm_cli.commands.runner import Runner
    from igm_cli.commands.show import VectorReport, note_duplicates
    from igm_cli.imaging import expand_inputs
    from igm_cli.loading import open_vectors
    from igm_cli.session import VectorSession

    assert codebooks is not None  # or it would not be about vectors
    if process_rank()[1] > 1:
        raise UsageError("bound vectors are taken apart by one process; start igm without accelerate launch")
    files = expand_inputs(call.paths, VectorSession.suffixes, VectorSession.noun)
    source = codebooks.expanduser()
    session = open_vectors(source, settings=settings, **options)
    sink = call.sink
    note_duplicates(session.codebooks, sink)
    report = VectorReport(sink, None if count else settings["k"], session.codebooks)
    work = session.count if count else session.invert
    with open_results(call.output, schema, session.run, session.key, [*files, source]) as store:
        Runner(session, work, files, store, report, sink).run()
