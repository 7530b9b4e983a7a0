"""An LLM's own modules, in the order in which they run: for an engine that calls them one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from adallava.errors import UnsupportedModeError
from adallava.families.layer_parts import Parts, layer_of_parts
from adallava.families.transformers_internals import CACHE_NAMES, attention_of

_LAYERS = (
    *("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer"),
    *("Qwen2VLDecoderLayer", "Qwen2_5_VLDecoderLayer", "Qwen3VLTextDecoderLayer"),
)
"""Stock classes: they take and return one hidden state, and attend causally without a mask."""

_CHANGING_ROPE = ("dynamic", "longrope")
"""Rotary tables that depend on the length of the sequence, and are changed on the host."""


@dataclass(frozen=True)
class LayerStack:
    """The parts of an LLM. B rows of S tokens run through them.

    Attributes:
        embed: token ids to embeddings, [..., D].
        rotary: hidden states and positions [R, B, S] to cosines and sines, [T, B, S, head width] each; where R or T is
            1, without that axis.
        layers: the decoder layers.
        norm: after the last layer.
        head: hidden states to logits, [..., V].
        cache_name: what the layers call their cache.
        kv_heads: of a layer.
        head_width: of a head.
        position_rows: R.
        table_rows: T: whether layers themselves choose among several rows of tables.
        sections: columns of half a head that each row of positions turns; none where there is one row.
        added_levels: first layers after which rows are added to a prompt's states.
    """

    embed: nn.Module
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    layers: Sequence[nn.Module]
    norm: nn.Module
    head: nn.Module
    cache_name: str
    kv_heads: int
    head_width: int
    position_rows: int = 1
    table_rows: int = 1
    sections: tuple[int, ...] = ()
    added_levels: int = 0

    @property
    def width(self) -> int:
        """D."""
        return int(self.embed.weight.shape[1])  # type: ignore[index]

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return int(self.head.weight.shape[0])  # type: ignore[index]

    @property
    def weight(self) -> Tensor:
        """One weight, for type and device."""
        weight: Any = self.embed.weight
        assert isinstance(weight, Tensor)
        return weight

    def run(
        self,
        layer: int,
        hidden: Tensor,
        tables: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Any,
        parts: Parts | None = None,
    ) -> Tensor:
        """Return what a layer passes on, [B, S, D].

        Args:
            layer: its index.
            hidden: [B, S, D].
            tables: rotary cosines and sines.
            mask: added to the scores, [B, 1, S, columns]; None for plain causal attention.
            cache: of this layer alone: `update(keys, values, …)` returns what its queries read.
            parts: that each row runs; None for all of the layer.
        """
        own = self.layers[layer] if parts is None else layer_of_parts(self.layers[layer], parts)
        states: Tensor = own(
            hidden, attention_mask=mask, position_embeddings=tables, use_cache=True, **{self.cache_name: cache}
        )
        return states


def llm_of(model: Any) -> nn.Module:
    """Return the LLM of a loaded model, without its head."""
    llm: nn.Module = model.get_decoder()
    return llm


def layer_stack(model: Any) -> LayerStack:
    """Take a loaded model's LLM apart.

    Raises:
        UnsupportedModeError: for an LLM whose modules cannot be called one by one for the stock model's result, with
            the reason.
    """
    llm: Any = llm_of(model)
    config = llm.config
    if not all(hasattr(llm, name) for name in ("embed_tokens", "rotary_emb", "layers", "norm")):
        raise UnsupportedModeError(f"its LLM, a {type(llm).__name__}, is built in another way")
    for layer in llm.layers:
        if type(layer).__name__ not in _LAYERS:
            raise UnsupportedModeError(f"its layers are of the class {type(layer).__name__}")
    if attention_of(config) != "sdpa":
        raise UnsupportedModeError(f"its attention is {attention_of(config)!r}, not 'sdpa'")
    if getattr(config, "sliding_window", None) is not None:
        raise UnsupportedModeError(f"its attention slides over a window of {config.sliding_window} tokens")
    rope = getattr(llm.rotary_emb, "rope_type", "default")
    if rope in _CHANGING_ROPE:
        raise UnsupportedModeError(f"its rotary tables are of the type {rope!r}")
    if getattr(config, "output_hidden_states", False) or getattr(config, "output_attentions", False):
        raise UnsupportedModeError("its config asks for hidden states or attentions")
    sections = tuple((getattr(config, "rope_parameters", None) or {}).get("mrope_section", ()))
    position_rows = len(sections) or 1
    return LayerStack(
        embed=llm.embed_tokens,
        rotary=llm.rotary_emb,
        layers=tuple(llm.layers),
        norm=llm.norm,
        head=model.get_output_embeddings(),
        cache_name=next(name for name in CACHE_NAMES if name in signature(llm.layers[0].forward).parameters),
        kv_heads=int(config.num_key_value_heads),
        head_width=int(llm.layers[0].self_attn.head_dim),
        position_rows=position_rows,
        table_rows=_table_rows(llm, position_rows),
        sections=sections,
        added_levels=len(getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", ())),
    )


@torch.no_grad()
def _table_rows(llm: Any, position_rows: int) -> int:
    """Return how many rows the rotary tables have: some versions leave it to the layers to choose among them."""
    if position_rows == 1:
        return 1
    weight = llm.embed_tokens.weight
    positions = torch.zeros(position_rows, 1, 1, dtype=torch.int64, device=weight.device)
    cosines, _ = llm.rotary_emb(weight[:1].unsqueeze(0), positions)
    return len(cosines) if cosines.dim() > 3 else 1


def first_obstacle(modules: Sequence[nn.Module]) -> str | None:
    """Return why these modules do not run as their class says, in words; None if they do.

    What hooks do on the host is done once when a graph is captured, and never again.
    """
    for module in modules:
        name = type(module).__name__
        if "forward" in vars(module):
            return f"the forward of a {name} was replaced"
        if any(map(_is_foreign, (*module._forward_hooks.values(), *module._forward_pre_hooks.values()))):
            return f"a {name} has hooks"
        if module.training and isinstance(module, nn.Dropout):
            return "it is in training mode"
        if type(module).__module__.split(".")[0] not in ("torch", "transformers"):
            return f"it holds a {type(module).__module__}.{name}"
    weights = {weight.dtype for module in modules for weight in module._parameters.values() if weight is not None}
    if not all(dtype in (torch.float32, torch.bfloat16, torch.float16) for dtype in weights):
        return f"its weights are of the types {', '.join(sorted(map(str, weights)))}"
    return None


def _is_foreign(hook: Any) -> bool:
    """Return whether a hook is not transformers' own, which only collects hidden states for who asked for them."""
    return not str(getattr(hook, "__module__", "")).startswith("transformers.")
