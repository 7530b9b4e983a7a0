"""What transformers does not promise to keep: every use of its internals, in one place.

The rest of the package knows transformers' public classes, the arguments of whole models, and the names of modules that
are also the names of a checkpoint's weights. What is used here may move with any release; it was seen under

| transformers                                           | 5.17.0, 5.23.0               | 5.24.0                     |
| ------------------------------------------------------ | ---------------------------- | -------------------------- |
| layers and masks are given the cache as                | `past_key_values`            | `cache` (the old warns)    |
| layers are given by name, beside it                    | `attention_mask`, `position_embeddings`, `position_ids`   |
| `masking_utils` makes a mask for one layer of a cache  | `layer_idx`, `allow_is_causal_skip`, `get_mask_sizes`     |
| beam search asks before it turns to the cache          | `_reorder_cache` of the model                             |
| a cache has, for each layer                            | `layers[i].reorder_cache`, `update(keys, values, i)`      |
| attention runs by                                      | `ALL_ATTENTION_FUNCTIONS[config._attn_implementation]`    |
| a tower of native resolution may be given               | what `vision_utils` makes, by the names there             |
| a processor's parts are                                | `get_attributes()`, in the order of its `__init__`        |

`families/transformers_probe.py` tries all of it under a release that is newer; see `families/transformers_version.py`.
Imports are inside the functions, so that a module that moved is met by the probe, not by an import of this package.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import Tensor, cat, nn

from adallava.errors import AdallavaError
from adallava.families.layer_inputs import LayerInputs

CACHE_NAMES = ("cache", "past_key_values")
"""The newest first; what models call the argument that holds their cache."""

_POSITIONS = "position_ids"
ROTARY_TABLES = "position_embeddings"
_MASK = "attention_mask"


def read_layer_inputs(kwargs: dict[str, Any]) -> LayerInputs:
    """Return what a stock model is about to call a decoder layer with.

    Args:
        kwargs: its keyword arguments.

    Raises:
        AdallavaError: if one of them is not there: a layer without its cache would answer, and wrongly.
    """
    others = dict(kwargs)
    cache = others.pop(_cache_name(kwargs))
    missing = [name for name in (_MASK, ROTARY_TABLES, _POSITIONS) if name not in others]
    if missing:
        raise _unknown(f"layers are not given {missing[0]}", kwargs)
    return LayerInputs(others.pop(_MASK), others.pop(ROTARY_TABLES), others.pop(_POSITIONS), cache, others)


def run_layer(layer: nn.Module, hidden: Tensor, inputs: LayerInputs, *, like: dict[str, Any]) -> Tensor:
    """Run a stock decoder layer.

    Args:
        layer: to run.
        hidden: [B, S, D].
        inputs: what it reads besides them.
        like: the keyword arguments that the stock model called it with, for their names.
    """
    states: Tensor = layer(
        hidden,
        **inputs.others,
        **{
            _MASK: inputs.attention_mask,
            ROTARY_TABLES: inputs.position_embeddings,
            _POSITIONS: inputs.position_ids,
            _cache_name(like): inputs.cache,
        },
    )
    return states


def layer_mask(
    config: Any, hidden: Tensor, padding_mask: Tensor | None, cache: Any, layer: int, *, window: int | None
) -> Tensor | None:
    """Return the mask that stock layers expect, for queries `hidden` at the length of one layer's own cache.

    Args:
        config: of the LLM.
        hidden: [B, Q, D].
        padding_mask: [B, S] of the prompt's tokens that this layer reads, 1 for a real token; None if all are.
        cache: of all layers, or None.
        layer: whose keys and values are counted.
        window: of sliding attention, if it is that.
    """
    from transformers import masking_utils

    if padding_mask is not None and cache is not None:
        length, offset = cache.get_mask_sizes(hidden.shape[1], layer)
        # What is written after the prompt is real; slots of a static cache not yet written are in the future.
        padding_mask = nn.functional.pad(padding_mask, (0, max(0, length + offset - padding_mask.shape[1])), value=1)
    make = masking_utils.create_causal_mask if window is None else masking_utils.create_sliding_window_causal_mask
    made: Tensor | None = make(
        config=config,
        inputs_embeds=hidden,
        attention_mask=padding_mask,
        layer_idx=layer,
        # To skip a mask, transformers would read it back from the device; whether there is padding is known here.
        allow_is_causal_skip=padding_mask is None,
        **{_cache_name(signature(make).parameters): cache},
    )
    return made


def rotate(queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys, [B, heads, S, head width], turned by their positions.

    Tables narrower than a head turn its first values alone.
    """
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    width = cosines.shape[-1]
    turned: tuple[Tensor, Tensor] = apply_rotary_pos_emb(queries[..., :width], keys[..., :width], cosines, sines)
    if width == queries.shape[-1]:
        return turned
    first, second = (
        cat([part, whole[..., width:]], dim=-1) for part, whole in zip(turned, (queries, keys), strict=True)
    )
    return first, second


def rotate_patches(queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """Return a Qwen-VL tower's queries and keys, [S, heads, head width], turned by the patches' places."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    turned: tuple[Tensor, Tensor] = apply_rotary_pos_emb_vision(queries, keys, cosines, sines)
    return turned


def rotary_tables(
    rotary: nn.Module, hidden: Tensor, position_ids: Tensor, layer_type: str | None
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines of positions, [B, S, head width] each.

    Args:
        rotary: the LLM's module that makes them.
        hidden: any, for their type and device.
        position_ids: [B, S], or [R, B, S]; for an LLM with several rows, all are those of [B, S].
        layer_type: of the layers that read them, if the LLM has several pairs.
    """
    if hasattr(rotary, "mrope_section") and position_ids.dim() == 2:
        position_ids = position_ids.expand(3, *position_ids.shape)
    of_type = {} if layer_type is None else {"layer_type": layer_type}
    cosines, sines = rotary(hidden, position_ids=position_ids, **of_type)
    return cosines, sines


def takes_layer_type(rotary: nn.Module) -> bool:
    """Say whether an LLM makes rotary tables for each type of its layers."""
    return "layer_type" in signature(rotary.forward).parameters


def holds_layer(cache: Any, layer: int) -> bool:
    """Say whether anything was ever written to a layer's place in a cache."""
    return layer < len(cache.layers) and bool(cache.layers[layer].is_initialized)


def attend(attention: Any, queries: Tensor, keys: Tensor, values: Tensor, inputs: LayerInputs) -> Tensor:
    """Write keys and values to a layer's cache, and return what its queries read, [B, S, heads * head width].

    Args:
        attention: the stock layer's attention, which says how.
        queries: [B, heads, S, head width], turned.
        keys: [B, kv heads, S, head width], turned.
        values: [B, kv heads, S, head width].
        inputs: of these rows.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama.modeling_llama import eager_attention_forward

    if inputs.cache is not None:
        keys, values = inputs.cache.update(keys, values, attention.layer_idx)
    name = attention.config._attn_implementation
    kernel = eager_attention_forward if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
    mixed: Tensor = kernel(
        attention,
        queries,
        keys,
        values,
        inputs.attention_mask,
        dropout=attention.attention_dropout if attention.training else 0.0,
        scaling=attention.scaling,
        sliding_window=(
            attention.sliding_window
            if hasattr(attention, "sliding_window")
            else getattr(attention.config, "sliding_window", None)
        ),
    )[0]
    return mixed.flatten(2)


def hear_reordering(model: nn.Module, reorder: Callable[[Any, Tensor], Any]) -> None:
    """Have beam search call `reorder(cache, beam_idx)` in place of the cache's own, on a model that is ours alone."""
    model.__dict__["_reorder_cache"] = reorder


def run_behind_cache(model: nn.Module, embeds: Tensor, cache: Any) -> Any:
    """Run a whole stock model on embeddings, [B, L, D], with logits of the last one alone; return its cache.

    Args:
        model: with a head.
        embeds: of the tokens.
        cache: of the tokens before them; None = a new one.
    """
    name = _cache_name(signature(model.forward).parameters)
    return model(inputs_embeds=embeds, use_cache=True, logits_to_keep=1, **{name: cache})[name]


def reorder_layers(cache: Any, order: Callable[[int], Tensor | None]) -> None:
    """Put the rows of each layer's keys and values into an order.

    Args:
        cache: of all layers.
        order: of a layer, by its index: row i is taken from row `order[i]`; None for a layer that holds none.
    """
    for index, layer in enumerate(cache.layers):
        rows = order(index)
        if rows is not None:
            layer.reorder_cache(rows)


def pil_clip_processor(**settings: Any) -> Any:
    """Return CLIP's image processor on PIL: the class of the public name depends on whether torchvision is there."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(**settings)


def pil_llava_processor_class() -> Any:
    """Return Llava's image processor on PIL, which can pad."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    return LlavaImageProcessorPil


def without_videos(name: str) -> Any:
    """Return transformers' processor class of a name without its part for videos, which needs torchvision.

    Its parts are found by the names that `get_attributes` gives; calls and files are otherwise those of the class.
    """
    import transformers

    stock: Any = getattr(transformers, name)

    class PicturesAlone(stock):  # type: ignore[misc]
        """The stock processor without the part for videos."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            """Return the names of its parts."""
            return [part for part in super().get_attributes() if part != "video_processor"]

    PicturesAlone.__name__ = name
    return PicturesAlone


def pixtral_processor_class() -> Any:
    """Return transformers' `PixtralProcessor`, also where torchvision is not there.

    Its module takes one function, which tells a picture's size, from the image processor that needs torchvision; the
    one on PIL has the same.
    """
    import transformers
    from transformers.utils import is_torchvision_available

    if is_torchvision_available():
        return transformers.PixtralProcessor
    from transformers.models.pixtral import image_processing_pil_pixtral

    asked = image_processing_pil_pixtral.__name__.replace("_pil", "")
    sys.modules[asked] = image_processing_pil_pixtral
    try:
        from transformers.models.pixtral.processing_pixtral import PixtralProcessor
    finally:
        del sys.modules[asked]
    return PixtralProcessor


def picture_processor(**options: Any) -> Any:
    """Return what cuts pictures of any size into patches, whichever class this transformers has without torchvision."""
    import transformers

    name = "Qwen2VLImageProcessorPil" if hasattr(transformers, "Qwen2VLImageProcessorPil") else "Qwen2VLImageProcessor"
    return getattr(transformers, name)(**options)


def attention_of(config: Any) -> str:
    """Return the name of the kernel that attention runs by, such as `sdpa`."""
    return str(config._attn_implementation)


def grid_functions() -> Any:
    """Return the module of functions that tell a tower of native resolution where its patches and windows lie."""
    from transformers import vision_utils

    return vision_utils


def set_attention(config: Any, name: str) -> None:
    """Have a model that is made from a configuration attend by a kernel."""
    config._attn_implementation = name


def generated(sequences: Tensor) -> Any:
    """Return what a decoder-only `generate` returns for sequences alone, [rows, prompt + new]."""
    from transformers.generation import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(sequences=sequences)


def takes_rotary_tables(layer: nn.Module) -> bool:
    """Say whether a layer of a tower is given rotary tables: it turns its keys inside attention."""
    return ROTARY_TABLES in signature(layer.forward).parameters


@contextmanager
def errors_alone() -> Iterator[None]:
    """Keep transformers from logging anything below an error, for a while."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def hide_progress_bars() -> None:
    """Turn off transformers' progress bars, and with them the hub's, for the rest of the process."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def log_errors_alone() -> None:
    """Keep transformers from logging anything below an error, for the rest of the process."""
    from transformers.utils import logging

    logging.set_verbosity_error()


def _cache_name(named: Mapping[str, Any]) -> str:
    for name in CACHE_NAMES:
        if name in named:
            return name
    raise _unknown(f"neither {' nor '.join(CACHE_NAMES)} names the cache", named)


def _unknown(what: str, named: Mapping[str, Any]) -> AdallavaError:
    import transformers

    return AdallavaError(
        f"transformers {transformers.__version__} runs its LLM in a way that this package does not know: {what} "
        f"(the names are {', '.join(sorted(named)) or 'none'}). Install a version that it was tested with"
    )
