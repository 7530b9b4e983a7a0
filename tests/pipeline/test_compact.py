"""Literal tables: what each tensor of a shortened batch holds."""

import pytest
import torch

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.pipeline.layout import Layout, plan_layout
from adallava.pipeline.pack import CompactBatch, compact_ids, compact_labels, compact_positions, merge_embeds

IDS = torch.tensor([[0, 0, 1, 9, 9, 9, 9, 2], [3, 4, 9, 9, 9, 9, 5, 6]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]])
KEPT = {1: [[3], [0]], 2: [[1, 3], [0, 2]], 3: [[0, 1, 3], [1, 2, 3]], 4: [[0, 1, 2, 3], [0, 1, 2, 3]]}


def _layout(first: int, second: int, side: str = "left") -> Layout:
    return plan_layout(
        IDS,
        MASK,
        tokens_per_image=[4, 4],
        image_token_id=9,
        budgets=[TokenBudget(count=first), TokenBudget(count=second)],
        side=side,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("keep_count", "ids", "positions"),
    [
        (1, [[7, 1, 9, 2], [3, 4, 9, 5, 6]], [[0, 0, 4, 5], [0, 1, 2, 6, 7]]),
        (2, [[7, 1, 9, 9, 2], [3, 4, 9, 9, 5, 6]], [[0, 0, 2, 4, 5], [0, 1, 2, 4, 6, 7]]),
        (3, [[7, 1, 9, 9, 9, 2], [3, 4, 9, 9, 9, 5, 6]], [[0, 0, 1, 2, 4, 5], [0, 1, 3, 4, 5, 6, 7]]),
        (
            4,
            [[7, 1, 9, 9, 9, 9, 2], [3, 4, 9, 9, 9, 9, 5, 6]],
            [[0, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]],
        ),
    ],
)
def test_ids_and_positions_for_each_k(keep_count: int, ids: list[list[int]], positions: list[list[int]]) -> None:
    layout = _layout(keep_count, keep_count)
    width = len(ids[1])
    padding = width - len(ids[0])
    assert compact_ids(layout, IDS, 7).tolist() == [[7] * padding + ids[0], ids[1]]
    kept = torch.tensor(KEPT[keep_count])
    assert compact_positions(layout, kept, "original").tolist() == [[0] * padding + positions[0], positions[1]]


def test_compact_positions_count_real_tokens() -> None:
    layout = _layout(1, 3)
    positions = compact_positions(layout, torch.tensor([[3, 0, 0], [0, 1, 3]]), "compact")
    assert positions.tolist() == [[0, 0, 0, 0, 0, 1, 2][-7:], [0, 1, 2, 3, 4, 5, 6]]


def test_labels_are_ignored_at_vision_tokens_and_padding() -> None:
    labels = torch.tensor([[50, 51, 52, 53, 54, 55, 56, 57], [60, 61, 62, 63, 64, 65, 66, 67]])
    assert compact_labels(_layout(1, 2, "right"), labels).tolist() == [
        [52, -100, 57, -100, -100, -100],
        [60, 61, -100, -100, 66, 67],
    ]


def test_each_vision_token_lands_in_its_own_slot() -> None:
    layout = _layout(2, 1)
    text = torch.full((2, 5, 1), -1.0)
    vision = torch.tensor([[[10.0], [11.0]], [[20.0], [99.0]]])
    merged = merge_embeds(layout, text, vision)[..., 0]
    # The second image keeps one token: its second row is unused and appears nowhere.
    assert merged.tolist() == [[-1, -1, 10, 11, -1], [-1, -1, 20, -1, -1]]


def test_tensors_of_different_lengths_are_no_batch() -> None:
    with pytest.raises(InputError, match=r"differ in length.*'input_ids': \(1, 4\).*'inputs_embeds': \(1, 5\)"):
        CompactBatch(torch.zeros(1, 4), torch.zeros(1, 5, 2), torch.zeros(1, 5), torch.zeros(1, 5), None)
