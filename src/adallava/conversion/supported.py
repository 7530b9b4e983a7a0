"""What can be converted, as a folder's config says and the names of its files."""

import re
from pathlib import Path
from typing import Any

from adallava.errors import CheckpointError, UnsupportedModeError

_MODEL_TYPES = ("llava", "llava_llama", "ada_llava_llama")
_COUNTS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

_DEFAULTS = {"mm_projector_type": "linear", "mm_vision_select_feature": "patch"}
"""Of fields that a config leaves out, as the original code reads them."""

_WANTED = {"mm_projector_type": "mlp2x_gelu", "mm_vision_select_feature": "patch"}


_DELTA = re.compile(r"[-_]delta(-v\d|$)")
"""In the names of what was published as a difference to LLaMA."""


def check_supported(source: Path, config: dict[str, Any]) -> None:
    """Refuse what is not a whole checkpoint of LLaVA-1.5 or AdaLLaVA in the layout of the original code.

    Args:
        source: the folder.
        config: its config.json.

    Raises:
        CheckpointError: for part of a checkpoint: low-rank weights, a projector, a difference to another model; or a
            damaged config.
        UnsupportedModeError: for another family, projector or way to put images in.
    """
    model_type = config.get("model_type")
    if model_type not in _MODEL_TYPES or "mm_vision_tower" not in config:
        raise UnsupportedModeError(
            f"folder {str(source)!r} is of the type {model_type!r} and not in the layout of the original LLaVA code "
            f"({', '.join(_MODEL_TYPES)}, with mm_vision_tower)"
        )
    _check_whole_checkpoint(source, config)
    for field, value in _WANTED.items():
        if config.get(field, _DEFAULTS[field]) != value:
            raise UnsupportedModeError(
                f"{field}={config.get(field, _DEFAULTS[field])!r} is not supported: only {value!r} is"
            )
    if config.get("image_aspect_ratio") not in (None, "square", "pad"):
        raise UnsupportedModeError(
            f"image_aspect_ratio={config['image_aspect_ratio']!r} is not supported: 'pad' and 'square' are"
        )
    if config.get("mm_use_im_start_end"):
        raise UnsupportedModeError("mm_use_im_start_end=true is not supported: LLaVA-1.5 has no such tokens")
    for field in _COUNTS:
        if type(config.get(field)) is not int or config[field] < 1:
            raise CheckpointError(
                f"{source / 'config.json'} is damaged: {field} is {config.get(field)!r}, not a whole "
                "number of at least 1"
            )


def _check_whole_checkpoint(source: Path, config: dict[str, Any]) -> None:
    if any((source / name).is_file() for name in ("adapter_config.json", "non_lora_trainables.bin")):
        raise CheckpointError(
            f"folder {str(source)!r} holds low-rank weights (LoRA) and not the model that they change: merge them with "
            "the original code's scripts/merge_lora_weights.py, and convert the merged model"
        )
    weights = [*source.glob("model*.safetensors"), *source.glob("pytorch_model*.bin")]
    if (source / "mm_projector.bin").is_file() and not weights:
        raise CheckpointError(
            f"folder {str(source)!r} holds only a projector (mm_projector.bin), not a whole model: convert one "
            "that was tuned on instructions, such as liuhaotian/llava-v1.5-7b"
        )
    if any(map(_DELTA.search, (source.name, str(config.get("_name_or_path", ""))))):
        raise CheckpointError(
            f"folder {str(source)!r} holds differences to a LLaMA (delta weights), by its name: apply them with the "
            "original code's llava.model.apply_delta, and convert what that writes"
        )
