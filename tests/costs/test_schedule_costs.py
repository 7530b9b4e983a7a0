"""What a plan of layers costs: published figures, laws, PyTorch's counter and the cache itself."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from costs_by_hand import LLAVA_1_5_7B
from models import SCHEDULERS, scheduled, six_layers_for, tiny_inputs
from product_counter import ProductCounter
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.budget import Latency
from adallava.costs.counted import count_costs
from adallava.costs.flops import decode_flops, kv_bytes, prefill_flops
from adallava.costs.roofline import HARDWARE, floor_ms, hardware, weight_bytes
from adallava.errors import InputError
from adallava.runs.answer_flops import count_flops, count_kv_bytes

LLM = LLAVA_1_5_7B.llm


def shares(latency: float, groups: int = 1) -> list[Fraction]:
    """The first 16 layers, and as many units behind them as the latency allows."""
    units = Latency.parse(latency).resolve(32, 16, groups)
    whole, rest = divmod(units, groups)
    return ([Fraction(1)] * (16 + whole) + [Fraction(rest, groups)] * (rest > 0) + [Fraction(0)] * 32)[:32]


def tflops(latency: float, length: int | list[int], groups: int = 1) -> float:
    return round(prefill_flops(LLM, length, layer_shares=shares(latency, groups)) / 1e12, 1)


@pytest.mark.parametrize("length", [644, 645, 646])
def test_the_published_tflops_of_adallava_l(length: int) -> None:
    # arXiv 2503.10905, tables 1 and 2, for LLaVA-1.5-7B; no latency token in the first column.
    assert [tflops(latency, length) for latency in (1.0, 0.85, 0.6)] == [8.6, 7.2, 5.1]
    # FastV halves 576 vision tokens behind its second layer.
    fastv = [length] * 2 + [length - 288] * 30
    assert [tflops(latency, fastv) for latency in (1.0, 0.85, 0.6)] == [4.9, 4.2, 3.0]


def test_the_published_tflops_with_prumerge_plus_are_those_of_more_than_a_quarter_of_the_tokens() -> None:
    """3.0, 2.6 and 1.8 TFLOPs at 100, 85 and 60 %: PruMerge+ finds its own number of tokens for each picture.

    A quarter of 576 would be 2.8; the lengths that round to all three figures hold 163 or 164 vision tokens.
    """
    text = 645 - 576
    assert tflops(1.0, text + 144) == 2.8
    published = [3.0, 2.6, 1.8]
    fitting = [kept for kept in range(577) if [tflops(share, text + kept) for share in (1.0, 0.85, 0.6)] == published]
    assert fitting == [163, 164]


def test_groups_of_heads_cost_their_share_of_a_layer() -> None:
    # 65 % of 32 layers are 20 whole ones, or 20 and three quarters.
    whole, quarters = (prefill_flops(LLM, 645, layer_shares=shares(0.65, groups)) for groups in (1, 4))
    layer = prefill_flops(LLM, 645, layer_shares=shares(22 / 32)) - prefill_flops(
        LLM, 645, layer_shares=shares(21 / 32)
    )
    assert quarters - whole == layer * 3 // 4
    half = [Fraction(1, 2)] * 32
    output_layer = 2 * 4096 * 32064
    assert 2 * (prefill_flops(LLM, 645, layer_shares=half) - output_layer) == prefill_flops(LLM, 645) - output_layer
    sixteen = replace(LLM, layers=LLM.layers[:16])
    assert decode_flops(LLM, 645, 9, layer_shares=half) == decode_flops(sixteen, 645, 9)
    # 2 * 4096 values a token and layer, in two bytes.
    assert kv_bytes(LLM, 645, 9, bytes_per_value=2) == 32 * 653 * 2 * 4096 * 2
    assert kv_bytes(LLM, 645, 9, bytes_per_value=2, layer_shares=half) == 16 * 653 * 2 * 4096 * 2
    with pytest.raises(InputError, match="one in \\[0, 1\\] for each of 32 layers"):
        prefill_flops(LLM, 645, layer_shares=half[:-1])


@pytest.fixture(scope="module")
def six_by_kind(full: AdaLlava) -> Iterator[dict[tuple[str, str], AdaLlava]]:
    # The counter does not see the fused kernel of a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        yield {(llm, name): six_layers_for(full, name, llm=llm) for llm, name in KINDS}


KINDS = [*(("llama", name) for name in SCHEDULERS), ("mistral", "layers"), ("mistral", "adallava-heads")]
"""Every scheduler on one kind of LLM; whole layers and parts of them on another."""

ASKED = [("uniform", 3), ("fastv", 5), ("uniform", 4), ("uniform", 1.0)]


def _shows_more(llm: str, name: str, asked: tuple[str, float]) -> bool:
    """Whether no case stands for it: one that leaves parts of layers out runs at every latency, all others at one."""
    return asked == ASKED[0] or (llm, name) == ("llama", "adallava-heads")


CASES = [
    pytest.param(*kind, *asked, marks=[] if _shows_more(*kind, asked) else [pytest.mark.long])
    for kind in KINDS
    for asked in ASKED
]


@pytest.mark.parametrize(("llm", "name", "method", "latency"), CASES)
def test_an_answers_costs_are_what_pytorch_counts_and_the_cache_holds(
    six_by_kind: dict[tuple[str, str], AdaLlava], llm: str, name: str, method: str, latency: Any
) -> None:
    six = six_by_kind[llm, name]
    model = scheduled(six, name).with_method(method)
    inputs = tiny_inputs(six.processor, ["is the colour red or blue?"])
    with ProductCounter() as counter:
        output = model.generate(
            **inputs, token_budget=5, latency=latency, max_new_tokens=4, do_sample=False, return_dict_in_generate=True
        )
    shape = count_costs(six.base.config)
    (record,), (length,) = output.records, output.answer_lengths
    flops = count_flops(model, shape, record, "is the colour red or blue?", length)
    assert sum(flops.values()) == counter.flops
    held = sum(
        layer.keys.nbytes + layer.values.nbytes
        for layer in output.transformers_output.past_key_values.layers
        if layer.is_initialized
    )
    assert count_kv_bytes(model, shape, record, length) == held


def test_the_floor_is_the_larger_of_computing_and_moving() -> None:
    machine = hardware("h200-sxm")
    assert floor_ms(machine, int(989.4e12), 1, dtype="bfloat16") == pytest.approx(1000.0)
    assert floor_ms(machine, 1, int(4.8e12), dtype="bfloat16") == pytest.approx(1000.0)
    # 6 476 005 376 weights in the layers' matrices and 4096 x 32064 in the output layer.
    assert weight_bytes(LLM, bytes_per_value=2) == 2 * (6_476_005_376 + 4096 * 32064)
    half = [Fraction(1)] * 16 + [Fraction(0)] * 16
    assert weight_bytes(LLM, bytes_per_value=2, layer_shares=half) == 6_476_005_376 + 2 * 4096 * 32064
    # Prefill of 645 tokens is bound by products, one decoded token by reading weights: of half the layers, half.
    weights = weight_bytes(LLM, bytes_per_value=2)
    prefill = prefill_flops(LLM, 645)
    assert floor_ms(machine, prefill, weights, dtype="float16") == pytest.approx(1000 * prefill / 989.4e12)
    decode = decode_flops(LLM, 645, 2)
    assert floor_ms(machine, decode, weights, dtype="float16") == pytest.approx(1000 * weights / 4.8e12)
    assert 0.5 < weight_bytes(LLM, bytes_per_value=2, layer_shares=half) / weights < 0.52
    with pytest.raises(InputError, match="the peak speed of hardware 'h300' is not known"):
        hardware("h300")
    assert all(machine.source for machine in HARDWARE.values())
