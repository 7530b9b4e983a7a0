"""An LLM's decoder layers, driven one by one from outside: a view of the stock model for one call.

    base ── model ── language_model ── layers ── 0, 1, 2 …       the user's modules, untouched
      ┊        ┊            ┊            ┊
    view ── model ── language_model ── layers ── [0], [1], [2] …  shallow copies; [i] calls layer i

The path is the family's; whether a layer's queries and keys can be recomputed depends on its class. Layers of one
LLM may differ in window and rotary tables: those that do not are of one `LayerKind`.

The copies share every parameter and every module that is not on that path. Stock `generate` and `forward` run on
the view, and what is to happen around a layer is an argument of the view, so that nothing is ever set on the base and
two calls cannot meet.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adallava.errors import UnsupportedModeError
from adallava.families.family_contract import AroundLayer, ReorderCache
from adallava.families.head_groups import check_splittable, run_groups
from adallava.families.layer_attention import asked_attention, key_norms
from adallava.families.layer_inputs import LayerInputs
from adallava.families.layer_parts import shallow_copy
from adallava.families.transformers_internals import (
    hear_reordering,
    layer_mask,
    read_layer_inputs,
    rotary_tables,
    run_layer,
    takes_layer_type,
)
from adallava.scheduling.scheduler_contract import DecoderShape

_KNOWN_LAYERS = (
    *("Llama", "Mistral", "Mixtral", "Phi3", "Gemma", "Gemma2", "Gemma3"),
    *("Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe"),
    *("Qwen2VL", "Qwen2_5_VL", "Qwen3VLText", "Qwen3VLMoeText"),
)
"""Classes of decoder layers, without `DecoderLayer` after them, which take and return one hidden state, and whose
queries and keys are as `layer_attention` makes them."""

LANGUAGE_MODEL = ("model", "language_model", "layers")
"""From most models to the decoder layers of their LLM."""


class LayerKind(NamedTuple):
    """What layers must share to read one mask and one pair of rotary tables.

    Attributes:
        window: tokens that a query sees, itself among them; None for all before it.
        rotary: which tables, by transformers' name; None where there is one pair.
    """

    window: int | None
    rotary: str | None = None


class StockDecoder:
    """The decoder layers of a stock model. Holds the model, changes nothing in it."""

    def __init__(self, model: Any, path: Sequence[str] = LANGUAGE_MODEL) -> None:
        """Take hold of a loaded model's layers.

        Args:
            model: with its head.
            path: names of the modules from the model to its list of layers.

        Raises:
            UnsupportedModeError: for layers of another class, or modules whose `forward` someone replaced.
        """
        self._config = model.config.get_text_config()
        self._path = tuple(path)
        on_path = _modules_on_path(model, self._path)
        _check_known(on_path[-1], self._config)
        for module in on_path:
            if "forward" in vars(module):
                raise UnsupportedModeError(
                    f"the forward of this model's {type(module).__name__} was replaced (by hooks of accelerate, for "
                    "instance), so that nothing else can see its layers: load it on one device without "
                    "hooks"
                )
        self._model = model
        self._llm = on_path[-2]
        by_type = takes_layer_type(self._llm.rotary_emb)
        self._kinds = tuple(_kind(layer, self._config, by_type=by_type) for layer in self._llm.layers)

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self._llm.layers)

    @property
    def shape(self) -> DecoderShape:
        """What decides how the LLM can be split."""
        config = self._config
        return DecoderShape(
            num_layers=self.num_layers,
            width=config.hidden_size,
            query_heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            mlp_width=config.intermediate_size,
        )

    def kind(self, layer: int) -> LayerKind:
        """Return what a layer shares with those that read the same mask and rotary tables."""
        return self._kinds[layer]

    @property
    def is_mixed(self) -> bool:
        """Whether layers are of several kinds."""
        return len(set(self._kinds)) > 1

    def check_splittable(self) -> None:
        """Refuse layers that cannot be split into groups of heads.

        Raises:
            UnsupportedModeError: naming the module.
        """
        for layer in self._llm.layers:
            check_splittable(layer)

    def run_groups(
        self,
        layer: int,
        hidden: Tensor,
        inputs: LayerInputs,
        rows: Sequence[Tensor],
        gates: Tensor | None = None,
        mlp_rows: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return what a layer passes on if each row runs only some of its groups of heads; see `head_groups`."""
        return run_groups(self._llm.layers[layer], hidden, inputs, rows, gates, mlp_rows)

    def view(self, around: AroundLayer, reorder_cache: ReorderCache | None = None) -> Any:
        """Return a model that runs as the stock one, with `around` called in place of each decoder layer.

        Args:
            around: called in place of each layer.
            reorder_cache: called by beam search in place of the cache's own, for layers that hold some rows only.

        Raises:
            UnsupportedModeError: if the model's config asks for hidden states or attentions: transformers would
                hang its hooks on layers that the base shares.
        """
        for config in (self._model.config, self._config):
            for name in ("output_hidden_states", "output_attentions"):
                if getattr(config, name, False):
                    raise UnsupportedModeError(
                        f"the model's config sets {name}, which methods inside the LLM cannot give: set it to False"
                    )
        twins = [shallow_copy(module) for module in _modules_on_path(self._model, self._path)]
        for name, outer, inner in zip(self._path, twins, twins[1:], strict=False):
            outer._modules[name] = inner
        twins[-1]._modules = {
            name: _LayerInView(layer, int(name), around) for name, layer in self._llm.layers._modules.items()
        }
        if reorder_cache is not None:
            hear_reordering(twins[0], reorder_cache)
        return twins[0]

    def attention(
        self,
        layer: int,
        hidden: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        *,
        samples: Tensor,
        places: Tensor,
        padding_mask: Tensor,
    ) -> Tensor:
        """Return where some tokens look in one layer, averaged over its heads, [I, R, S] float32.

        Args:
            layer: index of the layer.
            hidden: [B, S, D], that layer's input.
            position_embeddings: cosines and sines, [B, S, head width] each.
            samples: [I] int64, the sample that each of I groups of asked tokens belongs to.
            places: [I, R] int64, of the asked tokens in their sequence.
            padding_mask: [B, S], 1 for a real token.
        """
        columns = torch.arange(hidden.shape[1], device=hidden.device)
        visible = (columns <= places.unsqueeze(-1)) & padding_mask.bool().index_select(0, samples).unsqueeze(1)
        window = self._kinds[layer].window
        if window is not None:
            visible = visible & (columns > places.unsqueeze(-1) - window)
        block = self._llm.layers[layer]
        return asked_attention(block, hidden, position_embeddings, samples, places, visible).mean(dim=2)

    def key_norms(self, layer: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Return the L1 norms of all tokens' keys in one layer, [B, S] float32; arguments as for `attention`."""
        return key_norms(self._llm.layers[layer], hidden, position_embeddings)

    def last_norm(self, hidden: Tensor) -> Tensor:
        """Return hidden states after the norm that follows the last layer, of the same shape."""
        normed: Tensor = self._llm.norm(hidden)
        return normed

    def attention_shares(self, layer: int, hidden: Tensor, position_ids: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """Return where some queries look in one layer, [R, heads, S], rows of the last dimension summing to 1.

        Args:
            layer: index of the layer.
            hidden: [B, S, D], that layer's input.
            position_ids: [B, S].
            mask: [B, S, S] bool, who may see whom.
            rows: [R, 2] int64, (sample, place) of each query.
        """
        samples, places = rows.unbind(dim=1)
        tables = self.position_embeddings(layer, hidden, position_ids)
        visible = mask[samples, places].unsqueeze(1)
        block = self._llm.layers[layer]
        return asked_attention(block, hidden, tables, samples, places.unsqueeze(1), visible).squeeze(1)

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None, cache: Any) -> Tensor | None:
        """Return the mask that stock layers expect, for queries `hidden` at the length of one layer's own cache.

        Args:
            layer: whose keys and values are counted.
            hidden: [B, Q, D].
            padding_mask: [B, S] of the prompt's tokens that this layer reads, 1 for a real token; None if all are.
            cache: of all layers, or None.
        """
        return layer_mask(self._config, hidden, padding_mask, cache, layer, window=self._kinds[layer].window)

    def position_embeddings(self, layer: int, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rotary cosines and sines of positions as the LLM computes them for a layer.

        Args:
            layer: that reads them.
            hidden: any, for their type and device.
            position_ids: [R, B, S], or [B, S]: of an LLM with several rows of them, all are these, as those of text.
        """
        return rotary_tables(self._llm.rotary_emb, hidden, position_ids, self._kinds[layer].rotary)


class _LayerInView(nn.Module):
    """Stands in a view where the stock model has a layer."""

    def __init__(self, layer: nn.Module, index: int, around: AroundLayer) -> None:
        super().__init__()
        self.layer = layer
        self._index = index
        self._around = around

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Hand the layer, and what it was about to be called with, to `around`."""

        def run(hidden: Tensor, inputs: LayerInputs) -> Tensor:
            """Run the stock layer, with all else as it was about to be called with."""
            return run_layer(self.layer, hidden, inputs, like=kwargs)

        return self._around(self._index, run, hidden_states, read_layer_inputs(kwargs))


def _check_known(layers: Any, config: Any) -> None:
    """Refuse layers that nothing is known of.

    Raises:
        UnsupportedModeError: naming them.
    """
    for layer in layers:
        name = type(layer).__name__.removesuffix("DecoderLayer")
        if name not in _KNOWN_LAYERS:
            raise UnsupportedModeError(
                f"methods inside the LLM and schedulers know the layers of {', '.join(_KNOWN_LAYERS)}; this "
                f"model's LLM is {config.model_type!r}, whose layers are of the class {type(layer).__name__}: "
                "choose a method that selects before the LLM"
            )
    if getattr(config, "use_bidirectional_attention", False):
        raise UnsupportedModeError(
            "this model's LLM attends in both directions (use_bidirectional_attention), which methods inside the LLM "
            "and schedulers cannot: choose a method that selects before the LLM"
        )


def _kind(layer: Any, config: Any, *, by_type: bool) -> LayerKind:
    # A layer that says nothing of windows reads the config's, as transformers' masks do.
    says = hasattr(layer.self_attn, "sliding_window")
    window = layer.self_attn.sliding_window if says else getattr(config, "sliding_window", None)
    return LayerKind(window, layer.self_attn.layer_type if by_type else None)


def _modules_on_path(model: Any, path: Sequence[str]) -> list[Any]:
    modules = [model]
    for name in path:
        modules.append(getattr(modules[-1], name))
    return modules
