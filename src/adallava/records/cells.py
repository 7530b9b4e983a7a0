"""Which cells a sweep has, in which order, and what each sample's seed is."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from adallava.budget import Latency, TokenBudget
from adallava.records import FULL_LATENCY, FULL_METHOD, NONE_METHOD, PositionsName, RunConfig

NO_BUDGET = "none"
"""Stands for the budget of a method that ignores it: its cell is `<method>@none`."""

COMPACT_SUFFIX = "+compact"
"""Ends the id of a cell whose kept tokens are counted again."""

_FULL = Latency(ratio=1.0)
_FULL_BUDGET = TokenBudget(ratio=1.0)

FULL_CELL = f"{FULL_METHOD}@{_FULL_BUDGET}"
"""The full-token model, the first cell of every sweep."""


@dataclass(frozen=True)
class CellPlan:
    """One method at one budget.

    Attributes:
        method: id of the method.
        budget: None for a method that ignores it.
        positions: of the kept tokens.
        draws: how often every sample is answered, each time with another seed.
        scheduler: that leaves layers of the LLM out; None where all run.
        latency: how much of the LLM runs; None where all does.
    """

    method: str
    budget: TokenBudget | None
    positions: PositionsName = "original"
    draws: int = 1
    scheduler: str | None = None
    latency: Latency | None = None

    def call(self) -> dict[str, Any]:
        """Return what the cell asks of `AdaLlava.generate`, as its arguments."""
        return {
            "token_budget": _FULL_BUDGET if self.budget is None else self.budget,
            "latency": _FULL if self.latency is None else self.latency,
            "positions": self.positions,
        }

    @property
    def curve(self) -> str:
        """The method, and what is left out of the LLM after it: cells of one curve differ in their budgets alone."""
        return self.method + self._schedule

    @property
    def selection(self) -> str:
        """The method, by the name that a summed-up cell has for it."""
        return self.method

    @property
    def runner(self) -> str:
        """Names the model that answers: the method, and the scheduler after it."""
        return self.method if self.scheduler is None else f"{self.method}/{self.scheduler}"

    @property
    def latency_asked(self) -> str:
        """The latency as it is recorded."""
        return FULL_LATENCY if self.latency is None else str(self.latency)

    @property
    def _schedule(self) -> str:
        return "" if self.scheduler is None else f"/{self.scheduler}@{self.latency_asked}"

    @property
    def budget_asked(self) -> str:
        """The budget as it is recorded."""
        return NO_BUDGET if self.budget is None else str(self.budget)

    @property
    def cell(self) -> str:
        """The cell's id, `<method>@<budget>[+compact][/<scheduler>@<latency>]`."""
        compact = COMPACT_SUFFIX if self.positions == "compact" else ""
        return f"{self.method}@{self.budget_asked}{compact}{self._schedule}"


def split_cell(cell: str) -> tuple[str, str, PositionsName]:
    """Return curve, budget and positions of a cell's id; see `CellPlan.cell` and `CellPlan.curve`."""
    tokens, slash, schedule = cell.partition("/")
    positions: PositionsName = "compact" if tokens.endswith(COMPACT_SUFFIX) else "original"
    method, _, budget = tokens.removesuffix(COMPACT_SUFFIX).rpartition("@")
    return method + slash + schedule, budget, positions


def cells_of(
    config: RunConfig, ignoring_budget: Collection[str], *, drawing: Collection[str], with_token: Collection[str]
) -> tuple[CellPlan, ...]:
    """Return the cells that a run asks for, by names that are resolved; see `plan_cells`."""
    return plan_cells(
        config.methods,
        config.token_budgets,
        ignoring_budget,
        positions=config.positions,
        drawing=drawing,
        draws=config.draws,
        schedulers=config.schedulers,
        latencies=config.latencies,
        with_token=with_token,
    )


def plan_cells(
    methods: Iterable[str],
    budgets: Iterable[TokenBudget],
    ignoring_budget: Collection[str] = (),
    *,
    positions: Iterable[PositionsName] = ("original",),
    drawing: Collection[str] = (),
    draws: int = 1,
    schedulers: Iterable[str] = (),
    latencies: Iterable[Latency] = (_FULL,),
    with_token: Collection[str] = (),
) -> tuple[CellPlan, ...]:
    """Cross methods, budgets and positions with schedulers and latencies, each cell once.

    The full-token model with all its layers comes first, asked for or not. `full` and `none` have one cell a schedule,
    at the original positions: with all tokens both kinds are the same, and `none` is a floor to read the others
    against, with every layer.

    Args:
        methods: in the order to run.
        budgets: in the order to run; 1.0 is a cell like any other.
        ignoring_budget: methods with one result whatever the budget.
        positions: of the kept tokens.
        drawing: methods, and schedulers, that draw at random.
        draws: of each of them.
        schedulers: in the order to run, for the latencies below 1.0.
        latencies: in the order to run.
        with_token: schedulers whose LLM expects a latency token after every prompt: they run at 1.0, too.
    """
    cells = [CellPlan(FULL_METHOD, _FULL_BUDGET, draws=draws if FULL_METHOD in drawing else 1)]
    budgets, positions, methods = tuple(budgets), tuple(positions), tuple(methods)
    for scheduler, latency in _schedules(tuple(schedulers), latencies, with_token):
        for method in dict.fromkeys((FULL_METHOD, *methods)):
            if method == NONE_METHOD and scheduler is not None:
                continue
            asked: Iterable[TokenBudget | None] = (None,) if method in ignoring_budget else budgets
            asked = (_FULL_BUDGET,) if method == FULL_METHOD else asked
            placed: tuple[PositionsName, ...] = ("original",) if method in (NONE_METHOD, FULL_METHOD) else positions
            times = draws if {method, scheduler and f"/{scheduler}"} & set(drawing) else 1
            cells.extend(
                CellPlan(method, budget, where, times, scheduler, latency) for where in placed for budget in asked
            )
    return tuple(dict.fromkeys(cells))


def _schedules(
    schedulers: tuple[str, ...], latencies: Iterable[Latency], with_token: Collection[str]
) -> Iterable[tuple[str | None, Latency | None]]:
    for latency in latencies:
        if latency.is_full:
            yield None, None
        yield from ((name, latency) for name in schedulers if name in with_token or not latency.is_full)


def sample_seed(run_seed: int, sample_id: str, draw: int = 0) -> int:
    """Return a sample's seed, in [0, 2^63): nothing but the run's seed, the sample's id and the draw decides it."""
    run = str(run_seed) if draw == 0 else f"{run_seed}/{draw}"
    digest = hashlib.sha256(f"{run}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
