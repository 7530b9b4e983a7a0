"""Models of random weights, by name: what a call costs does not depend on what the weights know.

Sizes from the published config.json of `llava-hf/llava-1.5-7b-hf` and `-13b-hf` (Liu et al., arXiv 2310.03744): Vicuna
after CLIP ViT-L/14 at 336 pixels, N = 576; of `Qwen/Qwen2.5-VL-7B-Instruct` (arXiv 2502.13923) and
`Qwen/Qwen3-VL-8B-Instruct`. `toy` has LLaVA's parts, tiny.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from adallava.errors import InputError
from adallava.families.transformers_internals import picture_processor, set_attention
from adallava.model import AdaLlava

_VICUNA_7B = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
_VICUNA_13B = _VICUNA_7B | {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
    "num_hidden_layers": 40,
}
_CLIP_L_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
_TOY_LLM = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
}
_TOY_TOWER = {
    "hidden_size": 32,
    "image_size": 112,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "patch_size": 14,
}
_QWEN_IDS = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, "image_token_id": 151655}
_QWEN2_5_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "max_position_embeddings": 128000,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
_QWEN2_5_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_8B = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 36,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [24, 20, 20],
        "mrope_interleaved": True,
    },
}
_QWEN3_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_SMOLVLM = {"image_token_id": 49190, "scale_factor": 3, "pad_token_id": 2}
_SMOLLM2_1_7B = {
    "model_type": "llama",
    "vocab_size": 49280,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 24,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 273768.0},
}
_SIGLIP_384 = {
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model.

    Attributes:
        family: transformers' classes, without `Config` and `ForConditionalGeneration` after their name.
        llm: of its text config.
        tower: of its vision config.
        picture_px: width and height of the images that it is measured with.
        more: of its config.
        tiles: of an image, the whole among them, for a model that is given all of `picture_px`; () for others.
    """

    family: str
    llm: Mapping[str, Any]
    tower: Mapping[str, Any]
    picture_px: tuple[int, int]
    more: Mapping[str, Any] = field(default_factory=dict)
    tiles: tuple[int, ...] = ()


def _llava(llm: dict[str, Any], tower: dict[str, Any]) -> Shape:
    side = tower["image_size"] // tower["patch_size"]
    more = {
        # After the words: Vicuna's 32,000, of a vocabulary that is filled up to 32,064.
        "image_token_id": llm["vocab_size"] - 64,
        "image_seq_length": side**2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    towers = {"model_type": "clip_vision_model", **tower}
    return Shape("Llava", {"model_type": "llama", **llm}, towers, (tower["image_size"],) * 2, more)


_SHAPES = {
    "llava-1.5-7b": _llava(_VICUNA_7B, _CLIP_L_336),
    "llava-1.5-13b": _llava(_VICUNA_13B, _CLIP_L_336),
    # A photograph of 0.4 megapixels: N = 414 and 300.
    "qwen2.5-vl-7b": Shape("Qwen2_5_VL", _QWEN2_5_7B, _QWEN2_5_TOWER, (644, 504), _QWEN_IDS),
    "qwen3-vl-8b": Shape("Qwen3VL", _QWEN3_8B, _QWEN3_TOWER, (640, 480), _QWEN_IDS),
    # A photograph of 1536 x 1152 pixels, in 3 x 4 tiles of 384 and whole: N = 1,053.
    "smolvlm2-2.2b": Shape("SmolVLM", _SMOLLM2_1_7B, _SIGLIP_384, (384, 384), _SMOLVLM, tiles=(13,)),
    "toy": _llava(_TOY_LLM, _TOY_TOWER),
}

SHAPES = tuple(_SHAPES)
"""Names."""


class NoText:
    """Stands in for a processor where there is no text: prompts are random ids, and answers are not read.

    Attributes:
        image_processor: of images at their own size; None for a model that cuts all to one.
        picture_px: width and height of the images, or tiles, that are made up for it.
        tiles: of each image, see `Shape`.
    """

    tokenizer = None

    def __init__(
        self, image_processor: Any = None, picture_px: tuple[int, int] | None = None, tiles: tuple[int, ...] = ()
    ) -> None:
        """Take what makes images."""
        self.image_processor, self.picture_px, self.tiles = image_processor, picture_px, tiles

    def batch_decode(self, answers: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """Return an empty text for each answer."""
        return [""] * len(answers)


def config_of(name: str) -> Any:
    """Return transformers' config of a shape.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    import transformers

    if name not in _SHAPES:
        raise InputError(f"shapes {name!r} are not known: give one of {', '.join(SHAPES)}")
    shape = _SHAPES[name]
    config_class = getattr(transformers, f"{shape.family}Config")
    config = config_class(text_config=dict(shape.llm), vision_config=dict(shape.tower), **shape.more)
    set_attention(config, "sdpa")
    return config


def random_base(config: Any, device: str | torch.device, dtype: torch.dtype) -> Any:
    """Return a stock model of a config, made where it is to lie, with transformers' initial weights in that type."""
    import transformers

    (shape,) = {shape.family for shape in _SHAPES.values() if type(config).__name__ == f"{shape.family}Config"}
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            base = getattr(transformers, f"{shape}ForConditionalGeneration")(config)
    finally:
        torch.set_default_dtype(kept)
    return base.eval()


def random_model(name: str, device: str | torch.device, dtype: torch.dtype) -> AdaLlava:
    """Return the full-token model of a shape, driven by stock `generate`, with no text around it.

    Raises:
        InputError: for an unknown name.
    """
    config = config_of(name)
    return AdaLlava(random_base(config, device, dtype), _pictures_alone(name, config), engine="stock")


def _pictures_alone(name: str, config: Any) -> NoText:
    vision = config.vision_config
    if not hasattr(vision, "spatial_merge_size"):
        return NoText(picture_px=_SHAPES[name].picture_px, tiles=_SHAPES[name].tiles)
    sizes = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
    return NoText(picture_processor(**sizes), _SHAPES[name].picture_px)
