"""Runs stock `generate` on a prepared call: the answers to a batch, and what ran for each."""

from typing import Any

from adallava.pipeline.clock import PrefillMark, StageClock, StepCount
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import AdaLlavaOutput, read_answers


def generate_run(run: LLMRun, plan: GenerationPlan, processor: Any, clock: StageClock | None) -> AdaLlavaOutput:
    """Answer the batch.

    Args:
        run: prepared for this call.
        plan: the arguments of `generate`.
        processor: decodes the answers.
        clock: marks "prefill" and "decode", if given.
    """
    batch, kwargs = run.prepared.batch, dict(plan.kwargs)
    steps = StepCount()
    kwargs["logits_processor"] = [
        *plan.prompt_processors(batch.input_ids),
        *(kwargs.get("logits_processor") or []),
        *([] if clock is None else [PrefillMark(clock)]),
        steps,
    ]
    result = run.model().generate(input_ids=batch.input_ids, **batch.llm_inputs(), **kwargs)
    if clock is not None:
        clock.mark("decode")
    return read_answers(result, plan, run.settled(), processor, run.request.positions, clock, steps.count)
