"""The FLOPs of an answer's parts: against sums done by hand, against published figures, and their laws."""

import math
from dataclasses import replace
from typing import Any

import pytest
from costs_by_hand import LLAVA_1_5_7B, llava_by_hand, llm_by_hand, tower_by_hand
from hypothesis import given
from hypothesis import strategies as st

from adallava.costs.flops import (
    answer_flops,
    asked_attention_flops,
    decode_flops,
    prefill_flops,
    projector_flops,
    vision_flops,
)
from adallava.errors import InputError
from adallava.records import PART_NAMES

SMALL = llava_by_hand(
    tower_by_hand(num_patches=4, patch_size=2, width=4, layers=2, mlp_width=8),
    llm_by_hand(width=6, layers=1, query_width=8, kv_width=4, mlp_width=10, vocab_size=11),
)
"""Four patches; the LLM's queries are 8 wide, its keys and values 4."""


def small_answer(**changes: Any) -> dict[str, int]:
    counts = {
        "num_images": 1,
        "num_vision_tokens": 4,
        "tokens_kept_per_image": 3,
        "prompt_length": 5,
        "answer_length": 3,
        "selector_flops": 7,
    }
    return answer_flops(SMALL, **{**counts, **changes})


def test_the_tower_by_hand() -> None:
    convolution = 2 * 4 * 12 * 4  # four patches of 2 x 2 x 3 values, to 4 features
    query_key_value_output = 4 * (2 * 5 * 4 * 4)  # four patches and the class token
    scores_and_values = (2 * 5 * 5 * 4) + (2 * 5 * 5 * 4)
    mlp = (2 * 5 * 4 * 8) + (2 * 5 * 8 * 4)
    assert vision_flops(SMALL.vision) == convolution + 2 * (query_key_value_output + scores_and_values + mlp) == 3744


def test_the_projector_by_hand() -> None:
    assert projector_flops(SMALL, 3) == (2 * 3 * 4 * 6) + (2 * 3 * 6 * 6) == 360


def test_prefill_by_hand() -> None:
    query_and_output = (2 * 5 * 6 * 8) + (2 * 5 * 8 * 6)
    key_and_value = (2 * 5 * 6 * 4) + (2 * 5 * 6 * 4)
    scores_and_values = (2 * 5 * 5 * 8) + (2 * 5 * 5 * 8)
    gate_up_down = 3 * (2 * 5 * 6 * 10)
    logits = 2 * 6 * 11
    layer = query_and_output + key_and_value + scores_and_values + gate_up_down
    assert prefill_flops(SMALL.llm, 5) == layer + logits == 4172
    assert prefill_flops(SMALL.llm, 5, logits_for=5) == layer + 5 * logits


def test_decoding_by_hand() -> None:
    step_without_attention = (2 * 6 * 8) + 2 * (2 * 6 * 4) + (2 * 8 * 6) + 3 * (2 * 6 * 10) + (2 * 6 * 11)
    attention = (2 * 2 * 6 * 8) + (2 * 2 * 7 * 8)  # six keys, then seven
    assert decode_flops(SMALL.llm, 5, 3) == 2 * step_without_attention + attention == 1976


def test_the_first_token_needs_no_decoding_step() -> None:
    assert decode_flops(SMALL.llm, 5, 1) == 0
    assert decode_flops(SMALL.llm, 5, 0) == 0


def test_an_answer_has_the_parts_of_the_records_in_order() -> None:
    flops = small_answer()
    assert tuple(flops) == PART_NAMES
    assert flops == {"vision": 3744, "selector": 7, "projector": 360, "prefill": 4172, "decode": 1976}


def test_no_token_kept_costs_neither_tower_nor_projector() -> None:
    flops = small_answer(tokens_kept_per_image=0, prompt_length=2)
    assert (flops["vision"], flops["projector"]) == (0, 0)
    assert flops["prefill"] == prefill_flops(SMALL.llm, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_vision_tokens": 5}, r"num_vision_tokens is 5, but 1 image\(s\) of 4 patches make 4"),
        ({"num_images": 2}, r"num_vision_tokens is 4, but 2 image"),
        ({"tokens_kept_per_image": 5, "prompt_length": 9}, r"tokens_kept_per_image is 5.*only 4"),
        ({"tokens_kept_per_image": -1}, r"tokens_kept_per_image is -1"),
        ({"prompt_length": 2}, r"prompt_length is 2, less than the 3 vision tokens that are in it"),
        ({"prompt_length": 0, "tokens_kept_per_image": 0}, r"sequence_length is 0"),
        ({"answer_length": -1}, r"new_tokens is -1"),
        ({"selector_flops": -1}, r"selector_flops is -1"),
        ({"num_images": -1, "num_vision_tokens": -4}, r"num_images is -1"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_answer(**changes)


@pytest.mark.parametrize("logits_for", [0, 6])
def test_logits_are_for_positions_of_the_prompt(logits_for: int) -> None:
    with pytest.raises(InputError, match="logits_for"):
        prefill_flops(SMALL.llm, 5, logits_for=logits_for)


# Published figures: AdaLLaVA (arXiv 2503.10905) gives LLaVA-1.5-7B 8.6 TFLOPs of prefill; see docs/concepts/costs.md.


def llm_viewer_prefill_flops(sequence_length: int) -> int:
    """The accounting behind AdaLLaVA's figures: our terms, element-wise ones, and 1 FLOP per logit weight."""
    width, mlp_width, heads, layers, vocab = 4096, 11008, 32, 32, 32000
    products = 2 * sequence_length * (4 * width * width + 3 * width * mlp_width)
    attention = 4 * sequence_length**2 * width
    softmax = 5 * heads * sequence_length**2
    norms_sums_activation = (2 * 7 + 2 + 2) * width * sequence_length
    return layers * (products + attention + softmax + norms_sums_activation) + width * vocab


def prompts_of(tflops: float) -> list[int]:
    return [length for length in range(1, 1000) if round(prefill_flops(LLAVA_1_5_7B.llm, length) / 1e12, 1) == tflops]


def test_llava_1_5_7b_prefill_is_the_published_8_6_tflops_at_68_to_74_text_tokens() -> None:
    lengths = prompts_of(8.6)
    assert (lengths[0] - 576, lengths[-1] - 576) == (68, 74)
    # The published accounting reaches 8.6 at the very same lengths.
    assert [length for length in range(600, 700) if round(llm_viewer_prefill_flops(length) / 1e12, 1) == 8.6] == lengths


@pytest.mark.parametrize("sequence_length", [644, 645, 646])
def test_one_prompt_length_gives_the_other_published_figures(sequence_length: int) -> None:
    def tflops(layers: int, length: int) -> float:
        return prefill_flops(replace(LLAVA_1_5_7B.llm, layers=LLAVA_1_5_7B.llm.layers[:layers]), length) / 1e12

    assert round(tflops(32, sequence_length), 1) == 8.6
    assert round(tflops(27, sequence_length), 1) == 7.2  # AdaLLaVA-L at 85 % of 32 layers
    assert round(tflops(19, sequence_length), 1) == 5.1  # at 60 %
    # FastV: two layers in full, thirty with half of the 576 vision tokens, one output layer.
    output_layer = 2 * 4096 * 32064 / 1e12
    by_hand = tflops(2, sequence_length) + tflops(30, sequence_length - 288) - output_layer
    lengths = [sequence_length] * 2 + [sequence_length - 288] * 30
    fastv = prefill_flops(LLAVA_1_5_7B.llm, lengths) / 1e12
    assert fastv == pytest.approx(by_hand, rel=1e-12)
    assert round(fastv, 1) == 4.9
    # The row of attention that ranks, which the published figure leaves out, is computed beside SDPA: its keys anew.
    assert asked_attention_flops(LLAVA_1_5_7B.llm, sequence_length, 1) / 1e12 < 0.005 * fastv


def test_a_length_for_each_layer_is_the_sum_of_the_layers() -> None:
    llm = LLAVA_1_5_7B.llm
    assert prefill_flops(llm, [100] * 32) == prefill_flops(llm, 100)
    assert decode_flops(llm, [100] * 32, 5) == decode_flops(llm, 100, 5)
    # Ten tokens fewer in one layer, at four steps: forty pairs of a query and a key fewer.
    assert decode_flops(llm, [100] * 32, 5) - decode_flops(llm, [90] + [100] * 31, 5) == 40 * 4 * 4096
    with pytest.raises(InputError, match="31 lengths for an LLM of 32 layers"):
        prefill_flops(llm, [100] * 31)


def test_the_published_accounting_differs_by_less_than_a_thousandth() -> None:
    for length in (64, 208, 640, 2048):
        assert math.isclose(prefill_flops(LLAVA_1_5_7B.llm, length), llm_viewer_prefill_flops(length), rel_tol=1.5e-3)


def test_64_text_tokens_round_to_8_5_tflops() -> None:
    # Vicuna-7B has 6 476 005 376 weights in its layers' matrices.
    products, attention, logits = 2 * 640 * 6_476_005_376, 32 * 4 * 640**2 * 4096, 2 * 4096 * 32064
    assert prefill_flops(LLAVA_1_5_7B.llm, 576 + 64) == products + attention + logits == 8_504_297_914_368


# Laws.

KEPT = st.integers(1, 576)
TEXT = st.integers(1, 400)
ANSWER = st.integers(0, 64)


def answer_at(tokens_kept: int, num_text_tokens: int, answer_length: int) -> dict[str, int]:
    return answer_flops(
        LLAVA_1_5_7B,
        num_images=1,
        num_vision_tokens=576,
        tokens_kept_per_image=tokens_kept,
        prompt_length=tokens_kept + num_text_tokens,
        answer_length=answer_length,
        selector_flops=0,
    )


@given(KEPT, KEPT, TEXT, st.integers(2, 64))
def test_more_tokens_kept_cost_more_everywhere_but_in_the_tower(a: int, b: int, text: int, answer: int) -> None:
    fewer, more = answer_at(min(a, b), text, answer), answer_at(max(a, b), text, answer)
    assert fewer["vision"] == more["vision"]
    for part in ("projector", "prefill", "decode"):
        assert (fewer[part] < more[part]) == (a != b)


@given(KEPT, KEPT)
def test_projector_and_tower_are_additive_over_a_batch(a: int, b: int) -> None:
    model, vision = LLAVA_1_5_7B, LLAVA_1_5_7B.vision
    assert projector_flops(model, a + b) == projector_flops(model, a) + projector_flops(model, b)
    both = vision_flops(vision, num_images=a) + vision_flops(vision, num_images=b)
    assert vision_flops(vision, num_images=a + b) == both


@given(TEXT, st.integers(1, 64), st.integers(1, 64))
def test_decoding_in_two_stretches_costs_what_one_does(prompt: int, first: int, second: int) -> None:
    llm = LLAVA_1_5_7B.llm
    # The second stretch starts with everything before its first token in the cache.
    halves = decode_flops(llm, prompt, first) + decode_flops(llm, prompt + first - 1, second)
    assert decode_flops(llm, prompt, first + second - 1) == halves


@given(TEXT, ANSWER)
def test_a_cache_never_costs_more_than_passing_the_whole_sequence(prompt: int, answer: int) -> None:
    llm = LLAVA_1_5_7B.llm
    steps = max(0, answer - 1)
    whole = prefill_flops(llm, prompt + steps, logits_for=1 + steps)
    assert prefill_flops(llm, prompt) + decode_flops(llm, prompt, answer) <= whole
