"""A tokenizer of few words: byte-pair encoding in CLIP's form, its merges learned from the words themselves."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any


@functools.lru_cache(maxsize=8)
def word_tokenizer(words: tuple[str, ...], length: int) -> Any:
    """A ``CLIPTokenizer`` to which each of the words is one token; others fall into their letters.

    Args:
        words: Lower-case words.
        length: Tokens a prompt is padded to (``model_max_length``).
    """
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
    merges = _merges(bare)
    names = [*letters, *("".join(pair) for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def _merges(tokenizer: Any) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in merges]


def words_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The different words of texts, in order."""
    return tuple(sorted({word for text in texts for word in text.lower().replace(",", " , ").split()}))
