"""Random inputs for selectors, without a model."""

from collections.abc import Sequence

import torch

from adallava.selection.contract import SelectionInput, TowerShape

SHAPE = TowerShape(num_vision_tokens=24, vision_width=32, llm_width=40, grid=(4, 6))


def selection_input(
    keep_counts: Sequence[int], *, shape: TowerShape = SHAPE, num_question_tokens: int = 7, seed: int = 0
) -> SelectionInput:
    """Return random features and questions; row i's question has i tokens fewer than the first's."""
    generator = torch.Generator().manual_seed(seed)
    rows, num_tokens = len(keep_counts), shape.num_vision_tokens
    lengths = torch.tensor([max(1, num_question_tokens - row) for row in range(rows)])
    return SelectionInput(
        features=torch.randn(rows, num_tokens, shape.vision_width, generator=generator),
        grid=shape.grid,
        keep_counts=tuple(keep_counts),
        budget_ratios=torch.tensor([count / num_tokens for count in keep_counts]),
        seeds=torch.arange(rows) * 1000 + seed,
        question_embeds=torch.randn(rows, num_question_tokens, shape.llm_width, generator=generator),
        question_mask=torch.arange(num_question_tokens)[None, :] < lengths[:, None],
        budget_features=torch.randn(rows, shape.vision_width, generator=generator),
    )


def rows_of(inputs: SelectionInput, rows: Sequence[int]) -> SelectionInput:
    """Return the given rows, in the given order, questions still padded as before."""
    picked = torch.tensor(rows)
    assert inputs.budget_features is not None
    return SelectionInput(
        features=inputs.features[picked],
        grid=inputs.grid,
        keep_counts=tuple(inputs.keep_counts[row] for row in rows),
        budget_ratios=inputs.budget_ratios[picked],
        seeds=inputs.seeds[picked],
        question_embeds=inputs.question_embeds[picked],
        question_mask=inputs.question_mask[picked],
        budget_features=inputs.budget_features[picked],
    )
