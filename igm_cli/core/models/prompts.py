"""Prompts: combining several labels into one caption, and encoding prompts for a text-to-image model's network."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from igm_cli.errors import InputError, need

if TYPE_CHECKING:
    from igm_cli.core.models.families import Family, Prompts

CHUNK = 32
"""Prompts encoded at once."""


def compound(template: str, labels: Sequence[str]) -> str:
    """Returns one caption for several labels: "a photo of a cup, a spoon and a plate".

    If the template has "a" before ``{label}``, it is repeated before every label.
    """
    before, _, after = template.partition("{label}")
    words = before.split(" ")  # the last one is empty if a space precedes the label
    start, article = (before[:-2], "a ") if words[-2:] == ["a", ""] else (before, "")
    listed = [article + label for label in labels]
    joined = " and ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
    return start + joined + after


class PromptEncoder:
    """Encodes prompts as the pipeline does, and remembers every one it has seen.

    The text encoders, which may be larger than the network, are on the device only while they encode; embeddings stay there.
    """

    def __init__(self, pipe: Any, family: Family, device: torch.device) -> None:
        self.pipe, self.family, self.device = pipe, family, device
        self._memory: dict[str, dict[str, Tensor]] = {}

    def __call__(self, texts: Sequence[str]) -> Prompts:
        """Returns the embeddings of P prompts; only those not seen before are encoded.

        Raises:
            InputError: If a prompt is longer than the model reads.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._memory]
        if new:
            self._refuse_long(new)
            self.pipe.maybe_free_model_hooks()  # where offloading is on, the other parts leave the device
            with self._encoders_on_device():
                for chunk in (new[start : start + CHUNK] for start in range(0, len(new), CHUNK)):
                    self._encode(chunk)
            self.pipe.maybe_free_model_hooks()
        rows = [self._memory[text] for text in texts]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    @contextmanager
    def _encoders_on_device(self) -> Iterator[None]:
        """Moves the text encoders to the device and back; those with offloading hooks move on their own."""
        every = [encoder for *_, encoder in self.family.encoders(self.pipe) if not hasattr(encoder, "_hf_hook")]
        try:
            for encoder in every:
                encoder.to(self.device)
            yield
        finally:
            for encoder in every:
                encoder.to("cpu")
            if every and self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _refuse_long(self, texts: Sequence[str]) -> None:
        """Refuses prompts that would be cut off: the cut could remove the label itself."""
        for reader, tokenizer, _ in self.family.encoders(self.pipe):
            length = self.family.window(self.pipe, reader, tokenizer)
            for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
                if len(ids) > length:
                    raise InputError(
                        f"the prompt {text!r} has {len(ids)} tokens and this model reads {length}; "
                        "use a shorter label or template"
                    )

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> None:
        """Encodes prompts and remembers them."""
        columns = self.family.encode(self.pipe, texts, self.device)
        for row, text in enumerate(texts):
            self._memory[text] = {name: column[row] for name, column in columns.items()}


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the distinct words of texts, sorted."""
    return tuple(sorted({word for text in texts for word in text.lower().replace(",", " , ").split()}))


@functools.lru_cache(maxsize=8)
def word_tokenizer(words: tuple[str, ...], length: int) -> Any:
    """Returns a ``CLIPTokenizer`` for which each of the words is one token; others are split into letters.

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
    # As the tokenizer will see them: letters beyond its alphabet as their bytes, each by a letter of it.
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    seen = [as_bytes.pre_tokenize_str(word)[0][0] for word in words]
    bare.train_from_iterator([" ".join(seen)], trainer)
    learned = json.loads(bare.to_str())["model"]["merges"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in learned]
    names = [*letters, *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
