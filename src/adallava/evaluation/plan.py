"""Which cells a sweep has, in which order, and what each sample's seed is."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from adallava.budget import TokenBudget
from adallava.records import FULL_METHOD

NO_BUDGET = "none"
"""Stands for the budget of a method that ignores it: its only cell is `<method>@none`."""

FULL_CELL = f"{FULL_METHOD}@{TokenBudget(ratio=1.0)}"
"""The full-token model, the first cell of every sweep."""


@dataclass(frozen=True)
class CellPlan:
    """One method at one budget; `budget` is None for a method that ignores it."""

    method: str
    budget: TokenBudget | None

    @property
    def budget_asked(self) -> str:
        """The budget as it is recorded."""
        return NO_BUDGET if self.budget is None else str(self.budget)

    @property
    def cell(self) -> str:
        """The cell's id, `<method>@<budget>`."""
        return f"{self.method}@{self.budget_asked}"


def plan_cells(
    methods: Iterable[str], budgets: Iterable[TokenBudget], ignoring_budget: Collection[str]
) -> tuple[CellPlan, ...]:
    """Cross methods with budgets, each pair once; the full-token model comes first whether asked for or not.

    Args:
        methods: in the order to run.
        budgets: in the order to run; 1.0 is a cell like any other.
        ignoring_budget: methods with one result whatever the budget: they get one cell.
    """
    cells = [CellPlan(FULL_METHOD, TokenBudget(ratio=1.0))]
    budgets = tuple(budgets)
    for method in methods:
        if method == FULL_METHOD:
            continue
        if method in ignoring_budget:
            cells.append(CellPlan(method, None))
        else:
            cells.extend(CellPlan(method, budget) for budget in budgets)
    return tuple(dict.fromkeys(cells))


def sample_seed(run_seed: int, sample_id: str) -> int:
    """Return a sample's seed, in [0, 2^63): nothing but the run's seed and the sample's id decides it."""
    digest = hashlib.sha256(f"{run_seed}:{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
