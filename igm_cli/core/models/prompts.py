"""Prompts as a text-to-image model's U-Net reads them, each encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from igm_cli.errors import InputError

CHUNK = 32


@dataclass(frozen=True)
class PromptEmbeddings:
    """P encoded prompts.

    Attributes:
        sequence: What the U-Net attends to, ``[P,L,E]``.
        pooled: One vector a prompt ``[P,E']``, if the model has been trained on it (SDXL).
    """

    sequence: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return int(self.sequence.shape[0])

    def select(self, index: Tensor) -> PromptEmbeddings:
        """Those of an index ``[R]``, in its order."""
        return PromptEmbeddings(self.sequence[index], None if self.pooled is None else self.pooled[index])

    @classmethod
    def join(cls, parts: Sequence[PromptEmbeddings]) -> PromptEmbeddings:
        """All of them, in order."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        sequence = torch.cat([part.sequence for part in parts])
        return cls(sequence, torch.cat(pooled) if pooled else None)


class PromptEncoder:
    """The text encoders of a pipeline with a memory of every prompt they have seen.

    Args:
        tokenizers: One a text encoder.
        text_encoders: One (Stable Diffusion 1.x, 2.x) or two (SDXL).
        device: Where embeddings are kept.
        penultimate: Take the last but one layer, as SDXL does, and the last encoder's projection.
        zero_empty: The empty prompt is all zeros, as SDXL was trained.
    """

    def __init__(
        self,
        tokenizers: Sequence[Any],
        text_encoders: Sequence[Any],
        device: torch.device,
        *,
        penultimate: bool = False,
        zero_empty: bool = False,
    ) -> None:
        self.tokenizers, self.text_encoders = tuple(tokenizers), tuple(text_encoders)
        self.device, self.penultimate, self.zero_empty = device, penultimate, zero_empty
        self.encoded = 0
        self._memory: dict[str, PromptEmbeddings] = {}

    def __call__(self, texts: Sequence[str]) -> PromptEmbeddings:
        """Embeddings of P prompts; only those not seen before are encoded.

        Raises:
            InputError: If a prompt is longer than the model reads.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._memory]
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            embeddings = self._encode(chunk)
            for i, text in enumerate(chunk):
                self._memory[text] = embeddings.select(torch.tensor([i], device=self.device))
        return PromptEmbeddings.join([self._memory[text] for text in texts])

    def knows(self, texts: Sequence[str]) -> bool:
        """True if no text encoder is needed for them."""
        return all(text in self._memory for text in texts)

    def _encode(self, texts: Sequence[str]) -> PromptEmbeddings:
        self.encoded += len(texts)
        with torch.no_grad():
            outputs = [
                self._run(tokenizer, encoder, texts)
                for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True)
            ]
        if not self.penultimate:
            return PromptEmbeddings(outputs[0][0])
        sequence = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = outputs[-1][0]
        if self.zero_empty:
            empty = torch.tensor([text == "" for text in texts], device=self.device)
            sequence = sequence.masked_fill(empty[:, None, None], 0)
            pooled = pooled.masked_fill(empty[:, None], 0)
        return PromptEmbeddings(sequence, pooled)

    def _run(self, tokenizer: Any, encoder: Any, texts: Sequence[str]) -> Any:
        ids, mask = self._tokens(tokenizer, encoder, texts)
        # Padding is attended to unless the model's configuration says otherwise: so it was trained.
        attended = mask if getattr(encoder.config, "use_attention_mask", False) else None
        return encoder(ids, attention_mask=attended, output_hidden_states=self.penultimate)

    def _tokens(self, tokenizer: Any, encoder: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and their mask ``[P,L]``, padded to the length the model was trained on."""
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
            if len(ids) > length:  # what is cut off could be the very label
                raise InputError(
                    f"the prompt {text!r} has {len(ids)} tokens and this model reads {length}; "
                    "use a shorter label or template"
                )
        tokens = tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
        return tokens.input_ids.to(self.device), tokens.attention_mask.to(self.device)
