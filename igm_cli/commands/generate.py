"""``igm generate``: draws images of concepts joined by AND, OR and NOT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from igm_cli.commands import options as o
from igm_cli.errors import IgmError, InputError, PluginError, UnknownConceptError, UsageError
from igm_cli.output import Output, Record

if TYPE_CHECKING:
    from igm_cli.generation import Generation
    from igm_cli.model import Model
    from igm_cli.wishes import Wish

EXAMPLES = "'pos(0.3,0.5) AND pos(0.7,0.5)', '3-5 pos', 'cat AND NOT dog'"


def generate(
    expressions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPRESSION...", help=f"Concepts joined by AND, OR, NOT: {EXAMPLES}.", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        o.model(
            "A bundled name, a checkpoint or pipeline folder, or hf:owner/name of the hub; several that were trained apart are "
            "composed as one.  Default: clevr-pos.",
            "MODEL",
        ),
    ] = None,
    number: Annotated[
        int, o.ask("Images per expression.", "N", "--number", "-n", min=1, max=o.MOST_IMAGES)
    ] = 1,
    like: Annotated[
        list[Path] | None,
        o.ask("Also draw the concepts of an image, or of every line of a results file.", "PATH"),
    ] = None,
    seed: o.FixedSeed = 0,
    steps: Annotated[int, o.search("Number of noise levels.", "N", min=2, max=10_000)] = 50,
    sampler: Annotated[
        Literal["ancestral", "ddim"] | None,
        o.search("How to go from level to level.  Default: the model's own, or ancestral."),
    ] = None,
    guidance: Annotated[
        float | None,
        o.ask(
            "Weight of every concept.  Default: the model's own; if it has none, 1, or 7.5 for text-to-image models.",
            "X",
            min=1e-6,
            max=1000,
        ),
    ] = None,
    correct: Annotated[
        int, o.search("Corrector steps at every level, for models trained apart.", "L", min=0, max=1000)
    ] = 0,
    corrector: Annotated[
        Literal["ula", "mala", "hmc"],
        o.search("ula (Langevin steps), mala (accepted or rejected) or hmc (Hamiltonian steps).", "NAME"),
    ] = "ula",
    particles: Annotated[
        int, o.search("Samples per image, which are weighted and resampled.", "M", min=1, max=10_000)
    ] = 1,
    either: Annotated[
        Literal["draw", "mix"],
        o.search("Draw a branch of OR for every image, which is exact, or mix their scores.", None, "--or"),
    ] = "draw",
    free: Annotated[
        Literal["random", "none"],
        o.ask("What factors that are not named get: a random value, or no contribution."),
    ] = "random",
    check: Annotated[
        bool,
        o.output("Let the model look for what it drew; it is lenient with its own pictures.", None, "--check"),
    ] = False,
    grid: Annotated[
        Path | None,
        o.output("All pictures on one sheet, a row per expression if there are several of each.", "FILE"),
    ] = None,
    template: o.Template = None,
    variant: o.Variant = None,
    dtype: o.Dtype = "auto",
    quantize: o.Quantize = "no",
    network: o.Network = None,
    offload: o.Offload = False,
    size: o.Size = None,
    batch_size: Annotated[
        str, o.model("Images drawn together; pictures differ by rounding at most.", "N|auto")
    ] = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    output: Annotated[
        Path,
        o.output(
            "Folder for the pictures and results.jsonl; the same command continues there.",
            "FOLDER",
            "--output",
            "-o",
        ),
    ] = Path("generated"),
) -> None:
    """Draw images of concepts joined by AND, OR and NOT, such as objects at places.

    Image number i depends on the seed and on i alone.  A weight may follow a concept (cat:1.5); after a branch of OR
    it says how often that branch is drawn.  JSON lines follow the schema igm.generate/1.
    """
    from igm_cli.commands.gallery import Gallery
    from igm_cli.core.expression import parse, words
    from igm_cli.generation import Generation, GenerationSettings
    from igm_cli.label_models import open_to_draw

    sink = Output.of_process(as_json)
    settings = GenerationSettings(
        seed=seed, steps=steps, sampler=sampler, guidance=guidance, correct=correct, corrector=corrector,
        particles=particles, branches=either, free=free, check=check,
        batch_size=o.number_or_auto("--batch-size", batch_size),
    )  # fmt: skip
    if not expressions and not like:
        raise UsageError("nothing to draw; give an expression such as 'pos(0.3,0.5)', or --like")
    loading: dict[str, Any] = {"variant": variant, "dtype": dtype, "quantize": quantize, "network": network}
    loading |= {"offload": offload, "size": size}
    texts = list(dict.fromkeys(expressions or ()))
    records = [line for path in like or () if path.suffix.lower() == ".jsonl" for line in _lines(path)]
    labels = [label for text in texts for label in words(parse(text))]
    labels += [item["label"] for record in records for item in record["items"] if "label" in item]
    models = [
        open_to_draw(name, device, labels, template or (), loading, sink.note) for name in model or (None,)
    ]
    session = Generation(models, settings)
    wishes = _read(session, texts)
    wishes += _alike(session, models[0], like or (), records, sink)
    wishes = list(dict.fromkeys(wishes))
    for wish in wishes:
        session.require_possible(wish)
    named = set().union(*(wish.models for wish in wishes))
    for place, each in enumerate(models):
        idle = [f"no expression names a concept for {each.name}, which draws nothing"]
        for remark in each.about_drawing() if place in named else idle:
            sink.warn(remark)
    Gallery(session, wishes, number, output, grid, sink, like or ()).run()


def _read(session: Generation, texts: Sequence[str]) -> list[Wish]:
    """Returns the wishes of expressions; if these are the words of one without quotation marks, the error says so."""
    try:
        return [session.reader.read(text) for text in texts]
    except UnknownConceptError as error:
        whole = " ".join(texts)
        try:
            session.reader.read(whole)
        except IgmError:
            raise error from None
        raise UsageError(f"put quotation marks around an expression of several words: '{whole}'") from error


def _lines(path: Path) -> list[Record]:
    """Returns the lines of a results file that have items; for images with something in common, the items of the first."""
    from igm_cli.imaging import read_bytes

    try:
        lines = [json.loads(x) for x in read_bytes(path).decode("utf-8").splitlines() if x.strip()]
        lines = [line["images"][0] if "images" in line else line for line in lines]
        for line in lines:
            _ = line["image"], line["size"][1], line["items"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{path} holds lines that are not results of igm invert; choose another file"
        ) from error
    if not lines:
        raise InputError(f"{path} holds no results; choose another file")
    return lines


def _alike(
    session: Generation, first: Model, like: Sequence[Path], records: Sequence[Record], sink: Output
) -> list[Wish]:
    """Returns wishes for the items in records, and for those found in images."""
    from igm_cli.commands.show import warning
    from igm_cli.folders import SUFFIXES
    from igm_cli.imaging import Frame
    from igm_cli.session import ImageSession

    found = list(records)
    for path in like:
        if path.suffix.lower() == ".jsonl":
            continue
        if path.is_dir():
            raise UsageError(
                f"--like {path} is a folder; run igm invert {path} -o results.jsonl first, and give that file"
            )
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--like takes an image or a .jsonl file of results, not {path}")
        if first.decode:
            raise UsageError("--like with a text-to-image model takes a results file of igm zero-shot --output")
        looking = ImageSession(first, fit=None, note=sink.warn)
        found.append(looking.invert([looking.input(path)])[0].to_dict())
        if doubt := warning(found[-1]):
            sink.warn(doubt)
    wishes = []
    for record in found:
        width, height = first.image_size
        frame = Frame.fit((record["size"][0], record["size"][1]), width / height)
        name = Path(record["image"]).name
        try:
            wishes.append(session.reader.like(record["items"], frame, name))
        except PluginError as error:
            if (model := record.get("model", first.name)) != first.name:
                raise InputError(f"the items of {name} were found by {model}; add --model {model}") from error
            raise InputError(f"the items of {name} are not those of the model {first.name}: {error}") from error
    return wishes
