"""Prompts: how several labels make one caption, and what a text-to-image model's U-Net reads of a prompt."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.errors import InputError, need

CHUNK = 32
"""Prompts that are encoded at once."""


def compound(template: str, labels: Sequence[str]) -> str:
    """Returns one caption of several labels: "a photo of a cup, a spoon and a plate".

    The article before ``{label}``, where the template has one, is repeated with every label.
    """
    before, _, after = template.partition("{label}")
    words = before.split(" ")  # the last of them is empty if a space stands before the label
    start, article = (before[:-2], "a ") if words[-2:] == ["a", ""] else (before, "")
    listed = [article + label for label in labels]
    joined = " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
    return start + joined + after


@dataclass(frozen=True)
class PromptEmbeddings:
    """P encoded prompts.

    Attributes:
        sequence: What the U-Net attends to, ``[P,L,E]``.
        pooled: One vector per prompt ``[P,E']`` if the model is conditioned on it (SDXL).
    """

    sequence: Tensor
    pooled: Tensor | None = None

    def select(self, index: Tensor) -> PromptEmbeddings:
        """Returns the prompts of an index ``[R]``, in its order."""
        return PromptEmbeddings(self.sequence[index], None if self.pooled is None else self.pooled[index])


def text_encoders(pipe: Any) -> list[tuple[Any, Any]]:
    """Returns the (tokenizer, text encoder) pairs of a diffusers pipeline: one, or two for SDXL."""
    return [
        (getattr(pipe, f"tokenizer{suffix}"), getattr(pipe, f"text_encoder{suffix}"))
        for suffix in ("", "_2")
        if hasattr(pipe, f"tokenizer{suffix}")
    ]


class PromptEncoder:
    """A pipeline's ``encode_prompt`` with a memory of every prompt it has seen.

    Args:
        pipe: A diffusers pipeline.
        device: Where embeddings are kept.
    """

    def __init__(self, pipe: Any, device: torch.device) -> None:
        self.pipe, self.device, self.encoded = pipe, device, 0
        self._memory: dict[str, tuple[Tensor, ...]] = {}

    def __call__(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Returns the embeddings of P prompts; only those not seen before are encoded.

        Raises:
            InputError: If a prompt is longer than the model reads.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._memory]
        if new:
            self._refuse_long(new)
            self.pipe.maybe_free_model_hooks()  # where offloading is on, the other parts leave the device
            for chunk in (new[start : start + CHUNK] for start in range(0, len(new), CHUNK)):
                self._memory.update(zip(chunk, self._encode(chunk), strict=True))
            self.pipe.maybe_free_model_hooks()
        columns = zip(*(self._memory[text] for text in texts), strict=True)
        return PromptEmbeddings(*(torch.stack(column) for column in columns))

    def _refuse_long(self, texts: Sequence[str]) -> None:
        """Raises an error for a prompt that would be cut off: what is cut could be the label itself."""
        for tokenizer, _ in text_encoders(self.pipe):
            length = tokenizer.model_max_length
            for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
                if len(ids) > length:
                    raise InputError(
                        f"the prompt {text!r} has {len(ids)} tokens and this model reads {length}; "
                        "use a shorter label or template"
                    )

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> list[tuple[Tensor, ...]]:
        """Returns one (sequence,) or (sequence, pooled) per prompt."""
        self.encoded += len(texts)
        encoded = self.pipe.encode_prompt(
            texts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        columns = encoded[::2]  # between them are the negative prompts, of which there are none
        if len(columns) > 1 and self.pipe.config.force_zeros_for_empty_prompt:  # as SDXL was trained
            said = torch.tensor([text != "" for text in texts], device=self.device)
            columns = [torch.where(said.view(-1, *[1] * (c.dim() - 1)), c, 0) for c in columns]
        return list(zip(*columns, strict=True))


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the different words of texts, in order."""
    return tuple(sorted({word for text in texts for word in text.lower().replace(",", " , ").split()}))


@functools.lru_cache(maxsize=8)
def word_tokenizer(words: tuple[str, ...], length: int) -> Any:
    """Returns a ``CLIPTokenizer`` to which each of the words is one token; others fall into their letters.

    Its byte-pair merges are learned from the words themselves.

    Args:
        words: Lower-case words.
        length: Tokens a prompt is padded to (``model_max_length``).
    """
    need("text", "transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    bare = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        initial_alphabet=alphabet,
        special_tokens=letters,  # numbers them in this order, by which equally frequent pairs are ranked
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bare.train_from_iterator([" ".join(words)], trainer)
    learned = json.loads(bare.to_str())["model"]["merges"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned]
    names = [*letters, *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
