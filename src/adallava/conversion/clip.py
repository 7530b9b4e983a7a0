"""The config and the image settings of the CLIP checkpoint that a vision tower is of."""

from pathlib import Path
from typing import Any

from adallava.checkpoints.schemas import MAX_PIXEL_MEAN, MIN_PIXEL_STD
from adallava.conversion.shards import read_config
from adallava.errors import CheckpointError

_COUNTS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size"),
)
"""Whole numbers of a vision_config."""

_FILTERS = range(6)
"""Pillow's, by number."""


def read_clip_config(folder: Path) -> dict[str, Any]:
    """Return the vision_config of a CLIP checkpoint, with transformers' defaults for the counts that it leaves out.

    Raises:
        CheckpointError: if there is none, it is damaged, or it is not of a CLIP.
    """
    from transformers import CLIPVisionConfig

    config = read_config(folder)
    vision = {"clip": config.get("vision_config"), "clip_vision_model": config}.get(str(config.get("model_type")))
    if not isinstance(vision, dict):
        raise CheckpointError(f"folder {str(folder)!r} is not a CLIP checkpoint: its config has no vision_config")
    defaults = CLIPVisionConfig()
    vision = {**{name: getattr(defaults, name) for name in _COUNTS}, **vision}
    for name in _COUNTS:
        if type(vision[name]) is not int or vision[name] < 1:
            raise CheckpointError(
                f"{folder / 'config.json'} is damaged: {name} is {vision[name]!r}, not a whole number of at least 1"
            )
    return vision


def check_feature_layer(layer: object, vision: dict[str, Any]) -> None:
    """Refuse a layer to read images from that the tower does not have; 0 is its input.

    Raises:
        CheckpointError: naming it.
    """
    layers = vision["num_hidden_layers"]
    if type(layer) is not int or not -layers - 1 <= layer <= layers:
        raise CheckpointError(f"mm_vision_select_layer is {layer!r}, and the vision tower has {layers} layers")


def read_picture_settings(folder: Path) -> dict[str, Any]:
    """Return the preprocessor_config.json of a CLIP checkpoint.

    Raises:
        CheckpointError: if it is missing, or the colors or the filter in it are damaged.
    """
    path = folder / "preprocessor_config.json"
    pictures = read_config(folder, path.name)
    for name in ("image_mean", "image_std"):
        if name not in pictures:
            raise CheckpointError(f"{path} is damaged: it has no {name}")
        least = MIN_PIXEL_STD if name == "image_std" else -MAX_PIXEL_MEAN
        if not _is_colour(pictures[name], least):
            raise CheckpointError(
                f"{path} is damaged: {name} is {f'{pictures[name]!r}'[:80]}, not three numbers for the colors, from "
                f"{least} to {MAX_PIXEL_MEAN}"
            )
    if "resample" in pictures and (type(pictures["resample"]) is not int or pictures["resample"] not in _FILTERS):
        raise CheckpointError(f"{path} is damaged: resample is {pictures['resample']!r}, not the number of a filter")
    return pictures


def _is_colour(value: Any, least: float) -> bool:
    is_three = isinstance(value, list) and len(value) == 3 and all(type(one) in (int, float) for one in value)
    return is_three and all(least <= one <= MAX_PIXEL_MEAN for one in value)
