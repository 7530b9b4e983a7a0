"""Does the engine in use give the tokens of stock `generate`? A tie that rounding decides is not an error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from adallava.budget import TokenBudget
from adallava.doctor.findings import Observation, found, passed
from adallava.doctor.live.probe import FULL_BUDGET, Inputs, Probe
from adallava.pipeline.result import AdaLlavaOutput

TIE_DEVIATIONS = 8.0
"""Two logits of the stock model that lie closer than so many deviations of its own rounding are a tie: another order
of sums decides between them. Engines in bfloat16 were seen to differ at up to 5."""

TIMES = 3
"""That each batch is answered: as it is, while it is captured, and replayed."""


_SCORED: dict[str, Any] = {"output_scores": True, "return_dict_in_generate": True}


@dataclass(frozen=True)
class _Call:
    """One batch to answer."""

    inputs: Inputs
    budgets: Sequence[TokenBudget]
    seeds: Sequence[int]

    def asked(self, probe: Probe) -> dict[str, Any]:
        """Return what goes with the inputs."""
        return {"token_budget": self.budgets, "seed": self.seeds, **probe.decoding}


@dataclass(frozen=True)
class Parting:
    """Where an engine's answer leaves the stock one.

    Attributes:
        sample: its number.
        place: of the first new token that differs.
        ids: the stock token, and the engine's.
        deviations: that the stock model's two logits are apart there.
    """

    sample: int
    place: int
    ids: tuple[int, int]
    deviations: float

    def __str__(self) -> str:
        """Return it in words."""
        stock, engine = self.ids
        return (
            f"sample {self.sample}, new token {self.place}: {engine}, stock {stock}; the stock model's logits of "
            f"the two are {self.deviations:.1f} deviations of its rounding apart"
        )


def check_engine_equals_stock(probe: Probe) -> Observation:
    """Additional: the tokens of stock `generate`, at mixed budgets in a batch, each sample alone, and replayed."""
    driven = probe.driven
    if driven.engine == "stock":
        return passed("answers are run by transformers' own generate")
    budgets = list(islice(cycle((*probe.pruning_budgets, FULL_BUDGET)), len(probe.singles)))
    rows = list(range(len(budgets)))
    calls = [_Call(probe.together, budgets, rows)]
    calls += [_Call(single, [budgets[row]], [row]) for row, single in enumerate(probe.singles)]
    stock = [probe.model.generate(**call.inputs, **call.asked(probe) | _SCORED) for call in calls]
    noise = rounding([one.transformers_output.scores[0] for one in stock], probe.model.dtype)
    partings, engines, compared = dict[Parting, None](), dict[str, None](), 0
    for call, expected in zip(calls, stock, strict=True):
        for _ in range(TIMES):
            ours = driven.generate(**call.inputs, **call.asked(probe))
            engines[f"{ours.engine} ({ours.passed_over})" if ours.passed_over else str(ours.engine)] = None
            compared += len(call.seeds)
            partings |= dict.fromkeys(partings_of(ours.answer_ids, expected, call.seeds, noise))
    return tell(list(partings), f"{compared} answers by {', '.join(engines)}")


def rounding(first_scores: Sequence[Tensor], dtype: torch.dtype) -> float:
    """Return what the stock model's own rounding does to a logit: alone against in a batch, and no less than its type.

    Args:
        first_scores: logits of the first new token: of the batch, [B, V], then of each sample alone, [1, V].
        dtype: that the model computes in.
    """
    batch = first_scores[0].double()
    alone = torch.cat([scores.double() for scores in first_scores[1:]])
    seen = (batch - alone).masked_fill(~(batch.isfinite() & alone.isfinite()), 0.0).std(dim=1)
    size = batch.masked_fill(~batch.isfinite(), 0.0).abs().max()
    return max(float(seen.max()), float(size) * torch.finfo(dtype).eps / 2)


def partings_of(
    answer_ids: Sequence[Sequence[int]], stock: AdaLlavaOutput, samples: Sequence[int], noise: float
) -> list[Parting]:
    """Return where answers leave the stock ones.

    Args:
        answer_ids: of an engine.
        stock: the same batch by stock `generate`, with scores.
        samples: the number of each row.
        noise: of `rounding`.
    """
    partings = []
    for row, (expected, got) in enumerate(zip(stock.answer_ids, answer_ids, strict=True)):
        pairs = list(zip(expected, got, strict=False))
        place = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
        if place is not None:
            logits = stock.transformers_output.scores[place][row].double()
            apart = float((logits[expected[place]] - logits[got[place]]).abs()) / noise
            partings.append(Parting(samples[row], place, pairs[place], apart))
        elif len(expected) != len(got):  # Equal tokens and another end: nothing that rounding decides.
            partings.append(Parting(samples[row], len(pairs), (-1, -1), math.inf))
    return partings


def tell(partings: Sequence[Parting], looked_at: str) -> Observation:
    """Return the observation: errors are the harness's, ties are said."""
    errors = [one for one in partings if one.deviations > TIE_DEVIATIONS]
    if errors:
        lines = [f"{len(errors)} answers part from the stock model's, and no tie of its logits explains it"]
        examples = [f"validation scene {one.sample}" for one in errors]
        return found("harness-bug", [*lines, *map(str, errors[:5]), looked_at], examples)
    if partings:
        most = max(one.deviations for one in partings)
        return passed(
            f"{looked_at}: the stock tokens but for {len(partings)} ties, which rounding decides (logits at most "
            f"{most:.1f} deviations of the stock model's own rounding apart)"
        )
    return passed(f"{looked_at}: the tokens of stock generate")
