"""Runs the LLM once: a forward pass for training, or only as far as a method inside it needs to choose."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.pipeline.checked import check_indices
from adallava.pipeline.companions import arranged
from adallava.pipeline.layout import Layout
from adallava.pipeline.pack import CompactBatch, assemble, compact_labels
from adallava.pipeline.prepare import Prepared, PreparedInside
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import ForwardOutput
from adallava.pipeline.stock_arguments import AS_CONFIGURED, FORWARD_REFUSED, check_forward_arguments
from adallava.scheduling.scheduler_contract import Schedule
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import Selection


def choose_inside(run: LLMRun, inside: PreparedInside) -> Prepared:
    """Run the layers up to the last drop, and return what is left there."""
    view = run.program.view_until_chosen(run.family)
    view.model(**inside.prepared.batch.llm_inputs(), use_cache=False)
    return inside.settled()


def forward_run(run: LLMRun, forward_kwargs: Mapping[str, Any]) -> ForwardOutput:
    """Run the LLM once over the shortened batch.

    Args:
        run: prepared for this call, with a method before the LLM.
        forward_kwargs: for the stock forward.

    Raises:
        UnsupportedModeError: for arguments that cannot be given correctly, see `check_forward_arguments`.
        InputError: for an argument that nobody knows.
    """
    check_forward_arguments(forward_kwargs, inside_llm=bool(run.program.steps))
    batch = run.prepared.batch
    result, schedule = _run(run, batch.labels, forward_kwargs)
    _check(run.prepared.selector, run.prepared.selection, run.prepared.layout)
    return ForwardOutput(
        result.loss, result.logits, batch, run.prepared.layout, run.prepared.selection, schedule, result
    )


def forward_inside(run: LLMRun, forward_kwargs: Mapping[str, Any]) -> ForwardOutput:
    """Run the LLM once over all N tokens; logits, labels and loss are those of what its last layer reads.

    Args:
        run: prepared for this call, with a method inside the LLM.
        forward_kwargs: for the stock forward.

    Raises:
        UnsupportedModeError: for arguments that cannot be given correctly, see `check_forward_arguments`.
        InputError: for an argument that nobody knows.
    """
    check_forward_arguments(forward_kwargs, inside_llm=True)
    assert run.inside is not None
    last, labels = run.inside.plan.layouts[-1], run.request.labels
    of_last = None if labels is None else compact_labels(last, labels.to(run.family.device))
    result, schedule = _run(run, of_last, forward_kwargs)
    _check(run.prepared.selector, run.inside.drops.selection(), last)
    return ForwardOutput(
        result.loss,
        result.logits,
        _batch_at_the_end(run, run.inside),
        last,
        run.inside.drops.selection(),
        schedule,
        result,
    )


def _run(run: LLMRun, labels: Tensor | None, forward_kwargs: Mapping[str, Any]) -> tuple[Any, Schedule | None]:
    """Return transformers' result, and which units of the LLM ran; None if all did."""
    _check_logits_to_keep(run, forward_kwargs.get("logits_to_keep"))
    asked = {name: value for name, value in forward_kwargs.items() if name not in (*AS_CONFIGURED, *FORWARD_REFUSED)}
    # A checkpoint may say return_dict=False, and here attributes are read.
    options = {"use_cache": False, **asked, "return_dict": True}
    result = run.model()(**run.prepared.batch.llm_inputs(), labels=labels, **options)
    return result, None if run.layers is None else run.layers.schedule


def _check(selector: AnySelector | None, selection: Selection | None, layout: Layout) -> None:
    """Look at a choice that could not be looked at when it was made, now that the LLM is on its way."""
    if selector is not None and selection is not None and selection.within is not None:
        check_indices(selector.name, selection, layout.tokens_per_image)


def _check_logits_to_keep(run: LLMRun, logits_to_keep: Any) -> None:
    """Refuse the last columns of rows that end at different ones: they would be padding.

    Raises:
        UnsupportedModeError: naming the value.
    """
    layout = run.prepared.layout if run.inside is None else run.inside.plan.layouts[-1]
    lengths = {prompt.length for prompt in layout.prompts}
    if isinstance(logits_to_keep, int) and logits_to_keep and len(lengths) > 1:
        raise UnsupportedModeError(
            f"forward(logits_to_keep={logits_to_keep}) is not supported for rows of {min(lengths)} to {max(lengths)} "
            "tokens: they are padded on the right, so that some of the last columns hold no token. Give rows one by "
            "one, or take all logits"
        )


def _batch_at_the_end(run: LLMRun, inside: PreparedInside) -> CompactBatch:
    """Return the tokens that the LLM's last layer read: what its logits belong to."""
    selection, last, labels = inside.drops.selection(), inside.plan.layouts[-1], run.request.labels
    embeds = None
    if selection is not None:
        embeds = inside.drops.entered(run.prepared.batch.inputs_embeds, selection)
        last = arranged(last, selection.indices)
    device = run.family.device
    batch = assemble(
        run.family,
        last,
        run.request.input_ids.to(device),
        embeds,
        None if selection is None else selection.indices,
        run.request.positions,
        None if labels is None else labels.to(device),
        run.request.pad_token_id,
    )
    if run.latency is None:
        return batch
    return replace(batch, inputs_embeds=run.latency.put_into(last, batch.inputs_embeds))
