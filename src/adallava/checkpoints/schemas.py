"""What a checkpoint's JSON files may hold: types and bounds, checked before anything is built from them.

The bounds lie far above every published model, and low enough that nothing hangs or fills the memory. Fields that are
not named here are transformers' own affair, but for numbers whose names say that something is built in that number.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from adallava.budget import MAX_BEAMS, MAX_NGRAM
from adallava.checkpoints.json_files import walk_json
from adallava.errors import CheckpointError

MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_WIDTH = 2**20
MAX_VOCABULARY = 2**24
MAX_POSITIONS = 2**28
MAX_PICTURE_PX = 2048
MAX_PINPOINT_PX = 4096
MAX_TILES = 16
"""A side of what LLaVA-NeXT fits an image into; published models have 6."""
MAX_PATCHES_A_SIDE = 512
MAX_PIXEL_MEAN = 256
MIN_PIXEL_STD = 0.01
MAX_RESCALE = 1.0
"""Of pixels from 0 to 255, or rescaled. Within these three no image has a value that half precision cannot hold."""
MAX_TEMPLATE_CHARS = 256 * 1024
"""Of a chat template; the longest published ones have about 20,000."""

_MAX_NUMBER = 2**53
_COUNTED = re.compile(r"(^|_)(layers?|blocks|depth|depths|heads?|experts|groups)$")
_WIDE = re.compile(r"(^|_)(size|dim|dims|width|channels|features|model|ff|inner|embd)$")
"""Names of numbers in which something is built, of whatever model."""

_Layers = Annotated[int, Field(ge=1, le=MAX_LAYERS)]
_Heads = Annotated[int, Field(ge=1, le=MAX_HEADS)]
_Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
_Patch = Annotated[int, Field(ge=1, le=1024)]
_Side = Annotated[int, Field(ge=1, le=MAX_PICTURE_PX)]
_TokenId = Annotated[int, Field(ge=-1, lt=MAX_VOCABULARY)]
_TokenIds = Annotated[list[_TokenId], Field(max_length=MAX_VOCABULARY)]
_Penalty = Annotated[FiniteFloat, Field(gt=0, le=1e6)]
_Growth = Annotated[FiniteFloat, Field(ge=-MAX_POSITIONS, le=MAX_POSITIONS)]
_Ngram = Annotated[int, Field(ge=0, le=MAX_NGRAM)]
_Template = Annotated[str, Field(max_length=MAX_TEMPLATE_CHARS)]
_ClassName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
_Mean = Annotated[FiniteFloat, Field(ge=-MAX_PIXEL_MEAN, le=MAX_PIXEL_MEAN)]
_Deviation = Annotated[FiniteFloat, Field(ge=MIN_PIXEL_STD, le=MAX_PIXEL_MEAN)]
_ModelType = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
_Tiny = Annotated[FiniteFloat, Field(ge=0, le=1)]
_Pinpoint = Annotated[int, Field(ge=1, le=MAX_PINPOINT_PX)]
_Colours = Annotated[list[_Mean], Field(min_length=3, max_length=3)]
_Deviations = Annotated[list[_Deviation], Field(min_length=3, max_length=3)]
"""Of red, green and blue: every image is RGB."""


class _Stock(BaseModel):
    """A file of transformers, which may hold more. Strictly: no text for a number, no true for 1."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class _Outputs(_Stock):
    """What any config may hold: its form, and what its module returns (transformers reads text as a list of layers)."""

    output_hidden_states: bool | None = None
    output_attentions: bool | None = None
    return_dict: bool | None = None
    use_cache: bool | None = None
    is_encoder_decoder: Literal[False] | None = None
    num_labels: Annotated[int, Field(ge=0, le=2**16)] | None = None
    """For each, transformers writes a name."""


class VisionConfig(_Outputs):
    """`vision_config`."""

    model_type: _ClassName | None = None
    num_hidden_layers: _Layers | None = None
    hidden_size: _Width | None = None
    intermediate_size: _Width | None = None
    num_attention_heads: _Heads | None = None
    num_channels: Annotated[int, Field(ge=1, le=64)] | None = None
    layer_norm_eps: _Tiny | None = None
    image_size: _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)] | None = None
    patch_size: _Patch | Annotated[list[_Patch], Field(min_length=2, max_length=2)] | None = None
    """Of a square, or of rows and columns."""


class _Rotary(_Stock):
    """How positions turn queries and keys: by what is not above 0, they are not numbers."""

    rope_theta: Annotated[FiniteFloat, Field(gt=0)] | None = None
    factor: Annotated[FiniteFloat, Field(gt=0)] | None = None


class TextConfig(_Outputs):
    """`text_config`."""

    model_type: _ModelType | None = None
    num_hidden_layers: _Layers | None = None
    hidden_size: _Width | None = None
    intermediate_size: _Width | list[_Width] | None = None
    num_attention_heads: _Heads | None = None
    num_key_value_heads: _Heads | None = None
    head_dim: _Width | None = None
    rope_theta: Annotated[FiniteFloat, Field(gt=0)] | None = None
    rope_parameters: _Rotary | None = None
    rope_scaling: _Rotary | None = None
    rms_norm_eps: _Tiny | None = None
    layer_norm_eps: _Tiny | None = None
    sliding_window: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = None
    vocab_size: Annotated[int, Field(ge=1, le=MAX_VOCABULARY)] | None = None
    max_position_embeddings: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = None


class ModelConfig(_Outputs):
    """`config.json`."""

    model_type: _ModelType | None = None
    vision_config: VisionConfig | None = None
    text_config: TextConfig | None = None
    image_token_index: _TokenId | None = None
    image_token_id: _TokenId | None = None
    pad_token_id: _TokenId | None = None
    image_seq_length: Annotated[int, Field(ge=1, le=MAX_VOCABULARY)] | None = None
    vision_feature_layer: int | Annotated[list[int], Field(min_length=1, max_length=MAX_LAYERS)] | None = None
    vision_feature_select_strategy: Annotated[str, Field(max_length=64)] | None = None
    image_grid_pinpoints: (
        Annotated[
            list[Annotated[list[_Pinpoint], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=1024)
        ]
        | None
    ) = None


class GenerationSettings(_Outputs):
    """`generation_config.json`."""

    eos_token_id: _TokenId | _TokenIds | None = None
    pad_token_id: _TokenId | None = None
    bos_token_id: _TokenId | None = None
    max_length: Annotated[int, Field(ge=0, le=MAX_POSITIONS)] | None = None
    max_new_tokens: Annotated[int, Field(ge=0, le=MAX_POSITIONS)] | None = None
    min_length: Annotated[int, Field(ge=0, le=MAX_POSITIONS)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    num_return_sequences: Annotated[int, Field(ge=1, le=MAX_BEAMS)] | None = None
    do_sample: bool | None = None
    temperature: FiniteFloat | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_VOCABULARY)] | None = None
    top_p: FiniteFloat | None = None
    repetition_penalty: _Penalty | None = None
    encoder_repetition_penalty: _Penalty | None = None
    length_penalty: Annotated[FiniteFloat, Field(ge=-20, le=20)] | None = None
    early_stopping: bool | Literal["never"] | None = None
    no_repeat_ngram_size: _Ngram | None = None
    encoder_no_repeat_ngram_size: _Ngram | None = None
    min_new_tokens: Annotated[int, Field(ge=0, le=MAX_POSITIONS)] | None = None
    max_cache_len: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = None
    forced_bos_token_id: _TokenId | None = None
    forced_eos_token_id: _TokenId | _TokenIds | None = None
    decoder_start_token_id: _TokenId | _TokenIds | None = None
    suppress_tokens: _TokenIds | None = None
    begin_suppress_tokens: _TokenIds | None = None
    bad_words_ids: Annotated[list[_TokenIds], Field(max_length=MAX_VOCABULARY)] | None = None
    sequence_bias: list[Annotated[list[_TokenIds | FiniteFloat], Field(min_length=2, max_length=2)]] | None = None
    exponential_decay_length_penalty: Annotated[list[_Growth], Field(min_length=2, max_length=2)] | None = None
    cache_implementation: Annotated[str, Field(max_length=64)] | None = None
    cache_config: dict[str, Any] | None = None
    compile_config: dict[str, Any] | None = None
    watermarking_config: dict[str, Any] | None = None
    remove_invalid_values: bool | None = None
    renormalize_logits: bool | None = None
    is_assistant: Literal[False] | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    disable_compile: bool | None = None
    guidance_scale: FiniteFloat | None = None


class _Sizes(_Stock):
    height: _Side | None = None
    width: _Side | None = None
    shortest_edge: _Side | None = None
    longest_edge: Annotated[int, Field(ge=1, le=2**25)] | None = None


class _Patches(_Stock):
    """A patch's sides by name: Pixtral's are given so."""

    height: _Patch
    width: _Patch


class PictureSettings(_Stock):
    """`preprocessor_config.json`, and `image_processor` in `processor_config.json`."""

    image_processor_type: _ClassName | None = None
    feature_extractor_type: _ClassName | None = None
    processor_class: _ClassName | None = None
    size: _Side | _Sizes | None = None
    crop_size: _Side | _Sizes | None = None
    patch_size: _Patch | _Patches | None = None
    image_mean: _Mean | _Colours | None = None
    image_std: _Deviation | _Deviations | None = None
    rescale_factor: Annotated[FiniteFloat, Field(ge=1e-6, le=MAX_RESCALE)] | None = None
    resample: Annotated[int, Field(ge=0, le=5)] | None = None
    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    do_convert_rgb: bool | None = None
    do_pad: bool | None = None
    image_grid_pinpoints: (
        Annotated[
            list[Annotated[list[_Pinpoint], Field(min_length=2, max_length=2)]], Field(min_length=1, max_length=1024)
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _tiles(self) -> Self:
        cut = self.crop_size if self.crop_size is not None else self.size
        sides = (cut,) if isinstance(cut, int) else () if cut is None else (cut.height, cut.width, cut.shortest_edge)
        tile = min((side for side in sides if side is not None), default=None)
        for pinpoint in self.image_grid_pinpoints or ():
            if tile is not None and not tile <= min(pinpoint) <= max(pinpoint) <= tile * MAX_TILES:
                raise ValueError(f"image_grid_pinpoints has {pinpoint}: of tiles of {tile}, 1 to {MAX_TILES} a side")
        return self


class ProcessorSettings(PictureSettings):
    """`processor_config.json`."""

    image_processor: PictureSettings | None = None
    num_additional_image_tokens: Annotated[int, Field(ge=0, le=1024)] | None = None
    vision_feature_select_strategy: Literal["default", "full"] | None = None
    image_token: Annotated[str, Field(min_length=1, max_length=256)] | dict[str, Any] | None = None
    chat_template: _Template | dict[str, _Template] | None = None


class _NamedTemplate(_Stock):
    name: str
    template: _Template


class TokenizerSettings(PictureSettings):
    """`tokenizer_config.json`. transformers hands what it holds to the image processor, too."""

    tokenizer_class: _ClassName | None = None
    processor_class: _ClassName | None = None
    # "Without limit" is written as 10^30, as a whole number or not.
    model_max_length: Annotated[int, Field(ge=1)] | Annotated[FiniteFloat, Field(ge=1)] | None = None
    max_length: Annotated[int, Field(ge=1, le=MAX_POSITIONS)] | None = None
    split_special_tokens: Literal[False] | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None
    pad_token: str | dict[str, Any] | None = None
    unk_token: str | dict[str, Any] | None = None
    image_token: str | dict[str, Any] | None = None
    added_tokens_decoder: dict[Annotated[str, Field(pattern=r"^[0-9]{1,8}$")], dict[str, Any]] | None = None
    chat_template: _Template | list[_NamedTemplate] | dict[str, _Template] | None = None


class TemplateFile(_Stock):
    """`chat_template.json`."""

    chat_template: _Template | dict[str, _Template] | None = None


PROCESSOR_SCHEMAS: dict[str, type[BaseModel]] = {
    "generation_config.json": GenerationSettings,
    "processor_config.json": ProcessorSettings,
    "preprocessor_config.json": PictureSettings,
    "tokenizer_config.json": TokenizerSettings,
    "chat_template.json": TemplateFile,
}
"""By the name of the file that each is for."""


def check_schema(path: Path, value: dict[str, Any], schema: type[BaseModel]) -> None:
    """Refuse values that are of another type than they must be, or out of all bounds.

    Raises:
        CheckpointError: naming file, field, value, and what it must be.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Return the first mistake of a file: its field, its value, and what it must be."""
    first = error.errors(include_url=False)[0]
    keys = [str(part) for part in first["loc"]]
    # After the field's own name come those of the types that it may have.
    where = ".".join(key for key in keys if key.isidentifier() or key.isdigit()) or "the file"
    if first["type"] in ("missing", "json_invalid"):
        return f"{where}: {first['msg']}"
    shown = repr(first["input"])
    return f"{where} is {shown if len(shown) <= 80 else shown[:79] + '…'}: {first['msg']}"


def check_model_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse a config.json with values that no model has, before anything is built from it.

    Raises:
        CheckpointError: naming field and value.
    """
    check_schema(path, config, ModelConfig)
    vision = config.get("vision_config") or {}
    sizes = (vision.get("image_size"), vision.get("patch_size"))
    if None not in sizes and len({type(size) for size in sizes}) > 1:
        raise CheckpointError(
            f"{path} is damaged: vision_config.image_size is {sizes[0]} and patch_size {sizes[1]}: either both are of "
            "rows and columns, or none"
        )
    # Of rows and columns, those of rows: a family that knows no others refuses what is not a square.
    side, patch = (size[0] if isinstance(size, list) else size for size in sizes)
    if side and patch and not patch <= side <= patch * MAX_PATCHES_A_SIDE:
        raise CheckpointError(
            f"{path} is damaged: images of {side} pixels in patches of {patch} make {side // patch} a side, not 1 to "
            f"{MAX_PATCHES_A_SIDE}"
        )
    for where, value in walk_json(path, config):
        if type(value) not in (int, float):
            continue
        key = where.rpartition(".")[2]
        most = MAX_HEADS if _COUNTED.search(key) else MAX_VOCABULARY if _WIDE.search(key) else _MAX_NUMBER
        if abs(value) > most and (most < _MAX_NUMBER or type(value) is int):
            raise CheckpointError(f"{path} is damaged: {where} is {value}: no model has more than {most}")
