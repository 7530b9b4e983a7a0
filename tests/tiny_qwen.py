"""Tiny random Qwen-VL models in stock format: patches of 4 pixels, tokens of 2 x 2, pictures at their own size."""

from pathlib import Path
from typing import Any

import torch
from models import save_tiny_adapter, tiny_tokenizer

from adallava.families.transformers_internals import without_videos
from adallava.selection.selector_contract import TowerShape

QWENS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")

QWEN_SIZES = [(32, 32), (16, 64), (40, 16)]
"""(width, height) of the pictures that a Qwen-VL is asked about, in turn."""

QWEN_GRIDS = [(4, 4), (8, 2), (2, 5)]
"""By hand, (rows, columns) of the tokens of each, of 8 x 8 pixels."""

QWEN_LACKS = (
    *("budget-token", "downsample", "cls-attention", "visionzip", "tome"),
    *("prumerge", "prumerge-k", "prumerge-plus", "prumerge-plus-k"),
)
"""Methods that a Qwen-VL refuses: it has no class token, and keys that are turned by their places."""

QWEN_SHAPE = TowerShape(num_vision_tokens=56 * 56, vision_width=4 * 32, llm_width=48, grid=(56, 56))
"""Of a picture of 448 x 448 pixels."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As the published ones word a prompt, without their system prompt and videos."""

_SPECIAL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "turn_token": "<|im_start|>",
    "end_of_turn_token": "<|im_end|>",
}


def tiny_qwen_processor(kind: str, **options: Any) -> Any:
    """Pictures at their own size, of whole tokens of 8 x 8 pixels; at least 64 pixels, and at most 4096."""
    import transformers

    cls = getattr(transformers, "Qwen2VLImageProcessorPil", None) or transformers.Qwen2VLImageProcessor
    # The class of the published checkpoints' processor_config.json or preprocessor_config.json.
    name = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}.get(kind, "Qwen3VLProcessor")
    return without_videos(name)(
        image_processor=cls(patch_size=4, size={"shortest_edge": 64, "longest_edge": 4096}, **options),
        tokenizer=tiny_tokenizer(**_SPECIAL),
        chat_template=CHAT_TEMPLATE,
    )


def _vision(kind: str) -> dict[str, Any]:
    shared = {"depth": 3, "num_heads": 2, "in_channels": 3, "patch_size": 4, "spatial_merge_size": 2}
    shared |= {"temporal_patch_size": 2}
    if kind == "qwen2_vl":
        return shared | {"embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2}
    own = {"hidden_size": 32, "out_hidden_size": 48, "intermediate_size": 64}
    if kind == "qwen2_5_vl":
        # Windows of 2 x 2 tokens, but for layer 1.
        return shared | own | {"window_size": 16, "fullatt_block_indexes": [1]}
    return shared | own | {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2]}


def tiny_qwen_base(
    kind: str, *, attn_implementation: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0, **llm: Any
) -> Any:
    """Return a random model, in eval mode; weights as in `tiny_base`."""
    import transformers

    tokenizer = tiny_tokenizer(**_SPECIAL)
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
        **llm,
    }
    if kind.startswith("qwen3"):
        text["head_dim"] = 12
    if kind == "qwen3_vl_moe":
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "decoder_sparse_step": 1}
    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "qwen3_vl_moe": "Qwen3VLMoe"}
    config = getattr(transformers, f"{names[kind]}Config")(
        text_config=text,
        vision_config=_vision(kind),
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, f"{names[kind]}ForConditionalGeneration")(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.to(dtype).eval()


def tiny_qwen(kind: str, folder: Path) -> Path:
    """Save a random model with its processor, and a random adapter for `question`, to `folder`; return it."""
    tiny_qwen_base(kind).save_pretrained(folder)
    tiny_qwen_processor(kind).save_pretrained(folder)
    save_tiny_adapter(folder, folder / "adapters" / "question", "question", QWEN_SHAPE)
    return folder
