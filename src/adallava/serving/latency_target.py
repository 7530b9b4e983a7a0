"""Which budget new requests get, so that time to first token stays under a target. Pure: no clock, no server.

    budgets       1.0   0.5   0.25   0.125   0.0625
    too slow      ────▶ one step, two where p95 is twice the target
    calm          ◀──── one step, after as many calm windows as the last attempts have earned

A step takes a window to show: requests that wait already have their budget. So after one the next window is not judged.
Going up is an attempt: where it had to be taken back, the next one waits twice as long, so that a load between two
budgets does not swing between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_LONGEST_PATIENCE = 32


@dataclass(frozen=True)
class LatencyTarget:
    """What is to hold.

    Attributes:
        p95_ms: of time to first token.
        least_budget: the smallest share of vision tokens.
        calm_share: of `p95_ms`, under which a window is calm if nothing waits.
        patience: calm windows before a step up.
    """

    p95_ms: float
    least_budget: float = 0.0625
    calm_share: float = 0.7
    patience: int = 3

    @property
    def budgets(self) -> tuple[float, ...]:
        """Shares from all to the least, each half of the one before."""
        steps = math.ceil(math.log2(1 / self.least_budget) - 1e-9)
        return (*(0.5**step for step in range(steps)), self.least_budget) if steps else (1.0,)


@dataclass(frozen=True)
class Window:
    """What a server did in a short while.

    Attributes:
        first_tokens: how many requests got their first token within each bound, in ms, and above the one before it.
        waiting: requests in the queue at its end.
    """

    first_tokens: tuple[tuple[float, int], ...] = ()
    waiting: int = 0

    @property
    def count(self) -> int:
        """Requests that got their first token."""
        return sum(count for _, count in self.first_tokens)


@dataclass(frozen=True)
class Control:
    """Where the controller stands.

    Attributes:
        level: place in `LatencyTarget.budgets`.
        calm: windows in a row without need.
        patience: of the next step up.
        attempt: windows since the last step up; None if it lasted, or there was none.
        settling: True in the window after a step, which is not judged.
    """

    level: int = 0
    calm: int = 0
    patience: int = 0
    attempt: int | None = None
    settling: bool = False


def percentile_ms(first_tokens: Sequence[tuple[float, int]], share: float) -> float | None:
    """Return a percentile of a histogram, in ms, evenly spread within its bounds; None of nothing.

    In the last bound, which is infinite, it is the one before: as much as is known.
    """
    total = sum(count for _, count in first_tokens)
    if total == 0:
        return None
    rest, below = share * total, 0.0
    for bound, count in first_tokens:
        if count and rest <= count:
            return below if math.isinf(bound) else below + (bound - below) * rest / count
        rest -= count
        below = below if math.isinf(bound) else bound
    return below


def next_control(target: LatencyTarget, control: Control, window: Window) -> Control:
    """Return where the controller stands after a window."""
    patience = control.patience or target.patience
    attempt = None if control.attempt is None else control.attempt + 1
    if attempt is not None and attempt > patience:
        attempt = None  # It lasted.
    now = replace(control, patience=patience, attempt=attempt, settling=False)
    p95 = percentile_ms(window.first_tokens, 0.95)
    # Nothing came out, and something waits: no figure is worse than any.
    stalled = p95 is None and window.waiting > 0
    if (p95 is not None and p95 > target.p95_ms) or stalled:
        return replace(now, calm=0) if control.settling else _down(target, now, p95)
    if window.waiting == 0 and (p95 is None or p95 < target.calm_share * target.p95_ms):
        return _up(target, replace(now, calm=control.calm + 1))
    return replace(now, calm=0)


def _down(target: LatencyTarget, control: Control, p95: float | None) -> Control:
    steps = 2 if p95 is None or p95 > 2 * target.p95_ms else 1
    level = min(control.level + steps, len(target.budgets) - 1)
    taken_back = control.attempt is not None
    patience = min(2 * control.patience, _LONGEST_PATIENCE) if taken_back else control.patience
    return Control(level, 0, patience, None, settling=level != control.level)


def _up(target: LatencyTarget, control: Control) -> Control:
    if control.level == 0:
        # Nothing to gain, and what was learned of the load grows old.
        return replace(control, patience=target.patience if control.calm > control.patience else control.patience)
    if control.calm < control.patience:
        return control
    return Control(control.level - 1, 0, control.patience, 0, settling=True)
