"""The two denoisers keep the protocol's promises."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from igm_cli.core.concepts import Categorical, Continuous
from igm_cli.core.inference.engine import invert
from igm_cli.core.inference.noised_batch import noised
from igm_cli.core.inference.windows import Local
from igm_cli.core.models import build_denoiser
from igm_cli.core.noise_schedule import Schedule, ScheduleConfig, draw
from igm_cli.core.sampling.composed import require_alike
from igm_cli.core.types import InversionSettings
from igm_cli.errors import InputError

PLANE = Continuous(("x", "y"), (0.0, 0.0), (1.0, 1.0), local=True)
FACTORS = Categorical({"a": ("no", "yes"), "b": ("no", "yes", "very")})
TINY = {"image_size": (48, 32), "channels": (16, 16, 16), "blocks": 1, "head_channels": 16, "window": 3}
QUICK = InversionSettings(grid=(3, 2), keep=4, draws=2, max_draws=2, k_max=2, scan_draws=1, refine_steps=1)
TINY_UNET = {
    "image_size": (32, 32), "channels": (16, 32), "layers": 1, "attention_dim": 16, "head_dim": 8, "groups": 8,
}  # fmt: skip


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["factored", "factored-factors", "unet", "unet-factors"])
def denoiser(request):
    space = FACTORS if request.param.endswith("factors") else PLANE
    if request.param.startswith("factored"):
        return randomised(build_denoiser("factored", TINY, space, Schedule()))
    schedule = Schedule(ScheduleConfig("scaled_linear", 0.00085, 0.012, prediction_type="epsilon"))
    return randomised(build_denoiser("unet", TINY_UNET, space, schedule))


def inputs(denoiser, n=2, m=3):
    w, h = denoiser.config.image_size
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 3, h, w, generator=generator)
    return x, torch.tensor([50, 700])[:n], torch.rand(n, m, denoiser.space.dim, generator=generator)


def test_contributions_do_not_depend_on_one_another(denoiser):
    x, t, c = inputs(denoiser)
    base, delta = denoiser(x, t, c)
    assert base.shape == x.shape and delta.shape == (2, 3, *x.shape[1:])
    features = denoiser.features(x[:1], t[:1])
    alone = denoiser.contributions(features, c[:1, 1:2])
    torch.testing.assert_close(alone[0, 0], delta[0, 1], atol=1e-4, rtol=1e-3)
    assert float((delta[:, 0] - delta[:, 1]).abs().max()) > 1e-4


def test_shared_concepts_are_those_of_every_image(denoiser):
    x, t, c = inputs(denoiser)
    features = denoiser.features(x, t)
    shared = denoiser.contributions(features, c[:1])
    each = denoiser.contributions(features, c[:1].expand(2, -1, -1).contiguous())
    torch.testing.assert_close(shared, each, atol=1e-4, rtol=1e-3)


def test_local_contributions_end_at_their_window():
    model = randomised(build_denoiser("factored", TINY, PLANE, Schedule()))
    x, t, _ = inputs(model)
    for point in ([0.1, 0.5], [0.5, 0.5], [0.999, 0.001], [1.0, 1.0]):
        delta = model.contributions(model.features(x, t), torch.tensor([[point]]))
        ys, xs = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(48) + 0.5, indexing="ij")
        distance = ((xs - 48 * point[0]) ** 2 + (ys - 32 * point[1]) ** 2).sqrt()
        reach = (TINY["window"] + 1) * 4
        assert float(delta[..., distance > reach].abs().max()) == 0.0
        assert float(delta[..., distance < 6].abs().max()) > 0.0


def test_contributions_fade_to_nothing_at_the_edge_of_the_window_and_follow_the_gain():
    """(1 - (d/r)^4)^2 of what the layers put out, at d cells from the position, r half a cell short of the window."""
    model = randomised(build_denoiser("factored", TINY, PLANE, Schedule()))
    torch.nn.init.zeros_(model.head.out.weight)
    torch.nn.init.ones_(model.head.out.bias)
    x, t, _ = inputs(model)
    position, gain = torch.tensor([0.3, 0.45]), torch.tensor([1.0, 2.5])
    found = model.head(model.features(x, t).view, position[None, None], gain).view(2, 8, 12, -1)
    columns, rows = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(8) + 0.5, indexing="xy")
    distance = ((columns - 12 * position[0]).square() + (rows - 8 * position[1]).square()).sqrt() / 2.5
    expected = (1 - distance.clamp(max=1) ** 4).square()
    for image in range(2):
        torch.testing.assert_close(found[image, ..., 0], float(gain[image]) * expected)


def test_a_position_points_at_cells_of_the_image_only():
    """One in the last corner does not learn of the first cell, which cells outside the image are counted as."""
    model = randomised(build_denoiser("factored", TINY, PLANE, Schedule()))
    x, t, _ = inputs(model)
    view, corner = model.features(x, t).view, torch.ones(1, 1, 2)
    changed = replace(view, there=view.there.clone())
    changed.there[:, 0] += 5
    one, other = (model.head(each, corner, torch.ones(2)) for each in (view, changed))
    assert torch.equal(one, other)
    changed.there[:, -1] += 5
    assert not torch.allclose(model.head(changed, corner, torch.ones(2)), one)


def test_what_is_noticed_is_learned_from_the_read_out_alone():
    model = build_denoiser("factored", TINY, FACTORS, Schedule())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    x, t, c = inputs(model)
    _, delta, read = model(x, t, c, read=True)
    noticing = list(model.head.notice.parameters())
    contributed = torch.autograd.grad(delta.square().sum(), noticing, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in contributed)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(read.square().sum(), noticing))


def test_products_are_those_of_whole_contributions():
    model = randomised(build_denoiser("factored", TINY, PLANE, Schedule()))
    assert isinstance(model, Local)
    draws = draw(model.schedule, (3, 32, 48), 3, low=0.1, high=0.5, seed=0)
    seen = noised(model, torch.randn(3, 32, 48).expand(3, 1, -1, -1, -1), draws, 0.0)
    points = torch.tensor([[0.02, 0.1], [0.5, 0.5], [0.97, 0.99]])
    pull, square = (each[0] / (3 * 3 * 32 * 48) for each in seen.explained(points))
    whole = model.contributions(seen.features, points[None])
    delta = model.to_patches(whole.flatten(0, 1)).flatten(1).unflatten(0, (3, 3))
    expected = torch.einsum("nmp,np->m", delta, seen.residual.flatten(1)) / (3 * 3 * 32 * 48)
    torch.testing.assert_close(pull, expected, atol=2e-3, rtol=5e-2)
    torch.testing.assert_close(square, delta.square().sum((0, 2)) / (3 * 3 * 32 * 48), atol=2e-3, rtol=5e-2)
    windows = seen.contributions(points[None])
    torch.testing.assert_close(
        windows.canvas()[:, 0], delta, atol=0.02 * float(delta.abs().max()), rtol=0
    )  # bfloat16


def test_positions_have_exact_gradients():
    model = randomised(build_denoiser("factored", TINY, PLANE, Schedule()))
    x, t, _ = inputs(model, n=1)
    features = model.features(x, t)

    def total(c):
        return model.contributions(features, c[None]).square().sum()

    point = torch.tensor([[0.43, 0.61]], requires_grad=True)
    (gradient,) = torch.autograd.grad(total(point), point)
    with torch.no_grad():
        for axis in range(2):
            step = torch.zeros(1, 2)
            step[0, axis] = 5e-4
            slope = (total(point + step) - total(point - step)) / 1e-3
            torch.testing.assert_close(gradient[0, axis], slope, rtol=0.05, atol=0.05 * float(gradient.norm()))


def test_untrained_models_can_be_inverted(denoiser):
    w, h = denoiser.config.image_size
    result = invert(
        denoiser,
        torch.rand(3, h, w) * 2 - 1,
        QUICK,
    )
    assert result.k == len(result.concepts) and result.network_calls > 0


def test_models_of_every_architecture_can_be_composed(denoiser):
    require_alike([("one", denoiser), ("other", denoiser)])
    other = copy.copy(denoiser)
    other.image_size = (96, 96)
    with pytest.raises(InputError, match="of 96×96"):
        require_alike([("one", denoiser), ("other", other)])


def test_misfitting_options_are_refused():
    with pytest.raises(InputError, match="'window' must be at least 1, not 0"):
        build_denoiser("factored", {"window": 0}, PLANE, Schedule())
    with pytest.raises(InputError, match="divisible"):
        build_denoiser("factored", {"image_size": (50, 32)}, PLANE, Schedule())
    with pytest.raises(InputError, match="use the unet"):
        build_denoiser("factored", TINY, Continuous(("x",), (0.0,), (1.0,), local=True), Schedule())
    with pytest.raises(InputError, match="known are factored, unet"):
        build_denoiser("transformer", {}, PLANE, Schedule())
    with pytest.raises(InputError, match="options do not fit"):
        build_denoiser("factored", {"depth": 3}, PLANE, Schedule())
