"""Masks at the length of each layer's own cache, where a schedule leaves layers of several kinds out.

transformers makes one mask for each kind of layer, sliding or not, by the length of the first of that kind: of which
nothing is in the cache if no row ran it.
"""

from collections.abc import Hashable
from dataclasses import replace

from torch import Tensor

from adallava.families.family_contract import DecoderLayers, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import holds_layer


class OwnMasks:
    """Gives layers their own masks in every pass after the first: the state of one call."""

    def __init__(self, decoder: DecoderLayers, padding_mask: Tensor | None) -> None:
        """Start a call.

        Args:
            decoder: the model's layers.
            padding_mask: [B, S] of the prompts, 1 for a token that may be read; None if all may.
        """
        self._decoder, self._padding_mask = decoder, padding_mask
        self._made: dict[Hashable, Tensor | None] = {}

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer. See `AroundLayer`."""
        if index == 0:
            self._made = {}
        # In the first pass nothing is in any cache, and the masks of all layers of a kind are one.
        if inputs.cache is not None and holds_layer(inputs.cache, index):
            inputs = replace(inputs, attention_mask=self._mask(index, hidden, inputs))
        return layer(hidden, inputs)

    def _mask(self, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor | None:
        kind, padding = self._decoder.kind(index), self._padding_mask
        if kind not in self._made:
            if padding is not None:
                padding = padding.repeat_interleave(len(hidden) // len(padding), dim=0)
            self._made[kind] = self._decoder.mask(index, hidden, padding, inputs.cache)
        return self._made[kind]
