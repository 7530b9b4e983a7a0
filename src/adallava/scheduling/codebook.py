"""A small codebook of plans: a learned scheduler held to it gives few plans, so that batches of one plan can be made.

    logits of a sample   0.9  0.1  0.8  0.3      two units run
    its own plan         0, 2                    0.9 + 0.8
    the book's           0+3: 1.2   1+2: 0.9     nearest: 0+3, whose units have the highest sum of logits

The plan of the n highest logits is the one whose sum is highest among all plans of n units: a book is less choice, by
the same measure. Its plans are in the order in which a greedy search found them, so that the first k are a book of k.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adallava.errors import BudgetError, InputError

MAX_PLANS = 8
"""Of one number of units."""

Book = Mapping[int, Tensor]
"""By number of units n, [M, U] float32: 1 where a unit runs."""


def read_book(texts: Sequence[str], size: int, num_units: int) -> Book:
    """Return the first `size` plans of each number of units.

    Args:
        texts: units that run, counted from the first after the prefix, joined by `+`, such as `0+3`.
        size: of the book, for each number of units.
        num_units: U.

    Raises:
        InputError: for a size outside of 1 to 8, no plans, or text that is not a plan.
    """
    if not 1 <= size <= MAX_PLANS:
        raise InputError(f"codebook={size}: give 1 to {MAX_PLANS} plans")
    if not texts:
        raise InputError(
            f"codebook={size}: this scheduler's adapter holds no plans; training stage codebook writes them"
        )
    plans: dict[int, list[Tensor]] = {}
    for text in texts:
        names = text.split("+")
        if not all(name.isdigit() and int(name) < num_units for name in names) or len(set(names)) < len(names):
            raise InputError(f"codebook plan {text!r} is not a list of different units below {num_units}, such as 0+3")
        plan = torch.zeros(num_units)
        plan[[int(name) for name in names]] = 1.0
        plans.setdefault(len(names), []).append(plan)
    return {count: torch.stack(of_count[:size]) for count, of_count in plans.items()}


def nearest_plans(logits: Tensor, unit_counts: Sequence[int], book: Book) -> Tensor:
    """Return each row's plan of the book whose units have the highest sum of logits, [B, U] bool.

    Args:
        logits: [B, U].
        unit_counts: n of each row; none and all of the units need no book.
        book: of plans. Ties go to the first.

    Raises:
        BudgetError: for a number of units that the book has no plan of.
    """
    num_units = logits.shape[1]
    own = {0: torch.zeros(1, num_units), num_units: torch.ones(1, num_units)}
    active = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for count in set(unit_counts):
        plans = own.get(count, book.get(count))
        if plans is None:
            raise BudgetError(
                f"the codebook has no plan of {count} of {num_units} units (it has plans of "
                f"{', '.join(map(str, sorted(book)))}): ask for another latency, or leave codebook out"
            )
        rows = torch.tensor([row for row, n in enumerate(unit_counts) if n == count], device=logits.device)
        there = plans.to(logits.device)
        active[rows] = there[(logits[rows] @ there.T).argmax(dim=1)].bool()
    return active


def find_plans(logits: Tensor, unit_count: int) -> list[str]:
    """Return up to 8 of the plans that these prompts have by themselves, in the order of a greedy search.

    Each further plan is the one that adds most to the sum, over the prompts, of their nearest plan's logits; the search
    ends where none adds anything.

    Args:
        logits: [P, U] of calibration prompts.
        unit_count: n.
    """
    tops = logits.topk(unit_count, dim=1).indices
    plans = torch.unique(torch.zeros_like(logits).scatter(1, tops, 1.0), dim=0)
    worth = logits @ plans.T
    best = torch.full((len(logits),), -torch.inf, dtype=logits.dtype)
    found: list[str] = []
    while len(found) < min(MAX_PLANS, len(plans)):
        chosen = int(torch.maximum(best[:, None], worth).sum(dim=0).argmax())
        now = torch.maximum(best, worth[:, chosen])
        if found and not bool((now > best).any()):
            break
        best = now
        found.append("+".join(str(int(unit)) for unit in plans[chosen].nonzero().flatten()))
    return found
