"""The contrast between points and none, against sets written out one by one."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from igm_cli.core.objective import Noised, composed_loss
from igm_cli.core.training import presence
from igm_cli.core.training.presence import presence_loss
from tests.oracle import positions

GIVEN = torch.tensor([[[0.3, 0.4], [0.7, 0.6]], [[0.5, 0.2], [0.0, 0.0]]])
PRESENT = torch.tensor([[True, True], [True, False]])


def case(seed: int = 0):  # type: ignore[no-untyped-def]
    oracle = positions()
    images = torch.stack([oracle.image(some[there]) for some, there in zip(GIVEN, PRESENT, strict=True)])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    t = torch.tensor([300, 500])

    def model(x_t, t, concepts):  # type: ignore[no-untyped-def]
        features = oracle.features(x_t, t)
        return oracle.base(features), oracle.contributions(features, concepts)

    return oracle, model, images, t, noise


def test_it_is_the_logistic_loss_of_one_less_and_one_more() -> None:
    oracle, model, images, t, noise = case()
    noised = Noised.of(oracle.schedule, images, t, noise)
    rest = (noised, oracle.space, GIVEN, PRESENT)
    plain = presence_loss(model, *rest, 0.0, torch.Generator().manual_seed(7))
    whole = presence_loss(model, *rest, 1.0, torch.Generator().manual_seed(7))
    torch.testing.assert_close(plain, composed_loss(model, noised, "sum", GIVEN, PRESENT))
    elsewhere = torch.rand(2, presence.ELSEWHERE, 2, generator=torch.Generator().manual_seed(7))
    x_t = oracle.schedule.add_noise(images, noise, t)

    def likelihood(row: int, points: torch.Tensor) -> torch.Tensor:
        base, delta = model(x_t[row : row + 1], t[row : row + 1], points[None])
        return -(noise[row] - base[0] - delta[0].sum(0)).square().sum() / 2

    missed, more = [], []
    for row, (some, there) in enumerate(zip(GIVEN, PRESENT, strict=True)):
        true = some[there]
        for k in range(len(true)):
            fewer = torch.cat([true[:k], true[k + 1 :]])
            missed.append(F.softplus(likelihood(row, fewer) - likelihood(row, true)))
        for point in elsewhere[row]:
            several = torch.cat([true, point[None]])
            more.append(F.softplus(likelihood(row, several) - likelihood(row, true)))
    torch.testing.assert_close(
        whole - plain, torch.stack(missed).mean() + torch.stack(more).mean(), rtol=1e-3, atol=1e-4
    )


def test_the_true_model_has_a_small_one() -> None:
    oracle, model, images, t, noise = case()
    rest = (Noised.of(oracle.schedule, images, t, noise), oracle.space)
    right = presence_loss(model, *rest, GIVEN, PRESENT, 1.0, torch.Generator().manual_seed(1))
    wrong = presence_loss(model, *rest, 1 - GIVEN, PRESENT, 1.0, torch.Generator().manual_seed(1))
    assert right < wrong
