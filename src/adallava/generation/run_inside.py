"""Runs the LLM once for a method inside it: a forward pass for training, or only as far as the choice needs it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adallava.families.contract import Family
from adallava.generation.compact import CompactBatch, Positions, compact_labels
from adallava.generation.modes import refuse_outputs_inside
from adallava.generation.output import ForwardOutput
from adallava.generation.prepare import Prepared, assemble
from adallava.generation.prepare_inside import PreparedInside


def choose_inside(inside: PreparedInside) -> Prepared:
    """Run the layers up to the last drop, and return what is left there."""
    batch = inside.prepared.batch
    inside.drops.view_until_chosen().model(
        inputs_embeds=batch.inputs_embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    )
    return inside.settled()


def forward_inside(
    family: Family,
    inside: PreparedInside,
    *,
    input_ids: Tensor,
    labels: Tensor | None,
    positions: Positions,
    forward_kwargs: Mapping[str, Any],
) -> ForwardOutput:
    """Run the LLM once over all N tokens; logits, labels and loss are those of what its last layer reads.

    Args:
        family: the model.
        inside: prepared for this call.
        input_ids: [B, L], the original ids.
        labels: [B, L] or None.
        positions: as prepared.
        forward_kwargs: for the stock forward.

    Raises:
        UnsupportedModeError: if hidden states or attentions are asked for.
    """
    refuse_outputs_inside(forward_kwargs.get)
    batch, last = inside.prepared.batch, inside.plan.stages[-1].layout
    result = inside.view()(
        inputs_embeds=batch.inputs_embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        labels=None if labels is None else compact_labels(last, labels),
        **{"use_cache": False, **forward_kwargs},
    )
    at_end = _batch_at_the_end(family, inside, input_ids, labels, positions)
    return ForwardOutput(result.loss, result.logits, at_end, last, inside.drops.selection())


def _batch_at_the_end(
    family: Family, inside: PreparedInside, input_ids: Tensor, labels: Tensor | None, positions: Positions
) -> CompactBatch:
    """Return the tokens that the LLM's last layer read: what its logits belong to."""
    selection = inside.drops.selection()
    embeds = None
    if selection is not None:
        places = inside.plan.stages[0].vision_places.gather(1, selection.indices)
        embeds = inside.prepared.batch.inputs_embeds[inside.plan.sample_of_image.unsqueeze(1), places]
    indices = None if selection is None else selection.indices
    return assemble(family, inside.plan.stages[-1].layout, input_ids, embeds, indices, positions, labels)
