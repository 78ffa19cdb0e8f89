"""Tiny random text-to-image pipelines of the real structures, in every form they are handed around in."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KINDS = ("sd1", "sd2", "sdxl")
"""Those that single files hold, too."""
FOLDERS = ("sd2-eps", "sd3", "flux", "pixart", "sana", "dit")
"""Those that only folders hold."""
LATENT, FACTOR = 8, 2  # 16 x 16 pixels
WORDS = ("a", "photo", "of", "dog", "cat", "rabbit", "and")
START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, length: int = 16, pad: str = END) -> None:
    """A CLIP tokenizer that knows single bytes and a few words, as the files of the slow tokenizer."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
    merges = list(dict.fromkeys(merges))
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(m) for m in merges), START, END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges)
    )
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    options = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(options | special))


def _text_encoder(kind: Any, width: int, tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config).eval()


def _unet(kind: str, width: int, pooled: int, channels: int) -> Any:
    from diffusers import UNet2DConditionModel

    options: dict[str, Any] = {}
    if kind != "sd1":
        options |= {"use_linear_projection": True, "attention_head_dim": (2, 4)}
    if kind == "sdxl":
        options |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + pooled,
            "transformer_layers_per_block": (1, 2),
        }
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=width,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **{"attention_head_dim": 2} | options,
    )


def _vae(kind: str, channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=LATENT * FACTOR,
        scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
        force_upcast=kind == "sdxl",
    )


def build(
    folder: Path,
    kind: str,
    dtype: torch.dtype = torch.float32,
    channels: int = 4,
    variant: str | None = None,
) -> Path:
    """A pipeline of one of :data:`KINDS` or :data:`FOLDERS` as a folder; ``sd2`` predicts v, ``sd2-eps`` the noise."""
    from diffusers import (
        DDIMScheduler,
        EulerDiscreteScheduler,
        PNDMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    if kind in FOLDERS and kind != "sd2-eps":
        return _build_transformer(folder, kind, dtype, variant)
    torch.manual_seed((*KINDS, "sd2-eps").index(kind))
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    words = folder.with_name(folder.name + "-words")
    write_tokenizer(words, pad=END if kind == "sd1" else "!")
    tokenizer = CLIPTokenizer.from_pretrained(words)
    shutil.rmtree(words)
    encoder = _text_encoder(CLIPTextModel, 16, tokenizer)
    parts: dict[str, Any] = {"vae": _vae(kind, channels), "tokenizer": tokenizer, "text_encoder": encoder}
    if kind == "sdxl":
        pipeline = StableDiffusionXLPipeline(
            **parts,
            tokenizer_2=tokenizer,
            text_encoder_2=_text_encoder(CLIPTextModelWithProjection, 24, tokenizer),
            unet=_unet(kind, 40, 24, channels),
            scheduler=EulerDiscreteScheduler(**betas),
        )
    else:
        scheduler = (
            PNDMScheduler(**betas)
            if kind == "sd1"
            else DDIMScheduler(
                **betas, prediction_type="v_prediction" if kind == "sd2" else "epsilon", clip_sample=False
            )
        )
        pipeline = StableDiffusionPipeline(
            **parts,
            unet=_unet(kind, 16, 0, channels),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return _saved(pipeline, pipeline.unet, folder, dtype, variant)


def _saved(pipeline: Any, network: Any, folder: Path, dtype: torch.dtype, variant: str | None) -> Path:
    for each in (network, pipeline.vae):  # zero-initialised outputs would say nothing
        for parameter in each.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    pipeline.to(dtype)
    pipeline.save_pretrained(folder, variant=variant)
    return folder


PIECES = ("▁", *("▁" + word for word in WORDS), *(chr(code) for code in range(33, 127)))
"""Of the vocabularies of T5 and Gemma: words, and letters."""


def t5_tokenizer(length: int = 16) -> Any:
    """A Unigram tokenizer of a few words and of letters."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    vocabulary = [*special, *((piece, -2.0 if len(piece) > 2 else -8.0) for piece in PIECES)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=length)


def _t5(width: int, tokenizer: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=2 * width, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def gemma_tokenizer() -> Any:
    """A byte-pair tokenizer of a few words and of letters."""
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    merges, pieces = [], list(dict.fromkeys([*PIECES[:1], *(chr(code) for code in range(33, 127))]))
    for word in WORDS:
        parts = ["▁", *word]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
    merges = list(dict.fromkeys(merges))
    names = [
        *special,
        "\n",
        *pieces,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *("".join(pair) for pair in merges),
    ]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return GemmaTokenizer(vocab=vocabulary, merges=merges, model_max_length=512)


CLASSES = {str(i): f"thing {i}" for i in range(1000)} | {
    "1": "dog, domestic dog", "2": "cat", "3": "rabbit, hare", "7": "crane, bird", "9": "crane, machine",
}  # fmt: skip
"""Of a DiT: those of ImageNet are as many, and have names as long."""


def _build_transformer(folder: Path, kind: str, dtype: torch.dtype, variant: str | None) -> Path:
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(10 + FOLDERS.index(kind))
    shape = {"num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2, "in_channels": 4}
    flow = diffusers.FlowMatchEulerDiscreteScheduler
    betas = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    words = folder.with_name(folder.name + "-words")
    write_tokenizer(words)
    clip = CLIPTokenizer.from_pretrained(words)
    shutil.rmtree(words)
    vae = _vae(kind, 4)
    if kind == "sd3":
        vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
        t5 = t5_tokenizer()
        pipeline = diffusers.StableDiffusion3Pipeline(
            vae=vae, scheduler=flow(shift=3.0),
            tokenizer=clip, text_encoder=_text_encoder(CLIPTextModelWithProjection, 16, clip),
            tokenizer_2=clip, text_encoder_2=_text_encoder(CLIPTextModelWithProjection, 24, clip),
            tokenizer_3=t5, text_encoder_3=_t5(48, t5),
            transformer=diffusers.SD3Transformer2DModel(
                **shape, sample_size=LATENT, patch_size=2, out_channels=4, joint_attention_dim=48,
                caption_projection_dim=16, pooled_projection_dim=40, pos_embed_max_size=LATENT,
            ),
        )  # fmt: skip
    elif kind == "flux":
        vae.register_to_config(scaling_factor=0.3611, shift_factor=0.1159)
        t5 = t5_tokenizer()
        pipeline = diffusers.FluxPipeline(
            vae=vae, scheduler=flow(shift=3.0, use_dynamic_shifting=True, max_shift=1.15),
            tokenizer=clip, text_encoder=_text_encoder(CLIPTextModel, 16, clip),
            tokenizer_2=t5, text_encoder_2=_t5(24, t5),
            transformer=diffusers.FluxTransformer2DModel(
                **shape | {"in_channels": 16}, num_single_layers=1, joint_attention_dim=24, pooled_projection_dim=16,
                guidance_embeds=True, axes_dims_rope=(2, 2, 4),
            ),
        )  # fmt: skip
    elif kind == "pixart":
        t5 = t5_tokenizer(120)
        pipeline = diffusers.PixArtAlphaPipeline(
            vae=vae, scheduler=diffusers.DPMSolverMultistepScheduler(**betas), tokenizer=t5, text_encoder=_t5(24, t5),
            transformer=diffusers.PixArtTransformer2DModel(
                **shape, sample_size=LATENT, out_channels=8, cross_attention_dim=16, caption_channels=24,
                use_additional_conditions=False,
            ),
        )  # fmt: skip
    elif kind == "sana":
        from transformers import Gemma2Config, Gemma2Model

        tokenizer = gemma_tokenizer()
        encoder = Gemma2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
        )  # fmt: skip
        vae = diffusers.AutoencoderDC(
            latent_channels=4, attention_head_dim=2, encoder_block_out_channels=(4, 8), encoder_layers_per_block=(1, 1),
            decoder_block_out_channels=(4, 8), decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()), scaling_factor=0.41407, encoder_block_types="ResBlock",
            decoder_block_types="ResBlock", decoder_norm_types="rms_norm", decoder_act_fns="silu",
        )  # fmt: skip
        solver = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
        pipeline = diffusers.SanaPipeline(
            vae=vae, scheduler=diffusers.DPMSolverMultistepScheduler(**solver), tokenizer=tokenizer,
            text_encoder=Gemma2Model(encoder).eval(),
            transformer=diffusers.SanaTransformer2DModel(
                **shape, out_channels=4, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
                caption_channels=16, sample_size=LATENT, timestep_scale=0.001,
            ),
        )  # fmt: skip
    else:
        pipeline = diffusers.DiTPipeline(
            vae=vae, scheduler=diffusers.DDIMScheduler(**betas, clip_sample=False),
            transformer=diffusers.DiTTransformer2DModel(
                **shape, out_channels=8, sample_size=LATENT, num_embeds_ada_norm=1000
            ),
        )  # fmt: skip
    _saved(pipeline, pipeline.transformer, folder, dtype, variant)
    if kind == "dit":  # which diffusers reads and does not write
        index = folder / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": CLASSES}))
    return folder


def into_hub_cache(folder: Path, cache: Path, name: str) -> None:
    """A folder as the Hugging Face hub's client keeps it."""
    home = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, home / "snapshots" / ("0" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)


# The original layout, by which single files are known ---------------------------------------------

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def _unet_name(name: str, layers: int, attends: Callable[[str], bool]) -> str:
    for ours, theirs in _UNET.items():
        if name.startswith(ours + "."):
            return name.replace(ours, theirs, 1)
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"middle_block.{place}.{_resnet_name(match[1], match[3])}"
    match = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name)
    assert match, name
    side, block, part, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    first = block * (layers + 1) + (side == "down")
    stem = "input_blocks" if side == "down" else "output_blocks"
    if part == "downsamplers":
        return f"{stem}.{first + layers}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":
        return f"{stem}.{first + layers}.{1 + attends(f'up_blocks.{block}.attentions.')}.{rest}"
    return f"{stem}.{first + layer}.{int(part == 'attentions')}.{_resnet_name(part, rest)}"


def _resnet_name(part: str, rest: str) -> str:
    if part == "resnets":
        for ours, theirs in _RESNET.items():
            rest = rest.replace(ours, theirs)
    return rest


def _vae_name(name: str, levels: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
    name = re.sub(r"to_([qkv])\.", r"\1.", name).replace("to_out.0", "proj_out")
    name = re.sub(r"down_blocks\.(\d)", r"down.\1", name)
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}", name)
    name = name.replace("resnets", "block").replace("downsamplers.0", "downsample")
    return name.replace("upsamplers.0", "upsample")


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP text encoder of transformers with the names of open_clip."""
    names = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm": "ln_final",
        "text_model.encoder.layers": "transformer.resblocks",
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn": "attn",
    }
    out: dict[str, Tensor] = {}
    for name, value in weights.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if name == "text_projection.weight":
            out["text_projection"] = value.T
        elif match := re.match(r"(.*attn\.)q_proj\.(weight|bias)", name):
            out[f"{match[1]}in_proj_{match[2]}"] = value
        elif not re.search(r"attn\.[kv]_proj", name):
            out[name] = value
    for name in [name for name in out if "in_proj_" in name]:
        stem, kind = name.split("in_proj_")
        source = stem.replace("transformer.resblocks", "text_model.encoder.layers").replace("attn", "self_attn")
        out[name] = torch.cat([weights[f"{source}{part}_proj.{kind}"] for part in "qkv"])
    return out


def _prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def _clip(encoder: Any) -> dict[str, Tensor]:
    """With the names all versions of transformers agree on."""
    own = ("text_model.", "text_projection.")
    return {
        name if name.startswith(own) else f"text_model.{name}": value
        for name, value in encoder.state_dict().items()
    }


def single_file(folder: Path, path: Path) -> Path:
    """A pipeline folder as one .safetensors file in the original layout."""
    from diffusers import DiffusionPipeline
    from safetensors.torch import save_file

    pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    unet, vae = pipeline.unet.state_dict(), pipeline.vae.state_dict()

    def attends(start: str) -> bool:
        return any(name.startswith(start) for name in unet)

    weights = {
        "model.diffusion_model." + _unet_name(name, pipeline.unet.config.layers_per_block, attends): value
        for name, value in unet.items()
    }
    for name, value in vae.items():
        new = _vae_name(name, len(pipeline.vae.config.block_out_channels))
        is_linear = "attn_1" in new and "norm" not in new and value.dim() == 2
        weights["first_stage_model." + new] = value[:, :, None, None] if is_linear else value
    first = _clip(pipeline.text_encoder)
    if hasattr(pipeline, "text_encoder_2"):
        weights |= _prefixed(first, "conditioner.embedders.0.transformer.")
        weights |= _prefixed(_open_clip(_clip(pipeline.text_encoder_2)), "conditioner.embedders.1.model.")
    elif pipeline.scheduler.config.prediction_type == "v_prediction":
        weights |= _prefixed(_open_clip(first), "cond_stage_model.model.")
    else:
        weights |= _prefixed(first, "cond_stage_model.transformer.")
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, path)
    return path
