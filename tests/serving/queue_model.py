"""A server in numbers: first come, first served, in steps of so many tokens, as vLLM schedules prompts without chunks.

A request costs so much, and each of its tokens so much: of the bundled model, four times as deep, a CPU took 540 ms for
a prompt of 267 tokens and 190 ms for one of 71 (docs/results/serving.json): 60 ms a request and 1.8 ms a token.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adallava.serving.latency_target import Waiting
from adallava.serving.target_keeper import Load

REQUEST_MS, TOKEN_MS = 60.0, 1.8
VISION_TOKENS, TEXT_TOKENS = 256, 11
BOUNDS_MS = (50, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000, 20_000, 40_000, 80_000, 160_000)
"""Of vLLM's histogram, the part that is reached."""


@dataclass
class Asked:
    """A request.

    Attributes:
        at_ms: when it came.
        budget: its share of vision tokens.
        ttft_ms: until its first token; 0 while there is none.
    """

    at_ms: float
    budget: float
    ttft_ms: float = 0.0

    @property
    def prompt_tokens(self) -> int:
        return TEXT_TOKENS + max(1, int(VISION_TOKENS * self.budget))


def cost_ms(budget: float) -> float:
    """Return what a request of a budget costs."""
    return REQUEST_MS + TOKEN_MS * Asked(0.0, budget).prompt_tokens


@dataclass
class QueueModel:
    """The server.

    Attributes:
        step_tokens: of prompts that it takes in at once.
        answer_ms: what the rest of an answer adds to each of the steps that follow its first token.
        answer_steps: how many these are.
    """

    step_tokens: int = 2048
    answer_ms: float = 3.0
    answer_steps: int = 5
    now_ms: float = 0.0
    done: list[Asked] = field(default_factory=list)
    _queue: list[Asked] = field(default_factory=list)
    _step: list[Asked] = field(default_factory=list)
    _step_ends_ms: float | None = None
    _answering: list[int] = field(default_factory=list)
    _busy_ms: float = 0.0

    def run_until(self, then_ms: float) -> None:
        """Let time pass."""
        while True:
            if self._step_ends_ms is None:
                if not self._queue and not self._answering:
                    break
                self._begin_step()
            assert self._step_ends_ms is not None
            if self._step_ends_ms > then_ms:
                break
            self._end_step()
        self.now_ms = max(self.now_ms, then_ms)

    def ask(self, budget: float) -> Asked:
        """Add a request now."""
        asked = Asked(self.now_ms, budget)
        self._queue.append(asked)
        return asked

    def waiting(self) -> Waiting:
        """Return what has no first token."""
        pending = self._step + self._queue
        oldest = self.now_ms - pending[0].at_ms if pending else 0.0
        return Waiting(len(pending), sum(asked.prompt_tokens for asked in pending), oldest)

    def load(self) -> Load:
        """Return what vLLM's metrics would say."""
        times = [asked.ttft_ms for asked in self.done]
        counts = tuple((float(bound), sum(ms <= bound for ms in times)) for bound in BOUNDS_MS)
        return Load(counts, sum(times), sum(asked.prompt_tokens for asked in self.done), self._busy_ms)

    def _begin_step(self) -> None:
        left, step_ms = self.step_tokens, self.answer_ms * len(self._answering)
        while self._queue and self._queue[0].prompt_tokens <= left:
            asked = self._queue.pop(0)
            left -= asked.prompt_tokens
            step_ms += cost_ms(asked.budget)
            self._step.append(asked)
        self._busy_ms += step_ms
        self._step_ends_ms = self.now_ms + step_ms

    def _end_step(self) -> None:
        assert self._step_ends_ms is not None
        self.now_ms, self._step_ends_ms = self._step_ends_ms, None
        self._answering = [left - 1 for left in self._answering if left > 1] + [self.answer_steps] * len(self._step)
        for asked in self._step:
            asked.ttft_ms = self.now_ms - asked.at_ms
        self.done += self._step
        self._step = []


def arrivals_ms(parts: Sequence[tuple[float, float]], seed: int) -> list[float]:
    """Return when requests come, at random.

    Args:
        parts: (requests as a share of what the server answers with every token, seconds) one after the other.
        seed: of the times.
    """
    drawn, times, begun = random.Random(seed), [], 0.0
    for share, seconds in parts:
        at, end = begun, begun + 1000 * seconds
        while (at := at + drawn.expovariate(share / cost_ms(1.0))) < end:
            times.append(at)
        begun = end
    return times


def served(times: Sequence[float], budget_for: Callable[[QueueModel], float], model: QueueModel) -> list[Asked]:
    """Return the requests once all are answered, each with the budget that it was given when it came."""
    asked = []
    for at in times:
        model.run_until(at)
        asked.append(model.ask(budget_for(model)))
    model.run_until(model.now_ms + 1e7)
    return asked


def p95_ms(asked: Sequence[Asked]) -> float:
    """Return the 95th percentile of times to first token."""
    times = sorted(one.ttft_ms for one in asked)
    return times[int(0.95 * (len(times) - 1))]
