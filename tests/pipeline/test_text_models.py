"""LLMs that a Llava may have: what is done inside each is held to its stock layers, called one by one."""

from typing import Any

import pytest
import torch
from layer_reference import ByHand
from masked_reference import MaskedInside
from models import rest_is_long, sample_of, scheduled, tiny_base, tiny_inputs
from stock_reference import greedy, pruned_prompt
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig
from truncated_reference import truncated

from adallava import AdaLlava
from adallava.errors import UnsupportedModeError
from adallava.scheduling.fixed import FixedScheduler
from adallava.scheduling.heads import HeadsScheduler
from adallava.selection import build_selector

SMALL_MIXTURE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
ALTERNATING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]

TEXTS: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, **SMALL_MIXTURE},
    "mistral": {"sliding_window": None},
    "mixtral": {"sliding_window": None, **SMALL_MIXTURE},
    "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 9, "sliding_window": 512, "attn_logit_softcapping": 3.0},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 9, "sliding_window": 512, "layer_types": ALTERNATING},
}
"""Windows, where there are any, are longer than every prompt."""

WINDOW = 20
"""Shorter than every prompt, and than what is left of it."""

WINDOWS: dict[str, dict[str, Any]] = {
    # The last two of four layers slide.
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": WINDOW},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {**TEXTS["gemma2"], "sliding_window": WINDOW},
    "gemma3_text": {**TEXTS["gemma3_text"], "sliding_window": WINDOW},
}

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]
SLIDING = [("qwen2", "original"), ("gemma3_text", "compact")]
QUICK = ("qwen2", "qwen3_moe", "gemma3_text")
NEW = 3


def base_of(text: str, **options: Any) -> Any:
    """Return a random Llava on an LLM whose norms and biases are random too."""
    if text == "gemma2":
        options["attn_implementation"] = "eager"  # It has no other here.
    base = tiny_base(llm=text, **options)
    generator = torch.Generator().manual_seed(7)
    for parameter in base.model.language_model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return base


@pytest.fixture(scope="module")
def processor(tiny_folder: Any) -> Any:
    return AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu").processor


@pytest.fixture(scope="module")
def inputs(processor: Any) -> dict[str, Any]:
    return tiny_inputs(processor, QUESTIONS)


def _logits(output: Any) -> Tensor:
    return torch.stack(output.transformers_output.logits, dim=1)


@pytest.mark.newest
@pytest.mark.parametrize("text", rest_is_long(TEXTS, QUICK))
@torch.no_grad()
def test_every_token_is_stock_and_fewer_are_the_prompt_without_them(
    processor: Any, inputs: dict[str, Any], text: str
) -> None:
    base = base_of(text, **TEXTS[text])
    stock = base.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    alone = sample_of(inputs, 1)
    logits = base(**alone, use_cache=False).logits
    full = AdaLlava(base, processor)
    for method in ("uniform", "fastv", "pyramiddrop"):
        model = full.with_method(method)
        assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, do_sample=False).sequences, stock)
        assert torch.equal(model.forward(**alone).logits, logits)
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    output = full.with_method("uniform").generate(**inputs, token_budget=[3, 16, 7], **asked)
    for row in range(3):
        prompt = pruned_prompt(base, sample_of(inputs, row), output.records[row].kept_indices, [16])
        tokens, by_hand = greedy(base, *prompt, NEW)
        assert output.answer_ids[row] == tokens
        torch.testing.assert_close(_logits(output)[row], by_hand, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_a_tower_without_a_class_token_on_another_llm(processor: Any, inputs: dict[str, Any]) -> None:
    """SigLIP's patches and Qwen 2, as LLaVA-Interleave has them: every feature of the last layer is a patch."""
    text = base_of("qwen2").config.text_config
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**sizes, image_size=28, patch_size=7, vision_use_head=False),
        text_config=text,
        image_token_id=base_of("qwen2").config.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    base = LlavaForConditionalGeneration(config).eval()
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    full = AdaLlava(base, processor)
    stock = base.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    for method in ("divprune", "tome", "fastv", "pyramiddrop"):
        model = full.with_method(method)
        assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, do_sample=False).sequences, stock)
        output = model.generate(**inputs, token_budget=[3, 16, 7], max_new_tokens=1)
        assert [record.tokens_at_end for record in output.records] == [3, 16, 7]
    with pytest.raises(UnsupportedModeError, match="needs a class token in the vision tower"):
        full.with_method("visionzip")


@pytest.mark.parametrize("text", rest_is_long(TEXTS, QUICK))
def test_what_is_dropped_before_a_layer_is_what_its_mask_hides(
    processor: Any, inputs: dict[str, Any], text: str
) -> None:
    model = AdaLlava(base_of(text, **TEXTS[text]), processor)
    eager = base_of(text, attn_implementation="eager", **TEXTS[text])
    for method in ("fastv", "pyramiddrop"):
        reference = MaskedInside(eager, build_selector(method, model.shape), 5)
        expected, stays = reference.logits(sample_of(inputs, 1))
        found = model.with_method(method).forward(**sample_of(inputs, 1), token_budget=5).logits
        torch.testing.assert_close(found[0], expected[stays], atol=2e-4, rtol=2e-4)


@pytest.mark.newest
@pytest.mark.parametrize(
    ("text", "positions"),
    [
        pytest.param(text, positions, marks=[] if (text, positions) in SLIDING else [pytest.mark.long])
        for text in WINDOWS
        for positions in ("original", "compact")
    ],
)
def test_each_layer_slides_over_its_own_window(
    processor: Any, inputs: dict[str, Any], text: str, positions: Any
) -> None:
    eager = base_of(text, attn_implementation="eager", **WINDOWS[text])
    model = AdaLlava(eager, processor)
    budgets = [5, 16, 2]
    for method in ("fastv", "pyramiddrop"):
        output = model.with_method(method).generate(
            **inputs, token_budget=budgets, positions=positions, max_new_tokens=NEW, do_sample=False, output_logits=True
        )
        selector = build_selector(method, model.shape)
        for row, budget in enumerate(budgets):
            by_hand = ByHand(eager, selector, [budget], [16], compact=positions == "compact", grids=[(4, 4)])
            tokens: list[int] = []
            for step in range(output.answer_lengths[row]):
                logits, kept, read = by_hand.logits(sample_of(inputs, row), tokens)
                torch.testing.assert_close(_logits(output)[row, step], logits, atol=2e-4, rtol=2e-4)
                tokens.append(int(logits.argmax()))
            assert output.records[row].kept_indices == tuple(map(tuple, kept))
            assert output.records[row].tokens_kept_by_layer == tuple(read)


@pytest.mark.parametrize("mode", [{"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("text", rest_is_long(WINDOWS, QUICK))
def test_mixed_windows_survive_every_cache(
    processor: Any, inputs: dict[str, Any], text: str, mode: dict[str, Any]
) -> None:
    model = AdaLlava(base_of(text, **WINDOWS[text]), processor).with_method("fastv")
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, **mode}
    together = model.generate(**inputs, token_budget=[5, 16, 2], **asked)
    for row, budget in enumerate([5, 16, 2]):
        alone = model.generate(**sample_of(inputs, row), token_budget=budget, **asked)
        assert alone.answer_ids[0] == together.answer_ids[row]


@pytest.mark.newest
@pytest.mark.parametrize("text", rest_is_long({**TEXTS, **WINDOWS}, QUICK))
@torch.no_grad()
def test_a_layer_left_out_is_the_stock_model_without_it(processor: Any, inputs: dict[str, Any], text: str) -> None:
    """Of layers that slide, and the first that does not behind them: none is left of its kind where it is left out."""
    options = {**TEXTS[text], **WINDOWS.get(text, {}), "num_hidden_layers": 6}
    if "layer_types" in options:
        options["layer_types"] = [*ALTERNATING[:2], "sliding_attention", *ALTERNATING[2:3] * 2, "sliding_attention"]
    base = base_of(text, **options)
    model = AdaLlava(base, processor).with_scheduler(FixedScheduler(plans="4/3+5")).with_method("uniform")
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    latencies = (4 / 6, 1.0, 5 / 6)
    mixed = model.generate(**inputs, latency=latencies, **asked)
    all_alike = model.generate(**inputs, latency=4 / 6, **asked)
    torch.testing.assert_close(_logits(all_alike)[0], _logits(mixed)[0], atol=2e-4, rtol=2e-4)
    for row, latency in enumerate(latencies):
        sample = sample_of(inputs, row)
        output = model.generate(**sample, latency=latency, **asked)
        record = output.records[0]
        run = record.groups_run or ((0,),) * 6
        embeds, positions = pruned_prompt(base, sample, [range(16)], [16])
        tokens, logits = greedy(truncated(base, run, 1), embeds, positions, NEW)
        assert output.answer_ids[0] == tokens == mixed.answer_ids[row]
        torch.testing.assert_close(_logits(output)[0], logits, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("text", rest_is_long(["qwen2", "qwen3", "gemma"], QUICK))
@torch.no_grad()
def test_groups_of_heads_left_out_are_the_stock_model_without_them(
    processor: Any, inputs: dict[str, Any], text: str
) -> None:
    base = base_of(text, num_hidden_layers=6, **TEXTS[text])
    full = AdaLlava(base, processor)
    model = scheduled(full, "heads").with_method("uniform")
    sample = sample_of(inputs, 1)
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    output = model.generate(**sample, latency=0.75, **asked)
    assert output.records[0].groups_run is not None
    assert {len(run) for run in output.records[0].groups_run} > {1}, "some layer runs one of its groups"
    embeds, positions = pruned_prompt(base, sample, [range(16)], [16])
    tokens, logits = greedy(truncated(base, output.records[0].groups_run, 2), embeds, positions, NEW)
    assert output.answer_ids[0] == tokens
    torch.testing.assert_close(_logits(output)[0], logits, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("phi3", "no self_attn.q_proj"),
        ("qwen3_moe", "no mlp.gate_proj"),
        ("gemma3_text", "pre_feedforward_layernorm: what they add is no sum over groups of heads"),
    ],
)
def test_layers_that_are_no_sum_over_heads_are_not_split(processor: Any, text: str, why: str) -> None:
    full = AdaLlava(base_of(text, num_hidden_layers=6, **{**TEXTS[text], "layer_types": None}), processor)
    with pytest.raises(UnsupportedModeError, match=why):
        full.with_scheduler(HeadsScheduler(full.family.decoder().shape, groups=2))  # type: ignore[attr-defined]


def test_an_llm_that_looks_both_ways_is_refused(processor: Any) -> None:
    with pytest.raises(UnsupportedModeError, match="attends in both directions"):
        AdaLlava(base_of("gemma3_text", use_bidirectional_attention=True), processor).with_method("fastv")
