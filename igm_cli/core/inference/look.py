# ruff: noqa
from igm_cli.core.inference.candidates import importance_of as _i
from igm_cli.core.inference.candidates import noised


class Look:
    def __init__(self, seen):
        self.seen = seen
        self.residual = seen.residual[:, 0].flatten(1)
        self.importance = seen.importance
        self.features = seen.features

    def __len__(self):
        return len(self.importance)


def look(denoiser, image, draws, power=0.0):
    return Look(noised(denoiser, image.expand(len(draws), 1, *image.shape), draws.to(image.device), power))


def contributions(denoiser, seen, concepts):
    return seen.seen.contributions(concepts[None]).canvas()[:, 0]


def importance_of(denoiser, t, power):
    return _i(denoiser.schedule, t, power)
