"""transformers' own `generate`, on the stock model or a view of it: every mode, every family, every device."""

from adallava.errors import UnsupportedModeError, in_short
from adallava.families.capabilities.of_llms import generating
from adallava.pipeline.clock import PrefillMark, StageClock, StepCount
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import Generated


class StockEngine:
    """Stock `generate`."""

    @property
    def name(self) -> str:
        """In messages and records."""
        return "stock"

    def refusal(self, run: LLMRun, plan: GenerationPlan) -> str | None:
        """Return None: what it cannot do was refused when the call was planned."""
        return None

    def generate(self, run: LLMRun, plan: GenerationPlan, clock: StageClock | None) -> Generated:
        """Answer the batch; see `Engine.generate`."""
        batch, kwargs = run.prepared.batch, dict(plan.kwargs)
        steps = StepCount()
        kwargs["logits_processor"] = [
            *plan.prompt_processors(batch.input_ids),
            *(kwargs.get("logits_processor") or []),
            *([] if clock is None else [PrefillMark(clock)]),
            steps,
        ]
        try:
            result = generating(run.family, run.model()).generate(
                input_ids=batch.input_ids, **batch.llm_inputs(), **kwargs
            )
        except ImportError as error:  # of a package that a way to generate needs, such as a quantized cache
            raise UnsupportedModeError(f"transformers cannot generate so here: {in_short(error)}") from error
        if clock is not None:
            clock.mark("decode")
        return Generated(result, steps.count, self.name)
