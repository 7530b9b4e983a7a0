"""The latency token's place, by hand."""

import torch

from adallava.generation.latency import insert_latency_tokens

IMAGE, PAD = 9, 0


def test_the_token_follows_the_prompt_and_precedes_the_answer() -> None:
    ids = torch.tensor([[0, 0, 5, 9, 9, 6, 7, 8], [1, 9, 9, 2, 3, 4, 7, 8], [1, 9, 9, 2, 3, 4, 7, 8]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [1] * 8, [1] * 8])
    labels = torch.full_like(ids, -100)
    labels[0, 6:], labels[1, 5:], labels[2, 7:] = ids[0, 6:], ids[1, 5:], ids[2, 7:]
    made = insert_latency_tokens(ids, mask, labels, [True, False, True], image_token_id=IMAGE, pad_token_id=PAD)
    assert made.columns == (6, None, 7)
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
    made = insert_latency_tokens(ids, mask, None, [True, True], image_token_id=IMAGE, pad_token_id=PAD)
    assert made.columns == (4, 3)
    assert made.input_ids.tolist() == [[0, 5, 9, 6, 6], [5, 9, 6, 6, 0]]
    assert made.attention_mask.tolist() == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert made.labels is None


def test_a_prompt_that_ends_with_its_picture_repeats_its_last_word() -> None:
    ids = torch.tensor([[5, 6, 9, 9], [9, 9, 9, 9]])
    made = insert_latency_tokens(ids, None, None, [True, True], image_token_id=IMAGE, pad_token_id=PAD)
    assert made.input_ids.tolist() == [[5, 6, 9, 9, 6], [9, 9, 9, 9, 0]]
