"""Layers of a Llama, or of one like it, as one function of tensors: compiled once for each shape, called for all.

    stock          q  k  v    gate  up         seven products a layer
    here           qkv        gate+up          four, each over joined weights

The joined weights take the place of the stock model's: its parameters become views of them, so that nothing is held
twice, and what changes them in place changes both. To compile one layer for all, nothing of it may be a module.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from adallava.engines.layer_kernels import Joined, LayerKernels, LayerSizes, Reads, kernels_for, one_row_kernels
from adallava.errors import UnsupportedModeError
from adallava.families.layer_parts import Parts, only_parts
from adallava.families.layer_stack import LayerStack

_SILU = ("SiLUActivation", "SiLU")

_LIMITS: dict[str, Any] = {"recompile_limit": 1024, "accumulated_recompile_limit": 8192}
"""Each shape is compiled again, and there are as many as buckets and batch sizes; PyTorch would stop at eight."""


@dataclass(frozen=True)
class LayerWeights:
    """One layer's.

    Attributes:
        first_norm: [D].
        qkv: [(heads + 2 kv heads) * head width, D].
        out: [D, heads * head width].
        second_norm: [D].
        gate_up: [2 M, D].
        down: [D, M].
        query_norm: [head width], of each query before it is turned; None without one.
        key_norm: the same of keys.
    """

    first_norm: Tensor
    qkv: Joined
    out: Joined
    second_norm: Tensor
    gate_up: Joined
    down: Joined
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None

    def products(self) -> tuple[Tensor, ...]:
        """Return the weights of the products."""
        return tuple(weight for weight, _ in (self.qkv, self.out, self.gate_up, self.down))


def run_fused_layer(
    weights: LayerWeights,
    hidden: Tensor,
    reads: Reads,
    sizes: LayerSizes,
    kernels: LayerKernels,
    parts: Parts | None = None,
) -> Tensor:
    """Return what a layer passes on, [B, S, D]; see `LayerStack.run`.

    Args:
        weights: of the layer.
        hidden: [B, S, D].
        reads: its rotary tables, mask and cache.
        sizes: of the layer.
        kernels: that run its steps.
        parts: of the layer that each row runs; None for all.
    """
    if weights.query_norm is not None and weights.key_norm is not None:
        reads = reads._replace(norms=(weights.query_norm, weights.key_norm))
    joined = kernels.normed(hidden, weights.first_norm, sizes.eps, weights.qkv)
    attended = kernels.attend(joined, reads, sizes)
    if parts is not None:
        attended = only_parts(attended, parts.heads)
    hidden = kernels.added(attended, weights.out, hidden)
    gated = kernels.gated(hidden, weights.second_norm, sizes.eps, weights.gate_up)
    if parts is not None:
        gated = only_parts(gated, parts.neurons)
    return kernels.added(gated, weights.down, hidden)


class FusedStack:
    """A stack whose layers run joined and compiled; see `LayerStack`, whose place it takes."""

    def __init__(self, stack: LayerStack, *, compiles: bool = True) -> None:
        """Join the weights of a stack.

        Args:
            stack: of the stock model, whose parameters become views.
            compiles: False to run the joined layers as they are.

        Raises:
            UnsupportedModeError: for layers that are built in another way.
        """
        self._stack = stack
        self.sizes = _sizes(stack)
        self.weights = tuple(map(_joined_layer, stack.layers))
        weights = [weight for layer in self.weights for weight in layer.products()]
        self._one_row, self._kernels = one_row_kernels(weights, self.sizes), kernels_for(weights)
        # Each shape is compiled again, none is made general: a graph holds one shape.
        prompt = run_fused_layer
        token = run_fused_layer
        if compiles:
            prompt = torch.compile(run_fused_layer, fullgraph=True, dynamic=False)
            token = torch.compile(run_fused_layer, fullgraph=True, dynamic=False)
        self._prompt: Callable[..., Tensor] = prompt
        self._token: Callable[..., Tensor] = token

    def __getattr__(self, name: str) -> Any:
        """Return what the stack has: its embeddings, norm and head are the same."""
        return getattr(self._stack, name)

    @property
    def table_rows(self) -> int:
        """1: tables are put together here."""
        return 1

    def rotary(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, [B, S, head width] each; of several rows, each column from its own."""
        cosines, sines = self._stack.rotary(states, positions)
        if self._stack.table_rows == 1:
            return cosines, sines
        return _of_sections(cosines, self._stack.sections), _of_sections(sines, self._stack.sections)

    def run(
        self,
        layer: int,
        hidden: Tensor,
        tables: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: Any,
        parts: Parts | None = None,
    ) -> Tensor:
        """Return what a layer passes on; see `LayerStack.run`."""
        if mask is not None and mask.dtype == torch.bool:
            # Of prompts padded on the left, some of whose rows read nothing: stock layers give them numbers.
            return self._stack.run(layer, hidden, tables, mask, cache, parts)
        reads = Reads(*tables, mask, cache.keys, cache.values, cache.slot)
        if self._one_row is not None and mask is not None and cache.slot is not None and len(hidden) == 1:
            # Each step is a kernel: there is nothing left to compile.
            return run_fused_layer(self.weights[layer], hidden, reads, self.sizes, self._one_row, parts)
        function = self._prompt if cache.slot is None else self._token
        with torch._dynamo.config.patch(_LIMITS):
            return function(self.weights[layer], hidden, reads, self.sizes, self._kernels, parts)


def _of_sections(tables: Tensor, sections: Sequence[int]) -> Tensor:
    """Return the columns of each section from its row of the tables, [R, B, S, head width]; see M-RoPE."""
    parts = tables.split([*sections, *sections], dim=-1)  # type: ignore[no-untyped-call]
    return torch.cat([part[number % len(sections)] for number, part in enumerate(parts)], dim=-1)


Stack = LayerStack | FusedStack


def _sizes(stack: LayerStack) -> LayerSizes:
    layers: Sequence[Any] = stack.layers
    for layer in layers:
        activation = type(layer.mlp.act_fn).__name__
        if activation not in _SILU:
            raise UnsupportedModeError(f"its MLP's activation is a {activation}, not SiLU")
        kinds = {type(part).__name__ for part in (*_products(layer),)}
        if kinds != {"Linear"}:
            raise UnsupportedModeError(f"its products are of the classes {', '.join(sorted(kinds))}, not Linear alone")
    first: Any = stack.layers[0]
    return LayerSizes(
        heads=first.self_attn.q_proj.weight.shape[0] // stack.head_width,
        kv_heads=stack.kv_heads,
        head_width=stack.head_width,
        eps=float(first.input_layernorm.variance_epsilon),
        scaling=float(first.self_attn.scaling),
    )


def _products(layer: Any) -> Sequence[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    names = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return (*names, mlp.gate_proj, mlp.up_proj, mlp.down_proj)


def _joined_layer(layer: Any) -> LayerWeights:
    query, key, value, out, gate, up, down = _products(layer)
    return LayerWeights(
        first_norm=layer.input_layernorm.weight.detach(),
        qkv=_joined((query, key, value)),
        out=_joined((out,)),
        second_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=_joined((gate, up)),
        down=_joined((down,)),
        query_norm=_norm_of_heads(layer, "q_norm"),
        key_norm=_norm_of_heads(layer, "k_norm"),
    )


def _norm_of_heads(layer: Any, name: str) -> Tensor | None:
    norm = getattr(layer.self_attn, name, None)
    return None if norm is None else norm.weight.detach()


def _joined(products: Sequence[Any]) -> Joined:
    """Return one product's weight and bias for several of one input; theirs become views of it."""
    weight = _as_views([product.weight for product in products])
    biases = [product.bias for product in products]
    return weight, None if biases[0] is None else _as_views(biases)


def _as_views(parameters: Sequence[Tensor]) -> Tensor:
    if len(parameters) == 1:
        return parameters[0].detach()
    if any(map(is_traceable_wrapper_subclass, parameters)):
        return _quantized_as_views(parameters)
    held = _held_together(parameters)
    if held is not None:
        return held
    joined = torch.cat([parameter.detach() for parameter in parameters])
    parts = joined.split([len(parameter) for parameter in parameters])  # type: ignore[no-untyped-call]
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part
    return joined


def _quantized_as_views(weights: Sequence[Any]) -> Tensor:
    """Return one quantized weight for several: its rows, and their scales, are theirs."""
    made_of = [weight.__tensor_flatten__() for weight in weights if is_traceable_wrapper_subclass(weight)]
    alike = len(made_of) == len(weights) and all(own == made_of[0] for own in made_of)
    names, settings = made_of[0]
    if not alike or any(len(getattr(weight, name)) != len(weight) for weight in weights for name in names):
        raise UnsupportedModeError("its weights are not quantized row by row, and all in one way")
    parts = {name: _as_views([getattr(weight, name) for weight in weights]) for name in names}
    joined: Tensor = type(weights[0]).__tensor_unflatten__(parts, settings, None, None)
    return joined


def _held_together(parameters: Sequence[Tensor]) -> Tensor | None:
    """Return the tensor that parameters are views of, one after the other, if they were joined before."""
    first = parameters[0].detach()
    place = first.storage_offset()
    for parameter in parameters:
        own = parameter.detach()
        alike = own.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() and own.is_contiguous()
        if not alike or own.storage_offset() != place:
            return None
        place += own.numel()
    return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())
