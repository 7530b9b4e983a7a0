"""One turn of one cell: the wall clock around whole calls, and the parts of one more."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from adallava.bench.ceilings import synchronize
from adallava.errors import AdallavaError
from adallava.measuring.peak_memory import peak_memory_bytes, reset_peak_memory
from adallava.model import AdaLlava
from adallava.pipeline.clock import StageClock
from adallava.pipeline.decoding import generate_arguments
from adallava.records import Decoding, WhatRan
from adallava.records.cells import CellPlan

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answered:
    """What a call made, without its tensors: turns are kept, and would keep memory with them.

    Attributes:
        num_new_tokens: of each row.
        engine: that made it.
        passed_over: why no engine before it did.
        records: of each row; none of stock transformers, which keeps everything.
        part_ms: milliseconds by part, if a clock was given.
    """

    num_new_tokens: int
    engine: str
    passed_over: str = ""
    records: tuple[WhatRan, ...] = ()
    part_ms: dict[str, float] | None = None


class Answer(Protocol):
    """Answers a batch that lies on the device."""

    def __call__(self, new_tokens: int, clock: StageClock | None = None) -> Answered:
        """Answer with exactly so many tokens for each row, on the host when it returns."""
        ...


@dataclass(frozen=True)
class Turn:
    """One turn of a cell.

    Attributes:
        first_token_ms: wall clock of a call for one token.
        total_ms: of a call for the whole answer.
        part_ms: by part, of a call for one token with a clock.
        peak_memory_bytes: of the call for the whole answer; None on a CPU, where a process's own is not a measure.
        answered: the whole answer.
    """

    first_token_ms: float
    total_ms: float
    part_ms: dict[str, float]
    peak_memory_bytes: int | None
    answered: Answered


def take_turn(answer: Answer, new_tokens: int, device: torch.device) -> Turn:
    """Answer three times: with one token, with all, and with one under the clock of the parts.

    Raises:
        AdallavaError: if an answer is shorter.
    """
    first_ms, _ = _timed(lambda: answer(1), device)
    on_cuda = device.type == "cuda"
    if on_cuda:
        reset_peak_memory(device)
    total_ms, answered = _timed(lambda: answer(new_tokens), device)
    peak = peak_memory_bytes(device) if on_cuda else None
    if answered.num_new_tokens != new_tokens:
        raise AdallavaError(f"the answer has {answered.num_new_tokens} tokens, and {new_tokens} were asked for")
    parts = answer(1, StageClock(device)).part_ms or {}
    return Turn(first_ms, total_ms, {part: ms for part, ms in parts.items() if part != "decode"}, peak, answered)


def answer_by_transformers(base: Any, inputs: dict[str, Any]) -> Answer:
    """Return stock `generate` on all tokens, with everything on the base's device."""
    inputs = {name: tensor.to(base.device) for name, tensor in inputs.items()}

    def answer(new_tokens: int, clock: StageClock | None = None) -> Answered:
        """Generate exactly so many tokens; stock has no parts to clock."""
        ids = base.generate(**inputs, **_exactly(new_tokens)).cpu()
        return Answered(ids.shape[1] - inputs["input_ids"].shape[1], "transformers")

    return answer


def answer_by_model(model: AdaLlava, plan: CellPlan, inputs: dict[str, Any]) -> Answer:
    """Return ours at a cell's budget and latency, with a seed for each row."""
    seeds = list(range(len(inputs["input_ids"])))

    def answer(new_tokens: int, clock: StageClock | None = None) -> Answered:
        """Generate exactly so many tokens."""
        output = model.generate(
            **inputs,
            **plan.call(),
            seed=seeds,
            clock=clock,
            **_exactly(new_tokens),
        )
        answered = output.sequences.shape[1] - output.prompt_length
        return Answered(answered, output.engine or "", output.passed_over, output.records, output.part_ms)

    return answer


def _exactly(new_tokens: int) -> dict[str, Any]:
    """Return arguments for greedy answers that nothing ends before they have so many tokens."""
    stated = generate_arguments(Decoding(eos_token_ids=[], pad_token_id=0))
    return stated | {"max_new_tokens": new_tokens}


def _timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    synchronize(device)
    begin = time.perf_counter()
    result = work()
    synchronize(device)
    return (time.perf_counter() - begin) * 1000.0, result
