"""What a method inside the LLM does, done by hand: eager layers one by one, tokens physically taken out between them.

One unpadded sample with one image, no cache, no view: the whole attention matrix of each layer, masks written out,
positions as a list. Only the method's own arithmetic is the package's; it is compared with the authors' elsewhere.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adallava.selection.layer_contract import DropInput, LayerSelector, PromptInput, Raters


@dataclass
class Sequence:
    """The tokens that a layer reads: states [1, S, D], positions [1, S], and which of them are the image's."""

    hidden: Tensor
    positions: Tensor
    vision: slice
    patches: list[int]


class ByHand:
    """A stock Llava with eager attention, and a method that drops tokens between its layers."""

    def __init__(self, base: Any, selector: LayerSelector, keep_count: int, *, compact: bool) -> None:
        assert base.config._attn_implementation == "eager"
        self.base, self.llm, self.selector = base, base.model.language_model, selector
        self.keep_count, self.compact = keep_count, compact
        self.window = getattr(base.config.text_config, "sliding_window", None)

    @torch.no_grad()
    def logits(self, sample: dict[str, Any], new_tokens: list[int]) -> tuple[Tensor, list[int], list[int]]:
        """Return the last token's logits, the patches kept, and the vision tokens that each layer read."""
        (ids,) = sample["input_ids"]
        places = (ids == self.base.config.image_token_id).nonzero().flatten().tolist()
        embeds = self.base.get_input_embeddings()(torch.cat([ids, torch.tensor(new_tokens, dtype=torch.int64)]))
        features = torch.cat(list(self.base.model.get_image_features(sample["pixel_values"]).pooler_output))
        embeds[places] = features
        sequence = Sequence(
            embeds[None], torch.arange(len(embeds))[None], slice(places[0], places[-1] + 1), list(range(len(places)))
        )
        num_text = len(ids) - places[-1] - 1
        raters = self.selector.raters(
            PromptInput(
                features[None],
                embeds[None, places[-1] + 1 : len(ids)],
                torch.ones(1, num_text, dtype=torch.bool),
                (len(features),),
            )
        )
        drops = self.selector.schedule(len(self.llm.layers), len(places), self.keep_count)
        read = []
        for index, layer in enumerate(self.llm.layers):
            for drop in drops:
                if drop.layer == index and drop.scored_by == index:
                    sequence = self._dropped(sequence, sequence.hidden, index, raters, drop.keep_count)
            read.append(len(sequence.patches))
            left = self._run(layer, sequence)
            for drop in drops:
                if drop.layer == index + 1 and drop.scored_by == index:
                    sequence = self._dropped(sequence, left, index, raters, drop.keep_count)
                    left = sequence.hidden
            sequence.hidden = left
        return self.base.lm_head(self.llm.norm(sequence.hidden))[0, -1], sequence.patches, read

    def _mask(self, length: int) -> Tensor:
        row, column = torch.arange(length)[:, None], torch.arange(length)[None, :]
        sees = column <= row
        if self.window is not None:
            sees = sees & (column > row - self.window)
        return torch.zeros(1, 1, length, length).masked_fill(~sees, torch.finfo(torch.float32).min)

    def _run(self, layer: Any, sequence: Sequence) -> Tensor:
        tables = self.llm.rotary_emb(sequence.hidden, position_ids=sequence.positions)
        mask = self._mask(sequence.hidden.shape[1])
        left: Tensor = layer(
            sequence.hidden, attention_mask=mask, position_embeddings=tables, position_ids=sequence.positions
        )
        return left

    def _dropped(self, read: Sequence, left: Tensor, index: int, raters: Raters, keep_count: int) -> Sequence:
        """Take tokens out of `left` by the whole attention matrix of layer `index` over what it read."""
        layer = self.llm.layers[index]
        tables = self.llm.rotary_emb(read.hidden, position_ids=read.positions)
        mask = self._mask(read.hidden.shape[1])
        _, matrix = layer.self_attn(
            hidden_states=layer.input_layernorm(read.hidden), attention_mask=mask, position_embeddings=tables
        )
        behind = read.vision.stop
        rows = matrix[0].mean(dim=0)[behind + raters.rows[0], read.vision]
        attention = (rows * raters.weights[0][:, None]).sum(dim=0)
        choice = self.selector.choose(
            DropInput(attention[None], left[:, read.vision], (len(read.patches),), (keep_count,))
        )
        kept = choice.indices[0].tolist()
        vision = choice.apply(left[:, read.vision])
        hidden = torch.cat([left[:, : read.vision.start], vision, left[:, behind:]], dim=1)
        columns = [*range(read.vision.start), *(read.vision.start + k for k in kept), *range(behind, left.shape[1])]
        positions = torch.arange(hidden.shape[1])[None] if self.compact else read.positions[:, columns]
        return Sequence(
            hidden, positions, slice(read.vision.start, read.vision.start + len(kept)), [read.patches[k] for k in kept]
        )
