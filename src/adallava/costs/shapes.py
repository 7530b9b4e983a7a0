"""The shapes that an answer's cost follows from, read from a stock Hugging Face `config.json`.

Reading a config needs neither torch nor transformers: the few values a config may leave out default to those
of transformers' `LlavaConfig` and `LlavaNextConfig` (which are alike), `CLIPVisionConfig`, `LlamaConfig` and
`MistralConfig`, repeated here and compared with them in the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from adallava.errors import InputError
from adallava.registry import costed_names, load_shape_reader

_LLAVA_CLIP_DEFAULTS: Mapping[str, int] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 336,
    "patch_size": 14,
}
"""The tower of a `LlavaConfig` without any `vision_config`."""

_CLIP_DEFAULTS: Mapping[str, int] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
"""What a `vision_config` that is there may leave out."""

_LLM_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "llama": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
}


def _require_count(name: str, value: object) -> None:
    """Refuse a value that is not an integer of at least 1.

    Raises:
        InputError: naming what it is and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}: it must be a whole number, at least 1")


def _require_counts(shape: Any) -> None:
    """Refuse a shape with an integer field that is not an integer of at least 1."""
    for field in fields(shape):
        if field.type is int:
            _require_count(f"{type(shape).__name__}.{field.name}", getattr(shape, field.name))


@dataclass(frozen=True)
class VisionTowerShape:
    """A CLIP-style vision tower.

    Attributes:
        image_size: side of the square input, in pixels.
        patch_size: side of a patch, in pixels.
        width: C, features per token.
        layers: layers that really run. transformers runs every layer of the tower even where LLaVA reads an
            earlier one: LLaVA-1.5 takes the output of layer 23 (`vision_feature_layer` -2) and still pays for
            all 24.
        heads: attention heads; `width` is split among them.
        mlp_width: hidden width of the two-layer MLP.
        channels: colour channels of the input.
        extra_tokens: tokens beside the patches: the class token, and a budget token where a method needs it.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    channels: int = 3
    extra_tokens: int = 1

    def __post_init__(self) -> None:
        """Refuse shapes that no tower has.

        Raises:
            InputError: for a size below 1, a patch larger than the image, or heads that do not divide C.
        """
        _require_counts(self)
        if self.patch_size > self.image_size:
            raise InputError(f"patch size {self.patch_size} exceeds the image size {self.image_size}")
        if self.width % self.heads:
            raise InputError(f"vision width {self.width} cannot be split among {self.heads} heads")

    @property
    def num_vision_tokens(self) -> int:
        """N, patches per image: a border narrower than a patch is cut off, as the convolution does."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def sequence_length(self) -> int:
        """Tokens that pass through the tower's layers per image: N plus `extra_tokens`."""
        return self.num_vision_tokens + self.extra_tokens


@dataclass(frozen=True)
class ProjectorShape:
    """LLaVA's two-layer projector: `Linear(in_width, width)`, activation, `Linear(width, width)`.

    Attributes:
        in_width: C, or C times the number of tower layers whose features are concatenated.
        width: D, the LLM's width.
    """

    in_width: int
    width: int

    def __post_init__(self) -> None:
        """Refuse a width below 1.

        Raises:
            InputError: naming the field and its value.
        """
        _require_counts(self)


@dataclass(frozen=True)
class LLMShape:
    """A decoder-only language model with rotary positions and grouped-query attention.

    Attributes:
        width: D.
        layers: decoder layers.
        query_heads: heads of the queries.
        kv_heads: heads of keys and values; it divides `query_heads`.
        head_dim: width of one head; `query_heads * head_dim` need not be D.
        mlp_width: hidden width of the MLP.
        vocab_size: rows of the output layer.
        gated_mlp: True for gate, up and down products (Llama, Mistral), False for up and down alone.
    """

    width: int
    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    gated_mlp: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that no LLM has.

        Raises:
            InputError: for a size below 1, or key-value heads that do not divide the query heads.
        """
        _require_counts(self)
        if self.query_heads % self.kv_heads:
            raise InputError(f"{self.query_heads} query heads cannot share {self.kv_heads} key-value heads evenly")


@dataclass(frozen=True)
class ModelShape:
    """A LLaVA-class model: tower, projector, LLM."""

    vision: VisionTowerShape
    projector: ProjectorShape
    llm: LLMShape

    def with_budget_token(self) -> "ModelShape":
        """Return the shape of the same model with one more token in the tower, for methods that need it."""
        return replace(self, vision=replace(self.vision, extra_tokens=self.vision.extra_tokens + 1))


def with_patch_side(vision: VisionTowerShape, side: int) -> VisionTowerShape:
    """Return the shape of the same tower on a square picture of `side` x `side` patches."""
    return replace(vision, image_size=side * vision.patch_size)


LLAVA_1_5_7B = ModelShape(
    vision=VisionTowerShape(image_size=336, patch_size=14, width=1024, layers=24, heads=16, mlp_width=4096),
    projector=ProjectorShape(in_width=1024, width=4096),
    llm=LLMShape(width=4096, layers=32, query_heads=32, kv_heads=32, head_dim=128, mlp_width=11008, vocab_size=32064),
)
"""`llava-hf/llava-1.5-7b-hf`: CLIP ViT-L/14 at 336 px and Vicuna-7B, whose vocabulary is padded to 32064."""


def model_shape_from_config(config: Mapping[str, Any]) -> ModelShape:
    """Read the shapes from the dict of a stock `config.json`, or of its config's `to_dict()`.

    How is known of LLaVA and LLaVA-NeXT, and of what other packages register as entry points in `adallava.costs`: a
    family says so itself, since only its author knows what is between its tower and its LLM.

    Args:
        config: of a `model_type` that is registered there.

    Raises:
        InputError: for another kind of model, or whatever its reader refuses.
    """
    _require_choice("model_type", config.get("model_type"), costed_names())
    shape: ModelShape = load_shape_reader(config["model_type"])(config)
    return shape


def llava_shape(config: Mapping[str, Any]) -> ModelShape:
    """Read the shapes of a LLaVA or LLaVA-NeXT, or of a model that costs the same.

    Args:
        config: with a `clip_vision_model` tower, LLaVA's projector of two layers, and a `llama` or `mistral` LLM.
            Missing keys have transformers' default values.

    Raises:
        InputError: for another tower or LLM, a selection strategy that keeps the class token, or a value that is not
            a whole number of at least 1.
    """
    # "full" would send the class token to the projector too; a token budget counts patches alone.
    strategy = config.get("vision_feature_select_strategy", "default")
    _require_choice("vision_feature_select_strategy", strategy, ("default",))
    vision = _vision_shape(config.get("vision_config"))
    llm = _llm_shape(config.get("text_config") or {})
    feature_layer = config.get("vision_feature_layer", -2)
    num_feature_layers = len(feature_layer) if isinstance(feature_layer, list | tuple) else 1
    projector = ProjectorShape(in_width=vision.width * num_feature_layers, width=llm.width)
    return ModelShape(vision=vision, projector=projector, llm=llm)


def _vision_shape(config: Mapping[str, Any] | None) -> VisionTowerShape:
    """Return the tower's shape; None is a config without a `vision_config`."""
    values = dict(_LLAVA_CLIP_DEFAULTS) if config is None else {**_CLIP_DEFAULTS, **config}
    model_type = values.get("model_type", "clip_vision_model")
    _require_choice("vision_config.model_type", model_type, ("clip_vision_model",))
    return VisionTowerShape(
        image_size=values["image_size"],
        patch_size=values["patch_size"],
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        mlp_width=values["intermediate_size"],
        channels=values["num_channels"],
    )


def _llm_shape(config: Mapping[str, Any]) -> LLMShape:
    """Return the LLM's shape; heads and head width that are missing or None follow transformers' rules."""
    model_type = config.get("model_type", "llama")
    _require_choice("text_config.model_type", model_type, tuple(_LLM_DEFAULTS))
    values = {**_LLM_DEFAULTS[model_type], **config}
    query_heads = values["num_attention_heads"]
    # Checked before the division below, so that a wrong config is an `InputError` too.
    for key in ("num_attention_heads", "hidden_size"):
        _require_count(f"text_config.{key}", values[key])
    kv_heads = values.get("num_key_value_heads")
    head_dim = values.get("head_dim")
    return LLMShape(
        width=values["hidden_size"],
        layers=values["num_hidden_layers"],
        query_heads=query_heads,
        kv_heads=query_heads if kv_heads is None else kv_heads,
        head_dim=values["hidden_size"] // query_heads if head_dim is None else head_dim,
        mlp_width=values["intermediate_size"],
        vocab_size=values["vocab_size"],
    )


def _require_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a config value whose cost has no closed form here.

    Raises:
        InputError: naming the key, its value and the values that are known.
    """
    if value not in choices:
        known = " or ".join(repr(choice) for choice in choices)
        raise InputError(f"cannot count the FLOPs of a model whose {key} is {value!r}: it must be {known}")
