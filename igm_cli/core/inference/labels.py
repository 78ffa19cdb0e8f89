from igm_cli.core.inference.engine import invert


def invert_labels(denoiser, image, settings, k, composition, *, eliminate=True, progress=None):
    return invert(denoiser, image, settings, k=k, composition=composition, progress=progress)


def calls_a_draw(space, composition, labels=None):
    return (space.dim if labels is None else labels) * len(space.templates) + (composition == "sum")
