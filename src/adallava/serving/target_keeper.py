"""The controller beside a running server: its windows end when requests come, and no thread or task is needed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from adallava.serving.latency_target import Control, LatencyTarget, Window, next_control

_MOST_WINDOWS = 64
"""Windows without a request that are made up for at once: enough for every step back to full tokens."""


@dataclass(frozen=True)
class Load:
    """What a server has done since it started.

    Attributes:
        first_tokens: how many requests got their first token within each bound in ms, those of lower bounds with them.
        waiting: requests in the queue now.
    """

    first_tokens: tuple[tuple[float, int], ...] = ()
    waiting: int = 0

    def since(self, before: "Load") -> Window:
        """Return what was done between two readings."""
        earlier = dict(before.first_tokens)
        new = [(bound, count - earlier.get(bound, 0)) for bound, count in self.first_tokens]
        own = [new[0], *((bound, count - lower) for (_, lower), (bound, count) in pairwise(new))] if new else []
        return Window(tuple(own), self.waiting)


class TargetKeeper:
    """Reads the server's metrics window by window, whenever a request comes, and holds the budget of the moment."""

    def __init__(
        self,
        target: LatencyTarget,
        load: Callable[[], Load],
        *,
        window_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with every token.

        Args:
            target: what is to hold.
            load: reads what the server has done since it started.
            window_s: how long a window is.
            clock: in seconds.
        """
        self._target, self._window_s, self._clock, self._load = target, window_s, clock, load
        self._control, self._before, self._since = Control(), load(), clock()

    def budget(self) -> float:
        """Return the share of vision tokens of a request that comes now."""
        windows = int((self._clock() - self._since) / self._window_s)
        if windows > 0:
            after = self._load()
            self._step(after.since(self._before))
            for _ in range(min(windows - 1, _MOST_WINDOWS)):
                self._step(Window(waiting=after.waiting))
            self._before, self._since = after, self._clock()
        return self._target.budgets[self._control.level]

    def _step(self, window: Window) -> None:
        self._control = next_control(self._target, self._control, window)
