"""Floors by hand, on a model of literal sizes."""

from dataclasses import replace

import pytest

from adallava.bench.floors import Row, floors_of
from adallava.costs.parts import LayerCosts, LLMCosts, ModelCosts, TowerCosts
from adallava.costs.roofline import Hardware

LAYER = LayerCosts(per_token=2000, per_pair=40, cache_values=20)
COSTS = ModelCosts(
    vision=TowerCosts(num_vision_tokens=4, extra_tokens=1, width=10, per_patch=100, per_token=500, per_pair=10),
    projector_per_token=200,
    llm=LLMCosts(width=10, layers=(LAYER, LAYER), per_logits=600),
)
SLOW_PRODUCTS = Hardware({"float16": 1e6}, 1e12, (), "")
SLOW_MEMORY = Hardware({"float16": 1e15}, 1e6, (), "")
ROW = Row(tokens_projected=2, lengths=(5, 5), towers=(COSTS.vision,))


def floors(machine, rows, new_tokens=4):
    return floors_of(machine, COSTS, rows, new_tokens, dtype="float16", value_bytes=2)


def test_where_products_are_slow_a_floor_is_the_flops_of_all_rows():
    # A FLOP takes 1e-3 ms. Tower: 4 patches of 100, 5 tokens of 500, 25 pairs of 10. Projector: 2 tokens of 200.
    # Prefill: 2 layers of 5 * 2000 + 25 * 40, and the output of one token.
    made = floors(SLOW_PRODUCTS, [ROW])
    assert made["vision"] == pytest.approx(3.150)
    assert made["projector"] == pytest.approx(0.400)
    assert made["prefill"] == pytest.approx(22.600)
    assert made["time_to_first_token"] == pytest.approx(26.150)
    # Three steps with 6, 7 and 8 keys: 2 layers of 2000 + 40 * 7 on average, and the output.
    assert made["decode_per_token"] == pytest.approx(5.160)
    assert made["total"] == pytest.approx(26.150 + 3 * 5.160)
    assert floors(SLOW_PRODUCTS, [ROW, ROW])["time_to_first_token"] == pytest.approx(2 * 26.150)


def test_where_memory_is_slow_weights_are_read_once_a_batch_and_the_cache_for_each_row():
    # A byte takes 1e-3 ms. Two FLOPs a weight: 1000 in a layer, 300 in the output and the tower, 100 in the
    # projector.
    one, two = floors(SLOW_MEMORY, [ROW]), floors(SLOW_MEMORY, [ROW, ROW])
    assert (one["vision"], one["projector"]) == (pytest.approx(2 * 0.300), pytest.approx(2 * 0.100))
    weights, cache = 2 * (2 * 1000 + 300), 2 * 2 * 20 * 5
    assert one["prefill"] == pytest.approx((weights + cache) / 1000)
    assert two["prefill"] == pytest.approx((weights + 2 * cache) / 1000)
    # At the middle step the cache holds two tokens more.
    assert one["decode_per_token"] == pytest.approx((weights + 2 * 2 * 20 * 7) / 1000)


def test_quantized_layers_are_read_in_a_byte_a_weight_and_multiplied_at_their_own_rate():
    machine = Hardware({"float16": 1e6, "fp8": 2e6}, 1e6, (), "")
    made = floors_of(machine, COSTS, [ROW], 4, dtype="float16", value_bytes=2, llm_dtype="fp8", layer_value_bytes=1)
    # 22.6 ms of FLOPs above, at twice the rate; the output of 300 weights keeps its two bytes, as the cache does.
    assert made["prefill"] == pytest.approx(11.300)
    assert made["vision"] == pytest.approx(3.150)
    slow = Hardware({"float16": 1e15, "fp8": 1e15}, 1e6, (), "")
    made = floors_of(slow, COSTS, [ROW], 4, dtype="float16", value_bytes=2, llm_dtype="fp8", layer_value_bytes=1)
    assert made["prefill"] == pytest.approx((2 * 1000 + 2 * 300 + 2 * 2 * 20 * 5) / 1000)


def test_a_layer_is_read_where_any_row_runs_it_and_computed_where_its_own_does():
    first = replace(ROW, groups_run=(frozenset({0}), frozenset()))
    second = replace(ROW, groups_run=(frozenset(), frozenset({0})))
    weights, cache = 2 * (1000 + 300), 2 * 20 * 5
    assert floors(SLOW_MEMORY, [first])["prefill"] == pytest.approx((weights + cache) / 1000)
    assert floors(SLOW_MEMORY, [first, first])["prefill"] == pytest.approx((weights + 2 * cache) / 1000)
    assert floors(SLOW_MEMORY, [first, second])["prefill"] == pytest.approx((weights + 2000 + 2 * cache) / 1000)
    # Half of the FLOPs of the layers for each row.
    assert floors(SLOW_PRODUCTS, [first, second])["prefill"] == pytest.approx(2 * (11.0 + 0.6))


def test_without_vision_tokens_no_tower_is_paid_for():
    made = floors(SLOW_PRODUCTS, [Row(tokens_projected=0, lengths=(3, 3))])
    assert (made["vision"], made["projector"], made["time_to_first_token"]) == (0.0, 0.0, made["prefill"])
