"""The latency token's place, by hand."""

import pytest
import torch
from text_only import TextOnly

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.pipeline.latency_token import insert_latency_tokens, token_places
from adallava.pipeline.layout import Inserted, plan_layout
from adallava.pipeline.pack import Positions, assemble

IMAGE, PAD = 9, 0


def test_the_token_follows_the_prompt_and_precedes_the_answer() -> None:
    ids = torch.tensor([[0, 0, 5, 9, 9, 6, 7, 8], [1, 9, 9, 2, 3, 4, 7, 8], [1, 9, 9, 2, 3, 4, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8, [1] * 8])
    labels = torch.full_like(ids, -100)
    labels[0, 6:], labels[1, 5:], labels[2, 7:] = ids[0, 6:], ids[1, 5:], ids[2, 7:]
    made = insert_latency_tokens(
        ids, mask, labels, [True, False, True], observing=False, image_token_id=IMAGE, pad_token_id=PAD
    )
    assert made.inserted.columns == (6, None, 7)
    assert made.input_ids.tolist() == [
        [0, 0, 5, 9, 9, 6, 6, 7, 8],
        [1, 9, 9, 2, 3, 0, 4, 7, 8],
        [1, 9, 9, 2, 3, 4, 7, 7, 8],
    ]
    assert made.attention_mask.tolist() == [
        [0, 0, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0, 1, 1, 1],
        [1] * 9,
    ]
    assert made.labels is not None
    assert made.labels.tolist() == [
        [-100] * 7 + [7, 8],
        [-100] * 6 + [4, 7, 8],
        [-100] * 8 + [8],
    ]


def test_without_labels_it_is_last_whichever_side_is_padded() -> None:
    ids = torch.tensor([[0, 5, 9, 6], [5, 9, 6, 0]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    made = insert_latency_tokens(ids, mask, None, [True, True], observing=False, image_token_id=IMAGE, pad_token_id=PAD)
    assert made.inserted.columns == (4, 3)
    assert made.input_ids.tolist() == [[0, 5, 9, 6, 6], [5, 9, 6, 6, 0]]
    assert made.attention_mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert made.labels is None


def test_a_prompt_that_ends_with_its_picture_repeats_its_last_word() -> None:
    ids = torch.tensor([[5, 6, 9, 9], [9, 9, 9, 9]])
    made = insert_latency_tokens(ids, None, None, [True, True], observing=False, image_token_id=IMAGE, pad_token_id=PAD)
    assert made.input_ids.tolist() == [[5, 6, 9, 9, 6], [9, 9, 9, 9, 0]]


def test_a_token_that_observes_stands_before_the_last_one() -> None:
    ids = torch.tensor([[0, 0, 5, 9, 9, 6, 7, 8], [1, 9, 9, 2, 3, 4, 7, 8], [5, 6, 9, 9, 0, 0, 0, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8, [1, 1, 1, 1, 0, 0, 0, 0]])
    labels = torch.full_like(ids, -100)
    labels[0, 7:], labels[1, 7:] = ids[0, 7:], ids[1, 7:]
    made = insert_latency_tokens(
        ids, mask, labels, [True, False, True], observing=True, image_token_id=IMAGE, pad_token_id=PAD
    )
    assert made.inserted.columns == (6, None, 2)
    assert made.input_ids.tolist() == [
        [0, 0, 5, 9, 9, 6, 7, 7, 8],
        [1, 9, 9, 2, 3, 4, 0, 7, 8],
        # It ends with its picture: before that, since nothing may stand within.
        [5, 6, 6, 9, 9, 0, 0, 0, 0],
    ]
    assert made.attention_mask.tolist() == [
        [0, 0, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 0, 1, 1],
        [1, 1, 1, 1, 1, 0, 0, 0, 0],
    ]
    assert made.labels is not None
    assert made.labels.tolist() == [[-100] * 8 + [8], [-100] * 8 + [8], [-100] * 9]


@pytest.mark.parametrize(("positions", "of_the_token"), [("original", 6), ("compact", 3)])
def test_a_token_that_observes_is_read_by_none_and_moves_none(positions: Positions, of_the_token: int) -> None:
    # One picture of N = 4, K = 1, patch 2: t I I I I u v, and the token before v.
    ids = torch.tensor([[5, 9, 9, 9, 9, 6, 7, 7]])
    for hidden in (False, True):
        layout = plan_layout(
            ids,
            None,
            tokens_per_image=[4],
            image_token_id=IMAGE,
            budgets=[TokenBudget(count=1)],
            side="left",
            inserted=Inserted((6,), hidden=hidden),
        )
        made = assemble(TextOnly(), layout, ids, None, torch.tensor([[2]]), positions).position_ids
        places = token_places(layout)
        assert places is not None
        assert places.tolist() == [3]
        assert layout.attention_mask.tolist() == [[1, 1, 1, 0 if hidden else 1, 1]]
        assert layout.mask.tolist() == [[1, 1, 1, 1, 1]]
        before = [0, 3, 5] if positions == "original" else [0, 1, 2]
        assert made.tolist() == [[*before, of_the_token, of_the_token if hidden else of_the_token + 1]]


def test_a_token_without_a_prompt_and_shapes_that_do_not_fit_are_refused() -> None:
    ids = torch.tensor([[5, 9, 6], [5, 9, 6]])
    options = {"observing": True, "image_token_id": IMAGE, "pad_token_id": PAD}
    labels = torch.tensor([[-100, -100, 6], [5, -100, 6]])
    with pytest.raises(InputError, match=r"sample 1 has no prompt before its first label.* -100"):
        insert_latency_tokens(ids, None, labels, [True, True], **options)
    assert insert_latency_tokens(ids, None, labels, [True, False], **options).inserted.columns == (1, None)
    with pytest.raises(InputError, match=r"attention_mask has shape \(2, 2\), input_ids \(2, 3\)"):
        insert_latency_tokens(ids, torch.ones(2, 2), None, [True, True], **options)
