"""Wishes: turns expressions into branches, and draws at random what an image leaves open."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from igm_cli.core.expression import MOST_CLAUSES, Atom, Clause, clauses, parse
from igm_cli.errors import InputError, UnknownConceptError, UsageError
from igm_cli.imaging import Frame
from igm_cli.plugins.base import ConceptParser

MOST_ASKED = 100
"""Maximum number of concepts requested of one image."""


@dataclass(frozen=True)
class Term:
    """One or several concepts of one model."""

    model: int  # number of the model
    text: str  # its words in the expression
    weight: float  # factor of its contribution
    absent: bool = False  # whether the image must not show it
    concepts: Tensor | None = field(default=None, compare=False)  # ``[K,D]``; None if they are random


@dataclass(frozen=True)
class Branch:
    """Terms joined by AND, and how often they are drawn."""

    terms: tuple[Term, ...]
    probability: float

    def __contains__(self, term: Term) -> bool:
        """Returns whether it already holds the same concept with the same weight."""
        return term.concepts is not None and term in self.terms

    def __str__(self) -> str:
        return " AND ".join(str(Atom(term.text, term.weight, term.absent)) for term in self.terms)


@dataclass(frozen=True)
class Wish:
    """A request: branches, of which an image shows one."""

    expression: str
    branches: tuple[Branch, ...]

    @property
    def models(self) -> set[int]:
        """Numbers of the models whose concepts it names in any branch."""
        return {term.model for branch in self.branches for term in branch.terms}


@dataclass(frozen=True)
class Asked:
    """The concepts requested of one image: for each model ``[K,D]``, and their weights ``[K]``, negative for absent ones."""

    branch: Branch
    concepts: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]


@dataclass(frozen=True)
class Reader:
    """Reads expressions with the models' concept parsers, and draws what they leave open."""

    parsers: Sequence[ConceptParser]  # one per model; the first that knows a concept takes it
    frame: Frame  # the frame of a whole image
    seed: int  # seed of everything random; image number i depends only on it and on i
    # values of factors that are not named: ``random``, or ``none`` for no contribution
    free: Literal["random", "none"]

    def read(self, expression: str) -> Wish:
        """Reads an expression.

        Raises:
            UsageError: If it does not parse, names a concept that no model knows, or contradicts itself.
        """
        branches, refused = [], []
        for clause in clauses(parse(expression)):
            possible, why = self._branches(clause)
            branches += possible
            refused += why
        if not branches:
            raise UsageError(f"no image is as asked for: {refused[0]}; leave one out, or join them by OR")
        total = math.fsum(branch.probability for branch in branches)
        return Wish(expression, tuple(Branch(b.terms, b.probability / total) for b in branches))

    def like(self, items: Sequence[Mapping[str, Any]], frame: Frame, name: str) -> Wish:
        """Returns the wish for the items of an inversion; the first model knows their concepts.

        Raises:
            InputError: If an item lies outside the model's space.
        """
        space: Any = self.parsers[0].space
        concepts = self.parsers[0].encode(items, frame)
        if hasattr(space, "clamp") and not torch.allclose(space.clamp(concepts), concepts, atol=1e-3):
            raise InputError(
                f"{name} holds items outside the part of the image that the model sees; leave them out"
            )
        rows = [[round(value, 4) for value in row] for row in concepts.tolist()]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:6]
        words = f"like {name} ({digest})"  # other items are another wish, whatever the image is called
        return Wish(words, (Branch((Term(0, words, 1.0, concepts=concepts),), 1.0),))

    def _branches(self, clause: Clause) -> tuple[list[Branch], list[str]]:
        """Returns a conjunction with every NOT replaced by its alternatives, and why some of these are impossible.

        Together, the remaining branches have the probability of the conjunction.
        """
        branches, refused = [Branch((), 1.0)], []
        for atom in clause.atoms:
            grown = []
            for branch in branches:
                for term in self._meanings(atom):
                    new = branch if term in branch else Branch((*branch.terms, term), branch.probability)
                    if why := self._contradiction(new):
                        refused.append(why)
                    else:
                        grown.append(new)
            branches = grown
            if len(branches) > MOST_CLAUSES:
                raise UsageError(
                    f"the expression amounts to more than {MOST_CLAUSES} branches; use fewer NOTs, or name the values"
                )
        return [Branch(b.terms, clause.probability / len(branches)) for b in branches], refused

    def _meanings(self, atom: Atom) -> list[Term]:
        """Returns the term of a concept, or for NOT the alternatives, one of which is true."""
        number, concepts = self._known(atom.text)
        parser, space = self.parsers[number], self.parsers[number].space
        if atom.negated and not space.negation:
            raise UsageError(
                f"NOT cannot be said of {atom.text}: a set of {space.plural} is complete; leave it out instead"
            )
        if not atom.negated or space.negation != "complement" or concepts is None:
            return [Term(number, atom.text, atom.weight, atom.negated, concepts)]
        others = space.alternatives(concepts[0])
        texts = [_text(item) for item in parser.decode(others, self.frame)]
        return [
            Term(number, text, atom.weight, concepts=row[None]) for text, row in zip(texts, others, strict=True)
        ]

    def _known(self, text: str) -> tuple[int, Tensor | None]:
        """Returns the number of the model that knows a concept, and its concepts, None if they are random."""
        unknown: list[str] = []
        for number, each in enumerate(self.parsers):
            random = torch.Generator().manual_seed(0)
            before = random.get_state()
            parser: Any = each
            try:
                concepts = parser.ask(text, random, torch.zeros(0, parser.space.dim))
            except UnknownConceptError as error:
                unknown.append(str(error))
                continue
            return number, concepts if torch.equal(before, random.get_state()) else None
        small = next((word for word in ("and", "or", "not") if f" {word} " in f" {text} "), None)
        unknown += [f"write {small.upper()} in capitals to join concepts"] if small else []
        raise UnknownConceptError("; ".join(unknown))

    def _contradiction(self, branch: Branch) -> str:
        """Returns the contradiction in a branch; empty if there is none."""
        known = [term for term in branch.terms if term.concepts is not None and len(term.concepts) == 1]
        for place, term in enumerate(known):
            for other in known[:place]:
                if other.model != term.model or term.concepts is None or other.concepts is None:
                    continue
                same = torch.equal(term.concepts, other.concepts)
                if same and term.absent != other.absent:
                    return f"it shows {term.text} and does not"
                if same and term.weight != other.weight:
                    return f"{term.text} has two weights"
                excluded = self.parsers[term.model].space.alternatives(other.concepts[0])
                if not same and bool((excluded == term.concepts).all(1).any()):
                    return f"{other.text} and {term.text} exclude each other"
        return ""

    def asked(self, wish: Wish, number: int) -> Asked:
        """Draws the concepts of an image: first a branch of the wish, then what the branch leaves open."""
        chance = torch.tensor([branch.probability for branch in wish.branches], dtype=torch.float64)
        which = int(torch.multinomial(chance, 1, generator=self._random(number)))
        return self.of(wish.branches[which], number)

    def of(self, branch: Branch, number: int) -> Asked:
        """Draws the concepts of an image of a branch."""
        random = self._random(number, 1)
        concepts, weights = [], []
        for place, each in enumerate(self.parsers):
            parser: Any = each
            rows, scale = torch.zeros(0, parser.space.dim), torch.zeros(0)
            terms = [term for term in branch.terms if term.model == place]
            for term in sorted(terms, key=lambda term: term.concepts is None):  # random ones stay apart
                new = parser.ask(term.text, random, rows) if term.concepts is None else term.concepts
                new = new[[not bool((rows == row).all(1).any()) for row in new]] if len(new) == 1 else new
                rows = torch.cat([rows, new])
                weight = -term.weight if term.absent else term.weight
                scale = torch.cat([scale, new.new_full((len(new),), weight)])
            if self.free == "random" and (terms or len(self.parsers) == 1):
                rows = parser.space.completed(rows, random)
            concepts.append(rows)
            weights.append(torch.cat([scale, torch.ones(len(rows) - len(scale))]))
        if sum(map(len, concepts)) > MOST_ASKED:
            raise UsageError(f"an image may be asked to show {MOST_ASKED} concepts at most; ask for fewer")
        return Asked(branch, tuple(concepts), tuple(weights))

    def _random(self, number: int, purpose: int = 0) -> torch.Generator:
        """Returns an image's random generator, which depends only on the seed and its number."""
        return torch.Generator().manual_seed(((self.seed << 24) + number) * 2 + purpose + 2**48)


def _text(item: Mapping[str, Any]) -> str:
    """Returns an item in the words of an expression."""
    return "=".join(str(value) for value in item.values())
