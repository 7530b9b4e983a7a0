"""What an engine is: a prepared batch, the LLM as it is to run, and a way to decode go in; token ids come out."""

from typing import Protocol

from adallava.pipeline.clock import StageClock
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import Generated


class Engine(Protocol):
    """A way to run the LLM on a prepared batch. Every one gives the tokens of the stock one."""

    @property
    def name(self) -> str:
        """In messages and records."""
        ...

    def refusal(self, run: LLMRun, plan: GenerationPlan) -> str | None:
        """Return what of this call it cannot do, in words; None if it can do all of it."""
        ...

    def generate(self, run: LLMRun, plan: GenerationPlan, clock: StageClock | None) -> Generated:
        """Answer the batch.

        Args:
            run: prepared for this call.
            plan: the arguments of `generate`.
            clock: marks "prefill" and "decode", if given.
        """
        ...
