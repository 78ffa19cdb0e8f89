"""A pretrained text-to-image model behind the denoiser protocol; concepts are labels in a prompt.

The network is called once per noised latent and prompt; the empty prompt gives eps_u.  Everything
is in the latent space of the model's own autoencoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from igm_cli.core.concepts import Text
from igm_cli.core.denoiser import InputFeatures
from igm_cli.core.models.families import Prompts
from igm_cli.core.models.pipelines import TextToImageParts
from igm_cli.core.models.prompts import PromptEncoder
from igm_cli.errors import InputError, counted

ALIVE = 64
"""Generous estimate of the tensors, as large as the first hidden state, that a network call holds per latent."""


def default_batch(parts: TextToImageParts) -> int:
    """Returns how many latents a network call takes: many small ones, since overheads count, or few large ones.

    On CUDA they fit into half the free memory.  Rounding down to a power of two makes the number insensitive to small
    differences in memory.
    """
    places, most = (1 << 18, 256) if parts.device.type == "cuda" else (1 << 14, 32)
    _, height, width = parts.latent_shape
    if parts.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(parts.device)
        level = parts.family.width(parts.pipe) * parts.dtype.itemsize * height * width
        most = min(most, 1 << max(0, int(free / 2 / (ALIVE * level)).bit_length() - 1))
    return max(1, min(most, places // (height * width)))


class TextToImageDenoiser:
    """eps_theta(x_t, t | prompt of a label).

    Args:
        parts: A loaded pipeline.
        space: The labels and the templates they are put in.
        batch: Latents per network call; by default what suits the device and their size.
        encoder: Prompt encoder to share with another denoiser of the same parts.

    Attributes:
        halved: Whether memory ran out once, which halved the batch.
    """

    def __init__(
        self,
        parts: TextToImageParts,
        space: Text,
        batch: int | None = None,
        encoder: PromptEncoder | None = None,
    ) -> None:
        self.parts, self.space, self.schedule = parts, space, parts.schedule
        self.device, self.image_size, self.latent_shape = parts.device, parts.image_size, parts.latent_shape
        self.batch = batch or default_batch(parts)
        self.encoder = encoder or PromptEncoder(parts.pipe, parts.family, parts.device)
        self.halved = False

    def with_labels(
        self, labels: Sequence[str], templates: Sequence[str] | None = None, nothing: str = ""
    ) -> TextToImageDenoiser:
        """Returns a denoiser for other labels with the same networks and encoded prompts.

        A label for ``nothing``, if given, comes after the labels.
        """
        every = (*labels, nothing) if nothing else tuple(labels)
        space = Text(every, tuple(templates or self.space.templates), nothing)
        return TextToImageDenoiser(self.parts, space, self.batch, self.encoder)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Returns the latent of an image: the mean of the autoencoder's posterior, as the network was trained on.

        Args:
            image: ``[3,H,W]`` in -1..1, of :attr:`image_size`.

        Returns:
            ``[C,h,w]`` float32 on the device.
        """
        width, height = self.image_size
        if tuple(image.shape) != (3, height, width):
            raise ValueError(f"an image of shape {(3, height, width)} is needed, not {tuple(image.shape)}")
        pipe = self.parts.pipe
        encoded = pipe.vae.encode(image[None].to(self.device, torch.float32))
        dist = getattr(encoded, "latent_dist", None)  # AutoencoderDC has a latent and no distribution
        mean: Tensor = (encoded.latent if dist is None else dist.mode())[0]
        pipe.maybe_free_model_hooks()  # where offloading is on, the autoencoder leaves the device
        shift, scale = self._latent_units
        return (mean - shift) * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Returns the images ``[B,3,H,W]`` of latents ``[B,C,h,w]``, nominally in -1..1: the inverse of :meth:`encode`."""
        pipe, (shift, scale) = self.parts.pipe, self._latent_units
        each = (latents.to(self.device, torch.float32) / scale + shift).split(1)
        images = torch.cat([pipe.vae.decode(latent, return_dict=False)[0].float() for latent in each])
        pipe.maybe_free_model_hooks()
        return images

    @property
    def _latent_units(self) -> tuple[float, float]:
        """The number subtracted from the autoencoder's latents, and the factor they are then multiplied by."""
        config = self.parts.pipe.vae.config
        return float(getattr(config, "shift_factor", None) or 0.0), float(config.scaling_factor)

    def features(self, x_t: Tensor, t: Tensor) -> InputFeatures:
        """Keeps the input: nothing before the network is shared."""
        return InputFeatures(x_t, t)

    def base(self, features: InputFeatures) -> Tensor:
        """Returns eps_u ``[N,C,h,w]`` float32, under the empty prompt; it is computed once per features."""
        if features.base is None:
            features.base = self.predictions_of_prompts(features, [""])[:, 0]
        return features.base

    def predictions(self, features: InputFeatures, concepts: Tensor) -> Tensor:
        """Returns eps under every label, the mean over the templates.

        Args:
            features: Features of N noised latents.
            concepts: One-hot rows ``[N,M,D]``, or ``[1,M,D]`` if all latents share them.

        Returns:
            ``[N,M,C,h,w]`` float32.
        """
        n = len(features.t)
        labels, which = self._labels(concepts).expand(n, -1).unique(return_inverse=True)
        which = which.to(self.device)
        prompts = [self.space.prompts(label) for label in labels.tolist()]
        total = torch.zeros(())
        for template in range(len(self.space.templates)):
            embeddings = self.embed([of_label[template] for of_label in prompts])
            total = total + self._epsilon(features, embeddings, which)
        return total / len(self.space.templates)

    def contributions(self, features: InputFeatures, concepts: Tensor) -> Tensor:
        """Returns Delta ``[N,M,C,h,w]`` of one-hot concepts ``[N,M,D]`` or ``[1,M,D]``."""
        return self.predictions(features, concepts) - self.base(features)[:, None]

    def predictions_of_prompts(self, features: InputFeatures, texts: Sequence[str]) -> Tensor:
        """Returns eps under P whole prompts, ``[N,P,C,h,w]`` float32."""
        every = torch.arange(len(texts), device=self.device)
        return self._epsilon(features, self.embed(texts), every.expand(len(features.t), -1))

    def embed(self, texts: Sequence[str]) -> Prompts:
        """Returns P encoded prompts, each encoded once in the life of the model."""
        return self.encoder(texts)

    def _labels(self, concepts: Tensor) -> Tensor:
        """Returns the labels ``[N,M]`` that one-hot rows ``[N,M,D]`` stand for, on the CPU: the host must know them."""
        concepts = concepts.cpu()
        labels = concepts.argmax(-1)
        if not torch.equal(torch.nn.functional.one_hot(labels, self.space.dim).to(concepts), concepts):
            raise ValueError("concepts of a text-to-image model are one-hot rows over its labels")
        return labels

    def _epsilon(self, features: InputFeatures, embeddings: Prompts, which: Tensor) -> Tensor:
        """Returns eps ``[N,M,C,h,w]`` of latent n under the prompts ``which[n]`` of ``[N,M]``."""
        n, m = which.shape
        latents = torch.arange(n, device=self.device).repeat_interleave(m)
        x_t, t = features.x_t.to(self.device, torch.float32), features.t.to(self.device)
        prompts = which.flatten()

        def every() -> Tensor:
            rows = zip(latents.split(self.batch), prompts.split(self.batch), strict=True)
            return torch.cat([self._call(x_t[row], t[row], embeddings, prompt) for row, prompt in rows])

        eps = None
        try:
            eps = every()
        except torch.OutOfMemoryError:
            if self.halved or self.batch == 1:
                raise
        if eps is None:  # not within the except clause, whose traceback holds on to what filled the memory
            self.halved, self.batch = True, self.batch // 2
            warnings.warn(
                f"not enough memory; a network call takes {counted(self.batch, 'latent')} from now on",
                stacklevel=2,
            )
            torch.cuda.empty_cache()
            eps = every()
        if not bool(torch.isfinite(eps).all()):  # once for all calls: the host waits for the device here
            raise InputError(
                f"the model's predictions are not finite in {str(self.parts.dtype).removeprefix('torch.')}; "
                "use --dtype float32"
            )
        return eps.view(n, m, *eps.shape[1:])

    @torch.no_grad()
    def _call(self, x_t: Tensor, t: Tensor, embeddings: Prompts, prompts: Tensor) -> Tensor:
        """Returns eps ``[R,C,h,w]`` of R latents, each under its own of the prompts ``[R]``, by one call of the network."""
        parts, time = self.parts, self.schedule.time(t)
        given = {name: each[prompts] for name, each in embeddings.items()}
        given |= {name: each.to(parts.dtype) for name, each in given.items() if each.is_floating_point()}
        output = parts.family.output(parts.pipe, x_t.to(parts.dtype), time, given, parts.image_size)
        return self.schedule.output_to_epsilon(output.float(), x_t, t)
