"""What the budget-token stage computes is what inference computes, once the noise is taken away."""

import pytest
import torch
from models import tiny_base

from adallava import AdaLlava
from adallava.families import wrap_model
from adallava.selection.budget_token import BudgetTokenSelector
from adallava.training.packing import TokenizedQuestion, pack
from adallava.training.prompts import stack_prompts
from adallava.training.straight_through import StraightThroughObjective


def test_without_noise_the_loss_is_that_of_inference(monkeypatch):
    monkeypatch.setattr("adallava.selection.gumbel.gumbel_noise", lambda like, generator=None: torch.zeros_like(like))
    base = tiny_base()
    family = wrap_model(base)
    torch.manual_seed(0)
    selector = BudgetTokenSelector(family.shape)
    question = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 12), answer_ids=(21, 22, 2))
    pixels = torch.randn(1, 3, 28, 28)
    objective = StraightThroughObjective(family, selector, budget_range=(0.5, 0.5), tau=5.0)
    trained = objective(pixels, pack([[question]], pad_token_id=0))["loss"]

    prompts = stack_prompts([[question]], 16, family.image_token_id, pad_token_id=0)
    inference = AdaLlava(base, None, selector).forward(
        input_ids=prompts.input_ids,
        attention_mask=prompts.attention_mask,
        labels=prompts.labels,
        pixel_values=pixels,
        token_budget=0.5,
    )
    assert trained.item() == pytest.approx(inference.loss.item(), rel=1e-5)
    trained.backward()
    assert selector.controller.weight.grad.abs().sum() > 0
