"""Literal tables: what each tensor of a shortened batch holds."""

import pytest
import torch
from text_only import TextOnly

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.pipeline.companions import Companion, gather
from adallava.pipeline.layout import Inserted, Layout, plan_layout
from adallava.pipeline.pack import CompactBatch, assemble, compact_labels, merge_embeds

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
    batch = assemble(TextOnly(), layout, IDS, None, torch.tensor(KEPT[keep_count]), "original", pad_token_id=7)
    assert batch.input_ids.tolist() == [[7] * padding + ids[0], ids[1]]
    assert batch.position_ids.tolist() == [[0] * padding + positions[0], positions[1]]


def test_compact_positions_count_real_tokens() -> None:
    layout = _layout(1, 3)
    batch = assemble(TextOnly(), layout, IDS, None, torch.tensor([[3, 0, 0], [0, 1, 3]]), "compact")
    assert batch.position_ids.tolist() == [[0, 0, 0, 0, 0, 1, 2][-7:], [0, 1, 2, 3, 4, 5, 6]]


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


def test_three_rows_of_positions_and_a_type_travel_with_each_token() -> None:
    """A family of M-RoPE: (time, row, column) of a 2 x 2 picture, and a type of its own for the picture's tokens."""
    rows = torch.tensor([[[0, 1, 1, 1, 1, 3]], [[0, 1, 1, 2, 2, 3]], [[0, 1, 2, 1, 2, 3]]])
    layout = plan_layout(
        torch.tensor([[5, 9, 9, 9, 9, 6]]),
        None,
        tokens_per_image=[4],
        image_token_id=9,
        budgets=[TokenBudget(count=2)],
        side="left",
        companions=lambda: {"position_ids": rows, "token_type_ids": torch.tensor([[0, 1, 1, 1, 1, 0]])},
    )
    ids, kept = torch.tensor([[5, 9, 9, 9, 9, 6]]), torch.tensor([[1, 3]])
    batch = assemble(TextOnly(), layout, ids, None, kept, "original")
    assert batch.position_ids.tolist() == [[[0, 1, 1, 3]], [[0, 1, 2, 3]], [[0, 2, 2, 3]]]
    assert batch.llm_inputs()["token_type_ids"].tolist() == [[0, 1, 1, 0]]
    counted = assemble(TextOnly(), layout, ids, None, kept, "compact")
    assert counted.position_ids.tolist() == [[[0, 1, 2, 3]]] * 3
    assert counted.llm_inputs()["token_type_ids"].tolist() == [[0, 1, 1, 0]]


def test_a_hidden_token_takes_no_position_in_any_row() -> None:
    rows = torch.arange(4).expand(3, 1, 4) + torch.tensor([0, 10, 20])[:, None, None]
    layout = plan_layout(
        torch.tensor([[5, 6, 6, 7]]),
        None,
        tokens_per_image=[],
        image_token_id=9,
        budgets=[TokenBudget(count=1)],
        side="left",
        inserted=Inserted((1,), hidden=True),
        companions=lambda: {"position_ids": rows},
    )
    assert layout.companions["position_ids"].tolist() == [[[0, 1, 1, 2]], [[10, 11, 11, 12]], [[20, 21, 21, 22]]]


def test_what_padding_and_vision_tokens_have_is_said_by_each_companion() -> None:
    companions = {"own": Companion(IDS, padding=-1), "none": Companion(IDS + 100, padding=-1, at_vision=-2)}
    gathered = gather(companions, _layout(1, 2), torch.tensor(KEPT[2]))
    assert gathered["own"].tolist() == [[-1, -1, -1, 1, 9, 2][-6:], [3, 4, 9, 9, 5, 6]]
    assert gathered["none"].tolist() == [[-1, -1, -1, 101, -2, 102][-6:], [103, 104, -2, -2, 105, 106]]
