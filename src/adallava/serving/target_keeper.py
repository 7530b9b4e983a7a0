"""The controller next to a running server: it looks whenever a request comes, and no thread or task is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from adallava.serving.latency_target import (
    Control,
    LatencyTarget,
    Waiting,
    Window,
    budget_for,
    faded,
    next_control,
)


@dataclass(frozen=True)
class Load:
    """What a server has done since it started.

    Attributes:
        first_tokens: how many requests got their first token within each bound in ms, those of lower bounds with them.
        ttft_ms: the sum of their times to first token.
        prompt_tokens: theirs.
        busy_ms: for how long anything was under way.
    """

    first_tokens: tuple[tuple[float, int], ...] = ()
    ttft_ms: float = 0.0
    prompt_tokens: int = 0
    busy_ms: float = 0.0

    def since(self, before: "Load", length_ms: float) -> Window:
        """Return what was done between two readings, so far apart."""
        earlier = dict(before.first_tokens)
        new = [(bound, count - earlier.get(bound, 0)) for bound, count in self.first_tokens]
        own = [new[0], *((bound, count - lower) for (_, lower), (bound, count) in pairwise(new))] if new else []
        return Window(
            tuple(own),
            self.ttft_ms - before.ttft_ms,
            self.prompt_tokens - before.prompt_tokens,
            self.busy_ms - before.busy_ms,
            length_ms,
        )


class TargetKeeper:
    """Learns from the server's metrics, window by window, and chooses the budget of each request by what waits."""

    def __init__(
        self,
        target: LatencyTarget,
        load: Callable[[], Load],
        *,
        clock_ms: Callable[[], float],
        window_ms: float = 1000.0,
    ) -> None:
        """Begin with every token.

        Args:
            target: what is to hold.
            load: reads what the server has done since it started.
            clock_ms: reads the time.
            window_ms: the shortest window. One in which nothing came out goes on.
        """
        self._target, self._load, self._clock_ms, self._window_ms = target, load, clock_ms, window_ms
        self._control, self._before, self._since_ms = Control(), load(), clock_ms()

    def budget(self, waiting: Waiting) -> float:
        """Return the share of vision tokens of a request that comes now, after others."""
        self._learn()
        return budget_for(self._target, faded(self._control, self._clock_ms() - self._since_ms), waiting)

    def _learn(self) -> None:
        now = self._clock_ms()
        if now - self._since_ms < self._window_ms:
            return
        after = self._load()
        window = after.since(self._before, now - self._since_ms)
        if window.count:
            self._control = next_control(self._target, self._control, window)
            self._before, self._since_ms = after, now
