"""Dataset ``codebook``: random codebooks, and vectors bound from their codewords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import InputError, UsageError
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_request

if TYPE_CHECKING:
    import datasets

    from igm_cli.core.decomposition.problems import Problems

_OPTIONS = {
    "codewords": "n, how many codewords each codebook has (default 50)",
    "factors": "K, how many codebooks there are (default 3)",
    "dim": "D, dimension of a codeword (default 1000)",
    "binding": "map, hrr or fhrr, as torchhd has them (default map)",
    "noise": "white noise on a bound vector, over the standard deviation of its coordinates (default 0)",
    "superposed": "how many products a vector is the sum of (default 1)",
    "size": "how many vectors (default 128)",
}
_DEFAULTS = {"codewords": 50, "factors": 3, "dim": 1000, "superposed": 1, "size": 128}
_LEAST = {"codewords": 2, "factors": 2, "dim": 1, "superposed": 1, "size": 1}

# No codebook of one split is one of another: each split draws from its own seed.
_SPLIT_SEEDS = {"val": 1_000_003, "test": 2_000_003}


class CodebookProblems:
    """Vectors bound from random codewords, of all splits and seeds each with codebooks of its own.

    It has no ``image`` column, and nothing is trained on it: a codebook's denoiser is known exactly.  Its columns are
    ``vector``, D numbers (for fhrr D pairs of a real and an imaginary part), and ``truth``, the indices of every
    product's codewords; :meth:`problems` has the codebooks too.
    """

    name = "codebook"
    summary = "vectors bound from random codewords, to be taken apart (nothing to train)"
    licence = "made by this project (MIT)"
    source = "SPLIT.safetensors files, each with factor_0, factor_1, ..., vectors and truth"
    splits = ("val", "test")
    image_size = (0, 0)
    concepts = "codebook"
    options: Mapping[str, str] = _OPTIONS
    presets: Mapping[str, Path] = {}

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> datasets.Dataset:
        """A split with the columns ``vector`` and ``truth``.

        Args:
            split: ``val`` or ``test``.
            data_root: A folder of .safetensors files as ``source`` says; None draws problems at random.
            limit: At most so many vectors.
            seed: Of everything random.
            progress: Called when they are drawn.
            **options: See ``options``.

        Raises:
            UsageError: If the split or an option is unknown.
            InputError: If the folder has no such file.
        """
        import datasets
        import torch

        found = self.problems(split, data_root=data_root, seed=seed, **options)
        vectors, truth = found.vectors[:limit], found.truth[:limit]
        number: Any = datasets.Value("float32")
        if vectors.is_complex():
            vectors, number = torch.view_as_real(vectors), datasets.Sequence(number)
        if progress:
            progress("drawing problems", len(vectors), len(vectors))
        products = truth.reshape(len(truth), -1, truth.shape[-1])  # [B,S,K]
        indices = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        dataset: datasets.Dataset = datasets.Dataset.from_dict(
            {"vector": vectors.numpy(), "truth": products.numpy()},
            features=datasets.Features({"vector": datasets.Sequence(number), "truth": indices}),
        )
        return dataset

    def problems(self, split: str, *, data_root: Path | None = None, seed: int = 0, **options: Any) -> Problems:
        """A split as tensors, with its codebooks; arguments as those of :meth:`load`."""
        settings = _settings(split, data_root, options)
        if data_root is not None:
            from igm_cli.plugins.codebook.files import read_problems

            path = data_root / f"{split}.safetensors"
            if not path.is_file():
                raise InputError(f"{data_root} has no {path.name}; put one there, or leave out the data root")
            return read_problems(path)
        from igm_cli.core.decomposition.problems import random_problems

        sizes = [settings.pop(name) for name in ("codewords", "factors", "dim", "size")]
        return random_problems(*sizes, seed=seed + _SPLIT_SEEDS[split], **settings)


def _settings(split: str, data_root: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options checked, with the defaults of those that are not given."""
    check_request("codebook", split, CodebookProblems.splits, options, _OPTIONS)
    if data_root is not None:
        if options:
            raise UsageError(
                f"{next(iter(options))} is of problems drawn at random; leave it out with a data root"
            )
        return {}
    settings: dict[str, Any] = {
        name: _number(name, options.get(name, default), least=_LEAST[name], whole=True)
        for name, default in _DEFAULTS.items()
    }
    settings["noise"] = _number("noise", options.get("noise", 0.0), least=0, whole=False)
    settings["binding"] = str(options.get("binding", "map"))
    if settings["binding"] not in ("map", "hrr", "fhrr"):
        raise UsageError(f"binding must be map, hrr or fhrr, not {settings['binding']!r}")
    return settings


def _number(name: str, value: Any, *, least: int, whole: bool) -> float:
    try:
        number = int(value) if whole else float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be a number, not {value!r}") from error
    if not least <= number < float("inf") or (whole and number != float(value)):
        raise UsageError(f"{name} must be a {'whole ' * whole}number of at least {least}, not {value}")
    return number
