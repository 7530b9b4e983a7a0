import pytest
import torch

from adallava.budget import TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.pipeline.allocate import MethodCounts
from adallava.pipeline.companions import Companion, gather
from adallava.pipeline.layout import Layout, plan_layout

IMAGE = 9
N = 4


def _plan(rows: list[list[int]], budgets: list[object], *, mask: list[list[int]] | None = None, **options: object):
    ids = torch.tensor(rows)
    arguments = {"tokens_per_image": [N] * (int((ids == IMAGE).sum()) // N), "side": "left", **options}
    return plan_layout(
        ids,
        None if mask is None else torch.tensor(mask),
        image_token_id=IMAGE,
        budgets=[TokenBudget.parse(budget) for budget in budgets],
        **arguments,
    )


def base_positions(layout: Layout) -> list[list[int]]:
    """Return each token's position in the full prompt; of vision tokens, that of their image's first."""
    companion = Companion(layout.companions["position_ids"])
    (rows,) = gather({"position_ids": companion}, layout, None)["position_ids"].tolist()
    return rows


def test_a_batch_of_mixed_lengths_and_budgets() -> None:
    layout = _plan(
        [[0, 0, 1, 9, 9, 9, 9, 2], [1, 2, 9, 9, 9, 9, 3, 4]],
        [3, 1],
        mask=[[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]],
    )
    # Kmax = 3: the second image's kept tokens begin in row 3 of the flattened [2 * 3].
    assert layout.text_columns.tolist() == [[2, 3, 3, 3, 7], [0, 1, 2, 6, 7]]
    assert layout.vision_slots.tolist() == [[-1, 0, 1, 2, -1], [-1, -1, 3, -1, -1]]
    assert base_positions(layout) == [[0, 1, 1, 1, 5], [0, 1, 2, 6, 7]]
    assert layout.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert layout.lengths == (5, 5)
    assert layout.question_columns.tolist() == [[2, 7, 0, 0], [0, 1, 6, 7]]
    assert layout.question_mask.tolist() == [[True, True, False, False], [True] * 4]


@pytest.mark.parametrize(
    ("side", "mask", "slots"),
    [
        ("left", [[0, 0, 1, 1], [1, 1, 1, 1]], [[-1, -1, -1, 0], [-1, 2, 3, -1]]),
        ("right", [[1, 1, 0, 0], [1, 1, 1, 1]], [[-1, 0, -1, -1], [-1, 2, 3, -1]]),
    ],
)
def test_padding_goes_to_the_side_asked_for(side: str, mask: list[list[int]], slots: list[list[int]]) -> None:
    layout = _plan([[5, 9, 9, 9, 9, 0], [6, 9, 9, 9, 9, 7]], [1, 2], mask=[[1] * 5 + [0], [1] * 6], side=side)
    assert layout.mask.tolist() == mask
    assert layout.vision_slots.tolist() == slots


def test_adjacent_images_are_told_apart_and_share_the_budget() -> None:
    layout = _plan([[1, 9, 9, 9, 9, 9, 9, 9, 9, 2]], [3])
    assert layout.keep_counts == (2, 1)
    assert base_positions(layout) == [[0, 1, 1, 5, 9]]
    assert layout.vision_slots.tolist() == [[-1, 0, 1, 2, -1]]


def test_an_image_that_gets_no_token_is_dropped() -> None:
    layout = _plan([[1, 9, 9, 9, 9, 3, 9, 9, 9, 9, 2]], [1])
    assert layout.keep_counts == (1, 0)
    assert layout.text_columns.tolist() == [[0, 1, 5, 10]]


def test_a_method_that_keeps_nothing_leaves_the_text() -> None:
    layout = _plan([[1, 9, 9, 9, 9, 2]], [1.0], method=MethodCounts(own=[0]))
    assert layout.text_columns.tolist() == [[0, 5]]
    assert layout.prompts[0].tokens_asked == 0
    assert layout.prompts[0].num_vision_tokens == 4


def test_a_methods_own_counts_go_to_the_images_in_order_whatever_the_budget() -> None:
    layout = _plan(
        [[1, 9, 9, 9, 9, 2, 3, 4, 5], [9, 9, 9, 9, 5, 9, 9, 9, 9]], [1.0, 1], method=MethodCounts(own=[3, 1, 2])
    )
    assert [prompt.keep_counts for prompt in layout.prompts] == [(3,), (1, 2)]
    assert [prompt.tokens_asked for prompt in layout.prompts] == [3, 3]


def test_a_method_that_rounds_down_says_what_was_asked() -> None:
    layout = _plan([[1, 9, 9, 9, 9, 2]], [3], method=MethodCounts(rounded=lambda asked, image: asked - asked % 2))
    assert layout.prompts[0].tokens_asked == 3
    assert layout.keep_counts == (2,)
    assert layout.text_columns.tolist() == [[0, 1, 1, 5]]


def test_a_question_ends_before_the_first_label() -> None:
    labels = torch.tensor([[-100, -100, -100, -100, -100, -100, 7, -100, 8]])
    layout = _plan([[1, 9, 9, 9, 9, 2, 7, 3, 8]], [2], labels=labels, side="right")
    assert layout.question_columns.tolist() == [[0, 5]]


def test_images_of_different_sizes() -> None:
    layout = _plan([[1, 9, 9, 9, 9, 9, 9, 2], [0, 0, 9, 9, 9, 9, 9, 3]], [3, 2], tokens_per_image=[2, 4, 5])
    # The first sample's images have 2 and 4 tokens: 3 of 6 are 1 and 2. Kmax = 2.
    assert layout.keep_counts == (1, 2, 2)
    assert layout.tokens_per_image == (2, 4, 5)
    assert [prompt.num_vision_tokens for prompt in layout.prompts] == [6, 5]
    assert layout.lengths == (5, 5)
    assert base_positions(layout) == [[0, 1, 3, 3, 7], [0, 1, 2, 2, 7]]
    assert layout.vision_slots.tolist() == [[-1, 0, 2, 3, -1], [-1, -1, 4, 5, -1]]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([[1, 9, 9, 9, 2]], {}, r"sample 0 has 3 image placeholders, which its images do not fill.*: no image\)"),
        ([[1, 9, 9, 9, 2]], {"tokens_per_image": [4]}, r"sample 0 has 3 image placeholders.*of each: 4\)"),
        ([[9] * 6], {"tokens_per_image": [4, 3]}, r"sample 0 has 6 image placeholders.*of each: 4, 3\)"),
        ([[9] * 6], {"tokens_per_image": [4]}, r"sample 0 has 6 image placeholders.*of each: 4\)"),
        ([[1, 9, 9, 3, 9, 9]], {}, "sample 0, image 0.*not in one run"),
        ([[1, 9, 9, 9, 9]], {"tokens_per_image": [4, 4]}, "placeholders for 1 images, but 2 are given"),
        ([[1, 9, 9, 9, 9]], {"tokens_per_image": []}, r"sample 0 has 4 image placeholders.*: no image\)"),
        ([[1, 9, 9, 9, 9]], {"mask": [[1, 1, 1]]}, r"attention_mask has shape \(1, 3\), input_ids \(1, 5\)"),
        ([[1, 9, 9, 9, 9]], {"mask": [[1, 0, 1, 1, 1]]}, "sample 0 has image placeholders that its attention_mask"),
        ([[1, 2]], {"mask": [[0, 0]]}, "sample 0 has no token"),
        ([[1, 2]], {"labels": torch.tensor([[1]])}, "labels have shape"),
    ],
)
def test_input_that_does_not_fit_is_named_with_its_numbers(
    rows: list[list[int]], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _plan(rows, [1], **options)  # type: ignore[arg-type]


def test_a_budget_for_each_sample_or_none() -> None:
    with pytest.raises(BudgetError, match="2 token budgets for a batch of 1"):
        _plan([[1, 2]], [1, 1])
