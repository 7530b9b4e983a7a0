"""What an engine is: a prepared batch, the LLM as it is to run, and a way to decode go in; token ids come out."""

from dataclasses import dataclass
from typing import Any, Protocol

from adallava.pipeline.clock import StageClock
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun


@dataclass(frozen=True)
class Generated:
    """What an engine made of a batch.

    Attributes:
        result: as transformers' `generate` returns it: `sequences` [rows, prompt + new], and what was asked for beside.
        num_steps: how often the LLM ran, the prefill included.
        engine: that made it.
        passed_over: why no engine before it in the order of preference did; empty if none was.
    """

    result: Any
    num_steps: int
    engine: str
    passed_over: str = ""


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
