"""Dropped tokens hidden by a mask instead of taken out: every layer runs all tokens of the prompt.

A dropped token still stands in its place and is computed; no other token sees it. One unpadded sample with one image,
eager layers, masks written out.
"""

from typing import Any

import torch
from layer_reference import cache_argument, rotary_tables, states_by_hand
from stock_reference import llm_of
from torch import Tensor
from transformers import DynamicCache

from adallava.selection.layer_contract import DropInput, LayerSelector, PromptInput


def hiding(stays: Tensor) -> Tensor:
    """Return an additive causal mask [1, 1, L, L] that hides all but the tokens that stay; each sees itself."""
    length = len(stays)
    sees = torch.ones(length, length, dtype=torch.bool).tril() & (stays[None, :] | torch.eye(length, dtype=torch.bool))
    return torch.zeros(1, 1, length, length).masked_fill(~sees, torch.finfo(torch.float32).min)


class MaskedInside:
    """A stock Llava with eager attention, and a method inside it whose drops only hide tokens."""

    def __init__(self, base: Any, selector: LayerSelector, keep_count: int) -> None:
        assert base.config._attn_implementation == "eager"
        self.base, self.llm, self.selector, self.keep_count = base, llm_of(base), selector, keep_count

    @torch.no_grad()
    def logits(self, sample: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the logits of all tokens, [L, V], and which of them the last layer may see, [L]."""
        (ids,) = sample["input_ids"]
        places = (ids == self.base.config.image_token_id).nonzero().flatten()
        hidden = self.base.get_input_embeddings()(ids)
        hidden[places] = torch.cat(list(self.base.model.get_image_features(sample["pixel_values"]).pooler_output))
        text = hidden[places[-1] + 1 :]
        raters = self.selector.raters(
            PromptInput(hidden[None, places], text[None], torch.ones(1, len(text), dtype=torch.bool), (len(places),))
        )
        drops = self.selector.schedule(len(self.llm.layers), len(places), self.keep_count)
        states, stays = hidden[None], torch.ones(len(ids), dtype=torch.bool)
        positions = torch.arange(len(ids))[None]
        self.tables = [rotary_tables(self.base, index, states, positions) for index in range(len(self.llm.layers))]
        entered = states
        for index, layer in enumerate(self.llm.layers):
            for drop in drops:
                if drop.layer == index:
                    scored = states if drop.scored_by == index else entered
                    cache = DynamicCache()
                    rows = self._attention(drop.scored_by, scored, stays, cache)[places[-1] + 1 + raters.rows[0]]
                    seen = places[stays[places]]
                    attention = (rows[:, seen] * raters.weights[0][:, None]).sum(dim=0)
                    behind = slice(int(places[-1]) + 1, len(ids))
                    told = states_by_hand(self.llm, cache, drop.scored_by, states, seen, behind)
                    read = DropInput(attention[None], states[:, seen], (len(seen),), (drop.keep_count,), told)
                    choice = self.selector.choose(read)
                    kept = seen[choice.indices[0]]
                    states = states.index_copy(1, kept, choice.apply(states[:, seen]))
                    stays[seen] = False
                    stays[kept] = True
            entered = states
            states = layer(states, attention_mask=hiding(stays), position_embeddings=self.tables[index])
        return self.base.lm_head(self.llm.norm(states))[0], stays

    def _attention(self, index: int, states: Tensor, stays: Tensor, cache: DynamicCache) -> Tensor:
        """Return layer `index`'s whole attention over what it reads, the heads' mean, [L, L]; keys go to a cache."""
        layer = self.llm.layers[index]
        _, matrix = layer.self_attn(
            hidden_states=layer.input_layernorm(states),
            attention_mask=hiding(stays),
            position_embeddings=self.tables[index],
            **{cache_argument(layer.self_attn): cache},
        )
        mean: Tensor = matrix[0].mean(dim=0)
        return mean
