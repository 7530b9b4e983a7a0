"""What budgets come to, on the host, before anything runs: K of each image of a sample, and units of the LLM.

    a budget of 0.25, images of 16 and 72 tokens   88 tokens, asked 22: 4 and 18 kept
    a method that keeps whole squares              4 and 16 kept, still 22 asked
    a latency of 0.5, 8 layers, a prefix of 2      2 of the 6 layers after it

Tokens and layers, as shares and as numbers, are the kinds there are (`adallava.budget`). Another kind is resolved here,
and nowhere else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adallava.budget import Latency, TokenBudget
from adallava.pipeline.checked import rounded_count
from adallava.scheduling.scheduler_contract import Units
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import OwnCountMethod, RoundingMethod


@dataclass(frozen=True)
class MethodCounts:
    """What a method makes of the K that a budget asks for. I images of a batch.

    Attributes:
        rounded: returns what it keeps where so many were asked for, of the image of that number; None = as many.
        own: K of every image, for a method that sets it whatever the budget.
    """

    rounded: Callable[[int, int], int] | None = None
    own: Sequence[int] | None = None


@dataclass(frozen=True)
class TokenCounts:
    """Of one sample.

    Attributes:
        asked: K of the sample that the budget resolves to; for a method that ignores it, what is kept.
        kept: K of each of its images.
    """

    asked: int
    kept: tuple[int, ...]


def method_counts(selector: AnySelector | None, grids: Sequence[tuple[int, int]]) -> MethodCounts:
    """Return what a method makes of a budget; of one that finds its own counts, as if it kept every token.

    Args:
        selector: the method; None keeps what is asked.
        grids: (rows, columns) of each image of the batch.
    """
    if selector is not None and selector.ignores_budget:
        finds_its_own = isinstance(selector, OwnCountMethod)
        return MethodCounts(own=[rows * columns if finds_its_own else 0 for rows, columns in grids])
    if isinstance(selector, RoundingMethod):
        return MethodCounts(rounded=lambda asked, image: rounded_count(selector, asked, grids[image]))
    return MethodCounts()


def allocate_tokens(
    budget: TokenBudget,
    tokens_per_image: Sequence[int],
    method: MethodCounts,
    images: range | None = None,
) -> TokenCounts:
    """Return how many tokens a sample's images keep.

    Args:
        budget: of the sample.
        tokens_per_image: N of its images.
        method: what it makes of it.
        images: their numbers in the batch; None = they are all there are.
    """
    images = range(len(tokens_per_image)) if images is None else images
    if method.own is not None:
        kept = tuple(method.own[image] for image in images)
        return TokenCounts(sum(kept), kept)
    asked = budget.resolve(sum(tokens_per_image)) if images else 0
    kept = share_over_images(asked, tokens_per_image)
    if method.rounded is not None:
        kept = tuple(method.rounded(count, image) for count, image in zip(kept, images, strict=True))
    return TokenCounts(asked, kept)


def share_over_images(keep_count: int, tokens_per_image: Sequence[int]) -> tuple[int, ...]:
    """Split a sample's K over its images in proportion to their N; what is left over goes where most is missing.

    Images alike get as much, the first ones one more. No image gets more than its N, since K is at most their sum.
    """
    total = max(1, sum(tokens_per_image))
    each = [keep_count * count // total for count in tokens_per_image]
    missing = [keep_count * count % total for count in tokens_per_image]
    in_turn = sorted(range(len(each)), key=lambda image: (-missing[image], image))
    for image in in_turn[: keep_count - sum(each)]:
        each[image] += 1
    return tuple(each)


def run_everything(latencies: Sequence[Latency], num_layers: int) -> bool:
    """Return whether every sample asks for the whole of an LLM with so many layers."""
    return all(latency.is_all_of(num_layers) for latency in latencies)


def allocate_units(latencies: Sequence[Latency], units: Units) -> tuple[int, ...]:
    """Return how many units of the LLM after its prefix run for each sample.

    Raises:
        BudgetError: for less than the prefix, with the least that can be given.
    """
    return tuple(latency.resolve(units.num_layers, units.prefix_layers, units.groups) for latency in latencies)
