"""Draws the next token as transformers' `generate` does: shaped alike, in the same order, from the same generator."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_Shape = Callable[[Tensor, Tensor], Tensor]


def shapers(sampling: Mapping[str, Any], device: torch.device) -> list[_Shape]:
    """Return what shapes the scores before a token is drawn, in transformers' order.

    Args:
        sampling: transformers' names and values; see `DecodeMode.sampling`.
        device: of the scores.
    """
    import transformers

    shaped: list[_Shape] = []
    for name, shapes, kind in (
        ("temperature", lambda value: value != 1.0, "TemperatureLogitsWarper"),
        ("top_h", lambda value: True, "TopHLogitsWarper"),
        ("top_k", lambda value: value != 0, "TopKLogitsWarper"),
        ("top_p", lambda value: value < 1.0, "TopPLogitsWarper"),
        ("min_p", lambda value: True, "MinPLogitsWarper"),
        ("typical_p", lambda value: value < 1.0, "TypicalLogitsWarper"),
        ("epsilon_cutoff", lambda value: 0.0 < value < 1.0, "EpsilonLogitsWarper"),
    ):
        value = sampling.get(name)
        if value is not None and shapes(value):
            shaped.append(getattr(transformers, kind)(value))
    cutoff = sampling.get("eta_cutoff")
    if cutoff is not None and 0.0 < cutoff < 1.0:
        shaped.append(transformers.EtaLogitsWarper(epsilon=cutoff, device=str(device)))
    return shaped


def draw(logits: Tensor, answers: Tensor, shaped: list[_Shape]) -> Tensor:
    """Return a token for each row, [B], from PyTorch's default generator.

    Args:
        logits: [B, V] float32, left as they are.
        answers: [B, A], what shapers may read.
        shaped: of `shapers`.
    """
    scores = logits.clone()
    for shape in shaped:
        scores = shape(answers, scores)
    return torch.multinomial(scores.softmax(dim=-1), num_samples=1).squeeze(1)
