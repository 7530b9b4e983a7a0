"""Every engine gives the tokens of the stock one: here the passes of the graphs run without graphs, in float32."""

import copy
import threading
from typing import Any

import pytest
import torch
from models import scheduled, tiny_base

from adallava import AdaLlava
from adallava.pipeline.result import AdaLlavaOutput
from adallava.records import WhatRan

SIX_TOKENS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": [], "do_sample": False}
MECHANISMS = ("uniform", "tome", "prumerge", "pool", "downsample", "budget-token", "question", "divprune", "none")
"""A gather, a merge, an own count, a rounding, a smaller picture, a budget token, words, steps, and nothing at all."""
ONE_OF_EACH = ("first", "layers", "adallava-layers", "heads")
"""A plan made on the host, one from a token that observes, one from a token of its own, and one of parts of layers."""


def but_engines(output: AdaLlavaOutput) -> list[WhatRan]:
    return [record.model_copy(update={"engine": None, "passed_over": ""}) for record in output.records]


def same(one: AdaLlavaOutput, other: AdaLlavaOutput) -> None:
    assert one.sequences.tolist() == other.sequences.tolist()
    assert one.answer_ids == other.answer_ids
    assert one.finish_reasons == other.finish_reasons
    assert but_engines(one) == but_engines(other)
    assert one.num_steps == other.num_steps


@pytest.mark.parametrize("method", MECHANISMS)
def test_a_mixed_batch_has_stock_tokens(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    stock = full.with_method(method)
    ours = stock.with_engine("eager")
    for positions in ("original", "compact"):
        asked = {"token_budget": [0.25, 0.5, 1.0], "positions": positions, **SIX_TOKENS}
        got = ours.generate(**inputs, **asked)
        assert (got.engine, got.passed_over) == ("eager", "")
        same(got, stock.generate(**inputs, **asked))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_plan_for_each_row_has_stock_tokens(six: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    stock = scheduled(six, name).with_method("uniform").with_engine("stock")
    ours = stock.with_engine("eager")
    for latency in (1.0, 4 / 6, [4 / 6, 1.0, 5 / 6]):
        asked = {"token_budget": 0.5, "latency": latency, "seed": [0, 1, 2], **SIX_TOKENS}
        got = ours.generate(**inputs, **asked)
        assert got.engine == "eager"
        same(got, stock.generate(**inputs, **asked))


@pytest.mark.parametrize(("llm", "options"), [("qwen2", {}), ("qwen3", {"head_dim": 16})])
def test_another_llm_has_stock_tokens(
    full: AdaLlava, inputs: dict[str, Any], llm: str, options: dict[str, Any]
) -> None:
    base = tiny_base(llm=llm, num_hidden_layers=6, **options)
    for name, parameter in base.model.language_model.named_parameters():
        if name.endswith(("bias", "q_norm.weight", "k_norm.weight")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    other = AdaLlava(base, full.processor)
    for stock, latency in ((other.with_method("fastv"), 1.0), (scheduled(other, "layers").with_method("pool"), 5 / 6)):
        asked = {"token_budget": [0.25, 0.5, 1.0], "latency": latency, "seed": [0, 1, 2], **SIX_TOKENS}
        got = stock.with_engine("eager").generate(**inputs, **asked)
        assert (got.engine, got.passed_over) == ("eager", "")
        same(got, stock.with_engine("stock").generate(**inputs, **asked))


def test_the_first_end_is_where_an_answer_ends(full: AdaLlava, eager: AdaLlava, inputs: dict[str, Any]) -> None:
    free = full.generate(**inputs, **SIX_TOKENS)
    ends = sorted({answer[2] for answer in free.answer_ids})
    for some in (ends[:1], ends):
        asked = {**SIX_TOKENS, "eos_token_id": some, "pad_token_id": 0}
        same(eager.generate(**inputs, **asked), full.generate(**inputs, **asked))


@pytest.mark.parametrize(
    "shaping",
    [
        {},
        {"temperature": 1.7, "top_k": 9},
        {"top_p": 0.6, "min_p": 0.01},
        {"typical_p": 0.8},
        {"temperature": 40.0, "top_k": None},
        {"top_p": 1.5},
    ],
    ids=str,
)
def test_sampling_draws_what_stock_generate_draws(
    full: AdaLlava, eager: AdaLlava, inputs: dict[str, Any], shaping: dict[str, Any]
) -> None:
    answers = []
    for model in (eager, full):
        torch.manual_seed(3)
        answers.append(model.generate(**inputs, **{**SIX_TOKENS, "do_sample": True}, **shaping))
    assert answers[0].engine == "eager"
    same(*answers)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"num_beams": 2}, "num_beams=2"),
        ({"repetition_penalty": 1.3}, "repetition_penalty=1.3"),
        ({"min_new_tokens": 3}, "min_new_tokens=3"),
        ({"do_sample": True, "num_return_sequences": 2}, "num_return_sequences=2"),
        ({"output_scores": True}, "output_scores=True"),
    ],
    ids=str,
)
def test_what_it_cannot_do_goes_to_stock_generate(
    full: AdaLlava, eager: AdaLlava, inputs: dict[str, Any], asked: dict[str, Any], named: str
) -> None:
    answers = []
    for model in (eager, full):
        torch.manual_seed(0)
        answers.append(model.generate(**inputs, **{**SIX_TOKENS, **asked}))
    assert answers[0].engine == "stock"
    assert named in answers[0].passed_over
    assert answers[0].sequences.tolist() == answers[1].sequences.tolist()


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop", "sparsevlm"])
def test_tokens_dropped_inside_the_llm_have_stock_tokens(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    stock = full.with_method(method)
    ours = stock.with_engine("eager")
    alone = {name: tensor[:1] for name, tensor in inputs.items()}
    for given, positions in ((inputs, "original"), (inputs, "compact"), (alone, "compact")):
        asked = {"token_budget": 0.5, "positions": positions, **SIX_TOKENS}
        got = ours.generate(**given, **asked)
        assert got.engine == "eager"
        same(got, stock.generate(**given, **asked))


def test_heads_and_neurons_of_their_own_have_stock_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = AdaLlava(tiny_base(num_hidden_layers=4, num_key_value_heads=4), full.processor, engine="stock")
    stock = scheduled(base, "adallava-heads").with_method("uniform")
    asked = {"token_budget": 0.5, "latency": [0.75, 1.0, 0.625], **SIX_TOKENS}
    got = stock.with_engine("eager").generate(**inputs, **asked)
    assert got.engine == "eager"
    same(got, stock.generate(**inputs, **asked))


@pytest.mark.parametrize("name", ["spaced", "layers", "heads"])
def test_fewer_tokens_and_fewer_layers_have_stock_tokens(six: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    stock = scheduled(six, name).with_method("fastv").with_engine("stock")
    ours = stock.with_engine("eager")
    for positions, latency in (("original", 4 / 6), ("compact", [4 / 6, 1.0, 5 / 6])):
        asked = {"token_budget": 0.5, "latency": latency, "positions": positions, "seed": [0, 1, 2], **SIX_TOKENS}
        got = ours.generate(**inputs, **asked)
        assert got.engine == "eager"
        same(got, stock.generate(**inputs, **asked))


def test_a_prompt_of_no_numbers_leaves_nothing_behind(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """A cache's columns are used again: zero times no number is no number."""
    ours = full.with_engine("eager")
    spoiled = {**inputs, "pixel_values": torch.full_like(inputs["pixel_values"], float("nan"))}
    ours.generate(**spoiled, **SIX_TOKENS)
    same(ours.generate(**inputs, **SIX_TOKENS), full.generate(**inputs, **SIX_TOKENS))


def test_inside_and_outside_of_inference_mode(full: AdaLlava, inputs: dict[str, Any]) -> None:
    expected = full.generate(**inputs, **SIX_TOKENS)
    for first in (True, False):
        ours = full.with_engine("eager")
        for inside in (first, not first, first):
            with torch.inference_mode(inside):
                same(ours.generate(**inputs, **SIX_TOKENS), expected)


def test_what_was_released_is_made_again(full: AdaLlava, inputs: dict[str, Any]) -> None:
    ours = full.with_engine("eager")
    for _ in range(2):
        same(ours.generate(**inputs, **SIX_TOKENS), full.generate(**inputs, **SIX_TOKENS))
        ours.release()


def test_two_threads_share_one_engine(full: AdaLlava, eager: AdaLlava, inputs: dict[str, Any]) -> None:
    methods = ("uniform", "random")
    expected = [full.with_method(name).generate(**inputs, token_budget=0.5, **SIX_TOKENS) for name in methods]
    models = [eager.with_method(name) for name in methods]
    got: list[list[AdaLlavaOutput]] = [[], []]

    def ask(number: int) -> None:
        for _ in range(4):
            got[number].append(models[number].generate(**inputs, token_budget=0.5, **SIX_TOKENS))

    threads = [threading.Thread(target=ask, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs, right in zip(got, expected, strict=True):
        assert len(outputs) == 4
        for output in outputs:
            same(output, right)


def test_a_base_that_goes_to_another_type_is_looked_at_anew(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = copy.deepcopy(full.base)
    ours = AdaLlava(base, full.processor, engine="eager")
    ours.generate(**inputs, **SIX_TOKENS)
    base.to(torch.float64).to(torch.float32).lm_head.weight.data.neg_()
    stock = ours.with_engine("stock")
    same(ours.generate(**inputs, **SIX_TOKENS), stock.generate(**inputs, **SIX_TOKENS))
    base.to(torch.bfloat16)
    half = {**inputs, "pixel_values": inputs["pixel_values"].to(torch.bfloat16)}
    got = ours.generate(**half, **SIX_TOKENS)
    assert got.engine == "eager"
    assert got.sequences.shape == stock.generate(**half, **SIX_TOKENS).sequences.shape


def test_what_a_caller_switches_is_noticed(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = copy.deepcopy(full.base)
    ours = AdaLlava(base, full.processor, engine="eager")
    ours.generate(**inputs, **SIX_TOKENS)
    base.set_attn_implementation("eager")
    got = ours.generate(**inputs, **SIX_TOKENS)
    assert got.engine == "stock"
    assert "attention is 'eager'" in got.passed_over
    base.set_attn_implementation("sdpa")
    base.train()
    assert "training mode" in ours.generate(**inputs, **SIX_TOKENS).passed_over
    base.eval()
    layer = base.model.language_model.layers[0]
    layer.forward = layer.forward
    assert "forward" in ours.generate(**inputs, **SIX_TOKENS).passed_over


def test_hooks_and_other_layers_go_to_stock_generate(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = copy.deepcopy(full.base)
    ours = AdaLlava(base, full.processor, engine="eager")
    handle = base.model.language_model.layers[0].mlp.register_forward_hook(lambda *_: None)
    got = ours.generate(**inputs, **SIX_TOKENS)
    assert got.engine == "stock"
    assert "has hooks" in got.passed_over
    handle.remove()
    assert ours.generate(**inputs, **SIX_TOKENS).engine == "eager"
