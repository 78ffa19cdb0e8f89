"""Labels in people's texts: names of files, cells of tables, lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from igm_cli.core.names import names_option, plain
from igm_cli.errors import InputError, UsageError

_FILLERS = frozenset((
    "a", "an", "and", "the", "of", "with", "copy", "img", "imgs", "image", "images", "mvimg", "pic", "pics",
    "picture", "pictures", "photo", "photos", "dsc", "dscn", "dscf", "dcim", "pxl", "wa",
))  # fmt: skip
"""Words that are not labels: between labels, or from a camera or a file manager."""

_JOINTS = frozenset(("and", "&", "+"))
_AROUND = "'\"[]"  # left around the words of a list written as text


@dataclass(frozen=True)
class Vocabulary:
    """Which labels count."""

    known: tuple[str, ...] = ()  # the labels, in lower case; empty if all found count

    @classmethod
    def of(cls, value: Any) -> Vocabulary:
        """Reads the option ``labels``: names separated by commas, a list of names, or None for all."""
        known = tuple(dict.fromkeys(map(plain, names_option("labels", value))))
        if not all(map(_words, known)):
            raise UsageError(f"labels must be names with commas between them, e.g. cat,dog, not {value!r}")
        return cls(known)

    def among(self, labels: Iterable[str]) -> list[str]:
        """Returns the labels that count, each once."""
        found = filter(None, map(plain, labels))
        return list(dict.fromkeys(label for label in found if not self.known or label in self.known))

    def in_cell(self, text: str, one: bool = False) -> list[str]:
        """Returns labels separated by commas, semicolons, bars or ``and``; labels may have spaces.

        Args:
            text: The cell.
            one: Whether its column has one label per cell, so that words without commas are one label.

        Raises:
            InputError: If words without commas may be one label or several.
        """
        parts = [plain(part).strip(_AROUND).strip() for part in re.split(r"[,;|]", text)]
        if len(parts) > 1 or one:
            counted = not self.known
            return self.among(w for p in parts for w in ([p] if counted or p in self.known else p.split()))
        words = [word.strip(_AROUND) for word in parts[0].split()]
        if parts[0] in self.known or len(words) < 2:
            return self.among(parts)
        if not _JOINTS.isdisjoint(words):
            joined = " ".join("," if word in _JOINTS else word for word in words)
            return self.among(part.strip() for part in joined.split(","))
        if self.known and all(word in self.known for word in words):
            return self.among(words)
        raise InputError(
            f"{parts[0][:40]!r} may be one label or several; write commas between labels, name the column label if each image "
            "has one, or name all labels with the option labels"
        )

    def in_name(self, text: str) -> list[str]:
        """Returns labels in the name of a file or folder (without its suffix), or in a sentence."""
        words = _words(text)
        if not self.known:
            return self.among(word for word in words if word not in _FILLERS and _kind(word[0]) == "L")
        longest = max(map(len, self._by_words))
        found: list[str] = []
        place = 0
        while place < len(words):
            runs = (tuple(words[place : place + size]) for size in range(longest, 0, -1))
            run = next((run for run in runs if run in self._by_words), None)
            found += [self._by_words[run]] if run else []
            place += len(run) if run else 1
        return self.among(found)

    @cached_property
    def _by_words(self) -> Mapping[tuple[str, ...], str]:
        """The known labels by their words, which file names may join by anything: traffic_light, traffic-light."""
        return {tuple(_words(label)): label for label in self.known}


def _words(text: str) -> list[str]:
    """Returns runs of letters and runs of digits, in lower case."""
    runs = groupby(plain(text), _kind)
    return ["".join(run) for kind, run in runs if kind]


def _kind(character: str) -> str:
    """Returns L for letters with their marks (vowels, in some scripts), N for digits, nothing for separators."""
    major = unicodedata.category(character)[0]
    return "L" if major in "LM" else "N" if major == "N" else ""
