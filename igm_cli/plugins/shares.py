"""Splits of a folder that names none: seeded shares of its images."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from igm_cli.errors import UsageError
from igm_cli.plugins.adapters import SPLITS, Options

OPTIONS: Mapping[str, str] = {
    "shares": "shares of train, val and test, where no list or folder says them (default 80/10/10)",
    "split_seed": "seed of which images are in which share (default 0)",
}
"""The options of a dataset whose images are divided so."""


def seeded_share(image: str, shares: Sequence[float], seed: int) -> str:
    """Returns the split of an image by a hash of its path and a seed: adding images moves none of the others."""
    digest = hashlib.sha256(f"{seed}/{unicodedata.normalize('NFC', image)}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64 * sum(shares)
    return next((split for i, split in enumerate(SPLITS) if place < sum(shares[: i + 1])), SPLITS[-1])


def shares_of(options: Options) -> dict[str, Any]:
    """Returns the shares of the splits and their seed, the arguments of :func:`seeded_share`."""
    text = options.get("shares", "80/10/10")
    try:
        shares = [float(part) for part in str(text).split("/")]
        if len(shares) != len(SPLITS) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise ValueError("three shares are needed")
    except ValueError as error:
        raise UsageError(f"shares must look like 80/10/10, not {text!r}") from error
    try:
        return {"shares": shares, "seed": int(options.get("split_seed", 0))}
    except (TypeError, ValueError) as error:
        raise UsageError(f"split_seed must be a whole number, not {options['split_seed']!r}") from error
