"""Runs igm invert, igm estimate-k and igm zero-shot on images: one by one, or on what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.commands.runner import Runner, find_inputs, tell_where
from igm_cli.commands.show import DETAILED, ImageReport, draw_curve, show_shared
from igm_cli.core.files import home_expanded
from igm_cli.errors import UsageError, need
from igm_cli.output import Output, Record, process_rank

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.commands.exports import Export
    from igm_cli.inputs import Input
    from igm_cli.session import ImageSession


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
    """Inverts every image, or counts its concepts, and shows, draws and saves the results.

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
        drawings.append(Drawing("--plot", home_expanded(pictures), lambda record, _: draw_curve(record)))
    elif pictures:
        drawings.append(Drawing("--overlay", home_expanded(pictures), drawer(session, labels), anew=labels))
    if maps:
        from igm_cli.energy_map import energy_map, map_axes

        map_axes(session.parser.space, (2, 2))  # refuses a space without a map
        drawings.append(
            Drawing("--map", home_expanded(maps), lambda _, image: energy_map(session, image), True)
        )
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
    """Finds what all images have in common, one record, and shows, draws and saves it.

    Only the main one of several processes does it.  The session is ``shared``, and ``pictures`` a folder; the other arguments
    are those of :func:`understand_images`.
    """
    from igm_cli.commands.drawings import Drawing, aim_apart
    from igm_cli.commands.results import open_results, paths_of
    from igm_cli.core.inference.typicality import is_untypical
    from igm_cli.inputs import shared_hash

    if process_rank()[0]:
        return
    files = find_inputs(session, paths, sink)
    images = [image for source in files for image in session.read(source)]
    if len(images) < 2:
        raise UsageError(f"--shared needs two images or more, and {files[0].name} is one; leave out --shared")
    read = [*paths_of(files), *sources]
    drawings = []
    if pictures:
        drawings.append(Drawing("--overlay", home_expanded(pictures), drawer(session, labels)))
        drawings[0].aim(files)
    aim_apart(drawings, exports, output, read)
    _ = [image.data for image in images]  # reports a mistake before the model is loaded
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
        for drawing in drawings:
            drawing.make(shown, image)
        for export in exports:
            export.add(shown)
    for export in exports:
        export.write()
    sink.result(record)
    for image in record["images"]:
        if is_untypical(image.get("typicality")):
            sink.warn(
                f"{Path(image['image']).name} is unlike what {record['model']} was trained on (typicality "
                f"{image['typicality']:.2f}); what it has in common with others is little more than a guess"
            )
    if not sink.as_json:
        show_shared(sink, record)
        tell_where(sink, drawings, exports, output, store)
    if not record["items"]:
        sink.warn("as far as can be told no concept is in all of the images; --k 1 asks for the likeliest one")


def drawer(session: ImageSession, labels: bool) -> Callable[[Record, Input[Image]], Image]:
    """Returns a function that draws a record's items on a copy of its image, and with ``labels`` names them."""
    draw = session.parser.draw_labels if labels else session.parser.draw  # type: ignore[attr-defined]
    return lambda record, image: draw(image.data, record["items"])
