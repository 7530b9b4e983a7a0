"""Carries out a plan of drops while stock `generate` or `forward` runs: the state of one call, thrown away with it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adallava.families.family_contract import DecoderLayers, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.pipeline.checked import check_merging, check_selection
from adallava.pipeline.drops import DropPlan, PlannedDrop, Stage
from adallava.pipeline.layout import Layout
from adallava.pipeline.pack import merge_embeds
from adallava.pipeline.standing import Standing
from adallava.selection.layer_contract import DropInput, LayerSelector, PromptInput, Raters
from adallava.selection.selector_contract import Selection


@dataclass(frozen=True)
class _Reading:
    """What a stage's layers read beside the hidden states, in the place of what transformers made for all."""

    attention_mask: Tensor | None
    position_embeddings: tuple[Tensor, Tensor]
    position_ids: Tensor

    def put_into(self, inputs: LayerInputs) -> LayerInputs:
        """Return a layer's inputs with these in the place of transformers' own."""
        return replace(
            inputs,
            attention_mask=self.attention_mask,
            position_embeddings=self.position_embeddings,
            position_ids=self.position_ids,
        )


class LayerDrops:
    """Drops vision tokens between layers, in the first pass; in later passes, gives each layer its own mask.

    A layer behind a drop has fewer keys and values than the first one, from whose length transformers makes the mask
    of all. Beams and several returns repeat a sample's rows; they are equal in the first pass, so that one of them
    decides for all.
    """

    def __init__(
        self,
        decoder: DecoderLayers,
        selector: LayerSelector,
        plan: DropPlan,
        inputs_embeds: Tensor,
        recount: Callable[[Layout, Tensor], Tensor] | None,
    ) -> None:
        """Start a call.

        Args:
            decoder: the model's layers.
            selector: the method.
            plan: of this batch, on the model's device.
            inputs_embeds: [B, S, D], what enters the first layer.
            recount: gives the positions of what a drop left, [B, S] or [R, B, S]; None for tokens that keep theirs.
        """
        self._decoder = decoder
        self._selector = selector
        self._plan = plan
        self._recount = recount
        self._drops = {drop.layer: number for number, drop in enumerate(plan.drops)}
        first = plan.stages[0].layout
        num_images, num_tokens = len(first.keep_counts), max(first.keep_counts, default=0)
        self._patches = torch.arange(num_tokens, device=inputs_embeds.device).expand(num_images, -1)
        self._scores: Tensor | None = None
        self._within: Tensor | None = None
        self._standing = Standing.of(first, self._patches, plan)
        self._entering = self._standing
        self._raters = self._name_raters(inputs_embeds) if plan.drops else None
        self._prefilled = False
        self._reading: _Reading | None = None
        self._last_positions: Tensor | None = None
        self._shifts: dict[int, Tensor] = {}

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None) -> Tensor | None:
        """Return the mask of prompts that enter a layer, without a cache; None for plain causal attention."""
        return self._decoder.mask(layer, hidden, padding_mask, None)

    @property
    def last_layer(self) -> int:
        """The first layer behind the last drop."""
        return max(self._drops, default=0)

    @property
    def columns(self) -> Tensor:
        """Of the full prompts, where the tokens that the next layer reads come from, [B, S]; L for padding."""
        return self._standing.columns

    def entered(self, embeds: Tensor, selection: Selection) -> Tensor:
        """Return what entered the first layer, [B, S, D], of each image's chosen tokens, [I, Kmax, D]."""
        return embeds[self._plan.sample_of_image.unsqueeze(1), self._entering.vision.gather(1, selection.indices)]

    def selection(self) -> Selection | None:
        """Return what is left behind the last drop, as patches of each image; None without images."""
        counts = self._plan.stages[-1].layout.keep_counts
        return Selection(self._patches, counts, scores=self._scores, within=self._within) if counts else None

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer, with the drop before or behind it. See `AroundLayer`."""
        hidden = self.enter(index, hidden, inputs)
        read = inputs if self._reading is None else self._reading.put_into(inputs)
        following = None if self._prefilled else self._drops.get(index + 1)
        attention = None
        if following is not None and self._plan.drops[following].scored_by == index:
            attention = self._attention(following, hidden, read.position_embeddings)
        hidden = layer(hidden, read)
        if following is not None and attention is not None:
            hidden = self._drop(following, attention, hidden, read)
        self._prefilled = self._prefilled or index == self._plan.num_layers - 1
        return hidden

    def enter(self, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Make ready what layer `index` reads, and return its hidden states."""
        if index == 0:
            self._reading = None
            if not self._prefilled:
                self._last_positions = inputs.position_ids[:, -1]
        number = self._drops.get(index)
        if number is None:
            return hidden
        if self._prefilled:
            self._reading = self._decode_reading(number, hidden, inputs)
        elif self._plan.drops[number].scored_by == index:
            read = inputs if self._reading is None else self._reading.put_into(inputs)
            attention = self._attention(number, hidden, read.position_embeddings)
            hidden = self._drop(number, attention, hidden, read)
        return hidden

    def _name_raters(self, inputs_embeds: Tensor) -> Raters:
        samples = self._plan.sample_of_image.unsqueeze(1)
        with torch.no_grad():
            return self._selector.raters(
                PromptInput(
                    vision_embeds=inputs_embeds[samples, self._standing.vision],
                    text_embeds=inputs_embeds[samples, self._standing.text],
                    text_mask=self._plan.text_mask,
                    token_counts=self._standing.layout.keep_counts,
                )
            )

    @torch.no_grad()
    def _attention(self, number: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Return the raters' attention to each image's tokens, [I, n]."""
        assert self._raters is not None
        repeats = self._repeats(hidden)
        cosines, sines = (table[::repeats] if len(table) > 1 else table for table in position_embeddings)
        shares = self._decoder.attention(
            self._plan.drops[number].scored_by,
            hidden[::repeats],
            (cosines, sines),
            samples=self._plan.sample_of_image,
            places=self._standing.text.gather(1, self._raters.rows),
            padding_mask=self._standing.layout.attention_mask,
        )
        rated = (shares * self._raters.weights.unsqueeze(-1)).sum(dim=1)
        return rated.gather(1, self._standing.vision)

    def _drop(self, number: int, attention: Tensor, hidden: Tensor, read: LayerInputs) -> Tensor:
        """Return the hidden states that are left, and make ready what the next stage's layers read with them."""
        before, after, drop = self._plan.stages[number], self._plan.stages[number + 1], self._plan.drops[number]
        repeats = self._repeats(hidden)
        one_each = hidden[::repeats]
        vision = one_each[self._plan.sample_of_image.unsqueeze(1), self._standing.vision]
        selection = self._choose(attention, vision, before, after)
        self._note(attention, selection, before)
        stood, self._standing = self._standing, Standing.of(after.layout, self._patches, self._plan)
        sources = self._standing.sources(stood)
        left = _taken(one_each, sources)
        if selection.merge_weights is not None:
            left = merge_embeds(self._standing.layout, left, selection.apply(vision))
        left = left.repeat_interleave(repeats, dim=0)
        sources = sources.repeat_interleave(repeats, dim=0)
        self._reading = self._prefill_reading(number, drop, after, sources, left, read)
        return left

    @torch.no_grad()
    def _choose(self, attention: Tensor, vision: Tensor, before: Stage, after: Stage) -> Selection:
        counts = after.layout.keep_counts
        selection = self._selector.choose(DropInput(attention, vision, before.layout.keep_counts, counts))
        selection = check_selection(self._selector.name, selection, counts, before.layout.keep_counts)
        check_merging(self._selector, selection, before.layout.keep_counts)
        if selection.within is not None:
            self._within = selection.within if self._within is None else self._within & selection.within
        return selection

    def _note(self, attention: Tensor, selection: Selection, before: Stage) -> None:
        """Write down which patches are left, and each patch's score at the last drop it was looked at."""
        counts = torch.tensor(before.layout.keep_counts, dtype=torch.int64).to(attention.device, non_blocking=True)
        present = torch.arange(attention.shape[1], device=attention.device) < counts.unsqueeze(1)
        if self._scores is None:
            self._scores = attention
        else:
            spare = self._scores.shape[1]
            places = self._patches.masked_fill(~present, spare)
            padded = torch.nn.functional.pad(self._scores, (0, 1))
            self._scores = padded.scatter(1, places, attention)[:, :spare]
        self._patches = self._patches.gather(1, selection.indices)

    def _prefill_reading(
        self, number: int, drop: PlannedDrop, after: Stage, sources: Tensor, hidden: Tensor, read: LayerInputs
    ) -> _Reading:
        repeats = self._repeats(hidden)
        mask = self._standing.layout.attention_mask.repeat_interleave(repeats, dim=0)
        position_ids = read.position_ids.expand(len(hidden), -1).gather(1, sources)
        if self._recount is not None:
            counted = self._recount(self._standing.layout, self._patches)
            self._note_shift(number, counted, repeats)
            counted = counted.repeat_interleave(repeats, dim=-2)
            position_ids = counted if counted.dim() == 2 else position_ids
            tables = self._decoder.position_embeddings(hidden, counted)
        else:
            cosines, sines = (_taken(table.expand(len(hidden), -1, -1), sources) for table in read.position_embeddings)
            tables = (cosines, sines)
        attention_mask = self._decoder.mask(drop.layer, hidden, mask if after.padded else None, read.cache)
        return _Reading(attention_mask, tables, position_ids)

    def _note_shift(self, number: int, counted: Tensor, repeats: int) -> None:
        """Write down how much lower each sample's positions are behind a drop: an answer goes on from there.

        Padded on the left, as `generate` is, each prompt ends in the last column, in text, all of whose rows are alike.
        """
        assert self._last_positions is not None
        last = counted[..., -1] if counted.dim() == 2 else counted[0, :, -1]
        entered = self._last_positions.expand(len(last) * repeats)[::repeats]
        self._shifts[number] = entered - last

    def _decode_reading(self, number: int, hidden: Tensor, inputs: LayerInputs) -> _Reading:
        repeats = self._repeats(hidden)
        position_ids, tables = inputs.position_ids, inputs.position_embeddings
        if self._recount is not None:
            position_ids = position_ids - self._shifts[number].repeat_interleave(repeats).unsqueeze(1)
            tables = self._decoder.position_embeddings(hidden, position_ids)
        padding = self._plan.stages[number + 1].padding_mask
        attention_mask = self._decoder.mask(
            self._plan.drops[number].layer,
            hidden,
            None if padding is None else padding.repeat_interleave(repeats, dim=0),
            inputs.cache,
        )
        return _Reading(attention_mask, tables, position_ids)

    def _repeats(self, hidden: Tensor) -> int:
        """Return how many rows a sample has: beams, or returns."""
        return len(hidden) // len(self._plan.stages[0].layout.prompts)


def _taken(states: Tensor, sources: Tensor) -> Tensor:
    """Return [B, S', D] out of [B, S, D]."""
    return states.gather(1, sources.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
