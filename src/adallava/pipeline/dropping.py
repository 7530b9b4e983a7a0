"""Carries out a plan of drops while the LLM runs: the state of one call, thrown away with it."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from adallava.families.family_contract import DecoderLayers, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import holds_layer
from adallava.pipeline.checked import check_merging, check_selection
from adallava.pipeline.drops import DropPlan
from adallava.pipeline.layout import Layout
from adallava.pipeline.pack import merge_embeds
from adallava.pipeline.reading_ahead import keep_reading_ahead
from adallava.pipeline.standing import Standing
from adallava.selection.layer_contract import (
    DropInput,
    DropStates,
    LayerSelector,
    PromptInput,
    Raters,
    reads_states,
)
from adallava.selection.selector_contract import Selection


@dataclass
class _Reading:
    """What a stage's layers read in one pass, in the place of what transformers made for all tokens.

    Attributes:
        stage: number of it.
        columns: [B, S'] int64, which of the tokens that entered are left; None after the prompts, where one token of
            each row runs.
        counted: positions of the tokens that are left, counted again, [B, S'] or [R, B, S']; None where they are kept.
        made: mask, rotary tables and positions, by the kind of a layer: made when the first of a kind asks.
    """

    stage: int
    columns: Tensor | None
    counted: Tensor | None = None
    made: dict[Hashable, tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scored:
    """What a layer says of the tokens that it reads: the raters' attention, [I, n], and norms of all keys, [B, S]."""

    attention: Tensor
    key_norms: Tensor | None


class LayerDrops:
    """Drops vision tokens between layers, in the first pass; in later passes, gives each layer its own mask.

    A layer after a drop has fewer keys and values than the first one, from whose length transformers makes the mask
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
        *,
        reads_ahead: bool = False,
    ) -> None:
        """Start a call.

        Args:
            decoder: the model's layers.
            selector: the method.
            plan: of this batch, on the model's device.
            inputs_embeds: [B, S, D], what enters the first layer.
            recount: gives the positions of what a drop left, [B, S] or [R, B, S]; None for tokens that keep theirs.
            reads_ahead: whether some tokens read others after them, as the stock model's masks say.
        """
        self._decoder = decoder
        self._selector = selector
        self._plan = plan
        self._recount = recount
        self._reads_ahead = reads_ahead
        self._drops = {drop.layer: number for number, drop in enumerate(plan.drops)}
        first = plan.layouts[0]
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
        """The first layer after the last drop."""
        return max(self._drops, default=0)

    @property
    def shifts(self) -> Mapping[int, Tensor]:
        """By how much an answer's positions are lower in each stage, [B], where they are counted again."""
        return self._shifts

    @property
    def columns(self) -> Tensor:
        """Of the full prompts, where the tokens that the next layer reads come from, [B, S]; L for padding."""
        return self._standing.columns

    def entered(self, embeds: Tensor, selection: Selection) -> Tensor:
        """Return what entered the first layer, [B, S, D], of each image's chosen tokens, [I, Kmax, D]."""
        return embeds[self._plan.sample_of_image.unsqueeze(1), self._entering.vision.gather(1, selection.indices)]

    def selection(self) -> Selection | None:
        """Return what is left after the last drop, as patches of each image; None without images."""
        counts = self._plan.layouts[-1].keep_counts
        return Selection(self._patches, counts, scores=self._scores, within=self._within) if counts else None

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer, with the drop before or after it. See `AroundLayer`."""
        hidden = self.enter(index, hidden, inputs)
        read = self._read(index, hidden, inputs)
        following = None if self._prefilled else self._drops.get(index + 1)
        scored = None
        if following is not None and self._plan.drops[following].scored_by == index:
            scored = self._score(following, hidden, read.position_embeddings)
        hidden = layer(hidden, read)
        if following is not None and scored is not None:
            hidden = self._drop(following, scored, hidden)
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
            self._reading = _Reading(number + 1, None)
        elif self._plan.drops[number].scored_by == index:
            scored = self._score(number, hidden, self._read(index, hidden, inputs).position_embeddings)
            hidden = self._drop(number, scored, hidden)
        return hidden

    def _read(self, index: int, hidden: Tensor, inputs: LayerInputs) -> LayerInputs:
        """Return what layer `index` reads besides its hidden states."""
        reading = self._reading
        if reading is None or self._is_left_out(index, inputs):
            return inputs
        kind = self._decoder.kind(index)
        if kind not in reading.made:
            if reading.columns is None:
                reading.made[kind] = self._decode_reading(reading.stage, index, hidden, inputs)
            else:
                reading.made[kind] = self._prefill_reading(reading, reading.columns, index, hidden, inputs)
        mask, tables, position_ids = reading.made[kind]
        return replace(inputs, attention_mask=mask, position_embeddings=tables, position_ids=position_ids)

    def _is_left_out(self, index: int, inputs: LayerInputs) -> bool:
        """Return whether a schedule left a layer out of the prompts: it holds nothing that a mask could fit."""
        return self._prefilled and inputs.cache is not None and not holds_layer(inputs.cache, index)

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
    def _score(self, number: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> "_Scored":
        """Return what the layer that a drop is scored by says, of its input."""
        layer, repeats = self._plan.drops[number].scored_by, self._repeats(hidden)
        cosines, sines = (table[::repeats] if len(table) > 1 else table for table in position_embeddings)
        one_each, tables = hidden[::repeats], (cosines, sines)
        norms = self._decoder.key_norms(layer, one_each, tables) if reads_states(self._selector) else None
        return _Scored(self._attention(layer, one_each, tables), norms)

    def _attention(self, layer: int, hidden: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> Tensor:
        """Return the raters' attention to each image's tokens, [I, n]."""
        assert self._raters is not None
        shares = self._decoder.attention(
            layer,
            hidden,
            position_embeddings,
            samples=self._plan.sample_of_image,
            places=self._standing.text.gather(1, self._raters.rows),
            padding_mask=self._standing.layout.attention_mask,
        )
        rated = (shares * self._raters.weights.unsqueeze(-1)).sum(dim=1)
        return rated.gather(1, self._standing.vision)

    def _drop(self, number: int, scored: "_Scored", hidden: Tensor) -> Tensor:
        """Return the hidden states that are left, and note where they come from."""
        before, after = self._plan.layouts[number : number + 2]
        repeats = self._repeats(hidden)
        one_each = hidden[::repeats]
        vision = one_each[self._plan.sample_of_image.unsqueeze(1), self._standing.vision]
        states = None if scored.key_norms is None else self._states(scored.key_norms, one_each)
        selection = self._choose(scored.attention, vision, states, before, after)
        self._note(scored.attention, selection, before)
        stood, self._standing = self._standing, Standing.of(after, self._patches, self._plan)
        sources = self._standing.sources(stood)
        left = _taken(one_each, sources)
        if selection.merge_weights is not None:
            left = merge_embeds(self._standing.layout, left, selection.apply(vision))
        repeated = self._standing.sources(self._entering).repeat_interleave(repeats, dim=0)
        self._reading = _Reading(number + 1, repeated, self._counted(number + 1))
        return left.repeat_interleave(repeats, dim=0)

    def _counted(self, stage: int) -> Tensor | None:
        """Return positions counted again over what is left, and note how much lower an answer goes on from there.

        Padded on the left, as `generate` is, each prompt ends in the last column, in text, where all rows are alike.
        """
        if self._recount is None:
            return None
        assert self._last_positions is not None
        counted = self._recount(self._standing.layout, self._patches)
        last = counted[..., -1] if counted.dim() == 2 else counted[0, :, -1]
        repeats = max(1, len(self._last_positions) // len(last))
        self._shifts[stage] = self._last_positions[::repeats] - last
        return counted

    @torch.no_grad()
    def _states(self, key_norms: Tensor, hidden: Tensor) -> DropStates:
        """Return what a method reads besides attention, of norms [B, S] and what a layer would read, [B, S, D]."""
        samples, vision, text = self._plan.sample_of_image.unsqueeze(1), self._standing.vision, self._standing.text
        normed = self._decoder.last_norm(hidden)
        return DropStates(
            normed=normed[samples, vision],
            key_norms=key_norms[samples, vision],
            text_normed=normed[samples, text],
            text_key_norms=key_norms[samples, text],
            text_mask=self._plan.text_mask,
        )

    @torch.no_grad()
    def _choose(
        self, attention: Tensor, vision: Tensor, states: DropStates | None, before: Layout, after: Layout
    ) -> Selection:
        counts = after.keep_counts
        selection = self._selector.choose(DropInput(attention, vision, before.keep_counts, counts, states))
        selection = check_selection(self._selector.name, selection, counts, before.keep_counts)
        check_merging(self._selector, selection, before.keep_counts)
        if selection.within is not None:
            self._within = selection.within if self._within is None else self._within & selection.within
        return selection

    def _note(self, attention: Tensor, selection: Selection, before: Layout) -> None:
        """Write down which patches are left, and each patch's score at the last drop it was looked at."""
        counts = torch.tensor(before.keep_counts, dtype=torch.int64).to(attention.device, non_blocking=True)
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
        self, reading: _Reading, columns: Tensor, index: int, hidden: Tensor, inputs: LayerInputs
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]:
        position_ids = inputs.position_ids.expand(len(hidden), -1).gather(1, columns)
        if reading.counted is not None:
            counted = reading.counted.repeat_interleave(self._repeats(hidden), dim=-2)
            position_ids = counted if counted.dim() == 2 else position_ids
            tables = self._decoder.position_embeddings(index, hidden, counted)
        else:
            entered = (table.expand(len(hidden), -1, -1) for table in inputs.position_embeddings)
            cosines, sines = (_taken(table, columns) for table in entered)
            tables = (cosines, sines)
        if self._reads_ahead and inputs.attention_mask is not None:
            return self._mask_ahead(reading.stage, columns, index, hidden, inputs), tables, position_ids
        return self._mask(reading.stage, index, hidden, inputs), tables, position_ids

    def _decode_reading(
        self, stage: int, index: int, hidden: Tensor, inputs: LayerInputs
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor], Tensor]:
        position_ids, tables = inputs.position_ids, inputs.position_embeddings
        if self._recount is not None:
            shift = self._shifts[stage].repeat_interleave(self._repeats(hidden))
            position_ids = position_ids - shift.unsqueeze(1)
            tables = self._decoder.position_embeddings(index, hidden, position_ids)
        return self._mask(stage, index, hidden, inputs), tables, position_ids

    def _mask(self, stage: int, index: int, hidden: Tensor, inputs: LayerInputs) -> Tensor | None:
        padding = self._plan.layouts[stage].padding_mask
        if padding is not None:
            padding = padding.repeat_interleave(self._repeats(hidden), dim=0)
        return self._decoder.mask(index, hidden, padding, inputs.cache)

    def _mask_ahead(
        self, stage: int, columns: Tensor, index: int, hidden: Tensor, inputs: LayerInputs
    ) -> Tensor | None:
        """Return the mask of prompts with tokens that read others after them, as those that entered did."""
        repeats = self._repeats(hidden)
        before, after = (
            self._plan.layouts[number].attention_mask.repeat_interleave(repeats, dim=0) for number in (0, stage)
        )
        entered = inputs.attention_mask
        own = self._decoder.mask(index, hidden, after, inputs.cache)
        plain = self._decoder.mask(index, hidden.new_empty(*before.shape, 1), before, None)
        assert entered is not None
        assert own is not None
        assert plain is not None
        return keep_reading_ahead(own, entered[..., : plain.shape[-1]], plain, columns, after.bool())

    def _repeats(self, hidden: Tensor) -> int:
        """Return how many rows a sample has: beams, or returns."""
        return len(hidden) // len(self._plan.layouts[0].prompts)


def _taken(states: Tensor, sources: Tensor) -> Tensor:
    """Return [B, S', D] out of [B, S, D]."""
    return states.gather(1, sources.unsqueeze(-1).expand(-1, -1, states.shape[-1]))
