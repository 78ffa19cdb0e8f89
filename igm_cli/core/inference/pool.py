"""Candidates whose evidence grows: by further candidates, and by further draws."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from igm_cli.core.composition import Composition
from igm_cli.core.denoiser import Denoiser
from igm_cli.core.inference.evidence import Evidence
from igm_cli.core.inference.look import Look, contributions


class LookProducts:
    """Inner products of candidates under the draws of one look."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.delta: list[Tensor] = []  # [N,m,P] each
        n = len(look)
        self.linear = look.residual.new_zeros(n, 0)
        self.gram = look.residual.new_zeros(n, 0, 0)

    def add(self, new: Tensor) -> None:
        """Takes the contributions of further candidates ``[N,m,P]``."""
        self.delta.append(new)
        pixels = new.shape[2]
        linear = torch.bmm(new, self.look.residual[:, :, None])[:, :, 0] / pixels
        rows = torch.cat([torch.bmm(new, old.mT) for old in self.delta], dim=2) / pixels  # [N,m,M+m]
        held = self.gram.shape[1]
        self.gram = torch.cat([torch.cat([self.gram, rows[:, :, :held].mT], dim=2), rows], dim=1)
        self.linear = torch.cat([self.linear, linear], dim=1)

    def select(self, index: Tensor) -> LookProducts:
        """Of some of the candidates, in their order."""
        some, first = LookProducts(self.look), 0
        for part in self.delta:
            after = first + part.shape[1]
            some.delta.append(part[:, index[(index >= first) & (index < after)] - first])
            first = after
        some.linear, some.gram = self.linear[:, index], self.gram[:, index][:, :, index]
        return some


class Pool:
    """Candidates of one image under the draws of some looks; grows without looking twice.

    Args:
        denoiser: The model.
        seen: The image under its first draws.
        composition: How contributions add up.
        chunk: Candidates evaluated at once.
    """

    def __init__(self, denoiser: Denoiser, seen: Look, composition: Composition, chunk: int = 64) -> None:
        self.denoiser, self.composition, self.chunk = denoiser, composition, chunk
        self.parts = [LookProducts(seen)]
        self.candidates = seen.residual.new_zeros(0, denoiser.space.dim)

    def add(self, candidates: Tensor) -> None:
        """Takes further candidates ``[M,D]``; only their own inner products are computed."""
        for products in self.parts:
            self._evaluate(products, candidates)
        self.candidates = torch.cat([self.candidates, candidates])

    def see(self, look: Look) -> None:
        """Takes further draws for all candidates."""
        self.parts.append(LookProducts(look))
        self._evaluate(self.parts[-1], self.candidates)

    def _evaluate(self, products: LookProducts, candidates: Tensor) -> None:
        for part in candidates.split(self.chunk):
            products.add(contributions(self.denoiser, products.look, part))

    def select(self, index: Tensor) -> Pool:
        """Some of the candidates under the same draws."""
        pool = Pool(self.denoiser, self.parts[0].look, self.composition, self.chunk)
        pool.parts = [part.select(index) for part in self.parts]
        pool.candidates = self.candidates[index]
        return pool

    def __len__(self) -> int:
        """Number of draws."""
        return sum(len(part.look) for part in self.parts)

    def evidence(self) -> Evidence:
        """The evidence of all candidates taken so far, on the CPU, where it is searched."""
        each = (
            Evidence(
                part.look.residual.square().mean(1).cpu(),
                part.linear.cpu(),
                part.gram.cpu(),
                self.composition,
                part.look.importance.cpu(),
            )
            for part in self.parts
        )
        return functools.reduce(Evidence.join, each)


def gather(denoiser: Denoiser, seen: Look, candidates: Tensor, composition: Composition) -> Evidence:
    """The evidence of candidates ``[M,D]`` for what was seen.

    Args:
        denoiser: The model.
        seen: From :func:`look`.
        candidates: ``[M,D]``.
        composition: ``sum`` or ``mean``.
    """
    pool = Pool(denoiser, seen, composition)
    pool.add(candidates)
    return pool.evidence()
