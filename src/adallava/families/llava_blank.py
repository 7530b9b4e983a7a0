"""An untrained Llava and its processor, initialized so that a short training succeeds."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)

from adallava.errors import InputError
from adallava.families.capabilities.of_classes import BlankShape
from adallava.families.transformers_internals import pil_clip_processor

_CHROMA_GAIN = 2.5
_QUERY_KEY_GAIN = 1.2
_COPY_GAIN = 0.5
WORD_STRENGTH = 0.4

_TOWERS = {cls.model_type: cls for cls in (CLIPVisionConfig, SiglipVisionConfig)}
_LLMS = {cls.model_type: cls for cls in (LlamaConfig, Qwen2Config)}
_WITH_CLASS_TOKEN = (CLIPVisionConfig,)


def blank_config(shape: BlankShape, vocab_size: int, image_token_id: int, ids: dict[str, int]) -> LlavaConfig:
    """Translate shapes into a stock `LlavaConfig`.

    Raises:
        InputError: for a tower or LLM of a type that is not made here.
    """
    tower, llm = _tower(shape), _of_type("llm", shape.llm, LlamaConfig, _LLMS)
    own = {"projection_dim": shape.vision_width} if tower in _WITH_CLASS_TOKEN else {"vision_use_head": False}
    vision = tower(
        hidden_size=shape.vision_width,
        intermediate_size=shape.vision_mlp_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=shape.image_px,
        patch_size=shape.patch_px,
        hidden_act="relu",
        **own,
    )
    text = llm(
        vocab_size=vocab_size,
        hidden_size=shape.llm_width,
        intermediate_size=shape.llm_mlp_width,
        num_hidden_layers=shape.llm_layers,
        num_attention_heads=shape.llm_heads,
        num_key_value_heads=shape.llm_kv_heads,
        head_dim=shape.llm_width // shape.llm_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        # Llama 3's base: at 10,000 most of a narrow head turns too fast to match words with patches 256 places away.
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        **ids,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy=_strategy(shape),
        projector_hidden_act="gelu",
        image_seq_length=(shape.image_px // shape.patch_px) ** 2,
        tie_word_embeddings=False,
        **ids,
    )


def _tower(shape: BlankShape) -> Any:
    return _of_type("tower", shape.tower, CLIPVisionConfig, _TOWERS)


def _strategy(shape: BlankShape) -> str:
    """Return how the class token, if there is one, is left out."""
    return "default" if _tower(shape) in _WITH_CLASS_TOKEN else "full"


def _of_type(part: str, name: str | None, default: Any, known: dict[str, Any]) -> Any:
    if name is not None and name not in known:
        raise InputError(f"[blank] {part} = {name!r} is not made from nothing here: give one of {', '.join(known)}")
    return default if name is None else known[name]


def blank_model(shape: BlankShape, vocab_size: int, image_token_id: int, ids: dict[str, int]) -> Any:
    """Return the untrained model; see `MadeFromNothing`."""
    model = LlavaForConditionalGeneration(blank_config(shape, vocab_size, image_token_id, ids))
    initialise(model)
    model.generation_config.update(**ids, do_sample=False)
    return model


def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
    """Return the stock processor for square pictures; see `MadeFromNothing`."""
    return LlavaProcessor(
        image_processor=pil_clip_processor(
            size={"shortest_edge": shape.image_px},
            crop_size={"height": shape.image_px, "width": shape.image_px},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        tokenizer=tokenizer,
        patch_size=shape.patch_px,
        vision_feature_select_strategy=_strategy(shape),
        num_additional_image_tokens=int(_tower(shape) in _WITH_CLASS_TOKEN),
        chat_template=chat_template,
    )


def sinusoid_2d(rows: int, columns: int, width: int) -> Tensor:
    """Return fixed 2-D sinusoids, [rows * columns, width], values in [-1, 1].

    A quarter of the width each for sin and cos of the row and of the column, wavelengths from 2 patches to
    four times the grid.
    """
    frequencies = torch.logspace(math.log10(math.pi), math.log10(2 * math.pi / (4 * max(rows, columns))), width // 4)
    row = torch.arange(rows)[:, None] * frequencies
    column = torch.arange(columns)[:, None] * frequencies
    parts = [f(x) for x in (row, column) for f in (torch.sin, torch.cos)]
    by_row = torch.cat(parts[:2], dim=1)[:, None].expand(rows, columns, -1)
    by_column = torch.cat(parts[2:], dim=1)[None].expand(rows, columns, -1)
    return torch.cat([by_row, by_column], dim=-1).reshape(rows * columns, -1)


def cosine_filters(width: int, patch_px: int) -> Tensor:
    """Return patch filters, [width, 3, P, P]: the lowest 2-D cosines of lightness and of two color differences.

    Higher frequencies and color, which carry less of a picture's energy, are amplified, so that all filters answer
    about equally strongly. Random filters of a small width see hardly more than the mean brightness.
    """
    places = torch.arange(patch_px, dtype=torch.float64)
    cosines = torch.cos(math.pi * (places[:, None] + 0.5) * places / patch_px)
    cosines = cosines / cosines.norm(dim=0)
    channels = torch.tensor([[1, 1, 1], [1, -1, 0], [-1, -1, 2]], dtype=torch.float64)
    channels = channels / channels.norm(dim=1, keepdim=True) * torch.tensor([[1.0], [_CHROMA_GAIN], [_CHROMA_GAIN]])
    frequencies = sorted(
        ((u, v) for u in range(patch_px) for v in range(patch_px)),
        key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv),
    )
    filters = torch.zeros(width, 3, patch_px, patch_px, dtype=torch.float64)
    for index in range(min(width - width % 3, 3 * len(frequencies))):
        u, v = frequencies[index // 3]
        gain = 1.2 * (1 + math.hypot(u, v)) / patch_px
        filters[index] = gain * channels[index % 3][:, None, None] * torch.outer(cosines[:, v], cosines[:, u])
    return filters.float()


@torch.no_grad()
def initialise(model: LlavaForConditionalGeneration) -> None:
    """Initialise for a small width and a short training.

    Fan-in scaling instead of std 0.02, residual outputs scaled by depth; see `_initialise_tower` for the tower.
    """
    layers = model.config.vision_config.num_hidden_layers
    for name, part in model.model.named_children():
        initialise_linear(part, model.config.text_config.num_hidden_layers if name == "language_model" else layers)
    initialise_linear(model.lm_head, layers)
    # Words enter with the strength of what attention and MLP add to them: weaker ones are lost after a layer.
    nn.init.normal_(model.get_input_embeddings().weight, std=WORD_STRENGTH)
    _initialise_tower(model.model.vision_tower, model.config.vision_config)
    initialise_llm(model.model.language_model)


@torch.no_grad()
def initialise_linear(part: nn.Module, layers: int) -> None:
    """Draw a part's matrices by their fan-in; those that put out what is added to the states, by its depth, too."""
    for name, module in part.named_modules():
        if isinstance(module, nn.Linear):
            is_output = name.endswith(("out_proj", "fc2", "o_proj", "down_proj", "attn.proj"))
            scale = (2 * layers) ** -0.5 if is_output else 1.0
            nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def initialise_llm(llm: nn.Module) -> None:
    """Let attention find and copy from the start, in the space in which words and patches were aligned.

    Each head's query projection starts near its key projection, so that a word attends to patches that show it; each
    head's output projection starts near its value projection transposed, so that what is attended to is added as it
    is, not turned into another space. Half of each stays random: heads that share keys must not start equal.
    """
    for name, module in llm.named_modules():
        if name.endswith("self_attn"):
            queries_per_key = module.q_proj.out_features // module.k_proj.out_features
            keys, values = (
                projection.weight.unflatten(0, (-1, module.head_dim)).repeat_interleave(queries_per_key, dim=0)
                for projection in (module.k_proj, module.v_proj)
            )
            module.q_proj.weight.add_(keys.flatten(0, 1)).mul_(_QUERY_KEY_GAIN * 0.5**0.5)
            module.o_proj.weight.add_(_COPY_GAIN * values.flatten(0, 1).T)


def _initialise_tower(tower: nn.Module, config: Any) -> None:
    """Give the tower what is slow to learn: where a patch is, what edges look like, who its neighbors are.

    Positions start as 2-D sinusoids, patch filters as cosines, and each head's query and key projection as the
    same matrix, so that attention starts out local (mimetic initialisation, arXiv 2305.09828).
    """
    side = config.image_size // config.patch_size
    for name, parameter in tower.named_parameters():
        if name.endswith("position_embedding.weight"):
            parameter.zero_()
            parameter[-side * side :] = sinusoid_2d(side, side, config.hidden_size)
        elif name.endswith("patch_embedding.weight"):
            parameter.copy_(cosine_filters(config.hidden_size, config.patch_size))
    for name, module in tower.named_modules():
        if name.endswith("self_attn"):
            module.q_proj.weight.mul_(_QUERY_KEY_GAIN)
            module.k_proj.weight.copy_(module.q_proj.weight)
