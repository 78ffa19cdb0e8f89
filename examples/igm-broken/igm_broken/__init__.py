"""Imports, but holds nothing that igm can use."""


class NotAParser:
    """Has no method of a concept parser."""

    name = "no-parser"
