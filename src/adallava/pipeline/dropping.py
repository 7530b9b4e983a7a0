"""Carries out a plan of drops while stock `generate` or `forward` runs: the state of one call, thrown away with it."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from adallava.families.family_contract import DecoderLayers, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import holds_layer
from adallava.pipeline.checked import check_merging, check_selection
from adallava.pipeline.drops import DropPlan, PlannedDrop, Stage
from adallava.pipeline.pack import Positions, counted_positions, merge_embeds
from adallava.selection.layer_contract import DropInput, LayerSelector, PromptInput, Raters
from adallava.selection.selector_contract import Selection


@dataclass
class _Reading:
    """What a stage's layers read in one pass, in the place of what transformers made for all tokens.

    Attributes:
        stage: number of it.
        columns: [B, S'] int64, which of the tokens that entered are left; None behind the prompts, where one token of
            each row runs.
        made: mask, rotary tables and positions, by the kind of a layer: made when the first of a kind asks.
    """

    stage: int
    columns: Tensor | None
    made: dict[Hashable, tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]] = field(default_factory=dict)


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
        positions: Positions,
    ) -> None:
        """Start a call.

        Args:
            decoder: the model's layers.
            selector: the method.
            plan: of this batch, on the model's device.
            inputs_embeds: [B, S, D], what enters the first layer.
            positions: "original": a token keeps its position; "compact": positions are counted anew at each drop.
        """
        self._decoder = decoder
        self._selector = selector
        self._plan = plan
        self._positions = positions
        self._drops = {drop.layer: number for number, drop in enumerate(plan.drops)}
        first = plan.stages[0].layout
        num_images, num_tokens = len(first.keep_counts), max(first.keep_counts, default=0)
        self._patches = torch.arange(num_tokens, device=inputs_embeds.device).expand(num_images, -1)
        self._scores: Tensor | None = None
        self._within: Tensor | None = None
        self._raters = self._name_raters(inputs_embeds) if plan.drops else None
        self._prefilled = False
        self._reading: _Reading | None = None

    def mask(self, layer: int, hidden: Tensor, padding_mask: Tensor | None) -> Tensor | None:
        """Return the mask of prompts that enter a layer, without a cache; None for plain causal attention."""
        return self._decoder.mask(layer, hidden, padding_mask, None)

    def view(self) -> Any:
        """Return the model to run: a view of the stock one, good for one call."""
        return self._decoder.view(self.around)

    def view_until_chosen(self) -> Any:
        """Return a model that runs no layer behind the last drop: enough to learn what is kept."""
        last = max(self._drops, default=0)

        def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
            return self.around(index, layer, hidden, inputs) if index < last else self._entered(index, hidden, inputs)

        return self._decoder.view(around)

    def selection(self) -> Selection | None:
        """Return what is left behind the last drop, as patches of each image; None without images."""
        counts = self._plan.stages[-1].layout.keep_counts
        return Selection(self._patches, counts, scores=self._scores, within=self._within) if counts else None

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer, with the drop before or behind it. See `AroundLayer`."""
        hidden = self._entered(index, hidden, inputs)
        read = self._read(index, hidden, inputs)
        following = None if self._prefilled else self._drops.get(index + 1)
        attention = None
        if following is not None and self._plan.drops[following].scored_by == index:
            attention = self._attention(following, hidden, read.position_embeddings)
        hidden = layer(hidden, read)
        if following is not None and attention is not None:
            hidden = self._drop(following, attention, hidden)
        self._prefilled = self._prefilled or index == self._plan.num_layers - 1
        return hidden

    def _entered(self, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Make ready what layer `index` reads, and return its hidden states."""
        if index == 0:
            self._reading = None
        number = self._drops.get(index)
        if number is None:
            return hidden
        if self._prefilled:
            self._reading = _Reading(number + 1, None)
        elif self._plan.drops[number].scored_by == index:
            attention = self._attention(number, hidden, self._read(index, hidden, inputs).position_embeddings)
            hidden = self._drop(number, attention, hidden)
        return hidden

    def _read(self, index: int, hidden: Tensor, inputs: LayerInputs) -> LayerInputs:
        """Return what layer `index` reads beside its hidden states."""
        reading = self._reading
        if reading is None or self._is_left_out(index, inputs):
            return inputs
        kind = self._decoder.kind(index)
        if kind not in reading.made:
            if reading.columns is None:
                reading.made[kind] = self._decode_reading(reading.stage, index, hidden, inputs)
            else:
                reading.made[kind] = self._prefill_reading(reading.stage, reading.columns, index, hidden, inputs)
        mask, tables, position_ids = reading.made[kind]
        return replace(inputs, attention_mask=mask, position_embeddings=tables, position_ids=position_ids)

    def _is_left_out(self, index: int, inputs: LayerInputs) -> bool:
        """Return whether a schedule left a layer out of the prompts: it holds nothing that a mask could fit."""
        return self._prefilled and inputs.cache is not None and not holds_layer(inputs.cache, index)

    def _name_raters(self, inputs_embeds: Tensor) -> Raters:
        stage, samples = self._plan.stages[0], self._plan.sample_of_image.unsqueeze(1)
        with torch.no_grad():
            return self._selector.raters(
                PromptInput(
                    vision_embeds=inputs_embeds[samples, stage.vision_places],
                    text_embeds=inputs_embeds[samples, stage.text_places],
                    text_mask=self._plan.text_mask,
                    token_counts=stage.layout.keep_counts,
                )
            )

    @torch.no_grad()
    def _attention(self, number: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Return the raters' attention to each image's tokens, [I, n]."""
        assert self._raters is not None
        stage = self._plan.stages[number]
        repeats = self._repeats(hidden)
        cosines, sines = (table[::repeats] if len(table) > 1 else table for table in position_embeddings)
        shares = self._decoder.attention(
            self._plan.drops[number].scored_by,
            hidden[::repeats],
            (cosines, sines),
            samples=self._plan.sample_of_image,
            places=stage.text_places.gather(1, self._raters.rows),
            padding_mask=stage.layout.attention_mask,
        )
        rated = (shares * self._raters.weights.unsqueeze(-1)).sum(dim=1)
        return rated.gather(1, stage.vision_places)

    def _drop(self, number: int, attention: Tensor, hidden: Tensor) -> Tensor:
        """Return the hidden states that are left, and note where they come from."""
        before, after, drop = self._plan.stages[number], self._plan.stages[number + 1], self._plan.drops[number]
        repeats = self._repeats(hidden)
        one_each = hidden[::repeats]
        vision = one_each[self._plan.sample_of_image.unsqueeze(1), before.vision_places]
        selection = self._choose(attention, vision, before, after)
        sources = _with_choice(drop, after, selection)
        left = _taken(one_each, sources)
        if selection.merge_weights is not None:
            left = merge_embeds(after.layout, left, selection.apply(vision))
        self._note(attention, selection, before)
        sources, left = (taken.repeat_interleave(repeats, dim=0) for taken in (sources, left))
        before_that = None if self._reading is None else self._reading.columns
        self._reading = _Reading(number + 1, sources if before_that is None else before_that.gather(1, sources))
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
        self, stage: int, columns: Tensor, index: int, hidden: Tensor, inputs: LayerInputs
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]:
        after, repeats = self._plan.stages[stage], self._repeats(hidden)
        if self._positions == "compact":
            position_ids = counted_positions(after.layout).repeat_interleave(repeats, dim=0)
            tables = self._decoder.position_embeddings(index, hidden, position_ids)
        else:
            position_ids = inputs.position_ids.expand(len(hidden), -1).gather(1, columns)
            entered = (table.expand(len(hidden), -1, -1) for table in inputs.position_embeddings)
            cosines, sines = (_taken(table, columns) for table in entered)
            tables = (cosines, sines)
        return self._mask(stage, index, hidden, inputs), tables, position_ids

    def _decode_reading(
        self, stage: int, index: int, hidden: Tensor, inputs: LayerInputs
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]:
        after, repeats = self._plan.stages[stage], self._repeats(hidden)
        position_ids, tables = inputs.position_ids, inputs.position_embeddings
        if self._positions == "compact":
            dropped = [prompt.num_vision_tokens - sum(prompt.keep_counts) for prompt in after.layout.prompts]
            shift = torch.tensor(dropped, dtype=torch.int64).to(hidden.device, non_blocking=True)
            position_ids = position_ids - shift.repeat_interleave(repeats).unsqueeze(1)
            tables = self._decoder.position_embeddings(index, hidden, position_ids)
        return self._mask(stage, index, hidden, inputs), tables, position_ids

    def _mask(self, stage: int, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor | None:
        padding = self._plan.stages[stage].layout.padding_mask
        if padding is not None:
            padding = padding.repeat_interleave(self._repeats(hidden), dim=0)
        return self._decoder.mask(index, hidden, padding, inputs.cache)

    def _repeats(self, hidden: Tensor) -> int:
        """Return how many rows a sample has: beams, or returns."""
        return len(hidden) // len(self._plan.stages[0].layout.prompts)


def _with_choice(drop: PlannedDrop, after: Stage, selection: Selection) -> Tensor:
    """Return, for each token that is left, its column before the drop, [B, S']."""
    slots = after.layout.vision_slots
    if selection.indices.numel() == 0:
        return drop.sources
    chosen = selection.indices.flatten()[slots.clamp_min(0)]
    return drop.sources + chosen.masked_fill(slots < 0, 0)


def _taken(states: Tensor, sources: Tensor) -> Tensor:
    """Return [B, S', D] out of [B, S, D]."""
    return states.gather(1, sources.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
