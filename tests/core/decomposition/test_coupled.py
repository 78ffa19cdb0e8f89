"""Coupled diffusion: the exact denoisers, the energies, the steps of DDIM, restarts, and its limit."""

from __future__ import annotations

import pytest
import torch

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion, ddim, negative_gradient, posterior
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.core.decomposition.resonator import AttentionResonator


@pytest.mark.parametrize("space", ["latent", "codebook"])
@pytest.mark.parametrize("a", [0.05, 0.6])
def test_the_score_is_the_gradient_of_the_noised_codebooks_log_density(space: str, a: float) -> None:
    """log p(x) = logsumexp_i(-‖x - √a c_i‖² / 2(1-a)), the points c_i being codewords, or one-hot."""
    sizes = torch.tensor([0.3, 0.6, 0.9, 1.2, 1.5, 1.8])[:, None]  # codewords of different norms
    codebooks = Codebooks([sizes * book for book in random_problems(6, 2, 12, 1).codebooks.spectra])
    points = codebooks.spectra[0] if space == "latent" else torch.eye(6)
    noised = torch.randn(3, points.shape[1], generator=torch.Generator().manual_seed(1), requires_grad=True)
    distance = (noised[:, None] - a**0.5 * points).square().sum(-1)
    torch.logsumexp(-distance / (2 * (1 - a)), 1).sum().backward()
    belief = posterior(codebooks, 0, noised.detach(), a, space)  # type: ignore[arg-type]
    score = (a**0.5 * belief @ points - noised.detach()) / (1 - a)  # Tweedie's formula
    assert noised.grad is not None and torch.allclose(score, noised.grad, atol=1e-4)


@pytest.mark.parametrize("energy", ["gauss", "similarity"])
@pytest.mark.parametrize("name", ["map", "fhrr"])
def test_guidance_is_the_energys_negative_gradient(energy: str, name: str) -> None:
    problems = random_problems(5, 3, 9, 2, binding=name)
    generator = torch.Generator().manual_seed(2)
    estimates = [problems.codebooks.noise(2, generator).requires_grad_() for _ in range(3)]
    product = estimates[0] * estimates[1] * estimates[2]
    if energy == "gauss":
        value = (problems.vectors - product).abs().square().sum() / 2
    else:
        value = -(problems.vectors.conj() * product).real.sum()
    value.backward()
    with torch.no_grad():
        for factor in range(3):
            expected = estimates[factor].grad
            towards = negative_gradient(problems.vectors, estimates, factor, energy)  # type: ignore[arg-type]
            assert expected is not None and torch.allclose(-towards, expected, atol=1e-4)


@pytest.mark.parametrize(("relative", "guidance"), [(True, 3.0), (False, 300.0)])
def test_the_attention_resonator_is_coupled_inference_without_prior_and_noise(
    relative: bool, guidance: float
) -> None:
    problems = random_problems(12, 3, 200, 4, seed=3)
    a = 0.01
    coupled = CoupledDiffusion(
        energy="similarity",
        steps=20,
        guidance=guidance,
        signal=(a, a),
        stochasticity=0,
        temperature=0,
        prior=0,
        relative=relative,
        sequential=False,
    )
    attention = AttentionResonator(beta=guidance * a / (1 - a), relative=relative)
    generator, spectra, books = torch.Generator().manual_seed(0), problems.vectors, problems.codebooks
    one, other = coupled.start(books, spectra, generator), attention.start(books, spectra, generator)
    for number in range(20):
        one, beliefs = coupled.step(books, spectra, one, number, generator)
        other, weights = attention.step(books, spectra, other, number, generator)
        for belief, weight in zip(beliefs, weights, strict=True):
            assert torch.allclose(belief, weight, atol=1e-4)
    assert max(float(belief.max()) for belief in beliefs) > 0.2  # they have left the codebooks' means


def test_restarts_repeat_the_last_part_of_the_schedule() -> None:
    diffusion = CoupledDiffusion(steps=8, ratio=0.5, signal=(1e-4, 1e-2))
    levels = [diffusion.levels(number) for number in range(16)]
    assert levels[0][0] == pytest.approx(1e-4) and levels[7][1] == pytest.approx(1e-2)
    assert levels[8:12] == levels[12:16]
    assert levels[8] == pytest.approx(levels[4]) and levels[11] == pytest.approx(levels[7])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_step_of_ddim_leads_to_the_noise_of_its_level(eta: float) -> None:
    """With x̃_0 = x_0 the noise of x' has the variance 1-a'; for η = 1 all that x_0 and x_t leave open of x' is new."""
    a, after, nothing, one = 0.2, 0.6, torch.zeros(1), torch.ones(1)
    signal = float(ddim(a**0.5 * one, one, nothing, a, after, eta, 1.0))
    kept = float(ddim((1 - a) ** 0.5 * one, nothing, nothing, a, after, eta, 1.0))
    new = float(ddim(nothing, nothing, one, a, after, eta, 1.0))
    assert signal == pytest.approx(after**0.5)
    assert kept**2 + new**2 == pytest.approx(1 - after)
    forward = a / after  # x_t = √(a/a') x' + √(1-a/a') ε
    assert new**2 == pytest.approx(eta**2 / (1 / (1 - after) + forward / (1 - forward)))
    assert float(ddim((1 - a) ** 0.5 * one, nothing, nothing, a, after, eta, 0.5)) == pytest.approx(kept / 2)


@pytest.mark.parametrize("space", ["latent", "codebook"])
def test_without_guidance_each_chain_is_a_diffusion_of_its_codebook(space: str) -> None:
    problems = random_problems(9, 2, 60, 5, seed=1)
    diffusion = CoupledDiffusion(space=space, guidance=0, steps=60, signal=(1e-4, 0.99))  # type: ignore[arg-type]
    generator, spectra = torch.Generator().manual_seed(0), problems.vectors
    state = diffusion.start(problems.codebooks, spectra, generator)
    for number in range(60):
        state, beliefs = diffusion.step(problems.codebooks, spectra, state, number, generator)
    assert min(float(belief.amax(1).min()) for belief in beliefs) > 0.99  # a codeword, and not always the same
    assert len(set(beliefs[0].argmax(1).tolist())) > 1
