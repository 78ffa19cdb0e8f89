"""Concepts ``codebook``: the codewords whose product is a bound vector, one of each codebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.core.concepts import Codebook
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins.codebook.files import read_codebooks, read_vectors

if TYPE_CHECKING:
    from PIL.Image import Image

    from igm_cli.plugins.base import Frame


class CodebookProducts:
    """Products of codewords; a concept is a row of K indices, and a superposition of S products has S rows.

    It reads vectors, not images, and ignores frames.
    """

    name = "codebook"
    reads = "vectors"
    summary = "the codewords a bound vector is made of, one of every codebook"
    options: Mapping[str, str] = {
        "sizes": "how many codewords each codebook has, between commas, e.g. 50,50,50",
        "dim": "dimension of a codeword",
    }

    def __init__(self, sizes: Sequence[int] = (50, 50, 50), dim: int = 1000) -> None:
        self.space = Codebook(tuple(sizes), dim)

    def configured(self, options: Mapping[str, Any]) -> CodebookProducts:
        """Returns a parser for other codebooks."""
        sizes, dim = options.get("sizes", self.space.sizes), options.get("dim", self.space.dim)
        try:
            numbers = [int(n) for n in sizes.split(",")] if isinstance(sizes, str) else sizes
            return CodebookProducts(numbers, int(dim))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"there are no codebooks of the sizes {sizes} and the dimension {dim}: {error}"
            ) from error

    read_codebooks = staticmethod(read_codebooks)
    read_vectors = staticmethod(read_vectors)

    def parse(self, example: Mapping[str, Any], frame: Frame) -> Tensor:
        """Returns the example's ``truth`` as indices ``[S,K]``."""
        if "truth" not in example:
            raise InputError("concepts codebook need a column 'truth' of indices; this dataset has none")
        rows = torch.as_tensor(example["truth"], dtype=torch.long)
        return self._checked(rows.reshape(-1, rows.shape[-1]))

    def encode(self, items: Sequence[Mapping[str, Any]], frame: Frame) -> Tensor:
        """Maps items ``{"factor": .., "index": ..}``, of several products also ``"product"``, to indices ``[S,K]``."""
        products: dict[int, dict[int, int]] = {}
        for item in items:
            try:
                product, factor, index = int(item.get("product", 0)), int(item["factor"]), int(item["index"])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"an item needs a factor and an index, both numbers, unlike {dict(item)}"
                ) from error
            if factor in products.setdefault(product, {}):
                raise InputError(f"product {product} has two codewords of factor {factor}; it can have one")
            products[product][factor] = index
        if sorted(products) != list(range(len(products))):
            raise InputError(f"the products {sorted(products)} are not numbered from 0 on; correct them")
        count = len(self.space.sizes)
        for product, indices in products.items():
            if unknown := sorted(indices.keys() - set(range(count))):
                raise InputError(
                    f"there is no factor {unknown[0]}; the codebooks are those of 0 to {count - 1}"
                )
            if absent := sorted(set(range(count)) - indices.keys()):
                raise InputError(f"product {product} has no codeword of factor {absent[0]}; add it")
        rows = [products[product][factor] for product in sorted(products) for factor in range(count)]
        return self._checked(torch.tensor(rows, dtype=torch.long).reshape(-1, count))

    def decode(self, concepts: Tensor, frame: Frame) -> list[dict[str, Any]]:
        """Maps indices ``[S,K]`` to items ``{"factor": .., "index": ..}``, of several products also ``"product"``."""
        rows = concepts.tolist()
        return [
            {**({"product": product} if len(rows) > 1 else {}), "factor": factor, "index": index}
            for product, row in enumerate(rows)
            for factor, index in enumerate(row)
        ]

    def mirror(self, concepts: Tensor) -> Tensor:
        """Returns the same: a vector has no left and right."""
        return concepts

    def score(self, predicted: Tensor, truth: Tensor) -> dict[str, float]:
        """Returns the proportion of right factors under the best matching of products, and if all are right."""
        from scipy.optimize import linear_sum_assignment

        alike = (predicted[:, None] == truth[None]).sum(-1)  # [S,T]
        found, true = linear_sum_assignment(alike.numpy(), maximize=True)
        right = float(alike[found, true].sum()) / max(1, truth.numel())
        return {"factors": right, "exact": float(right == 1.0 and len(predicted) == len(truth))}

    def draw(self, image: Image, items: Sequence[Mapping[str, Any]]) -> Image:
        """Refuses to draw."""
        raise UsageError("a bound vector is not an image that could be drawn on; use --json or --output")

    def _checked(self, rows: Tensor) -> Tensor:
        """Returns indices ``[S,K]``, after checking that the codebooks have them."""
        sizes = self.space.sizes
        if rows.shape[-1] != len(sizes):
            raise InputError(
                f"a product needs an index for each of {len(sizes)} codebooks, not {rows.shape[-1]}; give one of each"
            )
        wrong = ((rows < 0) | (rows >= torch.tensor(sizes))).nonzero()
        if len(wrong):
            row, factor = wrong[0].tolist()
            raise InputError(
                f"codebook {factor} has {sizes[factor]} codewords, so none of the index {int(rows[row, factor])}"
            )
        return rows
