"""Names that are the same."""

from __future__ import annotations

import unicodedata

from igm_cli.core.names import meant, plain
from igm_cli.plugins.pictures.words import Vocabulary


def test_labels_are_compared_regardless_of_how_they_are_written() -> None:
    split = unicodedata.normalize("NFD", "Écureuil  roux")
    assert plain(split) == plain("écureuil ROUX") and plain("Straße") == plain("STRASSE") != plain("Strase")
    assert meant(split, ["écureuil roux", "cat"]) == "écureuil roux"
    assert Vocabulary.of([split]).among(["ÉCUREUIL ROUX"]) == [plain(split)]
