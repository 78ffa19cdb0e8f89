"""A solver that tries the cheapest methods first: meeting in the middle, exhaustive search, coupled diffusion.

An answer is decided if it is beyond chance and no exchange of a factor is better.  Undecided problems get more tables,
then exhaustive search if its arithmetic is affordable, otherwise coupled diffusion with many restarts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.coupled import CoupledDiffusion
from igm_cli.core.decomposition.exhaustive import exhaustive, exhaustive_operations
from igm_cli.core.decomposition.meet_in_the_middle import Halves
from igm_cli.core.decomposition.resonator import iterate
from igm_cli.core.decomposition.result import Decomposition, SearchState, decided

FEW_PRODUCTS = 1024  # up to this many, comparing all at once is fastest
SHARED_TABLES = 4  # at random coordinates, the same for all problems; vectors without noise need one
OWN_TABLES = 60  # at coordinates of large modulus, for one problem alone
MOST_ENTRIES = 2**22  # of a table
QUERIES_AT_ONCE = 2**19
CHEAP = 2e9  # operations per problem up to which exhaustive search comes before tables for single problems
AFFORDABLE = 1e11  # operations per problem up to which exhaustive search is the last resort
ITERATIONS = 2000  # of coupled diffusion, the last resort beyond that


def auto(codebooks: Codebooks, spectra: Tensor, generator: torch.Generator) -> Decomposition:
    """Decomposes bound vectors ``[B,F]``."""
    if codebooks.search_space <= FEW_PRODUCTS:
        return exhaustive(codebooks, spectra)
    search, halves = SearchState(codebooks, spectra), Halves(codebooks)
    if halves.entries <= MOST_ENTRIES:
        _shared_tables(search, halves, generator)
        if exhaustive_operations(codebooks) > CHEAP:
            _own_tables(search, halves, generator)
    rows = search.undecided()
    if len(rows):
        if exhaustive_operations(codebooks) <= AFFORDABLE:
            found = exhaustive(codebooks, spectra[rows])
        else:
            found = iterate(CoupledDiffusion(), codebooks, spectra[rows], ITERATIONS, generator)
        search.improve(rows, found.indices, found.similarity)
        search.iterations[rows] += found.iterations
        search.operations[rows.cpu()] += found.operations
    return search.result()


def _query(search: SearchState, halves: Halves, rows: Tensor, coordinates: Tensor) -> None:
    """Looks up the products of some problems in a table keyed by some coordinates."""
    codebooks, spectra = search.codebooks, search.spectra
    for part in rows.split(max(1, QUERIES_AT_ONCE // halves.queries)):
        numbers, indices = halves.meet(spectra[part[:, None], coordinates], coordinates)
        found = part[numbers]  # problems of the hits [H]
        similarity = codebooks.similarity(codebooks.product(indices), spectra[found])
        compared = torch.full((len(found),), 4.0 * codebooks.values, dtype=torch.float64)
        search.operations[part.cpu()] += halves.operations
        search.operations.index_add_(0, found.cpu(), compared)
        best = _best_of_each(found, similarity)
        new = found[best][search.improve(found[best], indices[best], similarity[best])]
        search.decided[new] = decided(codebooks, spectra[new], search.indices[new], search.similarity[new])


def _best_of_each(rows: Tensor, similarity: Tensor) -> Tensor:
    """Returns the indices of the most similar candidate of each problem, ``rows`` being the problems ``[H]``."""
    order = similarity.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    return order[rows[order].diff(append=rows.new_full((1,), -1)) != 0]


def _shared_tables(search: SearchState, halves: Halves, generator: torch.Generator) -> None:
    """Queries tables at random coordinates for all undecided problems, until one decides none."""
    for _ in range(SHARED_TABLES):
        rows = search.undecided()
        if len(rows):
            random = torch.randperm(search.spectra.shape[1], generator=generator)
            _query(search, halves, rows, random[: halves.bits].to(rows.device))
        if len(search.undecided()) == len(rows):
            break


def _own_tables(search: SearchState, halves: Halves, generator: torch.Generator) -> None:
    """Queries tables for each undecided problem, at coordinates drawn among 1/16, 1/8, 1/4, 1/2 of the largest."""
    budget = exhaustive_operations(search.codebooks) / max(1.0, halves.operations)
    for row in search.undecided().tolist():
        # noise flips the signs of these least
        largest = search.spectra[row].abs().argsort(descending=True, stable=True)
        for table in range(int(min(OWN_TABLES, budget))):
            among = largest[: max(halves.bits, len(largest) >> (4 - table % 4))]
            chosen = torch.randperm(len(among), generator=generator)[: halves.bits].to(among.device)
            _query(search, halves, among.new_full((1,), row), among[chosen])
            if search.decided[row]:
                break
