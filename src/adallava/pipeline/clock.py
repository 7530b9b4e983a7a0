"""Reads the clock at the borders between an answer's parts, without making the device wait for it."""

import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from adallava.errors import InputError


class StageClock:
    """Milliseconds by part. On CUDA it records events, and waits for them only when it is read.

    One clock may time many calls, one after the other: each call starts it again.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        """Make a clock for work on `device`."""
        self._on_cuda = torch.device(device).type == "cuda"
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """Forget earlier marks; the first part begins now."""
        self._marks = [("", self._now())]

    def mark(self, part: str) -> None:
        """Say that `part` ends, and the next begins, now.

        Raises:
            InputError: if the clock was not started.
        """
        if not self._marks:
            raise InputError(f"StageClock.mark({part!r}) before start()")
        self._marks.append((part, self._now()))

    def part_ms(self) -> dict[str, float]:
        """Return the milliseconds of each part, in the order they ran. Waits for the device."""
        if self._on_cuda and self._marks:
            self._marks[-1][1].synchronize()
        parts: dict[str, float] = {}
        for (_, begin), (part, end) in pairwise(self._marks):
            parts[part] = parts.get(part, 0.0) + self._between_ms(begin, end)
        return parts

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _between_ms(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) if self._on_cuda else (end - begin) * 1000.0


class PrefillMark:
    """A logits processor that changes no logits: its first call says that prefill is over.

    transformers asks only that a processor can be called; a base class of its own would tie this file to it.
    """

    def __init__(self, clock: StageClock) -> None:
        """Mark `prefill` on `clock` at the first call."""
        self._clock = clock
        self._marked = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `scores` as they are."""
        if not self._marked:
            self._clock.mark("prefill")
            self._marked = True
        return scores


class StepCount:
    """A logits processor that changes no logits: it is called once for each pass of the LLM.

    Attributes:
        count: passes so far, the prefill among them.
    """

    def __init__(self) -> None:
        """Begin at none."""
        self.count = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `scores` as they are."""
        self.count += 1
        return scores
