r"""The offsets of a model's labels: what each is charged, so that the model takes none for granted.

    python benchmarks/calibrate_offsets.py --model animals-tiny --data-root PICTOGRAMS \
        --styles openmoji,emojione-v1 --focus cat,dog,rabbit --known fluent,fluent-flat,noto --write MODEL/igm.json

Where pictures look like nothing that was trained on, a model falls back on some labels and overlooks others.  The
offsets b_j make up for that: those under which the true pairs S of labels of validation scenes are likeliest,

    p(S | x)  ~  exp(-(E_S(x) + 1/2 sum_S b_j) / tau),     b_j ~ N(0, SPREAD²),

which is vector scaling (Guo et al. 2017) of a Diffusion Classifier.  Scenes of all labels and those of the labels in
--focus alone have a tau each.  Of these offsets the greatest share is taken that costs scenes in known styles next to
nothing.  Prints the offsets in units of 1e-4; a style that is to stay unseen must not be named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from calibrate_labels import look_at
from torch import Tensor
from torch.nn import functional as F

from igm_cli.commands.models import resolve_pipeline
from igm_cli.core.concepts import Text
from igm_cli.core.files import write_json
from igm_cli.core.inversion import InversionSettings
from igm_cli.core.models.pipeline_description import read_description
from igm_cli.core.models.pipelines import Loading, load_pipeline
from igm_cli.core.models.text_to_image import TextToImageDenoiser
from igm_cli.core.schedule import draw
from igm_cli.plugins import registry

SPREAD = 1e-3
"""Standard deviation of offsets that is expected before anything is seen: about a gap between sets."""
SIZE = 2
"""Labels of a scene."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the offsets, tried on known styles."""
LOSS = 0.005
"""Of scenes in known styles, that offsets may cost."""


@dataclass
class Scenes:
    """Errors of all pairs of labels in scenes.

    Attributes:
        labels: M of them.
        errors: ``[N,S]`` of S pairs, float64.
        truth: Index of the true pair ``[N]``.
        shares: How much of every label's offset a pair is charged ``[S,M]``.
    """

    labels: tuple[str, ...]
    errors: Tensor
    truth: Tensor
    shares: Tensor

    def own(self, offsets: Tensor, labels: tuple[str, ...]) -> Tensor:
        """Those of the offsets of all labels that belong to its own."""
        return offsets[[labels.index(label) for label in self.labels]]

    def right(self, offsets: Tensor) -> float:
        """Share of scenes whose true pair has the least error, charged with offsets ``[M]``."""
        return float(((self.errors + self.shares @ offsets).argmin(1) == self.truth).double().mean())


def measure(
    denoiser: TextToImageDenoiser,
    labels: tuple[str, ...],
    images: int,
    styles: str,
    settings: InversionSettings,
    args: argparse.Namespace,
) -> Scenes:
    """Looks at validation scenes of two of the labels, under the same draws."""
    data = registry.dataset(args.dataset).load(
        "val",
        data_root=args.data_root,
        seed=args.seed,
        size=images,
        styles=styles,
        animals=",".join(labels),
        count=str(SIZE),
    )
    model = denoiser.with_labels(labels, denoiser.space.templates)
    taken = draw(model.schedule, model.latent_shape, args.draws, low=settings.low, high=settings.high, seed=1)
    ratio = model.schedule.sigma(taken.t) / model.schedule.alpha(taken.t)
    pairs = torch.tensor(list(itertools.combinations(range(len(labels)), SIZE)))
    places = {frozenset(pair): place for place, pair in enumerate(pairs.tolist())}
    seen = look_at(model, data, taken, settings.views)
    everything = torch.arange(len(taken))
    forms = [scene.part(everything, settings.power, ratio).expected() for scene in seen]
    shares = F.one_hot(pairs, len(labels)).double().mean(1)
    truth = torch.tensor([places[scene.truth] for scene in seen])
    return Scenes(labels, torch.stack([form.error(pairs) for form in forms]), truth, shares)


def fit(groups: list[Scenes], labels: tuple[str, ...]) -> Tensor:
    """The likeliest offsets ``[M]`` of all labels, their mean taken off: it decides nothing where K is given."""
    units = torch.zeros(len(labels), dtype=torch.float64, requires_grad=True)  # of SPREAD
    log_tau = torch.full((len(groups),), math.log(SPREAD), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([units, log_tau], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        total = 0.5 * units.square().sum()
        for scenes, scale in zip(groups, log_tau, strict=True):
            charged = scenes.errors + SPREAD * scenes.shares @ scenes.own(units, labels)
            total = total + F.cross_entropy(-charged / scale.exp(), scenes.truth, reduction="sum")
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)
    offsets = SPREAD * units.detach()
    return offsets - offsets.mean()


def share(known: Scenes, offsets: Tensor, labels: tuple[str, ...]) -> float:
    """The greatest share of the offsets that costs known styles next to nothing; 0 if none does."""
    own = known.own(offsets, labels)
    enough = known.right(torch.zeros_like(own)) - LOSS
    return next((part for part in SHARES if known.right(part * own) >= enough), 0.0)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", default="animals")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--styles", required=True)
    parser.add_argument("--focus", required=True, help="labels that have scenes of their own")
    parser.add_argument("--focus-images", type=int, default=1000)
    parser.add_argument("--known", required=True, help="styles that the model was trained on")
    parser.add_argument("--known-images", type=int, default=400)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="an igm.json that takes the offsets")
    return parser.parse_args()


def main() -> None:
    """Prints the offsets, and how many pairs are right without and with them."""
    args = arguments()
    path = resolve_pipeline(args.model)[1]
    description = read_description(Path(path))
    labels, templates = description.space.labels, description.space.templates
    settings = InversionSettings.from_dict(description.inference)
    parts = load_pipeline(path, torch.device("cpu"), Loading())
    denoiser = TextToImageDenoiser(parts, Text(labels, templates))
    focus = tuple(args.focus.split(","))
    groups = [
        measure(denoiser, labels, args.images, args.styles, settings, args),
        measure(denoiser, focus, args.focus_images, args.styles, settings, args),
    ]
    known = measure(denoiser, focus, args.known_images, args.known, settings, args)
    offsets = fit(groups, labels)
    taken = share(known, offsets, labels)
    for name, scenes in zip(("all labels", "focus", "focus, known styles"), [*groups, known], strict=True):
        own = taken * scenes.own(offsets, labels)
        before, after = scenes.right(torch.zeros_like(own)), scenes.right(own)
        print(f"two of {name}: {before:.3f} right without offsets, {after:.3f} with {taken:g} of them")
    offsets = taken * offsets
    told = {label: round(1e4 * cost, 1) for label, cost in zip(labels, offsets.tolist(), strict=True)}
    print(json.dumps({"offsets": told}))
    if args.write:
        kept = json.loads(args.write.read_text())
        kept["inference"]["offsets"] = told
        write_json(args.write, kept)


if __name__ == "__main__":
    with torch.no_grad():
        main()
