"""Captions of several labels, as text-to-image models know them."""

from __future__ import annotations

from collections.abc import Sequence


def compound(template: str, labels: Sequence[str]) -> str:
    """One caption of several labels: "a photo of a cup, a spoon and a plate".

    What stands before ``{label}`` in its own word group, the article, is repeated with every label.
    """
    before, _, after = template.partition("{label}")
    words = before.split(" ")  # the last of them is empty if a space stands before the label
    start, article = (before[:-2], "a ") if words[-2:] == ["a", ""] else (before, "")
    listed = [article + label for label in labels]
    joined = " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
    return start + joined + after
