"""Tokens with several rows of positions, and rows added behind the first layers, run in our own passes, too."""

from typing import Any

import pytest
from models import tiny_inputs
from test_captured import SIX_TOKENS, same
from tiny_qwen import tiny_qwen_base, tiny_qwen_processor

from adallava import AdaLlava
from adallava.scheduling import build_scheduler

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def qwen(request: pytest.FixtureRequest) -> AdaLlava:
    """A tiny random Qwen-VL on stock `generate`."""
    return AdaLlava(tiny_qwen_base(request.param), tiny_qwen_processor(request.param), engine="stock")


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_a_mixed_batch_has_stock_tokens(qwen: AdaLlava, positions: str) -> None:
    inputs = tiny_inputs(qwen.processor, QUESTIONS)
    stock = qwen.with_method("uniform")
    asked: dict[str, Any] = {"token_budget": [0.25, 0.5, 1.0], "positions": positions, **SIX_TOKENS}
    got = stock.with_engine("eager").generate(**inputs, **asked)
    assert (got.engine, got.passed_over) == ("eager", "")
    same(got, stock.generate(**inputs, **asked))


def test_text_alone_has_stock_tokens(qwen: AdaLlava) -> None:
    ids = qwen.processor.tokenizer(["why is it so?", "why?"], return_tensors="pt", padding=True, padding_side="left")
    got = qwen.with_engine("eager").generate(**ids, **SIX_TOKENS)
    assert got.engine == "eager"
    same(got, qwen.generate(**ids, **SIX_TOKENS))


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_tokens_dropped_inside_the_llm_have_stock_tokens(qwen: AdaLlava, positions: str) -> None:
    inputs = tiny_inputs(qwen.processor, QUESTIONS)
    stock = qwen.with_method("fastv")
    asked: dict[str, Any] = {"token_budget": [0.25, 0.5, 1.0], "positions": positions, **SIX_TOKENS}
    got = stock.with_engine("eager").generate(**inputs, **asked)
    assert (got.engine, got.passed_over) == ("eager", "")
    same(got, stock.generate(**inputs, **asked))


@pytest.mark.parametrize("prefix_layers", [1, 2])
def test_a_plan_runs_unless_rows_are_added_after_layers_it_may_leave_out(qwen: AdaLlava, prefix_layers: int) -> None:
    inputs = tiny_inputs(qwen.processor, QUESTIONS)
    plan = qwen.with_method("uniform").with_scheduler(
        build_scheduler("first", qwen.family.decoder().shape, prefix_layers=prefix_layers)
    )
    asked: dict[str, Any] = {"token_budget": 0.5, "latency": [0.75, 1.0, 0.75], **SIX_TOKENS}
    got = plan.with_engine("eager").generate(**inputs, **asked)
    assert got.engine == ("stock" if qwen.family.name == "qwen3_vl" and prefix_layers == 1 else "eager")
    same(got, plan.with_engine("stock").generate(**inputs, **asked))
