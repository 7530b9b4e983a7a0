"""What a selection method is given, and what it gives back. Pure tensors: no host, no I/O, no model.

One row is one image. `keep_counts` is known on the host before the tower runs, so nothing here ever waits for
the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class TowerShape:
    """Shapes a selector is built for and counts its cost with.

    Attributes:
        num_vision_tokens: N, patches per image.
        vision_width: C, width of the tower's features.
        llm_width: D, width of the LLM's embeddings.
        grid: (rows, columns) of the patches; rows * columns = N.
    """

    num_vision_tokens: int
    vision_width: int
    llm_width: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class SelectionInput:
    """What a selector may read. I images, N vision tokens each.

    Attributes:
        features: [I, N, C], the tower's output for the patches, before the projector.
        grid: (rows, columns), rows * columns = N.
        keep_counts: I host integers, K per image, each 0 <= K <= N.
        budget_ratios: [I] float32, K / N: what a budget-aware method conditions on.
        seeds: [I] int64, one per image: what a random method derives its choice from. It belongs to the
            sample, not to its place in a batch.
        question_embeds: [I, T, D] input embeddings of the text tokens of the sample's prompt, right-padded.
        question_mask: [I, T] bool, True where `question_embeds` holds a token.
        budget_features: [I, C], the tower's output at the budget token, for methods with `needs_budget_token`;
            zeros for an image that keeps everything.
    """

    features: Tensor
    grid: tuple[int, int]
    keep_counts: tuple[int, ...]
    budget_ratios: Tensor
    seeds: Tensor
    question_embeds: Tensor
    question_mask: Tensor
    budget_features: Tensor | None = None


@dataclass(frozen=True)
class Selection:
    """Which tokens each image keeps. Kmax = max(keep_counts).

    Attributes:
        indices: [I, Kmax] int64, ascending in the first K entries of a row; entries past K are 0 and unused.
            For a method that merges, the patch that stands for the merged token (its position).
        keep_counts: K per image, on the host.
        scores: [I, N] float32 that the choice was made from, or None.
        merge_weights: [I, Kmax, N] float32, rows summing to 1, for methods that combine tokens; None = a
            gather.
    """

    indices: Tensor
    keep_counts: tuple[int, ...]
    scores: Tensor | None = None
    merge_weights: Tensor | None = None

    def apply(self, features: Tensor) -> Tensor:
        """Return the kept features, [I, Kmax, C]; rows past K are unspecified and never read."""
        if self.merge_weights is not None:
            return torch.bmm(self.merge_weights.to(features.dtype), features)
        return features.gather(1, self.indices.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


@runtime_checkable
class Selector(Protocol):
    """A selection method. Learned methods are `torch.nn.Module`s as well; see docs/contributing.md.

    Attributes:
        name: the registry key, file name, CLI value and label in the report, in one.
        learned: True if it needs an adapter with weights.
        needs_budget_token: True if a budget token must pass through the tower for it.
        ignores_budget: True if the method keeps no vision token, whatever the budget (`none`): sweeps run it
            once.

    Construction: `cls(**options)`, or `cls(shape, **options)` for a learned method, whose `config` attribute
    holds the options, so that `cls(shape, **config)` builds it again.
    """

    name: ClassVar[str]
    learned: ClassVar[bool]
    needs_budget_token: ClassVar[bool]
    ignores_budget: ClassVar[bool]

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        ...

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the floating-point operations for one image (one multiply-add = 2), in closed form."""
        ...


@runtime_checkable
class BudgetTokenMethod(Selector, Protocol):
    """A method with `needs_budget_token`."""

    def budget_token(self, ratios: Tensor) -> Tensor:
        """Return the token to append to the tower's input, [I, C], for budgets K / N, [I]."""
        ...


def draws_at_random(selector: object) -> bool:
    """Return whether a method's choice depends on the seed: it says so by a class attribute `draws = True`.

    A sweep repeats such a method with several seeds.
    """
    return bool(getattr(selector, "draws", False))


def top_k_in_order(scores: Tensor, keep_counts: Sequence[int]) -> Tensor:
    """Return the indices of each row's K highest scores in ascending order, [I, Kmax] int64.

    Ties go to the lower index, on every device. Entries past a row's K are 0.

    Args:
        scores: [I, N] float.
        keep_counts: K per row; on the host, so that no device value is waited for.
    """
    num_rows, num_tokens = scores.shape
    k_max = max(keep_counts, default=0)
    if k_max == 0:
        return scores.new_zeros((num_rows, 0), dtype=torch.int64)
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, :k_max]
    counts = torch.tensor(keep_counts, dtype=torch.int64).to(scores.device, non_blocking=True)
    used = torch.arange(k_max, device=scores.device)[None, :] < counts[:, None]
    # Unused entries sort behind every real index, then become 0.
    in_order = ranked.masked_fill(~used, num_tokens).sort(dim=1).values
    return in_order.masked_fill(~used, 0)
