"""The policy gradient's parts against what they must be by definition."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import tiny_base

from adallava import AdaLlava
from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Selection, SelectionInput
from adallava.training.packing import TokenizedQuestion
from adallava.training.policy import (
    PolicyObjective,
    advantages,
    answer_log_probabilities,
    draw_orders,
    log_probability,
)
from adallava.training.prompted import Prompted
from adallava.training.prompts import stack_prompts


def test_log_probability_of_an_ordered_draw_is_that_of_drawing_without_replacement():
    scores = torch.tensor([[0.0, math.log(2.0), math.log(3.0)]])
    # Odds 1 : 2 : 3. First token 2 (3/6), then token 0 out of 1 : 2 (1/3).
    chance = log_probability(scores, torch.tensor([[2, 0, 1]]), keep_count=2)
    assert chance.exp().item() == pytest.approx(3 / 6 * 1 / 3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(1, 3))
def test_probabilities_of_all_ordered_subsets_sum_to_one(scores, keep_count):
    orders = [
        [*first, *(i for i in range(4) if i not in first)] for first in itertools.permutations(range(4), keep_count)
    ]
    chances = log_probability(torch.tensor([scores] * len(orders)), torch.tensor(orders), keep_count)
    assert chances.exp().sum().item() == pytest.approx(1.0, abs=1e-4)


def test_draws_follow_the_scores():
    torch.manual_seed(0)
    scores = torch.tensor([[0.0, math.log(2.0), math.log(3.0)]])
    first = draw_orders(scores, 60_000)[:, 0]
    shares = torch.bincount(first, minlength=3) / len(first)
    torch.testing.assert_close(shares, torch.tensor([1 / 6, 2 / 6, 3 / 6]), atol=0.01, rtol=0)


def test_an_advantage_is_the_reward_less_the_mean_of_the_other_samples():
    gains = advantages(torch.tensor([-1.0, -3.0, -2.0, -2.0]), num_samples=2)
    # Differences 2, -2 for the first question and 0, 0 for the second; one common scale.
    assert gains[0] == -gains[1] > 0
    assert gains[2:].tolist() == [0.0, 0.0]


def test_rewards_are_what_inference_computes_for_the_same_tokens():
    base = tiny_base()
    family = wrap_model(base)
    question = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 12), answer_ids=(21, 2))
    prompts = stack_prompts([[question]], 16, family.image_token_id, 0)
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    indices = torch.tensor([[2, 5, 11]])

    class Fixed:
        name, learned, needs, merges, per_sample, ignores_budget = "fixed", False, frozenset(), False, False, False

        def select(self, inputs: SelectionInput) -> Selection:
            return Selection(indices, inputs.keep_counts)

    with torch.no_grad():
        output = AdaLlava(base, None, Fixed()).forward(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            labels=prompts.labels,
            pixel_values=pixels,
            token_budget=3,
        )
        prompted = Prompted.of(family, prompts, PictureInputs(pixels))
        rewards, _ = answer_log_probabilities(prompted, prompted.layout(3), indices)
    # The loss is the mean over the answer's two tokens, the reward their sum.
    assert rewards.item() == pytest.approx(-2 * output.loss.item(), rel=1e-4)


def test_the_scorer_learns_to_keep_the_only_token_that_is_rewarded(monkeypatch):
    base = tiny_base()
    family = wrap_model(base)
    base.requires_grad_(False)
    torch.manual_seed(0)
    selector = QuestionSelector(family.shape, width=32, question_width=16, film_width=16, match_width=8, num_heads=2)
    objective = PolicyObjective(family, selector, keep_counts=(2,), num_samples=4)

    def rewarded(prompted, layout, indices, repeats):
        hit = (indices == 6).any(dim=1)
        return torch.where(hit, -0.1, -3.0), hit

    monkeypatch.setattr("adallava.training.policy.answer_log_probabilities", rewarded)
    prompts = stack_prompts(
        [[TokenizedQuestion((7,), (11, 12), (21, 2))]] * 8, 16, family.image_token_id, pad_token_id=0
    )
    pixels = torch.randn(8, 3, 28, 28)
    optimiser = torch.optim.Adam(selector.parameters(), lr=3e-3)
    first = float(objective(pixels, prompts)["right_2"])
    for _ in range(60):
        optimiser.zero_grad()
        objective(pixels, prompts)["loss"].backward()
        optimiser.step()
    last = sum(float(objective(pixels, prompts)["right_2"]) for _ in range(5)) / 5
    assert first < 0.5 < 0.8 < last
    assert all(parameter.grad is None for parameter in base.parameters())


def test_a_frozen_base_is_asked_as_it_answers():
    base = tiny_base()
    objective = PolicyObjective(
        wrap_model(base), QuestionSelector(wrap_model(base).shape), keep_counts=(2,), num_samples=2
    )
    assert objective.train().base.training
    base.requires_grad_(False)
    assert objective.train().selector.training
    assert not base.training


def test_where_no_choice_pays_the_spread_term_alone_pulls_the_scores_together(monkeypatch):
    base = tiny_base()
    family = wrap_model(base)
    torch.manual_seed(0)
    selector = QuestionSelector(family.shape, width=32, question_width=16, film_width=16, match_width=8, num_heads=2)
    torch.nn.init.normal_(selector.first_score.weight, std=2.0)
    objective = PolicyObjective(family, selector, keep_counts=(2,), num_samples=4, spread_weight=0.1)

    def indifferent(prompted, layout, indices, repeats):
        return torch.full((len(indices),), -1.0), torch.zeros(len(indices), dtype=torch.bool)

    monkeypatch.setattr("adallava.training.policy.answer_log_probabilities", indifferent)
    prompts = stack_prompts(
        [[TokenizedQuestion((7,), (11, 12), (21, 2))]] * 4, 16, family.image_token_id, pad_token_id=0
    )
    pixels = torch.randn(4, 3, 28, 28)
    optimiser = torch.optim.Adam(selector.parameters(), lr=1e-2)
    first = float(objective(pixels, prompts)["spread"])
    for _ in range(40):
        optimiser.zero_grad()
        objective(pixels, prompts)["loss"].backward()
        optimiser.step()
    assert float(objective(pixels, prompts)["spread"]) < 0.5 * first
