"""Expressions: their grammar, what they amount to, and what does not parse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igm_cli.core.expression import And, Atom, Expression, Not, Or, clauses, parse, words
from igm_cli.errors import UsageError


def amounts_to(text: str) -> dict[str, float]:
    return {str(clause): round(clause.probability, 4) for clause in clauses(parse(text))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pos(0.3, .5) AND pos(.7,.5):2", {"pos(0.3, .5) AND pos(.7,.5):2": 1}),
        ("3-5 pos", {"3-5 pos": 1}),
        ("a OR b AND c", {"a": 0.5, "b AND c": 0.5}),
        ("(cat AND dog:1.5) OR rabbit:3", {"cat AND dog:1.5": 0.25, "rabbit": 0.75}),
        ("a AND (b OR c)", {"a AND b": 0.5, "a AND c": 0.5}),
        ("(a AND b:2):3", {"a:3 AND b:6": 1}),
        ("NOT a AND b", {"NOT a AND b": 1}),
        ("NOT (a OR b)", {"NOT a AND NOT b": 1}),
        ("NOT (a AND b)", {"NOT a": 0.5, "NOT b": 0.5}),
        ("NOT (a AND b:3)", {"NOT a": 0.5, "NOT b:3": 0.5}),
        ("NOT (a:2 OR b)", {"NOT a:2 AND NOT b": 1}),
        ("NOT NOT a", {"a": 1}),
        ('"black and AND white" OR x=y', {"black and AND white": 0.5, "x=y": 0.5}),
        ("a and b", {"a and b": 1}),
        ("ANDROID OR NOTE", {"ANDROID": 0.5, "NOTE": 0.5}),
        ("the cat's toy", {"the cat's toy": 1}),
    ],
)
def test_what_expressions_amount_to(text, expected):
    assert amounts_to(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a AND", r"character 6, the end where a concept should stand: a AND>>>;"),
        ("a OR OR b", r"character 6, 'OR' where a concept should stand: a OR >>>OR b"),
        ("(a OR b", "parenthesis is not closed"),
        ("a)", r"a parenthesis that was not opened: a>>>\)"),
        ("a:much", "the weight 'much', which is not a number between 1e-06 and 1000"),
        ("a:-1", "the weight '-1'"),
        ("a:nan", "the weight 'nan'"),
        ("a:1e30", "the weight '1e30', which is not a number between 1e-06 and 1000"),
        ("((a:1000):1000):1000", "the weights 1000 and 1000 of a concept and a group around it amount to 1e"),
        ("(a:1e-4):1e-4 OR b", "amount to 1e-08, which is not between 1e-06 and 1000"),
        ('"a', "quotation mark that is not closed"),
        ("a NOT b", "'NOT': a >>>NOT b"),
        ("(" * 60 + "a" + ")" * 60, "more than 50 groups"),
        (" AND ".join("a" * 500), "more than 100 concepts"),
    ],
)
def test_what_does_not_parse_is_marked(text, says):
    with pytest.raises(UsageError, match=says):
        parse(text)


def test_there_are_no_more_than_256_branches():
    assert len(clauses(parse(" AND ".join(["(a OR b)"] * 8)))) == 256
    for many in (parse(" AND ".join(["(a OR b)"] * 9)), Or((Atom("a"),) * 257)):
        with pytest.raises(UsageError, match="branches, and 256 is the most"):
            clauses(many)


def test_weights_of_groups_and_concepts_are_bounded_together():
    for text in ("(a:1000 AND b):2", "NOT (a:1e-6 AND b):0.1"):
        with pytest.raises(UsageError, match="which is not between 1e-06 and 1000"):
            clauses(parse(text))


def expressions() -> st.SearchStrategy[Expression]:
    atoms = st.builds(Atom, st.sampled_from("abc"))
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(And, st.tuples(inner, inner)),
            st.builds(Or, st.tuples(inner, inner)),
        ),
        max_leaves=5,
    )


def holds(expression: Expression, true: set[str]) -> bool:
    if isinstance(expression, Atom):
        return expression.text in true
    if isinstance(expression, Not):
        return not holds(expression.part, true)
    return (all if isinstance(expression, And) else any)(holds(part, true) for part in expression.parts)


@given(expressions(), st.sets(st.sampled_from("abc")))
def test_the_branches_say_what_the_expression_says(expression, true):
    every = clauses(expression)
    said = any(all((atom.text in true) != atom.negated for atom in clause.atoms) for clause in every)
    assert said == holds(expression, true)
    assert math.isclose(math.fsum(clause.probability for clause in every), 1)
    assert {atom.text for clause in every for atom in clause.atoms} == set(words(expression))


def test_apostrophes_stay_and_quotation_marks_around_words_go():
    assert parse("dogs' toys") == Atom("dogs' toys", 1.0)
    assert parse("\"the 'cat'\"") == Atom("the 'cat'", 1.0) and parse("'a AND b'") == Atom("a AND b", 1.0)


@pytest.mark.parametrize("text", ["pos(0.3,0.5", "a AND dog("])
def test_a_parenthesis_left_open_is_named(text):
    with pytest.raises(UsageError, match="a parenthesis that is not closed"):
        parse(text)
