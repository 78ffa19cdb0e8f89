"""Dataset ``codebook``: random codebooks, and bound vectors of their codewords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, need
from igm_cli.plugins.adapters import SPLIT_SEEDS, Adapter, Dataset, choice, number_option
from igm_cli.plugins.base import Progress

if TYPE_CHECKING:
    from igm_cli.core.decomposition.problems import Problems

_NUMBERS = {  # smallest value and default of each number; those whose default is int must be whole
    "codewords": (2, 50), "factors": (2, 3), "dim": (1, 1000), "noise": (0, 0.0), "superposed": (1, 1), "size": (1, 128),
}  # fmt: skip


class CodebookProblems(Adapter):
    """Bound vectors of random codewords; each split and seed has its own codebooks.

    It has no ``image`` column, and no model is trained on it: a codebook's denoiser is known exactly.  Its columns are
    ``vector``, D numbers (for fhrr D pairs of a real and an imaginary part), and ``truth``, the indices of each
    product's codewords; :meth:`problems` also returns the codebooks.
    """

    name = "codebook"
    summary = "vectors bound from random codewords, to be taken apart (nothing to train)"
    licence = "made by this project (MIT)"
    source = "SPLIT.safetensors files, each with factor_0, factor_1, ..., vectors and truth"
    splits = ("val", "test")
    image_size = (0, 0)
    concepts = "codebook"
    options: Mapping[str, str] = {
        "codewords": "n, how many codewords each codebook has (default 50)",
        "factors": "K, how many codebooks there are (default 3)",
        "dim": "D, dimension of a codeword (default 1000)",
        "binding": "map, hrr or fhrr, as torchhd has them (default map)",
        "noise": "white noise on a bound vector, over the standard deviation of its coordinates (default 0)",
        "superposed": "how many products a vector is the sum of (default 1)",
        "size": "how many vectors (default 128)",
    }
    rendered_options = frozenset(options)
    drawn = "problems drawn at random"

    def load(
        self, split: str, *, limit: int | None = None, progress: Progress | None = None, **options: Any
    ) -> Dataset:
        """Returns a split; ``source`` describes the files of a data root."""
        need("train", "datasets")
        import datasets
        import torch

        found = self.problems(split, **options)
        vectors, truth = found.vectors[:limit], found.truth[:limit]
        number: Any = datasets.Value("float32")
        if vectors.is_complex():
            vectors, number = torch.view_as_real(vectors), [number]
        if progress:
            progress("drawing problems", len(vectors), len(vectors))
        products = truth.reshape(len(truth), -1, truth.shape[-1])  # [B,S,K]
        return datasets.Dataset.from_dict(
            {"vector": vectors.numpy(), "truth": products.numpy()},
            features=datasets.Features({"vector": [number], "truth": [[datasets.Value("int64")]]}),
        )

    def problems(self, split: str, *, data_root: Path | None = None, seed: int = 0, **options: Any) -> Problems:
        """Returns a split as tensors, with its codebooks; takes the arguments of :meth:`load`."""
        self.check(split, data_root, options)
        if data_root is not None:
            from igm_cli.plugins.codebook.files import read_problems

            path = data_root / f"{split}.safetensors"
            if not path.is_file():
                raise InputError(f"{data_root} has no {path.name}; put one there, or leave out the data root")
            return read_problems(path)
        from igm_cli.core.decomposition.binding import BINDINGS
        from igm_cli.core.decomposition.problems import random_problems

        settings: dict[str, Any] = {
            name: number_option(name, options.get(name, default), least, isinstance(default, int))
            for name, (least, default) in _NUMBERS.items()
        }
        sizes = [settings.pop(name) for name in ("codewords", "factors", "dim", "size")]
        settings["binding"] = choice("binding", options.get("binding", "map"), BINDINGS)
        return random_problems(*sizes, seed=seed + SPLIT_SEEDS[split], **settings)
