"""The page of ``igm ui``: its calls of the library, and its layout."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.api import load
from igm_cli.bundled import names_pipeline
from igm_cli.commands import show
from igm_cli.commands.generate import EXAMPLES
from igm_cli.core.expression import parse, words
from igm_cli.errors import UsageError, counted, debugging, sentence
from igm_cli.label_models import open_to_draw
from igm_cli.output import ProgressReport
from igm_cli.session import ImageSession

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.model import Model

MOST_DRAWN = 16
"""Maximum number of images drawn per click."""

KEPT = 3
"""Number of models kept in memory; of text-to-image models only one is."""


@dataclass
class Shown:
    """An answer as the page shows it."""

    says: str  # a sentence about what was found, or why nothing was
    doubts: Sequence[str] = ()  # sentences about why this may be wrong
    pictures: Sequence[Image] = ()  # the overlay, or the images that were drawn
    # the error over the number of concepts; None if this number is the same for all images
    curve: Image | None = None
    # columns and rows of the items
    table: tuple[Sequence[str], Sequence[Sequence[str]]] = field(default=((), ()))


def _told(answer: Callable[..., Shown]) -> Callable[..., Shown]:
    """Wraps a method so that it answers with the message of an error, as a page has no exit code."""

    @functools.wraps(answer)
    def safe(self: Workbench, subject: str | None, *rest: Any, **more: Any) -> Shown:
        try:
            return answer(self, subject, *rest, **more)
        except Exception as error:
            if debugging():
                raise
            text = sentence(error)[0]
            upload = subject and Path(subject).is_absolute()  # in a temporary folder, whose name means nothing
            return Shown(text.replace(str(subject), Path(str(subject)).name) if upload else text)

    return safe


class Workbench:
    """Answers the page's requests with the library; models stay loaded between answers."""

    def __init__(self, models: Sequence[str], device: str = "auto") -> None:
        self.models, self.device = list(models), device
        self.takes_labels = functools.cache(lambda model: names_pipeline(model, None))
        self._loaded = functools.lru_cache(KEPT)(functools.partial(load, device=device))
        self._pipeline = functools.lru_cache(1)(self._open_pipeline)

    @_told
    def find(
        self,
        image: str | None,
        model: str,
        labels: str | None = None,
        k: float | None = None,
        k_max: float | None = None,
        progress: ProgressReport | None = None,
    ) -> Shown:
        """Finds the concepts of an image file.

        Labels for text-to-image models are separated by commas.  If ``k`` is None or 0, it is estimated; if ``k_max`` is, the
        model's is used.
        """
        if not image:
            raise UsageError("there is no image yet; drop one, or choose a file")
        opened, heard = self._opened(model, labels or ""), list[str]()
        space, most = opened.parser.space, int(k_max) if k_max and not k else None
        how: dict[str, Any] = {"fit": None, "given": {"k_max": most}, "note": heard.append}
        session = ImageSession(opened, k=int(k) if k else None, **how)
        found = session.each(session.invert, image, progress)
        record = {**found.to_dict(), "image": Path(image).name}
        counted = f"K = {found.k} ({found.k_source}), " if space.countable else ""
        assumed = [text.replace(image, record["image"]) for text in heard]
        doubts = [opened.not_trained_on(), show.warning(record, "give their number"), *assumed]
        typical = "not known" if found.typicality is None else f"{found.typicality:.2f}"
        return Shown(
            f"{record['image']}: {counted}typicality {typical}, {found.seconds:.1f} s on {found.device}",
            [text for text in doubts if text],
            [found.overlay()],
            show.draw_curve(record) if space.countable else None,
            show.image_table(record, space.plural),
        )

    @_told
    def draw(
        self,
        expression: str | None,
        model: str,
        n: float = 1,
        seed: float = 0,
        steps: float = 50,
        progress: ProgressReport | None = None,
    ) -> Shown:
        """Draws concepts joined by AND, OR and NOT."""
        if not (expression or "").strip():
            raise UsageError("nothing is asked for yet; write an expression")
        if not 1 <= n <= MOST_DRAWN:
            raise UsageError(
                f"the page draws 1 to {MOST_DRAWN} images at once, not {n:g}; igm generate draws more"
            )
        assert expression is not None
        labels = tuple(words(parse(expression)))
        opened = (
            self._pipeline(open_to_draw, model, labels) if self.takes_labels(model) else self._loaded(model)
        )
        drawn = opened.generate(expression, int(n), seed=int(seed), steps=int(steps), progress=progress)
        records = [each.to_dict() for each in drawn]
        seconds = sum(each.seconds for each in drawn)
        rows = [[str(each.index + 1), each.clause, show.items_text(each.items)] for each in drawn]
        return Shown(
            f"{counted(len(drawn), 'image')} of {expression}, {seconds:.1f} s on {drawn[0].device}",
            [*opened.about_drawing(), *filter(None, [show.touching([opened], records)])],
            [each.picture for each in drawn],
            table=(["#", "asked for", "shows"], rows),
        )

    def _opened(self, model: str, labels: str) -> Model:
        """Returns a model that finds concepts, of a text-to-image model the given ones."""
        if not self.takes_labels(model):
            return self._loaded(model)
        asked = tuple(label.strip() for label in labels.split(",")) if labels.strip() else None
        return self._pipeline(load, model, asked)

    def _open_pipeline(self, opening: Callable[..., Model], model: str, labels: Sequence[str] | None) -> Model:
        self._pipeline.cache_clear()  # before another set of labels takes as much memory again
        return opening(model, device=self.device, labels=labels)


def page(bench: Workbench) -> Any:
    """Returns the page, a :class:`gradio.Blocks`, with one tab for finding concepts and one for drawing them."""
    import gradio as gr

    def reporting(bar: Any) -> ProgressReport:
        return lambda what, done, total: bar((done, total), desc=what)

    def shown(answer: Shown) -> list[Any]:
        (columns, rows), doubts = answer.table, "\n".join(answer.doubts)
        cells = {"headers": list(columns), "data": [list(row) for row in rows]}
        doubtful = gr.update(value=doubts, visible=bool(doubts))
        return [answer.says, doubtful, gr.update(value=cells, visible=bool(rows))]

    bar = gr.Progress()

    def find(
        image: str, model: str, labels: str, k: float | None, k_max: float | None, bar: Any = bar
    ) -> list[Any]:
        answer = bench.find(image, model, labels, k, k_max, reporting(bar))
        curve = gr.update(value=answer.curve, visible=answer.curve is not None)
        return [*shown(answer), answer.pictures[0] if answer.pictures else None, curve]

    def draw(text: str, model: str, n: float, seed: float, steps: float, bar: Any = bar) -> list[Any]:
        answer = bench.draw(text, model, n, seed, steps, reporting(bar))
        return [*shown(answer), list(answer.pictures)]

    def answers() -> list[Any]:
        return [
            gr.Textbox(label="Answer", interactive=False, lines=1, max_lines=6),
            gr.Textbox(label="Be careful", interactive=False, visible=False, lines=1, max_lines=6),
        ]

    def table(label: str) -> Any:
        return gr.Dataframe(label=label, interactive=False, visible=False, wrap=True)

    first = bench.models[0]
    picture: dict[str, Any] = {"format": "png", "interactive": False, "buttons": ["download", "fullscreen"]}
    alone: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}
    with gr.Blocks(title="igm", analytics_enabled=False) as blocks:
        gr.Markdown(
            "# igm\nFinds what an image is made of, and draws what you ask for. Images stay on this machine."
        )
        with gr.Tab("Find"), gr.Row():
            with gr.Column():
                image = gr.File(label="An image: drop it here", height=140)
                model = gr.Dropdown(bench.models, value=first, label="Model")
                labels = gr.Textbox(
                    label="Labels to look for, separated by commas",
                    info="Left empty: what the model was trained on.",
                    visible=bench.takes_labels(first),
                )
                with gr.Row():
                    k = gr.Number(label="Number of concepts", value=0, info="0: it is estimated.", minimum=0)
                    k_max = gr.Number(label="At most", value=0, info="0: as the model says.", minimum=0)
                go = gr.Button("Find", variant="primary")
                said = answers()
            with gr.Column():
                overlay = gr.Image(label="Overlay", **picture)
                curve = gr.Image(
                    label="Error over the number of concepts", show_label=False, visible=False, **picture
                )
                items = table("What was found")
            go.click(find, [image, model, labels, k, k_max], [*said, items, overlay, curve], **alone)
            model.change(
                lambda name: gr.update(visible=bench.takes_labels(name)),
                model,
                labels,
                api_visibility="private",
            )
        with gr.Tab("Draw"), gr.Row():
            with gr.Column():
                wish = gr.Textbox(
                    label="What to draw", info=f"Concepts joined by AND, OR, NOT: {EXAMPLES}.", lines=2
                )
                drawer = gr.Dropdown(bench.models, value=first, label="Model")
                with gr.Row():
                    n = gr.Number(4, label="Images", minimum=1, maximum=MOST_DRAWN, precision=0)
                    seed = gr.Number(0, label="Seed", minimum=0, precision=0)
                    steps = gr.Number(50, label="Noise levels", minimum=2, maximum=999, precision=0)
                draw_it = gr.Button("Draw", variant="primary")
                drawn_said = answers()
            with gr.Column():
                gallery = gr.Gallery(label="Images", columns=2, object_fit="contain", **picture)
                drawn_items = table("What they show")
            inputs = [wish, drawer, n, seed, steps]
            draw_it.click(draw, inputs, [*drawn_said, drawn_items, gallery], **alone)
    return blocks
