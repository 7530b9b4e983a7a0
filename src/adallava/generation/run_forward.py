"""Runs the LLM once: a forward pass for training, or only as far as a method inside it needs to choose."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from adallava.generation.checked import check_indices
from adallava.generation.compact import CompactBatch, add_latency, compact_labels
from adallava.generation.layout import Layout
from adallava.generation.llm_run import LLMRun
from adallava.generation.modes import refuse_outputs_inside
from adallava.generation.output import ForwardOutput
from adallava.generation.prepare import Prepared, assemble
from adallava.generation.prepare_inside import PreparedInside
from adallava.scheduling.contract import Schedule
from adallava.selection.contract import Selection
from adallava.selection.layer_contract import AnySelector


def choose_inside(inside: PreparedInside) -> Prepared:
    """Run the layers up to the last drop, and return what is left there."""
    inside.drops.view_until_chosen().model(**inside.prepared.batch.llm_inputs(), use_cache=False)
    return inside.settled()


def forward_run(run: LLMRun, forward_kwargs: Mapping[str, Any]) -> ForwardOutput:
    """Run the LLM once over the shortened batch.

    Args:
        run: prepared for this call, with a method before the LLM.
        forward_kwargs: for the stock forward.

    Raises:
        UnsupportedModeError: if hidden states or attentions are asked for of an LLM whose layers do not all run.
    """
    if run.layers is not None:
        refuse_outputs_inside(forward_kwargs.get)
    batch, prepared = run.prepared.batch, run.prepared
    result, schedule = _run(run, batch.labels, forward_kwargs)
    _check(prepared.selector, prepared.selection, prepared.layout)
    return ForwardOutput(result.loss, result.logits, batch, run.prepared.layout, run.prepared.selection, schedule)


def forward_inside(run: LLMRun, forward_kwargs: Mapping[str, Any]) -> ForwardOutput:
    """Run the LLM once over all N tokens; logits, labels and loss are those of what its last layer reads.

    Args:
        run: prepared for this call, with a method inside the LLM.
        forward_kwargs: for the stock forward.

    Raises:
        UnsupportedModeError: if hidden states or attentions are asked for.
    """
    refuse_outputs_inside(forward_kwargs.get)
    assert run.inside is not None
    last, labels = run.inside.plan.stages[-1].layout, run.request.labels
    of_last = None if labels is None else compact_labels(last, labels.to(run.family.device))
    result, schedule = _run(run, of_last, forward_kwargs)
    _check(run.prepared.selector, run.inside.drops.selection(), last)
    return ForwardOutput(
        result.loss, result.logits, _batch_at_the_end(run, run.inside), last, run.inside.drops.selection(), schedule
    )


def _run(run: LLMRun, labels: Tensor | None, forward_kwargs: Mapping[str, Any]) -> tuple[Any, Schedule | None]:
    """Return transformers' result, and which units of the LLM ran; None if all did."""
    options = {"use_cache": False, **forward_kwargs}
    result = run.model()(**run.prepared.batch.llm_inputs(), labels=labels, **options)
    return result, None if run.layers is None else run.layers.schedule


def _check(selector: AnySelector | None, selection: Selection | None, layout: Layout) -> None:
    """Look at a choice that could not be looked at when it was made, now that the LLM is on its way."""
    if selector is not None and selection is not None and selection.within is not None:
        check_indices(selector.name, selection, layout.tokens_per_image)


def _batch_at_the_end(run: LLMRun, inside: PreparedInside) -> CompactBatch:
    """Return the tokens that the LLM's last layer read: what its logits belong to."""
    selection, last, labels = inside.drops.selection(), inside.plan.stages[-1].layout, run.request.labels
    embeds = None
    if selection is not None:
        places = inside.plan.stages[0].vision_places.gather(1, selection.indices)
        embeds = run.prepared.batch.inputs_embeds[inside.plan.sample_of_image.unsqueeze(1), places]
    device = run.family.device
    batch = assemble(
        run.family,
        last,
        run.request.input_ids.to(device),
        embeds,
        None if selection is None else selection.indices,
        run.request.positions,
        None if labels is None else labels.to(device),
    )
    embeds = add_latency(last, batch.inputs_embeds, run.latency_embeds, alone=run.latency_alone)
    return replace(batch, inputs_embeds=embeds)
