"""A solver that takes what is cheapest first: meeting in the middle, exhaustive search, coupled diffusion.

What is found is believed only if it is beyond chance and no exchange of a factor is better; what is left goes on to
more tables, then to exhaustive search where its arithmetic is affordable, then to coupled diffusion with many restarts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.exhaustive import exhaustive, exhaustive_operations
from igm_cli.core.decomposition.iteration import iterate
from igm_cli.core.decomposition.meeting import Halves
from igm_cli.core.decomposition.result import Decomposition, conclude, settled

FEW_PRODUCTS = 1024
"""Compared at once, which is faster than anything else."""

SHARED_TABLES = 4
"""Tables at random coordinates, the same for all problems; noise-free vectors need one."""

OWN_TABLES = 60
"""Tables at the coordinates that are most sure, a problem for itself."""

MOST_ENTRIES = 2**22
"""Of a table."""

QUESTIONS_AT_ONCE = 2**19

CHEAP = 2e9
"""Operations for one problem up to which exhaustive search comes before tables for every problem."""

AFFORDABLE = 1e11
"""Operations for one problem up to which exhaustive search is the way out."""

ITERATIONS = 2000
"""Of coupled diffusion, where nothing else is left."""


def auto(codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> Decomposition:
    """Decomposes bound vectors.

    Args:
        codebooks: K of them.
        spectra: Bound vectors ``[B,F]``.
        generator: Of everything random.
    """
    if codebooks.search_space <= FEW_PRODUCTS:
        return exhaustive(codebooks, spectra)
    search = _Search(codebooks, spectra)
    halves = Halves(codebooks)
    if halves.entries <= MOST_ENTRIES:
        _shared_tables(search, halves, generator)
        if exhaustive_operations(codebooks) > CHEAP:
            _own_tables(search, halves, generator)
    rows = search.open()
    if len(rows):
        search.take(rows, _last_resort(codebooks, spectra[rows], generator))
    return search.result()


class _Search:
    """The best that was found of every problem so far, and what it cost."""

    def __init__(self, codebooks: Codebooks, spectra: Tensor) -> None:
        problems, device = len(spectra), spectra.device
        self.codebooks, self.spectra = codebooks, spectra
        self.indices = torch.zeros(problems, len(codebooks.sizes), dtype=torch.long, device=device)
        self.similarity = torch.full((problems,), -2.0, device=device)
        self.solved = torch.zeros(problems, dtype=torch.bool, device=device)
        self.iterations = torch.zeros(problems, dtype=torch.long, device=device)
        self.operations = torch.zeros(problems, dtype=torch.float64, device=device)

    def open(self) -> Tensor:
        """Numbers of the problems that are not solved."""
        return (~self.solved).nonzero()[:, 0]

    def ask(self, halves: Halves, rows: Tensor, coordinates: Tensor) -> None:
        """One table for some problems."""
        for part in rows.split(max(1, QUESTIONS_AT_ONCE // halves.questions)):
            numbers, indices = halves.meet(self.spectra[part[:, None], coordinates], coordinates)
            self.operations[part] += halves.operations
            self._keep(part[numbers], indices)

    def take(self, rows: Tensor, found: Decomposition) -> None:
        """The answers of another method, the last one asked."""
        better = found.similarity > self.similarity[rows]
        changed = rows[better]
        self.indices[changed], self.similarity[changed] = found.indices[better], found.similarity[better]
        self.iterations[rows] += found.iterations
        self.operations[rows] += found.operations

    def result(self) -> Decomposition:
        """What was found."""
        return conclude(
            self.codebooks, self.spectra, self.indices, self.iterations, self.operations, self.similarity
        )

    def _keep(self, rows: Tensor, indices: Tensor) -> None:
        """Takes candidates ``[H,K]`` of the problems ``[H]`` that are better than what there was."""
        if not len(rows):
            return
        codebooks = self.codebooks
        similarity = codebooks.similarity(codebooks.product(indices), self.spectra[rows])
        self.operations.index_add_(
            0, rows, torch.full_like(similarity, 4.0 * codebooks.values, dtype=torch.float64)
        )
        last = _best_of_each(rows, similarity)
        rows, indices, similarity = rows[last], indices[last], similarity[last]
        better = similarity > self.similarity[rows]
        changed = rows[better]
        self.indices[changed], self.similarity[changed] = indices[better], similarity[better]
        self.solved[changed] = settled(
            codebooks, self.spectra[changed], self.indices[changed], self.similarity[changed]
        )


def _best_of_each(rows: Tensor, similarity: Tensor) -> Tensor:
    """Of several candidates of a problem the most similar one: ``[H]`` to the numbers of some."""
    order = similarity.argsort()
    order = order[rows[order].argsort(stable=True)]
    sorted_rows = rows[order]
    last = torch.ones_like(sorted_rows, dtype=torch.bool)
    last[:-1] = sorted_rows[1:] != sorted_rows[:-1]
    return order[last]


def _some(halves: Halves, coordinates: int, generator: torch.Generator) -> Tensor:
    """A key's coordinates at random."""
    return torch.randperm(coordinates, generator=generator)[: halves.bits].to(halves.codebooks.device)


def _shared_tables(search: _Search, halves: Halves, generator: torch.Generator) -> None:
    """Tables of all open problems at random coordinates, as long as there are problems that they solve."""
    for _ in range(SHARED_TABLES):
        rows = search.open()
        if len(rows):
            search.ask(halves, rows, _some(halves, search.spectra.shape[1], generator))
        if len(search.open()) == len(rows):
            break


def _own_tables(search: _Search, halves: Halves, generator: torch.Generator) -> None:
    """Tables of every open problem, at coordinates drawn among those of the largest modulus, ever more of them."""
    budget = exhaustive_operations(search.codebooks) / max(1.0, halves.operations)
    for row in search.open().tolist():
        sure = search.spectra[row].abs().argsort(descending=True)
        for table in range(int(min(OWN_TABLES, budget))):
            among = sure[: max(halves.bits, len(sure) >> (4 - table % 4))]
            chosen = torch.randperm(len(among), generator=generator)[: halves.bits].to(sure.device)
            search.ask(halves, sure.new_tensor([row]), among[chosen])
            if search.solved[row]:
                break


def _last_resort(codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> Decomposition:
    """Exhaustive search where it is affordable, else coupled diffusion with many restarts."""
    if exhaustive_operations(codebooks) <= AFFORDABLE:
        return exhaustive(codebooks, spectra)
    return iterate(CoupledDiffusion(), codebooks, spectra, ITERATIONS, generator)
