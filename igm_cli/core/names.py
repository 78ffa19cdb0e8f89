"""Names: which are the same, and which classes of a class-conditional model they stand for."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

from igm_cli.errors import IgmError, InputError, UsageError, close_names


def plain(label: str) -> str:
    """Returns a label as it is compared: regardless of case, of the width of spaces and of how accents are written."""
    return unicodedata.normalize("NFC", " ".join(label.casefold().split()))


def meant(word: str, known: Collection[str]) -> str:
    """Returns the known name that a word means, regardless of case; the word itself if it means none of them, or several."""
    same = [word] if word in known else [name for name in known if plain(name) == plain(word)]
    return same[0] if len(same) == 1 else word


def parts_of(text: str) -> list[str]:
    """Returns the parts of a text with commas between them; quotation marks keep those within a part: ``dog,"cat, grey"``."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UsageError(f"{text!r} has quotation marks that enclose no whole name; correct them") from error


def names_option(option: str, value: Any) -> tuple[str, ...]:
    """Returns the names of an option, a text (:func:`parts_of`) or a list, each once; none if it is not given."""
    if value is None or value in ([], ()):
        return ()
    parts = parts_of(value) if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    names = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
    if not names or not all(
        isinstance(part, str | int | float) and not isinstance(part, bool) for part in parts
    ):
        raise UsageError(f"{option} must be names with commas between them, not {value!r}")
    return names


class Classes:
    """The classes of a class-conditional model.

    Args:
        id2label: Name of each class by number, or several names between commas, as in diffusers.

    Raises:
        InputError: If it is not a table of names by number.
    """

    def __init__(self, id2label: Any) -> None:
        try:
            self.names = {int(number): str(names) for number, names in dict(id2label).items()}
        except (TypeError, ValueError) as error:
            raise InputError(
                "the id2label of the model is not a table of names by number; give its own"
            ) from error
        if not self.names:
            raise InputError("the id2label of the model names no class; give its own")
        self._numbers: dict[str, set[int]] = {}
        for number, names in self.names.items():
            for name in {names, *names.split(",")}:
                self._numbers.setdefault(plain(name), set()).add(number)

    def number(self, label: str, error: type[IgmError] = InputError) -> int:
        """Returns the number of the class that a label names, by its whole name or by one of several.

        Raises:
            IgmError: Of the given type, if no class or more than one has that name.
        """
        found = sorted(self._numbers.get(plain(label), ()))
        if len(found) > 1:
            both = " and ".join(repr(self.names[number]) for number in found[:2])
            raise error(
                f"{label!r} names two classes of the model, {both}; give one as a whole, by --labels-file"
            )
        if not found:
            some = ", ".join(names.partition(",")[0] for names in list(self.names.values())[:3])
            meant = f"it has {len(self.names)}, such as {some}"
            if near := close_names(plain(label), list(self._numbers)):
                meant = f"did you mean {' or '.join(near)}?"
            raise error(f"the model has no class {label!r}; {meant}")
        return found[0]

    def numbers(self, labels: Sequence[str], error: type[IgmError]) -> list[int]:
        """Returns the numbers of classes, which must differ.

        Raises:
            IgmError: Of the given type, if one is unknown or two are the same.
        """
        seen: dict[int, str] = {}
        for label in labels:
            number = self.number(label, error)
            if number in seen:
                raise error(f"{seen[number]!r} and {label!r} are one class of the model; leave one out")
            seen[number] = label
        return list(seen)


def is_text(words: str) -> bool:
    """Returns whether words can be encoded: no lone surrogates and no control characters."""
    return not any(unicodedata.category(each) in ("Cc", "Cs") and each != "\t" for each in words)
