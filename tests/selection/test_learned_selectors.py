import dataclasses
import math

import pytest
import torch
from selector_inputs import SHAPE, rows_of, selection_input

from adallava.errors import InputError
from adallava.selection.budget_token import BudgetTokenSelector, encode_budget
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import TowerShape


@pytest.fixture
def question() -> QuestionSelector:
    torch.manual_seed(0)
    selector = QuestionSelector(SHAPE)
    for parameter in selector.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return selector


def test_question_scores_are_bounded_and_move_with_everything_they_may_read(question: QuestionSelector) -> None:
    inputs = selection_input([6, 6])
    scores = question.scores(inputs)
    assert scores.abs().max() <= 8.0
    for change in (
        {"question_embeds": inputs.question_embeds.flip(0)},
        {"features": inputs.features.flip(0)},
        {"budget_ratios": inputs.budget_ratios * 2},
        {"grid": (6, 4)},
    ):
        assert not torch.allclose(question.scores(dataclasses.replace(inputs, **change)), scores, atol=1e-3)


def test_question_scores_start_near_zero() -> None:
    torch.manual_seed(0)
    assert QuestionSelector(SHAPE).scores(selection_input([6, 6])).abs().max() < 1.0


def test_question_padding_changes_no_score(question: QuestionSelector) -> None:
    inputs = selection_input([6, 6, 6])
    together = question.scores(inputs)
    length = int(inputs.question_mask[2].sum())
    alone = rows_of(inputs, [2])
    alone = dataclasses.replace(
        alone, question_embeds=alone.question_embeds[:, :length], question_mask=alone.question_mask[:, :length]
    )
    torch.testing.assert_close(question.scores(alone)[0], together[2], atol=1e-4, rtol=1e-4)


def test_question_without_a_token_has_finite_scores(question: QuestionSelector) -> None:
    inputs = selection_input([6, 6])
    empty = dataclasses.replace(inputs, question_mask=torch.zeros_like(inputs.question_mask))
    assert question.scores(empty).isfinite().all()


def test_question_sends_no_gradient_to_what_it_reads(question: QuestionSelector) -> None:
    inputs = selection_input([6, 6])
    features = inputs.features.clone().requires_grad_()
    embeds = inputs.question_embeds.clone().requires_grad_()
    read = dataclasses.replace(inputs, features=features, question_embeds=embeds)
    (question.scores(read) * torch.randn(2, SHAPE.num_vision_tokens)).sum().backward()
    assert features.grad is None
    assert embeds.grad is None
    assert all(parameter.grad is not None for parameter in question.parameters())


def test_question_has_the_size_it_says() -> None:
    selector = QuestionSelector(TowerShape(256, 128, 192, (16, 16)))
    assert 200_000 < sum(parameter.numel() for parameter in selector.parameters()) < 400_000


def test_budget_encoding_is_sines_and_cosines_of_the_scaled_budget() -> None:
    encoding = encode_budget(torch.tensor([0.25, 1.0]), 128)
    assert encoding.shape == (2, 256)
    # The first frequency is 1: a quarter of the circle, and all of it.
    assert encoding[0, 0].item() == pytest.approx(math.sin(math.pi / 2))
    assert encoding[0, 128].item() == pytest.approx(math.cos(math.pi / 2), abs=1e-6)
    assert encoding[1, 0].item() == pytest.approx(0.0, abs=1e-6)
    slowest = 2 * math.pi * 10_000 ** (-127 / 128)
    assert encoding[1, 127].item() == pytest.approx(math.sin(slowest), rel=1e-4)


def test_budget_token_has_a_position_of_its_own() -> None:
    selector = BudgetTokenSelector(SHAPE)
    before = selector.budget_token(torch.tensor([0.5]))
    with torch.no_grad():
        selector.position += 1.0
    torch.testing.assert_close(selector.budget_token(torch.tensor([0.5])), before + 1.0)
    assert before.shape == (1, SHAPE.vision_width)


def test_budget_token_is_refused_without_the_towers_answer() -> None:
    inputs = dataclasses.replace(selection_input([3]), budget_features=None)
    with pytest.raises(InputError, match="budget token"):
        BudgetTokenSelector(SHAPE).select(inputs)


@pytest.mark.parametrize("method", [BudgetTokenSelector, QuestionSelector])
def test_a_learned_method_is_built_again_from_its_config(method: type) -> None:
    selector = method(SHAPE)
    again = method(SHAPE, **selector.config)
    assert {name: p.shape for name, p in again.state_dict().items()} == {
        name: p.shape for name, p in selector.state_dict().items()
    }
