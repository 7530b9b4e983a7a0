"""A batch as the caller asked for it: made once, and read by every stage from here on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adallava.budget import BudgetLike, Latency, LatencyLike, TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.allocate import run_everything
from adallava.pipeline.layout import Inserted, Side
from adallava.pipeline.pack import Positions


@dataclass(frozen=True)
class Request:
    """What was asked for. B samples, I images.

    Attributes:
        input_ids: [B, L].
        attention_mask: [B, L] or None.
        pictures: None for a batch without any.
        budgets: one per sample.
        seeds: one per sample.
        positions: "original" or "compact".
        side: that the shortened batch is padded on.
        latencies: one per sample.
        labels: [B, L] or None.
        inserted: tokens that are none of the caller's, if there are any.
        pad_token_id: that the caller padded with; None for a batch without padding.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    pictures: PictureInputs | None
    budgets: Sequence[TokenBudget]
    seeds: Sequence[int]
    positions: Positions
    side: Side
    latencies: Sequence[Latency]
    labels: Tensor | None = None
    inserted: Inserted | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        """Refuse positions that mean nothing, and a wrong number of latencies.

        Raises:
            InputError: naming the value.
            BudgetError: naming both numbers.
        """
        if len(self.latencies) != len(self.input_ids):
            raise BudgetError(
                f"{len(self.latencies)} latencies for a batch of {len(self.input_ids)} samples: give one, or one each"
            )
        if self.positions not in ("original", "compact"):
            raise InputError(f"positions={self.positions!r} is neither 'original' nor 'compact'")

    @classmethod
    def parse(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pictures: PictureInputs | None,
        *,
        side: Side,
        token_budget: BudgetLike | Sequence[BudgetLike] = 1.0,
        latency: LatencyLike | Sequence[LatencyLike] = 1.0,
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
        labels: Tensor | None = None,
    ) -> "Request":
        """Return the request of a call's arguments; budget, latency and seed are one for all samples, or one each.

        Raises:
            BudgetError: for a budget or latency that means nothing.
            InputError: for positions that mean nothing.
        """
        num_samples = len(input_ids)
        return cls(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pictures=pictures,
            budgets=[TokenBudget.parse(value) for value in _one_each(token_budget, num_samples)],
            seeds=[int(value) for value in _one_each(seed, num_samples)],
            positions=positions,
            side=side,
            latencies=[Latency.parse(value) for value in _one_each(latency, num_samples)],
            labels=labels,
            pad_token_id=_padding_id(input_ids, attention_mask),
        )

    def to(self, device: torch.device) -> "Request":
        """Return the request with what the stages read on the device; mask and sizes are for planning, on the host."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            pictures=None if self.pictures is None else self.pictures.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )

    def on_host(self) -> "Request":
        """Return the request with what is planned from on the host."""
        return replace(
            self,
            input_ids=self.input_ids.cpu(),
            attention_mask=None if self.attention_mask is None else self.attention_mask.cpu(),
            labels=None if self.labels is None else self.labels.cpu(),
        )

    def skips_layers(self, num_layers: int) -> bool:
        """Return whether some sample asks for less than the whole LLM."""
        return not run_everything(self.latencies, num_layers)


def _padding_id(input_ids: Tensor, attention_mask: Tensor | None) -> int | None:
    """Return the first id that the mask hides; None if it hides none, or does not fit, which is refused later."""
    if attention_mask is None or attention_mask.shape != input_ids.shape:
        return None
    hidden = input_ids.cpu()[attention_mask.cpu() == 0]
    return int(hidden[0]) if len(hidden) else None


def _one_each(value: Any, num_samples: int) -> list[Any]:
    """Repeat a single value for each sample; leave a sequence as it is, whatever its length."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * num_samples
    return list(value)
