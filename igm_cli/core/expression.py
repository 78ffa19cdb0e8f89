"""Expressions of concepts as users write them, and the conjunctions that they expand to.

    "pos(0.3,0.5) AND pos(0.7,0.5)"      "(cat AND dog:1.5) OR rabbit"      "Black_Hair AND NOT Eyeglasses"

OR binds least, then AND, then NOT (Du, Li & Mordatch 2020, section 3.2, nested).  An expression is a mixture of
conjunctions: each image shows one of them, drawn by their probabilities.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from igm_cli.errors import UsageError

MOST_CLAUSES = 256
"""Most conjunctions that an expression may expand to."""

LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1000
"""Smallest and largest weight of a concept, those of its groups included."""

MOST_ATOMS = 100
"""Most concepts that an expression may name."""

DEEPEST = 50
"""Most levels of groups that an expression may nest."""


@dataclass(frozen=True)
class Atom:
    """One concept of an expression, in words that its parser understands.

    Attributes:
        text: The words.
        weight: How much of its contribution is added; as a branch of OR, how often it is drawn.
        negated: Whether NOT stands before it.
    """

    text: str
    weight: float = 1.0
    negated: bool = False

    def __str__(self) -> str:
        return f"{'NOT ' if self.negated else ''}{self.text}{'' if self.weight == 1 else f':{self.weight:g}'}"


@dataclass(frozen=True)
class And:
    """All parts at once; its weight multiplies theirs."""

    parts: tuple[Expression, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Or:
    """One of the parts, each as often as given by its weight."""

    parts: tuple[Expression, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Not:
    """Anything but the part."""

    part: Expression
    weight: float = 1.0


Expression: TypeAlias = Atom | And | Or | Not


@dataclass(frozen=True)
class Clause:
    """Concepts joined by AND.

    Attributes:
        atoms: The concepts.
        probability: How often an image shows them.
    """

    atoms: tuple[Atom, ...]
    probability: float

    def __str__(self) -> str:
        return " AND ".join(map(str, self.atoms))


def parse(text: str) -> Expression:
    """Reads an expression; raises a :class:`UsageError` that marks the place if it does not parse."""
    return _Reader(text).whole()


def words(expression: Expression) -> list[str]:
    """Returns the words of every concept that an expression names, each once."""
    if isinstance(expression, Atom):
        return [expression.text]
    parts = (expression.part,) if isinstance(expression, Not) else expression.parts
    return list(dict.fromkeys(text for part in parts for text in words(part)))


def clauses(expression: Expression) -> list[Clause]:
    """Returns the conjunctions that an expression expands to; a :class:`UsageError` if more than :data:`MOST_CLAUSES`.

    NOT is moved to the concepts: NOT (a AND b) is NOT a OR NOT b, NOT (a OR b) is NOT a AND NOT b.  Within it, weights
    are those of contributions, and branches are drawn equally often.
    """
    every = _clauses(expression, negated=False)
    total = math.fsum(clause.probability for clause in every)
    return [replace(clause, probability=clause.probability / total) for clause in every]


def _clauses(expression: Expression, negated: bool) -> list[Clause]:
    if isinstance(expression, Atom):
        return [Clause((replace(expression, negated=negated),), 1.0)]
    if isinstance(expression, Not):
        return _scaled(_clauses(expression.part, not negated), expression.weight)
    if isinstance(expression, Or) != negated:  # one of them
        drawn = [1.0 if negated else part.weight for part in expression.parts]
        total = math.fsum(drawn)
        every = [
            replace(clause, probability=clause.probability * weight / total)
            for part, weight in zip(expression.parts, drawn, strict=True)
            # a branch's weight is not its concepts'
            for clause in _clauses(part if negated else replace(part, weight=1.0), negated)
        ]
        _refuse_many(len(every))
        return _scaled(every, expression.weight)
    together = [Clause((), 1.0)]
    for part in expression.parts:
        found = _clauses(part, negated)
        _refuse_many(len(together) * len(found))
        together = [
            Clause(one.atoms + other.atoms, one.probability * other.probability)
            for one, other in itertools.product(together, found)
        ]
    return _scaled(together, expression.weight)


def _scaled(every: list[Clause], weight: float) -> list[Clause]:
    """Returns conjunctions with the weights of all their concepts multiplied."""
    if weight == 1:
        return every
    return [
        replace(clause, atoms=tuple(replace(a, weight=_product(a.weight, weight)) for a in clause.atoms))
        for clause in every
    ]


def _product(weight: float, groups: float) -> float:
    """Returns a weight times that of a group around it."""
    if not LEAST_WEIGHT <= weight * groups <= MOST_WEIGHT:
        raise UsageError(
            f"the weights {weight:g} and {groups:g} of a concept and a group around it amount to {weight * groups:g}, which "
            f"is not between {LEAST_WEIGHT:g} and {MOST_WEIGHT}; change one of them"
        )
    return weight * groups


def _refuse_many(count: int) -> None:
    if count > MOST_CLAUSES:
        raise UsageError(
            f"the expression amounts to {count} or more branches, and {MOST_CLAUSES} is the most; use fewer ORs, or "
            "several expressions"
        )


_TOKEN = re.compile(
    r"""\s*(?: (?P<word>AND|OR|NOT)(?=[\s()]|$) | (?P<open>\() | (?P<close>\)) |
    (?P<quoted>"[^"]*"|'[^']*') | (?P<weight>:[^\s()]*) | (?P<text>[^\s()":]+(?:\([^()]*\))?) )""",
    re.VERBOSE,
)


class _Reader:
    """Reads an expression from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []  # kind, value, place
        place, end = 0, len(text.rstrip())
        while place < end:
            found = _TOKEN.match(text, place)
            if not found:
                quote = text[place:].lstrip()[:1] in "\"'"
                raise self.error("a quotation mark that is not closed" if quote else "this", place)
            kind = found.lastgroup or ""
            if kind == "text" and text[found.end() :].startswith("(") and ")" not in text[found.end() :]:
                raise self.error("a parenthesis that is not closed", found.end())
            self.tokens.append((kind, found[kind], found.start(kind)))
            place = found.end()
        self.tokens.append(("", "", len(text)))  # the end
        self.at = self.atoms = self.depth = 0

    def whole(self) -> Expression:
        """Reads the whole text as an expression."""
        if not self.kind:
            raise UsageError("the expression is empty; name a concept, such as pos(0.3,0.5)")
        expression = self.either()
        kind, value, place = self.tokens[self.at]
        if kind:
            raise self.error("a parenthesis that was not opened" if kind == "close" else repr(value), place)
        return expression

    def either(self) -> Expression:
        """Reads parts joined by OR."""
        parts = [self.both()]
        while self.takes("word", "OR"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def both(self) -> Expression:
        """Reads parts joined by AND."""
        parts = [self.item()]
        while self.takes("word", "AND"):
            parts.append(self.item())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def item(self) -> Expression:
        """Reads NOT and its operand, a group in parentheses, or a concept."""
        if self.depth > DEEPEST:
            raise UsageError(
                f"the expression nests more than {DEEPEST} groups; write it with fewer parentheses"
            )
        if self.takes("word", "NOT"):
            return Not(self._within(self.item))
        if self.takes("open"):
            group = self._within(self.either)
            if not self.takes("close"):
                raise self.error("the end of a group whose parenthesis is not closed", self.place)
            return replace(group, weight=_product(group.weight, self.weight()))
        words = []
        while self.kind in ("text", "quoted"):
            value = self.tokens[self.at][1]
            words.append(value[1:-1] if self.kind == "quoted" else value)
            self.at += 1
        if not words or not all(words):
            what = repr(self.tokens[self.at][1]) if self.kind else "the end"
            raise self.error(f"{what} where a concept should stand", self.place)
        self.atoms += 1
        if self.atoms > MOST_ATOMS:
            raise UsageError(
                f"the expression names more than {MOST_ATOMS} concepts; use fewer, or several expressions"
            )
        return Atom(" ".join(words), self.weight())

    def _within(self, read: Callable[[], Expression]) -> Expression:
        """Reads one level deeper."""
        self.depth += 1
        found = read()
        self.depth -= 1
        return found

    def weight(self) -> float:
        """Reads the weight that follows; 1 if there is none."""
        if self.kind != "weight":
            return 1.0
        value, place = self.tokens[self.at][1][1:], self.place
        self.at += 1
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not LEAST_WEIGHT <= number <= MOST_WEIGHT:
            raise self.error(
                f"the weight {value!r}, which is not a number between {LEAST_WEIGHT:g} and {MOST_WEIGHT}", place
            )
        return number

    def takes(self, kind: str, value: str | None = None) -> bool:
        """Takes the next token if it is of a kind and has a value; returns whether it did."""
        if self.kind != kind or (value is not None and self.tokens[self.at][1] != value):
            return False
        self.at += 1
        return True

    @property
    def kind(self) -> str:
        """The kind of the next token; empty at the end."""
        return self.tokens[self.at][0]

    @property
    def place(self) -> int:
        """Where the next token begins."""
        return self.tokens[self.at][2]

    def error(self, what: str, place: int) -> UsageError:
        """Returns the error for something that stands where it cannot."""
        marked = f"{self.text[:place]}>>>{self.text[place:]}"
        return UsageError(
            f"the expression does not parse at character {place + 1}, {what}: {marked}; "
            "join concepts by AND, OR and NOT, and put names that hold these words, colons or parentheses in quotation marks"
        )
