"""Meets the shapes of coming calls beforehand, so that none of them waits for a capture or a compilation."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from adallava.budget import BudgetLike, LatencyLike
from adallava.engines.program_of_layers import OFTEN
from adallava.errors import InputError
from adallava.families.family_contract import Family

TIMES = OFTEN + 2
"""A shape runs as it is, is captured, and is replayed; a plan of layers first in pieces, then as one."""


@dataclass(frozen=True)
class WarmUp:
    """What warming up cost.

    Attributes:
        seconds: on the clock.
        device_bytes: that it left allocated; 0 on a CPU.
        calls: that were made.
    """

    seconds: float
    device_bytes: int
    calls: int


def warm_up(
    generate: Callable[..., Any],
    family: Family,
    *,
    batch_sizes: Sequence[int],
    token_budgets: Sequence[BudgetLike],
    latencies: Sequence[LatencyLike],
    text_tokens: Sequence[int],
    max_new_tokens: int,
) -> WarmUp:
    """Answer made-up prompts of every size, a few times each.

    Args:
        generate: of the model.
        family: of its base.
        batch_sizes: samples a call.
        token_budgets: of all samples of a call.
        latencies: of the samples.
        text_tokens: of a prompt without its image.
        max_new_tokens: of an answer at most: with the prompt, it decides how large a cache is.

    Raises:
        InputError: for a family whose images differ in their number of tokens, or a size below 1.
    """
    if not family.one_grid:
        raise InputError(
            "images of this model differ in their number of tokens: warm it up by calls of your own, "
            f"each size {TIMES} times"
        )
    sizes = {"batch_sizes": batch_sizes, "text_tokens": text_tokens, "max_new_tokens": [max_new_tokens]}
    for name, values in sizes.items():
        if any(isinstance(value, bool) or not isinstance(value, int) or value < 1 for value in values):
            raise InputError(f"{name} {list(values)} must be whole numbers from 1 on")
    on_cuda = family.device.type == "cuda"
    held = torch.cuda.memory_allocated(family.device) if on_cuda else 0
    begin, calls = time.perf_counter(), 0
    for batch_size, length, budget, latency in product(batch_sizes, text_tokens, token_budgets, latencies):
        inputs = _made_up(family, batch_size, length)
        for _ in range(TIMES):
            generate(
                **inputs,
                token_budget=budget,
                latency=latency,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=family.pad_token_id,
            )
            calls += 1
    if on_cuda:
        torch.cuda.synchronize(family.device)
        held = torch.cuda.memory_allocated(family.device) - held
    return WarmUp(time.perf_counter() - begin, held, calls)


def _made_up(family: Family, batch_size: int, length: int) -> dict[str, Tensor]:
    """Return prompts of one image each, of noise, and of one word over and over."""
    first = min(1, length)
    word = family.pad_token_id if family.pad_token_id != family.image_token_id else 0
    text = torch.full((batch_size, length), word)
    image = torch.full((batch_size, family.shape.num_vision_tokens), family.image_token_id)
    ids = torch.cat([text[:, :first], image, text[:, first:]], dim=1)
    side = family.model.config.vision_config.image_size
    pixels = torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids.to(family.device),
        "attention_mask": torch.ones_like(ids).to(family.device),
        "pixel_values": pixels.to(family.device, family.dtype),
    }
