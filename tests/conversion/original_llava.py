"""Tiny checkpoints in the layout of the original LLaVA code, and its arithmetic, written without transformers.

Key names from haotian-liu/LLaVA (`llava/model/llava_arch.py`, `multimodal_projector/builder.py`) and AdaLLaVA
(`scheduler/simple_scheduler.py`, whose procedure is followed here step by step); config fields from copies of
liuhaotian/llava-v1.5-7b's config.json.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from published_llava import write_tokenizer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

WIDTH, INNER, LAYERS, HEADS, WORDS = 32, 64, 3, 4, 32000
TOWER, TOWER_INNER, TOWER_LAYERS, TOWER_HEADS, SIDE, PATCH = 24, 48, 3, 2, 28, 7

CONFIG: dict[str, Any] = {
    "_name_or_path": "llava-v1.5-7b",
    "architectures": ["LlavaLlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "image_aspect_ratio": "pad",
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "max_length": 4096,
    "max_position_embeddings": 4096,
    "mm_hidden_size": TOWER,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": HEADS,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "use_cache": True,
    "use_mm_proj": True,
    "vocab_size": WORDS,
}

ADA_CONFIG = {
    **CONFIG,
    "architectures": ["AdaLlavaLlamaForCausalLM"],
    "model_type": "ada_llava_llama",
    "num_prefix_layers": 1,
    "scheduler_type": "L",
    "scheduler_rank": 2,
    "token_selecting": "none",
}


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return 0.3 * torch.randn(shape, generator=generator)


def llm_weights() -> dict[str, Tensor]:
    """Return the LLM and the projector under their original names, with a buffer of old transformers."""
    return dict(_llm_weights())


@cache
def _llm_weights() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    weights = {"model.embed_tokens.weight": _noise(g, WORDS, WIDTH), "lm_head.weight": _noise(g, WORDS, WIDTH)}
    weights["model.norm.weight"] = 1 + _noise(g, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for part in "qkvo":
            weights[f"{at}self_attn.{part}_proj.weight"] = _noise(g, WIDTH, WIDTH)
        weights[f"{at}mlp.gate_proj.weight"] = _noise(g, INNER, WIDTH)
        weights[f"{at}mlp.up_proj.weight"] = _noise(g, INNER, WIDTH)
        weights[f"{at}mlp.down_proj.weight"] = _noise(g, WIDTH, INNER)
        weights[f"{at}input_layernorm.weight"] = 1 + _noise(g, WIDTH)
        weights[f"{at}post_attention_layernorm.weight"] = 1 + _noise(g, WIDTH)
        weights[f"{at}self_attn.rotary_emb.inv_freq"] = torch.ones(WIDTH // HEADS // 2)
    for index, inputs in ((0, TOWER), (2, WIDTH)):
        weights[f"model.mm_projector.{index}.weight"] = _noise(g, WIDTH, inputs)
        weights[f"model.mm_projector.{index}.bias"] = _noise(g, WIDTH)
    return weights


def scheduler_weights(kind: str = "L") -> dict[str, Tensor]:
    """Return AdaLLaVA's scheduler and latency encoder: a logit a layer, or a logit a head and a slice of the MLP."""
    g = torch.Generator().manual_seed(1)
    num_logits = (LAYERS - ADA_CONFIG["num_prefix_layers"]) * (1 if kind == "L" else 2 * HEADS)
    return {
        "scheduler.mlp_head.weight": _noise(g, num_logits, WIDTH),
        "scheduler.mlp_head.bias": _noise(g, num_logits),
        "scheduler.scheduler_up_proj.net.0.weight": _noise(g, 256),
        "scheduler.scheduler_up_proj.net.0.bias": _noise(g, 256),
        "scheduler.scheduler_up_proj.net.1.weight": _noise(g, WIDTH, 256),
        "scheduler.scheduler_up_proj.net.1.bias": _noise(g, WIDTH),
        "scheduler.scheduler_up_proj.net.3.weight": _noise(g, WIDTH, WIDTH),
        "scheduler.scheduler_up_proj.net.3.bias": _noise(g, WIDTH),
    }


def tower_weights(seed: int = 2) -> dict[str, Tensor]:
    """Return CLIP's vision half under CLIP's names."""
    g = torch.Generator().manual_seed(seed)
    weights = {
        "vision_model.embeddings.class_embedding": _noise(g, TOWER),
        "vision_model.embeddings.patch_embedding.weight": _noise(g, TOWER, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": _noise(g, (SIDE // PATCH) ** 2 + 1, TOWER),
        "vision_model.embeddings.position_ids": torch.arange((SIDE // PATCH) ** 2 + 1)[None],
    }
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm"]
    for layer in range(TOWER_LAYERS):
        at = f"vision_model.encoder.layers.{layer}."
        norms += [f"{at}layer_norm1", f"{at}layer_norm2"]
        linears = [*((f"self_attn.{x}_proj", TOWER, TOWER) for x in ("q", "k", "v", "out"))]
        for name, out, into in [*linears, ("mlp.fc1", TOWER_INNER, TOWER), ("mlp.fc2", TOWER, TOWER_INNER)]:
            weights |= {f"{at}{name}.weight": _noise(g, out, into), f"{at}{name}.bias": _noise(g, out)}
    for name in norms:
        weights |= {f"{name}.weight": 1 + _noise(g, TOWER), f"{name}.bias": _noise(g, TOWER)}
    return weights


def write_original(
    folder: Path, weights: dict[str, Tensor], config: dict[str, Any] = CONFIG, *, pickled: bool = True
) -> Path:
    """Write two shards as the original code does, with config and tokenizer; return the folder."""
    folder.mkdir(parents=True)
    names = sorted(weights)
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{ending}"
        held = {name: weights[name] for name in part}
        torch.save(held, folder / file) if pickled else save_file(held, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, added=False)
    return folder


def write_clip(folder: Path) -> Path:
    """Write a CLIP checkpoint as openai's is: one pickled file with both halves."""
    folder.mkdir(parents=True)
    text = {"text_model.final_layer_norm.weight": torch.ones(8), "logit_scale": torch.tensor(1.0)}
    torch.save({**tower_weights(), **text}, folder / "pytorch_model.bin")
    vision = {
        "hidden_size": TOWER,
        "image_size": SIDE,
        "intermediate_size": TOWER_INNER,
        "model_type": "clip_vision_model",
        "num_attention_heads": TOWER_HEADS,
        "num_hidden_layers": TOWER_LAYERS,
        "patch_size": PATCH,
        "projection_dim": 16,
    }
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    pictures = {
        "crop_size": SIDE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": SIDE,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, causal: bool) -> Tensor:
    length, width = q.shape
    q, k, v = (x.view(length, heads, -1).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2) / (width // heads) ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    return (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(length, width)


def image_features(tower: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Return the patches after the tower's last layer but one, [N, C]: CLIP with quick GELU, CLS left out."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, tower[f"{name}.weight"], tower[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (TOWER,), tower[f"{name}.weight"], tower[f"{name}.bias"], 1e-5)

    at = "vision_model.embeddings."
    patches = F.conv2d(pixels[None], tower[f"{at}patch_embedding.weight"], stride=PATCH)[0].flatten(1).T
    x = torch.cat([tower[f"{at}class_embedding"][None], patches]) + tower[f"{at}position_embedding.weight"]
    x = norm(x, "vision_model.pre_layrnorm")
    for layer in range(TOWER_LAYERS - 1):
        at = f"vision_model.encoder.layers.{layer}."
        y = norm(x, f"{at}layer_norm1")
        q, k, v = (linear(y, f"{at}self_attn.{part}_proj") for part in "qkv")
        x = x + linear(_attend(q, k, v, TOWER_HEADS, causal=False), f"{at}self_attn.out_proj")
        y = linear(norm(x, f"{at}layer_norm2"), f"{at}mlp.fc1")
        x = x + linear(y * torch.sigmoid(1.702 * y), f"{at}mlp.fc2")
    return x[1:]


def _rotate(x: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of a head by its position: rotary embedding with base 10000."""
    length, width = x.shape
    head = width // HEADS
    x = x.view(length, HEADS, head)
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, head, 2) / head)
    cos, sin = (torch.cat([f(angles), f(angles)], dim=-1)[:, None] for f in (torch.cos, torch.sin))
    turned = torch.cat([-x[..., head // 2 :], x[..., : head // 2]], dim=-1)
    return (x * cos + turned * sin).reshape(length, width)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def _prompt(weights: dict[str, Tensor], tower: dict[str, Tensor], ids: list[int], pixels: Tensor) -> Tensor:
    projector = "model.mm_projector."
    y = F.linear(image_features(tower, pixels), weights[f"{projector}0.weight"], weights[f"{projector}0.bias"])
    image = F.linear(F.gelu(y), weights[f"{projector}2.weight"], weights[f"{projector}2.bias"])
    embed = weights["model.embed_tokens.weight"]
    return torch.cat([image if id_ == -200 else embed[id_][None] for id_ in ids])


def _layer(weights: dict[str, Tensor], layer: int, x: Tensor, heads: Tensor, slices: Tensor) -> Tensor:
    """Return what a layer passes on in which some heads, and some of as many slices of the MLP, put out zeros."""
    at = f"model.layers.{layer}."
    y = _norm(x, weights[f"{at}input_layernorm.weight"])
    q, k, v = (y @ weights[f"{at}self_attn.{part}_proj.weight"].T for part in "qkv")
    attended = _attend(_rotate(q), _rotate(k), v, HEADS, causal=True) * heads.repeat_interleave(WIDTH // HEADS)
    x = x + attended @ weights[f"{at}self_attn.o_proj.weight"].T
    y = _norm(x, weights[f"{at}post_attention_layernorm.weight"])
    gate, up = y @ weights[f"{at}mlp.gate_proj.weight"].T, y @ weights[f"{at}mlp.up_proj.weight"].T
    inner = F.silu(gate) * up * slices.repeat_interleave(INNER // HEADS)
    return x + inner @ weights[f"{at}mlp.down_proj.weight"].T


def logits(weights: dict[str, Tensor], tower: dict[str, Tensor], ids: list[int], pixels: Tensor) -> Tensor:
    """Return the LLM's logits, [L, V], of a prompt in which -200 stands for the picture, as in the original code."""
    x, everything = _prompt(weights, tower, ids, pixels), torch.ones(HEADS)
    for layer in range(LAYERS):
        x = _layer(weights, layer, x, everything, everything)
    return _norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def ada_logits(
    weights: dict[str, Tensor], tower: dict[str, Tensor], ids: list[int], pixels: Tensor, latency: float, kind: str
) -> tuple[Tensor, Tensor]:
    """Return the logits behind prompt and latency token, [L + 1, V], and the heads that ran of each layer, [Y, H].

    The latency token is inserted behind the last ignored label, which of a prompt is its end.
    """
    prefix, rank = ADA_CONFIG["num_prefix_layers"], ADA_CONFIG["scheduler_rank"]
    a_layer = 1 if kind == "L" else HEADS // rank
    count = max(0, math.floor(LAYERS * a_layer * latency) - prefix * a_layer)
    code = count / ((LAYERS - prefix) * a_layer + 1)
    angles = code * 2 * math.pi / 10000 ** (torch.arange(128) / 128)
    net = "scheduler.scheduler_up_proj.net."
    token = F.layer_norm(
        torch.cat([angles.sin(), angles.cos()]), (256,), weights[f"{net}0.weight"], weights[f"{net}0.bias"]
    )
    token = F.gelu(F.linear(token, weights[f"{net}1.weight"], weights[f"{net}1.bias"]))
    token = F.linear(token, weights[f"{net}3.weight"], weights[f"{net}3.bias"])
    x, everything = torch.cat([_prompt(weights, tower, ids, pixels), token[None]]), torch.ones(HEADS)
    for layer in range(prefix):
        x = _layer(weights, layer, x, everything, everything)
    scores = F.linear(x[-1], weights["scheduler.mlp_head.weight"], weights["scheduler.mlp_head.bias"])
    plan = _whole_layers(scores, count) if kind == "L" else _heads_and_slices(scores, count, rank)
    for layer in range(prefix, LAYERS):
        x = _layer(weights, layer, x, *plan[layer - prefix])
    return _norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T, plan[:, 0]


def _whole_layers(scores: Tensor, count: int) -> Tensor:
    """Pick the best layer that is left, `count` times."""
    plan = torch.zeros(len(scores), 2, HEADS)
    for _ in range(count):
        left = scores.masked_fill(plan[:, 0, 0] == 1, -torch.inf)
        plan[left.argmax()] = 1
    return plan


def _heads_and_slices(scores: Tensor, count: int, rank: int) -> Tensor:
    """Pick the layer of the best head or slice that is left, and its best heads and slices, `count` times."""
    scores = scores.view(-1, 2, HEADS)
    plan = torch.zeros_like(scores)
    for _ in range(count):
        left = scores.masked_fill(plan == 1, -torch.inf)
        layer = int(left.argmax()) // (2 * HEADS)
        for part in range(2):
            plan[layer, part, left[layer, part].topk(rank).indices] = 1
    return plan
