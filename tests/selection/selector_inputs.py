"""Random inputs for selectors, without a model: everything that any method may need."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from models import BEFORE_LLM, METHOD_OPTIONS
from torch import Tensor

from adallava.selection import build_selector
from adallava.selection.selector_contract import (
    OwnCountMethod,
    RoundingMethod,
    SelectionInput,
    Selector,
    TowerLayer,
    TowerShape,
)

SHAPE = TowerShape(num_vision_tokens=24, vision_width=32, llm_width=40, grid=(4, 6), tower_heads=4)


def every_selector() -> list[str]:
    """Return the names of all methods that select before the LLM."""
    return list(BEFORE_LLM)


def make_selector(name: str, shape: TowerShape = SHAPE) -> Selector:
    """Return a method with the options under which a model without a text tower can run it."""
    selector = build_selector(name, shape, **METHOD_OPTIONS.get(name, {}))
    assert isinstance(selector, Selector)
    return selector


def planned_counts(selector: Selector, asked: Sequence[int], grid: tuple[int, int] = SHAPE.grid) -> list[int]:
    """Return the K that a method is called with where these were asked for."""
    if isinstance(selector, RoundingMethod):
        return [selector.keep_count(count, grid) for count in asked]
    if selector.ignores_budget and not isinstance(selector, OwnCountMethod):
        return [0] * len(asked)
    return list(asked)


def selection_input(
    keep_counts: Sequence[int], *, shape: TowerShape = SHAPE, num_question_tokens: int = 7, seed: int = 0
) -> SelectionInput:
    """Return random features and questions; row i's question has i tokens fewer than the first's."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    rows, num_tokens, width = len(keep_counts), shape.num_vision_tokens, shape.layer_width
    lengths = torch.tensor([max(1, num_question_tokens - row) for row in range(rows)])
    mask = torch.arange(num_question_tokens)[None, :] < lengths[:, None]
    return SelectionInput(
        features=normal(rows, num_tokens, shape.vision_width),
        grid=shape.grid,
        keep_counts=tuple(keep_counts),
        budget_ratios=torch.tensor([count / num_tokens for count in keep_counts]),
        seeds=torch.arange(rows) * 1000 + seed,
        question_embeds=normal(rows, num_question_tokens, shape.llm_width),
        question_mask=mask,
        budget_features=normal(rows, shape.vision_width),
        attention_received=normal(rows, num_tokens, 2).softmax(dim=1),
        feature_layer=TowerLayer(normal(rows, num_tokens + 1, width), normal(rows, width), shape.tower_heads),
        last_layer=TowerLayer(normal(rows, num_tokens + 1, width), normal(rows, width), shape.tower_heads),
        projected=normal(rows, num_tokens, shape.llm_width),
        word_embeds=normal(rows, num_question_tokens, shape.llm_width),
        word_mask=mask,
        text_relevance=normal(rows, num_tokens).tanh(),
    )


def rows_of(inputs: SelectionInput, rows: Sequence[int]) -> SelectionInput:
    """Return the given rows, in the given order, questions still padded as before."""
    picked = torch.tensor(rows)
    changed: dict[str, Any] = {"keep_counts": tuple(inputs.keep_counts[row] for row in rows)}
    for field in fields(inputs):
        value = getattr(inputs, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value[picked]
        elif isinstance(value, TowerLayer):
            query = None if value.cls_query is None else value.cls_query[picked]
            changed[field.name] = replace(value, keys=value.keys[picked], cls_query=query)
    return replace(inputs, **changed)
