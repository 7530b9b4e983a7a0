"""Which cells a sweep has, in which order, and what each sample's seed is."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from adallava.budget import TokenBudget
from adallava.records import FULL_METHOD, NONE_METHOD, PositionsName

NO_BUDGET = "none"
"""Stands for the budget of a method that ignores it: its cell is `<method>@none`."""

COMPACT_SUFFIX = "+compact"
"""Ends the id of a cell whose kept tokens are counted anew."""

FULL_CELL = f"{FULL_METHOD}@{TokenBudget(ratio=1.0)}"
"""The full-token model, the first cell of every sweep."""


@dataclass(frozen=True)
class CellPlan:
    """One method at one budget.

    Attributes:
        method: id of the method.
        budget: None for a method that ignores it.
        positions: of the kept tokens.
        draws: how often every sample is answered, each time with another seed.
    """

    method: str
    budget: TokenBudget | None
    positions: PositionsName = "original"
    draws: int = 1

    @property
    def budget_asked(self) -> str:
        """The budget as it is recorded."""
        return NO_BUDGET if self.budget is None else str(self.budget)

    @property
    def cell(self) -> str:
        """The cell's id, `<method>@<budget>` or `<method>@<budget>+compact`."""
        return f"{self.method}@{self.budget_asked}{COMPACT_SUFFIX if self.positions == 'compact' else ''}"


def split_cell(cell: str) -> tuple[str, str, PositionsName]:
    """Return method, budget and positions of a cell's id; see `CellPlan.cell`."""
    positions: PositionsName = "compact" if cell.endswith(COMPACT_SUFFIX) else "original"
    method, _, budget = cell.removesuffix(COMPACT_SUFFIX).rpartition("@")
    return method, budget, positions


def plan_cells(
    methods: Iterable[str],
    budgets: Iterable[TokenBudget],
    ignoring_budget: Collection[str] = (),
    *,
    positions: Iterable[PositionsName] = ("original",),
    drawing: Collection[str] = (),
    draws: int = 1,
) -> tuple[CellPlan, ...]:
    """Cross methods with budgets and positions, each cell once; the full-token model comes first, asked for or not.

    `full` and `none` have one cell, at the original positions: with all tokens both kinds are the same, and `none` is
    a floor to read the others against.

    Args:
        methods: in the order to run.
        budgets: in the order to run; 1.0 is a cell like any other.
        ignoring_budget: methods with one result whatever the budget.
        positions: of the kept tokens.
        drawing: methods that draw at random.
        draws: of each of them.
    """
    cells = [CellPlan(FULL_METHOD, TokenBudget(ratio=1.0))]
    budgets, positions = tuple(budgets), tuple(positions)
    for method in methods:
        if method == FULL_METHOD:
            continue
        asked = (None,) if method in ignoring_budget else budgets
        placed: tuple[PositionsName, ...] = ("original",) if method == NONE_METHOD else positions
        times = draws if method in drawing else 1
        cells.extend(CellPlan(method, budget, where, times) for where in placed for budget in asked)
    return tuple(dict.fromkeys(cells))


def sample_seed(run_seed: int, sample_id: str, draw: int = 0) -> int:
    """Return a sample's seed, in [0, 2^63): nothing but the run's seed, the sample's id and the draw decides it."""
    run = str(run_seed) if draw == 0 else f"{run_seed}/{draw}"
    digest = hashlib.sha256(f"{run}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
