"""What a method inside the LLM does, done by hand: eager layers one by one, tokens physically taken out between them.

One unpadded sample with one picture, no cache, no view: the whole attention matrix of each layer, masks written out,
positions as a list. The picture may be several images that stand side by side. Only the method's own arithmetic is the
package's; it is compared with the authors' elsewhere.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any

import torch
from stock_reference import counted_anew, extended, llm_of, stock_features, stock_levels, stock_positions
from torch import Tensor
from transformers import DynamicCache

from adallava.families.transformers_internals import CACHE_NAMES
from adallava.selection.layer_contract import DropInput, DropStates, LayerSelector, PromptInput, Raters


@dataclass
class Sequence:
    """The tokens that a layer reads: states [1, S, D], positions [1, S], and which of them are each image's."""

    hidden: Tensor
    positions: Tensor
    images: list[slice]
    patches: list[list[int]]


def _side_by_side(first: int, sizes: Items[int]) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=first))]


def _kinds(base: Any, types: Items[str] | None) -> Items[str]:
    return types or ["every layer's"] * len(llm_of(base).layers)


def cache_argument(attention: Any) -> str:
    """Return what an attention calls its cache, in this transformers."""
    return next(name for name in CACHE_NAMES if name in signature(attention.forward).parameters)


def rotary_tables(base: Any, index: int, hidden: Tensor, positions: Tensor) -> Any:
    """Return cosines and sines as the stock model hands them to a layer: of Gemma 3, those of its kind."""
    of_kind = {}
    if base.config.text_config.model_type == "gemma3_text":
        of_kind["layer_type"] = base.config.text_config.layer_types[index]
    return llm_of(base).rotary_emb(hidden, position_ids=positions, **of_kind)


def states_by_hand(llm: Any, cache: Any, index: int, left: Tensor, vision: Any, text: Any) -> DropStates:
    """Return what a method may read beside attention, of the keys that layer `index` left in a cache."""
    norms = cache.layers[index].keys.abs().sum(dim=(1, 3))
    normed = llm.norm(left)
    there = torch.ones_like(norms[:, text], dtype=torch.bool)
    return DropStates(normed[:, vision], norms[:, vision], normed[:, text], norms[:, text], there)


class ByHand:
    """A stock Llava with eager attention, and a method that drops tokens between its layers."""

    def __init__(
        self,
        base: Any,
        selector: LayerSelector,
        keep_counts: Items[int],
        sizes: Items[int],
        *,
        compact: bool,
        grids: Items[tuple[int, int]] = (),
    ) -> None:
        assert base.config._attn_implementation == "eager"
        self.base, self.llm, self.selector = base, llm_of(base), selector
        self.keep_counts, self.sizes, self.compact, self.grids = keep_counts, sizes, compact, grids
        config = base.config.text_config
        window, types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        self.windows = [
            window if types is None or kind == "sliding_attention" else None for kind in _kinds(base, types)
        ]

    @torch.no_grad()
    def logits(self, sample: dict[str, Any], new_tokens: list[int]) -> tuple[Tensor, list[list[int]], list[int]]:
        """Return the last token's logits, the patches kept of each image, and the tokens that each layer read."""
        (ids,) = sample["input_ids"]
        places = (ids == self.base.config.image_token_id).nonzero().flatten().tolist()
        embeds = self.base.get_input_embeddings()(torch.cat([ids, torch.tensor(new_tokens, dtype=torch.int64)]))
        embeds[places] = stock_features(self.base, sample)
        images = _side_by_side(places[0], self.sizes)
        assert images[-1].stop == places[-1] + 1
        self.sample, self.new = sample, len(new_tokens)
        self.levels = [level.split(tuple(self.sizes)) for level in stock_levels(self.base, sample)]
        positions = extended(stock_positions(self.base, sample), self.new)
        sequence = Sequence(embeds[None], positions, images, [list(range(size)) for size in self.sizes])
        text = embeds[None, places[-1] + 1 : len(ids)]
        self.num_text = text.shape[1]
        mask = torch.ones(text.shape[:2], dtype=torch.bool)
        raters = [
            self.selector.raters(PromptInput(embeds[None, image], text, mask, (size,)))
            for image, size in zip(images, self.sizes, strict=True)
        ]
        layers = len(self.llm.layers)
        schedules = [self.selector.schedule(layers, *each) for each in zip(self.sizes, self.keep_counts, strict=True)]
        read = []
        for index in range(layers):
            for drops in zip(*schedules, strict=True):
                if drops[0].layer == index and drops[0].scored_by == index:
                    counts = [drop.keep_count for drop in drops]
                    sequence = self._dropped(sequence, sequence.hidden, index, raters, counts)
            read.append(sum(map(len, sequence.patches)))
            left = self._run(index, sequence)
            for drops in zip(*schedules, strict=True):
                if drops[0].layer == index + 1 and drops[0].scored_by == index:
                    counts = [drop.keep_count for drop in drops]
                    sequence = self._dropped(sequence, left, index, raters, counts)
                    left = sequence.hidden
            sequence.hidden = left
        return self.base.lm_head(self.llm.norm(sequence.hidden))[0, -1], sequence.patches, read

    def _mask(self, index: int, length: int) -> Tensor:
        row, column = torch.arange(length)[:, None], torch.arange(length)[None, :]
        sees = column <= row
        if self.windows[index] is not None:
            sees = sees & (column > row - self.windows[index])
        return torch.zeros(1, 1, length, length).masked_fill(~sees, torch.finfo(torch.float32).min)

    def _tables(self, index: int, sequence: Sequence) -> Any:
        return rotary_tables(self.base, index, sequence.hidden, sequence.positions)

    def _run(self, index: int, sequence: Sequence) -> Tensor:
        tables = self._tables(index, sequence)
        mask = self._mask(index, sequence.hidden.shape[1])
        left: Tensor = self.llm.layers[index](
            sequence.hidden, attention_mask=mask, position_embeddings=tables, position_ids=sequence.positions
        )
        if index < len(self.levels):
            for image, own, level in zip(sequence.images, sequence.patches, self.levels[index], strict=True):
                left[:, image] += level[own]
        return left

    def _dropped(
        self, read: Sequence, left: Tensor, index: int, raters: list[Raters], keep_counts: list[int]
    ) -> Sequence:
        """Take tokens out of `left` by the whole attention matrix of layer `index` over what it read."""
        layer = self.llm.layers[index]
        tables = self._tables(index, read)
        mask = self._mask(index, read.hidden.shape[1])
        cache = DynamicCache()
        _, matrix = layer.self_attn(
            hidden_states=layer.input_layernorm(read.hidden),
            attention_mask=mask,
            position_embeddings=tables,
            **{cache_argument(layer.self_attn): cache},
        )
        first, behind = read.images[0].start, read.images[-1].stop
        states, columns, patches = [left[:, :first]], list(range(first)), []
        for image, own, rated, keep_count in zip(read.images, read.patches, raters, keep_counts, strict=True):
            rows = matrix[0].mean(dim=0)[behind + rated.rows[0], image]
            attention = (rows * rated.weights[0][:, None]).sum(dim=0)
            told = states_by_hand(self.llm, cache, index, left, image, slice(behind, behind + self.num_text))
            choice = self.selector.choose(DropInput(attention[None], left[:, image], (len(own),), (keep_count,), told))
            kept = choice.indices[0].tolist()
            states.append(choice.apply(left[:, image]))
            columns += [image.start + k for k in kept]
            patches.append([own[k] for k in kept])
        hidden = torch.cat([*states, left[:, behind:]], dim=1)
        columns += range(behind, left.shape[1])
        positions = read.positions[..., columns]
        if self.compact:
            positions = extended(counted_anew(self.base, self.sample, patches, self.grids), self.new)
        return Sequence(hidden, positions, _side_by_side(first, keep_counts), patches)
