"""Which budget a request gets as it comes, so that time to first token stays under a target. Pure: no clock, no server.

    wait       of a request that comes now: what requests without a first token will cost, learned from what came out
    pressure   that wait as a share of the target, and what is added while answers come late
    budget     the most up to a pressure of 0.2, the least from 0.5 on, each half of the one before

    pressure   0 ────── 0.2 ────── 0.3 ────── 0.4 ────── 0.5 ─────▶
    budget         1.0   │   0.5    │   0.25   │  0.125   │  0.0625

The wait is known when a request comes; its time to first token only after the wait. So the budget follows the queue, at
once and both ways, and times to first token correct what the queue does not tell. A load that some budget can serve
ends at a queue where requests cost as much as the server gives: under half of the target, and half is left for steps,
spikes and the request itself. (Queue length as the signal of an optional share of work: Klein et al., "Brownout", ICSE
2014.)
"""

import math
from dataclasses import dataclass, field, replace

_FIRST_PRESSURE, _LAST_PRESSURE = 0.2, 0.5
_LATE_SHARE = 0.05
"""Of a window's requests: more of them over the target, and the 95th percentile is."""

_LATE_STEP, _MOST_LATE, _LATE_HALF_LIFE_MS = 0.1, 0.5, 20_000.0
_REMEMBERED_REQUESTS = 32
_RIDGE = 0.02
"""Of requests that all have as many tokens, what a request costs and what a token does cannot be told apart."""


@dataclass(frozen=True)
class LatencyTarget:
    """What is to hold.

    Attributes:
        p95_ms: of time to first token.
        least_budget: the smallest share of vision tokens.
        most_budget: the share while nothing presses.
    """

    p95_ms: float
    least_budget: float = 0.0625
    most_budget: float = 1.0

    @property
    def budgets(self) -> tuple[float, ...]:
        """Shares from the most to the least, each half of the one before."""
        steps = math.ceil(math.log2(self.most_budget / self.least_budget) - 1e-9)
        return (*(self.most_budget * 0.5**step for step in range(steps)), self.least_budget)


@dataclass(frozen=True)
class Waiting:
    """What has not got a first token yet, in the queue or on its way.

    Attributes:
        requests: how many.
        prompt_tokens: theirs, images as short as they are to be.
        oldest_ms: since the first of them came.
    """

    requests: int = 0
    prompt_tokens: int = 0
    oldest_ms: float = 0.0


@dataclass(frozen=True)
class Window:
    """What a server did in a short while in which something came out.

    Attributes:
        first_tokens: how many requests got their first token within each bound, in ms, and above the one before it.
        ttft_ms: the sum of their times to first token.
        prompt_tokens: of these requests.
        busy_ms: of the window, while anything was under way.
        length_ms: of the window.
    """

    first_tokens: tuple[tuple[float, int], ...] = ()
    ttft_ms: float = 0.0
    prompt_tokens: int = 0
    busy_ms: float = 0.0
    length_ms: float = 0.0

    @property
    def count(self) -> int:
        """Requests that got their first token."""
        return sum(count for _, count in self.first_tokens)


@dataclass(frozen=True)
class Costs:
    """What a first token costs the server: so much a request and so much a token, by least squares over windows.

    Attributes:
        sums: of requests², requests x tokens, tokens², requests x ms and tokens x ms, old windows forgotten.
    """

    sums: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def after(self, window: Window) -> "Costs":
        """Return what is known after a window."""
        count, tokens = window.count, window.prompt_tokens
        if count == 0:
            return self
        # Of requests alone on the server, the sum is what they cost; of a full one, all of its time is.
        cost_ms = min(window.busy_ms, window.ttft_ms)
        new = (count * count, count * tokens, tokens * tokens, count * cost_ms, tokens * cost_ms)
        kept = math.exp(-count / _REMEMBERED_REQUESTS)
        first, second, third, fourth, fifth = (
            kept * old + one / count for old, one in zip(self.sums, new, strict=True)
        )
        return Costs((first, second, third, fourth, fifth))

    def ms(self, requests: int, prompt_tokens: int) -> float:
        """Return what first tokens of so many requests cost; 0 while nothing is known."""
        requests2, mixed, tokens2, requests_ms, tokens_ms = self.sums
        if requests2 == 0:
            return 0.0
        requests2 *= 1 + _RIDGE
        tokens2 = tokens2 * (1 + _RIDGE) + 1e-9
        spread = requests2 * tokens2 - mixed * mixed
        a_request = (requests_ms * tokens2 - tokens_ms * mixed) / spread
        a_token = (tokens_ms * requests2 - requests_ms * mixed) / spread
        if a_request < 0:
            a_request, a_token = 0.0, tokens_ms / tokens2
        elif a_token < 0:
            a_request, a_token = requests_ms / requests2, 0.0
        return a_request * requests + a_token * prompt_tokens


@dataclass(frozen=True)
class Control:
    """What the controller has learned.

    Attributes:
        costs: of first tokens.
        late: pressure added since answers came late.
    """

    costs: Costs = field(default_factory=Costs)
    late: float = 0.0


def late_share(window: Window, target_ms: float) -> float:
    """Return the share of a window's requests whose first token came after the target.

    A histogram does not tell that of the bounds between which the target lies. The sum of all times does nearly: what
    it leaves to the requests there is their mean, around which they are taken to be spread evenly.
    """
    late, lower, elsewhere_ms, around = 0.0, 0.0, 0.0, (0.0, 0.0, 0)
    for bound, count in window.first_tokens:
        if lower < target_ms < bound:
            around = (lower, bound, count)
        else:
            late += count if lower >= target_ms else 0
            elsewhere_ms += count * (lower if math.isinf(bound) else (lower + bound) / 2)
        lower = bound
    low, high, count = around
    if count:
        mean = min(max((window.ttft_ms - elsewhere_ms) / count, low), high)
        half = min(mean - low, high - mean)
        late += count * (
            min(max((mean + half - target_ms) / (2 * half), 0.0), 1.0) if half else float(mean > target_ms)
        )
    return late / window.count if window.count else 0.0


def next_control(target: LatencyTarget, control: Control, window: Window) -> Control:
    """Return what the controller has learned after a window."""
    late = faded(control, window.length_ms).late
    if late_share(window, target.p95_ms) > _LATE_SHARE:
        late = min(late + _LATE_STEP, _MOST_LATE)
    return Control(control.costs.after(window), late)


def faded(control: Control, passed_ms: float) -> Control:
    """Return what is left of it after a while: what came late once may come in time again."""
    return replace(control, late=control.late * 0.5 ** (passed_ms / _LATE_HALF_LIFE_MS))


def budget_for(target: LatencyTarget, control: Control, waiting: Waiting) -> float:
    """Return the share of vision tokens of a request that comes now."""
    wait_ms = max(control.costs.ms(waiting.requests, waiting.prompt_tokens), waiting.oldest_ms)
    pressure = wait_ms / target.p95_ms + control.late
    budgets = target.budgets
    steps = len(budgets) - 1
    if pressure <= _FIRST_PRESSURE or steps == 0:
        return budgets[0]
    width = (_LAST_PRESSURE - _FIRST_PRESSURE) / max(1, steps - 1)
    return budgets[min(steps, 1 + math.floor((pressure - _FIRST_PRESSURE) / width))]
