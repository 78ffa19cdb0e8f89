"""A latent model as a folder that ``StableDiffusionPipeline.from_pretrained`` reads: written, and read back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from igm_cli.core.concepts import Text
from igm_cli.core.models.latent import LatentTextToImage
from igm_cli.core.models.pipeline_files import first_line, read_json
from igm_cli.core.models.pipelines import quiet
from igm_cli.core.weights import read_weights, write_weights
from igm_cli.errors import InputError, MissingError

PARTS = ("vae", "text_encoder", "unet")


def save_pipeline(
    folder: Path, schedule: Mapping[str, Any], model: LatentTextToImage, dtype: torch.dtype
) -> Text:
    """Writes the pipeline, every part at once.

    Args:
        folder: Created if need be; what else is in it stays.
        schedule: diffusers scheduler configuration.
        model: The networks; what only training needs is left out.
        dtype: Type of the weights on disk.

    Returns:
        The labels with the one template that they are asked about by; several would cost as many calls per label.

    Raises:
        InputError: If the weights are not finite; nothing is replaced then.
    """
    with quiet():
        from diffusers import DDIMScheduler, StableDiffusionPipeline

    folder.mkdir(parents=True, exist_ok=True)
    model.vae.register_to_config(scaling_factor=round(float(model.scale), 6))
    scheduler = DDIMScheduler.from_config(
        {**schedule, "_class_name": "DDIMScheduler", "set_alpha_to_one": False, "steps_offset": 1}
    )
    pipeline = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with quiet(), tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        fresh = Path(name)
        pipeline.save_pretrained(fresh, safe_serialization=True)
        model.tokenizer.backend_tokenizer.model.save(str(fresh / "tokenizer"))  # vocab.json and merges.txt
        for path in fresh.glob("*/*.safetensors"):
            write_weights(path, read_weights(path), dtype)
        for part in sorted(fresh.iterdir()):
            _replace(part, folder / part.name)
    return Text(model.space.labels, model.space.templates[:1])


def load_parts(model: LatentTextToImage, folder: Path) -> None:
    """Takes the networks of a pipeline folder, to train them further; what only training needs begins afresh.

    Raises:
        MissingError: If a part is not there.
        InputError: If one does not fit, or its prompts are of other words.
    """
    for name in PARTS:
        paths = sorted((folder / name).glob("*.safetensors"))
        if not paths:
            raise MissingError(
                f"{folder} has no weights of the {name}; give the folder of a text-to-image model"
            )
        try:
            getattr(model, name).load_state_dict(
                {key: value for path in paths for key, value in read_weights(path).items()}
            )
        except RuntimeError as error:
            raise InputError(f"the {name} of {folder} does not fit the model: {first_line(error)}") from error
    if not _same_words(model, read_json(folder / "tokenizer" / "vocab.json")):
        raise InputError(f"the tokenizer of {folder} knows other words; give a model of the same labels")
    path = folder / "vae" / "config.json"
    scale = read_json(path).get("scaling_factor")
    if not isinstance(scale, int | float):
        raise InputError(f"{path} has no scaling_factor; give the folder of a text-to-image model")
    model.scale.fill_(scale)


def _same_words(model: LatentTextToImage, vocabulary: dict[str, Any]) -> bool:
    """Whether the words that a model knows have the same numbers, by which it looks their embeddings up."""
    known = model.tokenizer.get_vocab()
    words = {f"{word}</w>" for word in model.words} & known.keys()
    return all(vocabulary.get(word) == known[word] for word in words)


def _replace(part: Path, target: Path) -> None:
    """Moves a file or folder into place; a folder that is there is swapped out first."""
    if part.is_dir() and target.exists():
        old = part.with_name(f"old-{part.name}")
        target.rename(old)
        part.rename(target)
        shutil.rmtree(old)
    else:
        part.replace(target)
