"""The forward pass that training uses: what it computes is what generation computes."""

from typing import Any

import pytest
import torch
from masked_reference import MaskedInside, hiding
from models import (
    BEFORE_LLM,
    INSIDE_LLM,
    MECHANISMS,
    rest_is_long,
    sample_of,
    tiny_base,
    tiny_tokens,
    with_every_option,
)
from stock_reference import (
    adding,
    as_read,
    given_mask,
    llm_of,
    projector_of,
    stock_features,
    stock_levels,
    stock_positions,
)
from torch import Tensor
from torch.nn import functional as F

from adallava import AdaLlava
from adallava.registry import selector_names
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

IGNORED = -100


def _labels(inputs: dict[str, Any]) -> Tensor:
    """The last three tokens of each prompt stand for its answer."""
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    return labels


def _masked_logits(
    model: AdaLlava, sample: dict[str, Any], kept: list[int], kept_embeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Run all tokens, with an exact mask over the dropped ones; return logits and the columns that are kept.

    A method that merges or looks at another tower changes what stands at its places; nothing else may differ.
    """
    base = model.base
    ids = sample["input_ids"]
    embeds = base.get_input_embeddings()(ids)
    features = stock_features(base, sample)
    is_image = ids[0] == base.config.image_token_id
    features = features.index_copy(0, torch.tensor(kept, dtype=torch.int64), kept_embeds)
    embeds[0, is_image] = features
    stays = ~is_image
    stays[is_image.nonzero().flatten()[kept]] = True
    with adding(base, stock_levels(base, sample), is_image.nonzero().flatten()):
        hidden = llm_of(base)(
            inputs_embeds=embeds,
            attention_mask=given_mask(base, hiding(stays)),
            position_ids=as_read(stock_positions(base, sample)),
            use_cache=False,
        ).last_hidden_state
    return base.lm_head(hidden)[0], stays


def _flat_indices(selection: Any, tokens_per_image: list[int]) -> list[int]:
    """The kept tokens among those of all of a prompt's images."""
    if selection is None:
        return []
    firsts = [sum(tokens_per_image[:image]) for image in range(len(tokens_per_image))]
    rows = zip(selection.indices.tolist(), selection.keep_counts, firsts, strict=True)
    return [first + index for row, count, first in rows for index in row[:count]]


@pytest.mark.parametrize("method", rest_is_long(BEFORE_LLM, MECHANISMS))
@torch.no_grad()
def test_masking_dropped_tokens_equals_removing_them(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    model = with_every_option(full, method)
    selector: Any = model.selector
    if selector.merges and stock_levels(model.base, sample_of(inputs, 0)):
        pytest.skip("what is added for a merged token: tests/families/test_qwen_vl.py")
    for row, budget in enumerate([3, 9, 16]):
        sample = sample_of(inputs, row)
        gathered = model.forward(**sample, token_budget=budget, seed=row)
        kept = _flat_indices(gathered.selection, tiny_tokens(model, [row]))
        embeds = gathered.batch.inputs_embeds[0, gathered.layout.vision_slots[0] >= 0]
        assert len(embeds) == len(kept)
        if not selector.merges and Need.BUDGET_TOKEN not in selector.needs:
            torch.testing.assert_close(embeds, stock_features(model.base, sample)[kept], atol=1e-5, rtol=1e-5)
        masked, stays = _masked_logits(model, sample, kept, embeds)
        torch.testing.assert_close(gathered.logits[0], masked[stays], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", INSIDE_LLM)
@torch.no_grad()
def test_masking_tokens_from_a_layer_on_equals_dropping_them_there(
    llava: AdaLlava, llava_inputs: dict[str, Any], method: str
) -> None:
    model = AdaLlava(tiny_base(), llava.processor).with_method(method)
    eager = tiny_base(attn_implementation="eager")
    for row, budget in enumerate([3, 9, 16]):
        sample = sample_of(llava_inputs, row)
        dropped = model.forward(**sample, token_budget=budget)
        masked, stays = MaskedInside(eager, build_selector(method, model.shape), budget).logits(sample)
        assert stays.sum() == dropped.layout.lengths[0]
        torch.testing.assert_close(dropped.logits[0], masked[stays], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", rest_is_long(selector_names(), MECHANISMS))
@torch.no_grad()
def test_forward_and_generate_agree_on_the_next_token(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    model = with_every_option(full, method)
    budgets = [3, 9, 16]
    forward = model.forward(**inputs, token_budget=budgets, seed=4)
    first = model.generate(
        **inputs, token_budget=budgets, seed=4, max_new_tokens=1, output_logits=True
    ).transformers_output.logits[0]
    for row, length in enumerate(forward.layout.lengths):
        torch.testing.assert_close(forward.logits[row, length - 1], first[row], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_loss_is_that_of_the_labelled_tokens_after_what_was_kept(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("random")
    budgets = [3, 9, 16]
    output = model.forward(**inputs, labels=_labels(inputs), token_budget=budgets, seed=2)
    losses = []
    for row in range(3):
        sample = sample_of(inputs, row)
        logits = model.forward(**sample, token_budget=budgets[row], seed=2).logits[0]
        answer = sample["input_ids"][0, -3:]
        losses.append(F.cross_entropy(logits[-4:-1], answer, reduction="none"))
    assert output.loss is not None
    torch.testing.assert_close(output.loss, torch.cat(losses).mean(), atol=1e-4, rtol=1e-4)
    assert output.batch.labels is not None
    assert output.batch.labels.shape == output.logits.shape[:2]


def test_a_selector_cannot_read_the_answer(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("question")
    labels = _labels(inputs)
    chosen = model.forward(**inputs, labels=labels, token_budget=5).selection
    other = inputs["input_ids"].clone()
    other[:, -3:] = 40
    again = model.forward(**{**inputs, "input_ids": other}, labels=labels, token_budget=5).selection
    assert chosen is not None
    assert again is not None
    assert torch.equal(chosen.scores, again.scores)  # type: ignore[arg-type]
    unlabelled = model.forward(**{**inputs, "input_ids": other}, token_budget=5).selection
    assert unlabelled is not None
    assert not torch.equal(unlabelled.scores, chosen.scores)  # type: ignore[arg-type]


def test_gradients_reach_the_projector_through_what_was_kept(full: AdaLlava, inputs: dict[str, Any]) -> None:
    weight = next(weight for weight in projector_of(full.base).parameters() if weight.dim() > 1)
    loss = full.with_method("uniform").forward(**inputs, labels=_labels(inputs), token_budget=4).loss
    assert loss is not None
    (gradient,) = torch.autograd.grad(loss, [weight])
    assert gradient.abs().sum() > 0
