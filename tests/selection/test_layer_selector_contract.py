"""What every method inside the LLM promises, crossed over all that are registered."""

import pytest
import torch
from drop_inputs import drop_input, prompt_input, row_of
from hypothesis import given, settings
from hypothesis import strategies as st
from models import INSIDE_LLM
from torch.utils.flop_counter import FlopCounterMode

from adallava.errors import UnsupportedModeError
from adallava.selection import build_selector
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import TowerShape

N = 24
SHAPE = TowerShape(num_vision_tokens=N, vision_width=32, llm_width=40, grid=(4, 6))


@pytest.fixture(params=INSIDE_LLM)
def selector(request: pytest.FixtureRequest) -> LayerSelector:
    made = build_selector(request.param, SHAPE)
    assert isinstance(made, LayerSelector)
    return made


@pytest.mark.parametrize("num_layers", [4, 5, 6, 8, 13, 32, 40])
@pytest.mark.parametrize("num_tokens", [16, 576])
def test_a_schedule_falls_to_k_at_layers_that_depend_on_the_depth_alone(
    selector: LayerSelector, num_layers: int, num_tokens: int
) -> None:
    places = set()
    for keep_count in range(num_tokens + 1):
        drops = selector.schedule(num_layers, num_tokens, keep_count)
        counts = [num_tokens, *(drop.keep_count for drop in drops)]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == keep_count
        places.add(tuple((drop.layer, drop.scored_by) for drop in drops))
    assert len(places) == 1
    (where,) = places
    layers = [layer for layer, _ in where]
    assert layers == sorted(set(layers))
    assert all(1 <= layer < num_layers and scored_by in (layer - 1, layer) for layer, scored_by in where)


def test_at_full_budget_a_schedule_drops_nothing(selector: LayerSelector) -> None:
    assert {drop.keep_count for drop in selector.schedule(32, 576, 576)} == {576}


def test_an_llm_with_too_few_layers_is_refused(selector: LayerSelector) -> None:
    with pytest.raises(UnsupportedModeError, match=f"{selector.name}.* has 1"):
        selector.schedule(1, N, 5)


def test_raters_weigh_one_in_all_and_are_real_text_whatever_the_padding(selector: LayerSelector) -> None:
    together = prompt_input(N, [7, 1, 4])
    raters = selector.raters(together)
    assert raters.rows.shape == raters.weights.shape == (3, selector.num_raters(7))
    torch.testing.assert_close(raters.weights.sum(dim=1), torch.ones(3))
    assert together.text_mask.gather(1, raters.rows)[raters.weights > 0].all()
    for row, num_text in enumerate([7, 1, 4]):
        part = slice(row, row + 1)
        alone = selector.raters(
            type(together)(
                together.vision_embeds[part],
                together.text_embeds[part, :num_text],
                together.text_mask[part, :num_text],
                together.token_counts[part],
            )
        )
        used = raters.weights[row] > 0
        assert raters.rows[row, used].tolist() == alone.rows[0, alone.weights[0] > 0].tolist()
        torch.testing.assert_close(raters.weights[row, used], alone.weights[0, alone.weights[0] > 0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 90)), min_size=1, max_size=4), st.integers(0, 99))
def _check_choice(selector: LayerSelector, sizes: list[tuple[int, int]], seed: int) -> None:
    token_counts, keep_counts = [n for n, _ in sizes], [min(k, n) for n, k in sizes]
    inputs = drop_input(token_counts, keep_counts, seed=seed)
    selection = selector.choose(inputs)
    assert selection.keep_counts == tuple(keep_counts)
    assert selection.indices.shape == (len(sizes), max(keep_counts))
    left = selection.apply(inputs.hidden)
    for row, (before, count) in enumerate(zip(token_counts, keep_counts, strict=True)):
        kept = selection.indices[row, :count].tolist()
        assert kept == sorted(set(kept))
        assert all(0 <= index < before for index in kept)
        alone = selector.choose(row_of(inputs, row))
        assert alone.indices[0].tolist() == kept
        torch.testing.assert_close(alone.apply(row_of(inputs, row).hidden)[0], left[row, :count])
        if before == count:
            assert torch.equal(left[row, :count], inputs.hidden[row, :count])
        if count:
            # A mean of tokens lies among them: nothing comes from behind the image's own tokens.
            assert left[row, :count].max() <= inputs.hidden[row, :before].max() + 1e-5


def test_exactly_k_of_the_tokens_that_are_there_are_kept_in_order_alike_in_any_batch(selector: LayerSelector) -> None:
    _check_choice(selector)


@pytest.mark.parametrize("keep_count", [2, 9, N])
@pytest.mark.parametrize("rows", [1, 3])
def test_flops_are_what_pytorch_counts(selector: LayerSelector, keep_count: int, rows: int) -> None:
    drops = selector.schedule(8, N, keep_count)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if keep_count < N:
            selector.raters(prompt_input(N, [7] * rows, width=SHAPE.llm_width))
        before = N
        for drop in drops:
            inputs = drop_input([before] * rows, [drop.keep_count] * rows, width=SHAPE.llm_width)
            selector.choose(inputs).apply(inputs.hidden)
            before = drop.keep_count
    assert selector.flops(SHAPE, 7, drops) == pytest.approx(counter.get_total_flops() / rows, rel=0.01)
