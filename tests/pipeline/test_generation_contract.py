"""What every method promises in generation, crossed over all that are registered."""

from typing import Any

import pytest
import torch
from models import (
    BEFORE_LLM,
    INSIDE_LLM,
    MECHANISMS,
    in_other_order,
    sample_of,
    tiny_grids,
    tiny_inputs,
    tiny_tokens,
    with_every_option,
)
from stock_reference import adding, counted_anew, greedy, kept_rows, pruned_prompt
from torch.nn import functional as F

from adallava import AdaLlava
from adallava.pipeline.allocate import share_over_images
from adallava.registry import selector_names
from adallava.selection.grid_cells import grid_cells
from adallava.selection.selector_contract import OwnCountMethod, RoundingMethod, SelectionInput, TowerLayer

# The full budget first: an order that is not its own inverse when a method treats such images apart.
BUDGETS = [1.0, 0.25, 5]
SEEDS = [11, 12, 13]
NEW = 3
"""One token of the prompt, one of a cache that holds it, one of a cache that holds an answer."""


@pytest.fixture(params=MECHANISMS)
def model(request: pytest.FixtureRequest, full: AdaLlava) -> AdaLlava:
    """A model for each way in which tokens reach the LLM."""
    return with_every_option(full, request.param)


@pytest.fixture(params=selector_names())
def any_model(request: pytest.FixtureRequest, full: AdaLlava) -> AdaLlava:
    """A model for each method, for what depends on the choice itself."""
    return with_every_option(full, request.param)


def _planned(model: AdaLlava, asked: int, pictures: list[int]) -> list[int] | None:
    """K that each image keeps where so many were asked for; None for a method that finds it for itself."""
    selector, grids = model.selector, tiny_grids(model, pictures)
    if isinstance(selector, OwnCountMethod):
        return None
    if model.method == "none":
        return [0] * len(grids)
    shares = share_over_images(asked, tiny_tokens(model, pictures))
    if isinstance(selector, RoundingMethod):
        return [selector.keep_count(share, grid) for share, grid in zip(shares, grids, strict=True)]
    return list(shares)


def _logits(output: Any) -> torch.Tensor:
    return torch.stack(output.transformers_output.logits, dim=1)


def test_exactly_k_tokens_reach_the_llm(any_model: AdaLlava, inputs: dict[str, Any]) -> None:
    model = any_model
    output = model.generate(**inputs, token_budget=BUDGETS, seed=SEEDS, max_new_tokens=1)
    text = (inputs["input_ids"] != model.base.config.image_token_id) & inputs["attention_mask"].bool()
    for row, record in enumerate(output.records):
        assert record.method == model.method
        tokens = tiny_tokens(model, [row])
        total = sum(tokens)
        asked = [total, total // 4, 5][row]
        by_image = _planned(model, asked, [row])
        if by_image is None:
            by_image = [len(indices) for indices in record.kept_indices]
            assert all(1 <= count <= size for count, size in zip(by_image, tokens, strict=True))
        kept = sum(by_image)
        assert (record.num_vision_tokens, list(record.grids)) == (total, tiny_grids(model, [row]))
        assert record.tokens_asked == (kept if model.selector.ignores_budget else asked)  # type: ignore[union-attr]
        # A method inside the LLM begins with all of them.
        entered = total if model.method in INSIDE_LLM else kept
        assert (record.tokens_planned, record.tokens_kept, record.tokens_at_end) == (kept, entered, kept)
        assert [len(indices) for indices in record.kept_indices] == by_image
        for indices, size in zip(record.kept_indices, tokens, strict=True):
            assert list(indices) == sorted(set(indices))
            assert all(0 <= index < size for index in indices)
        placeholders = (output.sequences[row, : output.prompt_length] == model.base.config.image_token_id).sum()
        assert placeholders == entered
        assert record.prompt_length == output.prompt_lengths[row] == text[row].sum() + entered


def test_a_mixed_batch_gives_each_sample_what_it_gives_alone(model: AdaLlava, inputs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    together = model.generate(**inputs, token_budget=BUDGETS, seed=SEEDS, **options)
    for row in range(3):
        alone = model.generate(**sample_of(inputs, row), token_budget=BUDGETS[row], seed=SEEDS[row], **options)
        assert alone.records[0].kept_indices == together.records[row].kept_indices
        assert alone.answer_ids[0] == together.answer_ids[row]
        steps = alone.answer_lengths[0]
        torch.testing.assert_close(_logits(alone)[0], _logits(together)[row, :steps], atol=1e-4, rtol=1e-4)


def test_the_order_of_a_batch_does_not_matter(model: AdaLlava, inputs: dict[str, Any]) -> None:
    backward = in_other_order(inputs)
    one = model.generate(**inputs, token_budget=BUDGETS, seed=SEEDS, max_new_tokens=NEW)
    other = model.generate(**backward, token_budget=BUDGETS[::-1], seed=SEEDS[::-1], max_new_tokens=NEW)
    assert one.answer_ids == other.answer_ids[::-1]
    assert [r.kept_indices for r in one.records] == [r.kept_indices for r in other.records][::-1]


@pytest.mark.newest
def test_full_budget_is_the_stock_model_to_the_bit(model: AdaLlava, inputs: dict[str, Any]) -> None:
    if model.selector.ignores_budget:  # type: ignore[union-attr]
        pytest.skip("no full budget")
    stock = model.base.generate(
        **inputs, max_new_tokens=NEW, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    ours = model.generate(**inputs, token_budget=1.0, max_new_tokens=NEW, do_sample=False, output_logits=True)
    assert torch.equal(ours.sequences, stock.sequences)
    assert torch.equal(_logits(ours), torch.stack(stock.logits, dim=1))


def _tower_features(model: AdaLlava, sample: dict[str, Any], kept: tuple[int, ...]) -> torch.Tensor | None:
    """The features that the reference starts from, for methods that change them."""
    if not model.family.name.startswith("llava"):
        return None
    tower = model.base.model.vision_tower
    tower = getattr(tower, "vision_model", tower)
    if model.method == "pool":
        patches = tower(sample["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
        for cell, stands_for in zip(grid_cells((4, 4), len(kept)), kept, strict=True):
            patches[0, stands_for] = patches[0, cell.members(4)].mean(dim=0)
        return patches
    if model.method == "budget-token":
        token = model.selector.budget_token(torch.tensor([len(kept) / 16]))  # type: ignore[union-attr]
        hook = tower.embeddings.register_forward_hook(lambda _, __, out: torch.cat([out, token[:, None]], dim=1))
        states = tower(sample["pixel_values"], output_hidden_states=True).hidden_states
        hook.remove()
        return states[-2][:, 1:-1]
    if model.method == "downsample":
        side = int(len(kept) ** 0.5)
        smaller = F.interpolate(sample["pixel_values"], size=(7 * side, 7 * side), mode="bicubic", antialias=True)
        states = tower(smaller, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
        return torch.zeros(1, 16, 32).index_copy(1, torch.tensor(kept), states[-2][:, 1:])
    if model.selector.merges:  # type: ignore[union-attr]
        inputs = _stock_tower_inputs(tower, sample["pixel_values"], len(kept))
        merged = model.selector.select(inputs).apply(inputs.features)  # type: ignore[union-attr]
        return torch.zeros(1, 16, 32).index_copy(1, torch.tensor(kept), merged)
    return None


def _stock_tower_inputs(tower: Any, pixel_values: torch.Tensor, keep_count: int) -> SelectionInput:
    """What a selector reads of the tower's layers, caught from the projections of the stock tower as it runs.

    Two layers, features of layer -2: the first layer puts them out.
    """
    caught: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(layer.self_attn, name).register_forward_hook(
            lambda _, __, out, key=f"{name}{index}": caught.__setitem__(key, out)
        )
        for index, layer in enumerate(tower.encoder.layers)
        for name in ("q_proj", "k_proj")
    ]
    features = tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]
    for hook in hooks:
        hook.remove()
    first, last = (TowerLayer(caught[f"k_proj{index}"], caught[f"q_proj{index}"][:, 0], 2) for index in (0, 1))
    return SelectionInput(
        features=features,
        grid=(4, 4),
        keep_counts=(keep_count,),
        budget_ratios=torch.tensor([keep_count / 16]),
        seeds=torch.zeros(1, dtype=torch.int64),
        question_embeds=torch.zeros(1, 1, 48),
        question_mask=torch.ones(1, 1, dtype=torch.bool),
        feature_layer=first,
        last_layer=last,
    )


@pytest.mark.parametrize(
    ("method", "positions"),
    [
        (name, kind)
        for name in BEFORE_LLM
        for kind in ("original", "compact")
        if kind == "original" or name in MECHANISMS
    ],
)
@torch.no_grad()
def test_fewer_tokens_are_the_stock_model_with_the_others_taken_out(
    full: AdaLlava, inputs: dict[str, Any], method: str, positions: Any
) -> None:
    model = with_every_option(full, method)
    tokens = tiny_tokens(model, [1])
    if model.family.name != "llava" and model.selector.merges:  # type: ignore[union-attr]
        pytest.skip("what a merged token of tiles, or of several patches, is: the family's own tests")
    sample = sample_of(inputs, 1)
    output = model.generate(
        **sample,
        token_budget=5,
        positions=positions,
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
    )
    kept = output.records[0].kept_indices
    features = _tower_features(model, sample, kept[0])
    embeds, original = pruned_prompt(model.base, sample, kept, tokens, features)
    counted = counted_anew(model.base, sample, kept, tiny_grids(model, [1]))
    (ids,) = sample["input_ids"]
    first = int((ids == model.base.config.image_token_id).nonzero()[0])
    # The pictures of the prompt stand side by side.
    places = first + torch.arange(sum(map(len, kept)))
    with adding(model.base, kept_rows(model.base, sample, kept, tokens), places):
        tokens, logits = greedy(model.base, embeds, original if positions == "original" else counted, NEW)
    assert output.answer_ids[0] == tokens
    torch.testing.assert_close(_logits(output)[0], logits, atol=1e-4, rtol=1e-4)


def test_several_images_in_a_prompt(model: AdaLlava) -> None:
    batch = tiny_inputs(model.processor, ["which?", "and these, which?"], images_each=2)
    output = model.generate(**batch, token_budget=[7, 1], max_new_tokens=NEW, do_sample=False)
    if not model.selector.ignores_budget:  # type: ignore[union-attr]
        expected = [_planned(model, 7, [0, 1]), _planned(model, 1, [2, 3])]
        assert [[len(i) for i in record.kept_indices] for record in output.records] == expected
    totals = [sum(tiny_tokens(model, pictures)) for pictures in ([0, 1], [2, 3])]
    assert [record.num_vision_tokens for record in output.records] == totals
    for row, budget in enumerate([7, 1]):
        sample = sample_of(batch, row, images_each=2)
        alone = model.generate(**sample, token_budget=budget, max_new_tokens=NEW, do_sample=False)
        assert alone.answer_ids[0] == output.answer_ids[row]


def test_select_names_the_same_tokens_as_generate(model: AdaLlava, inputs: dict[str, Any]) -> None:
    selections = model.select(**inputs, token_budget=BUDGETS, seed=SEEDS)
    records = model.generate(**inputs, token_budget=BUDGETS, seed=SEEDS, max_new_tokens=1).records
    assert [s.kept_indices for s in selections] == [r.kept_indices for r in records]
    assert [s.prompt_length for s in selections] == [r.prompt_length for r in records]
    assert [s.score_range for s in selections] == [r.score_range for r in records]


def test_generate_leaves_nothing_behind_on_the_base(model: AdaLlava, inputs: dict[str, Any]) -> None:
    def state() -> list[tuple[str, set[str]]]:
        return [(name, set(vars(module))) for name, module in model.base.named_modules()]

    model.generate(**inputs, max_new_tokens=1)
    before = state()
    model.generate(**inputs, token_budget=3, max_new_tokens=1)
    assert state() == before
