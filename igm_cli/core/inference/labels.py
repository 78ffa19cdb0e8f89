# ruff: noqa
from igm_cli.core.inference.any_set import sizes_of
from igm_cli.core.inference.engine import invert
from igm_cli.core.types import Progress


def invert_labels(denoiser, image, settings, k, composition, *, eliminate=True, progress=None):
    return invert(denoiser, image, settings, k=k, composition=composition, progress=progress)


def calls_a_draw(space, composition, labels=None):
    return (space.dim if labels is None else labels) * len(space.templates) + (composition == "sum")
