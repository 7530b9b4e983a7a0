"""Checkpoints with the file names, key names, config fields and processor files of `llava-hf/llava-1.5-*-hf`.

Facts from the published repositories' config.json, preprocessor_config.json, processor_config.json,
tokenizer_config.json, tokenizer.json, chat_template.json and model.safetensors.index.json (7B: a copy of them in a
public GitHub repository; 13B: stored pages of huggingface.co/llava-hf/llava-1.5-13b-hf with its config.json and
generation_config.json, and the sizes of its other files). Only widths, depths and the words of the vocabulary are tiny
here; its size, the special ids, the picture's size and N = 576 are the published ones.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.utils import is_torchvision_available

IMAGE_TOKEN_ID = 32000
PAD_TOKEN_ID = 32001
VOCAB_SIZE = 32064
TOTAL_SIZE_BYTES_7B = 14126854144
"""`metadata.total_size` of the 7B's index, float16."""

TOTAL_SIZE_BYTES_13B = 26702989312
"""By the shapes of its config; the published shards have 4.96, 4.97, 4.88, 4.93, 4.93 and 2.02 GB, 26.69 together."""

INDEX_KB = {"7b": (3, 70.1), "13b": (6, 77.2)}
"""Shards, and the size of model.safetensors.index.json as huggingface.co states it."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

WIDTHS_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40}
TINY_TEXT = {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}
TINY_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}


def config_fields(size: str, *, tiny: bool = True) -> dict[str, Any]:
    """Return the published config.json of "7b" or "13b", with tiny widths unless told otherwise."""
    text: dict[str, Any] = {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": VOCAB_SIZE,
    }
    if size == "13b":
        text |= {"_name_or_path": "meta-llama/Llama-2-13b-hf"}
        text |= {**WIDTHS_13B, "num_key_value_heads": WIDTHS_13B["num_attention_heads"]}
    vision = {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    }
    if tiny:
        text |= {**TINY_TEXT, "num_key_value_heads": TINY_TEXT["num_attention_heads"]}
        vision |= TINY_VISION
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": IMAGE_TOKEN_ID,
        "model_type": "llava",
        "pad_token_id": PAD_TOKEN_ID,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.36.0.dev0",
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "vocab_size": VOCAB_SIZE,
    }


def old_names(text_layers: int, vision_layers: int) -> list[str]:
    """Return every key of the published index."""
    linears = ("mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", *(f"self_attn.{x}_proj" for x in "koqv"))
    names = [
        f"language_model.model.layers.{layer}.{part}.weight"
        for layer in range(text_layers)
        for part in ("input_layernorm", "post_attention_layernorm", *linears)
    ]
    names += ["language_model.lm_head.weight", "language_model.model.embed_tokens.weight"]
    names += ["language_model.model.norm.weight"]
    names += [f"multi_modal_projector.linear_{i}.{kind}" for i in (1, 2) for kind in ("bias", "weight")]
    tower = "vision_tower.vision_model"
    names += [
        f"{tower}.encoder.layers.{layer}.{part}.{kind}"
        for layer in range(vision_layers)
        for part in (
            "layer_norm1",
            "layer_norm2",
            "mlp.fc1",
            "mlp.fc2",
            *(f"self_attn.{x}_proj" for x in ("k", "out", "q", "v")),
        )
        for kind in ("bias", "weight")
    ]
    names += [f"{tower}.embeddings.{part}" for part in ("class_embedding", "patch_embedding.weight")]
    names += [f"{tower}.embeddings.position_embedding.weight"]
    names += [f"{tower}.{part}.{kind}" for part in ("post_layernorm", "pre_layrnorm") for kind in ("bias", "weight")]
    return names


def new_name(old: str) -> str:
    """Return the name of a published key in today's transformers."""
    if old == "language_model.lm_head.weight":
        return "lm_head.weight"
    if old.startswith("language_model.model."):
        return "model.language_model." + old.removeprefix("language_model.model.")
    return "model." + old


def index_kb(names: list[str], shards: int, total_size: int) -> float:
    """Return the size of an index with these keys, in kB, as transformers writes it."""
    weight_map = dict.fromkeys(names, f"model-00001-of-{shards:05d}.safetensors")
    return (len(json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=2)) + 1) / 1000


def shapes(config: dict[str, Any], old: str) -> tuple[int, ...]:
    """Return the shape of a published key by the architecture's arithmetic, without transformers."""
    text, vision = config["text_config"], config["vision_config"]
    width, inner = text["hidden_size"], text["intermediate_size"]
    tower, tower_inner = vision["hidden_size"], vision["intermediate_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    if old.startswith("language_model."):
        if "embed_tokens" in old or "lm_head" in old:
            return (text["vocab_size"], width)
        if "down_proj" in old:
            return (width, inner)
        if "gate_proj" in old or "up_proj" in old:
            return (inner, width)
        return (width, width) if "_proj" in old else (width,)
    if old.startswith("multi_modal_projector"):
        return (width,) if old.endswith("bias") else (width, tower if "linear_1" in old else width)
    if "class_embedding" in old:
        return (tower,)
    if "patch_embedding" in old:
        return (tower, 3, vision["patch_size"], vision["patch_size"])
    if "position_embedding" in old:
        return (patches + 1, tower)
    if "fc1" in old:
        return (tower_inner,) if old.endswith("bias") else (tower_inner, tower)
    if "fc2" in old:
        return (tower,) if old.endswith("bias") else (tower, tower_inner)
    return (tower, tower) if "_proj.weight" in old else (tower,)


def random_weights(config: dict[str, Any], *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return float16 weights under the published names."""
    generator = torch.Generator().manual_seed(seed)
    names = old_names(config["text_config"]["num_hidden_layers"], config["vision_config"]["num_hidden_layers"])
    weights = {}
    for name in names:
        shape = shapes(config, name)
        is_norm = "norm" in name or "layrnorm" in name
        noise = 0.15 * torch.randn(shape, generator=generator)
        weights[name] = (noise + 1.0 if is_norm and name.endswith("weight") else noise).half()
    return weights


def write_published(folder: Path, size: str, *, layout: str = "old", chat_template: str = "json") -> Path:
    """Write a tiny checkpoint as `llava-hf` publishes them, in two shards; return the folder.

    Args:
        folder: to make.
        size: "7b" or "13b".
        layout: "old" for the published key names, "new" for those of today's transformers.
        chat_template: "json" for chat_template.json, "jinja" for chat_template.jinja; the repositories have both now.
    """
    config = config_fields(size)
    write_model(folder, config, random_weights(config), layout)
    write_processor(folder, chat_template)
    return folder


def write_model(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], layout: str) -> None:
    """Write config and weights, the latter in two shards with their index; see `write_published`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", config)
    if layout == "new":
        weights = {new_name(name): tensor for name, tensor in weights.items()}
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    weight_map = {name: file for file, part in parts.items() for name in part}
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": size_bytes}, "weight_map": weight_map})


def write_processor(
    folder: Path,
    chat_template: str,
    *,
    family: str = "Llava",
    pictures: dict[str, Any] | None = None,
    pad: bool = True,
) -> None:
    """Write the processor's files; of another family than Llava, with more settings for `pictures`.

    Without `pad` there is no `<pad>` among the words, as in LLaVA-1.6: `<unk>` pads.
    """
    _write(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": 336, "width": 336},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "CLIPImageProcessor",
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "processor_class": f"{family}Processor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 336},
            **(pictures or {}),
        },
    )
    _write(
        folder / "processor_config.json",
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 14,
            "processor_class": f"{family}Processor",
            "vision_feature_select_strategy": "default",
        },
    )
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": PAD_TOKEN_ID if pad else 0}
    _write(
        folder / "generation_config.json", {"_from_model_config": True, **ids, "transformers_version": "4.36.0.dev0"}
    )
    if chat_template == "json":
        _write(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_tokenizer(folder, pad=pad)


_PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
"""Of every special token."""


def write_tokenizer(folder: Path, *, added: bool = True, pad: bool = True) -> None:
    """Write the tokenizer's files; without `<image>` and `<pad>`, which llava-hf added, they are Vicuna's."""
    pad = added and pad
    folder.mkdir(parents=True, exist_ok=True)
    special = {0: "<unk>", 1: "<s>", 2: "</s>", IMAGE_TOKEN_ID: "<image>", PAD_TOKEN_ID: "<pad>"}
    if not added:
        special.pop(IMAGE_TOKEN_ID)
    if not pad:
        special.pop(PAD_TOKEN_ID)
    (folder / "tokenizer.json").write_text(_tokenizer_text(tuple(special.items())))
    _write(folder / "tokenizer_config.json", _tokenizer_config(special, added=added, pad=pad))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens["pad_token"] = "<pad>" if pad else "<unk>"
    _write(folder / "special_tokens_map.json", {role: {"content": token, **_PLAIN} for role, token in tokens.items()})
    if added:
        more = {"<pad>": PAD_TOKEN_ID} if pad else {}
        _write(folder / "added_tokens.json", {"<image>": IMAGE_TOKEN_ID, **more})


@cache
def _tokenizer_text(special: tuple[tuple[int, str], ...]) -> str:
    return json.dumps(_tokenizer(dict(special)), ensure_ascii=False)


def _vocab() -> dict[str, int]:
    """Return the published size and bytes; of words, letters and fillers."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    vocab |= {letter: 259 + index for index, letter in enumerate(letters)}
    # One merge, so that the beginning of a word can be told from its middle.
    vocab["▁w"] = len(vocab)
    return vocab | {f"filler{index}": index for index in range(len(vocab), 32000)}


def _tokenizer(special: dict[int, str]) -> dict[str, Any]:
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id_, "content": token, **_PLAIN, "special": True} for id_, token in special.items()],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": _vocab(),
            "merges": ["▁ w"],
        },
    }


def _tokenizer_config(special: dict[int, str], *, added: bool, pad: bool) -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": None,
        "added_tokens_decoder": {
            str(id_): {"content": token, **_PLAIN, "special": True} for id_, token in special.items()
        },
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        **({"extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>"} if added else {}),
        "legacy": False,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>" if pad else "<unk>",
        "padding_side": "left" if added else "right",
        **({"processor_class": "LlavaProcessor"} if added else {}),
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "trust_remote_code": False,
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def pixel_tolerance() -> float:
    """Return how far normalised pixels may be from Pillow's.

    With torchvision, which rounds otherwise, it is two grey levels.
    """
    return 2.01 / 255 / 0.26130258 if is_torchvision_available() else 1e-5


def random_checkpoint(folder: Path, fields: dict[str, Any], name: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Write `config.json` of a transformers class, and return random weights of it, by today's names."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, name)(transformers.AutoConfig.from_pretrained(folder)).to(dtype)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def write_files(folder: Path, files: dict[str, Any]) -> None:
    """Write a checkpoint's JSON files, by name."""
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
