"""Ways to generate: attention kernels, number formats, beams, sampling, caches, returns, padding."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import (
    DROPS,
    INSIDE_LLM,
    MECHANISMS,
    each_once,
    lacking,
    rest_is_long,
    sample_of,
    tiny_inputs,
    tiny_tokens,
    with_every_option,
)

from adallava import AdaLlava
from adallava.errors import InputError, UnsupportedModeError
from adallava.pipeline.clock import StageClock
from adallava.pipeline.modes import plan_generation
from adallava.records import PART_NAMES

NEW = 3

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "beam returns": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 0},
    "sampled returns": {"do_sample": True, "num_return_sequences": 3},
    "static cache": {"cache_implementation": "static", "do_sample": False},
    "length limits": {"min_new_tokens": 2, "do_sample": False, "repetition_penalty": 1.2},
}


@pytest.fixture(scope="module")
def uniform(full: AdaLlava) -> AdaLlava:
    return full.with_method("uniform")


@pytest.fixture(scope="module", params=rest_is_long(["uniform", *INSIDE_LLM], ["uniform", *DROPS]))
def model(request: pytest.FixtureRequest, full: AdaLlava) -> AdaLlava:
    """One method before the LLM stands for all: they end in the same call. Those inside it have calls of their own."""
    if request.param in lacking(full):
        pytest.skip("its family refuses it")
    return full.with_method(request.param)


@pytest.mark.newest
@pytest.mark.parametrize("mode", MODES)
def test_full_budget_is_stock_generate_in_every_mode(model: AdaLlava, inputs: dict[str, Any], mode: str) -> None:
    torch.manual_seed(5)
    stock = model.base.generate(**inputs, max_new_tokens=NEW, **MODES[mode])
    torch.manual_seed(5)
    ours = model.generate(**inputs, token_budget=1.0, max_new_tokens=NEW, **MODES[mode])
    assert torch.equal(ours.sequences, stock)


@pytest.mark.parametrize("mode", MODES)
def test_lengths_and_records_mean_the_same_in_every_mode(model: AdaLlava, inputs: dict[str, Any], mode: str) -> None:
    output = model.generate(**inputs, token_budget=[2, 16, 0.5], max_new_tokens=NEW, **MODES[mode])
    returns = MODES[mode].get("num_return_sequences", 1)
    assert len(output.sequences) == 3 * returns == len(output.records) == len(output.text)
    half = sum(tiny_tokens(model, [2])) // 2
    assert [record.tokens_at_end for record in output.records] == [k for k in (2, 16, half) for _ in range(returns)]
    pad = model.base.generation_config.pad_token_id
    for row, record in enumerate(output.records):
        prompt = output.sequences[row, : output.prompt_length]
        assert (prompt != pad).sum() == output.prompt_lengths[row] == record.prompt_length
        assert len(output.answer_ids[row]) == output.answer_lengths[row]
        assert 1 <= output.answer_lengths[row] <= NEW
    assert output.sequences.shape[1] == output.prompt_length + max(output.answer_lengths)


@pytest.mark.parametrize("method", rest_is_long(MECHANISMS, ["random", "none", *DROPS]))
@pytest.mark.parametrize("mode", ["beams", "static cache"])  # Greedy: every method, in test_generation_contract.py.
def test_a_mixed_batch_equals_alone_for_every_mechanism_in_the_other_deterministic_modes(
    full: AdaLlava, inputs: dict[str, Any], mode: str, method: str
) -> None:
    model = with_every_option(full, method)
    together = model.generate(**inputs, token_budget=[2, 16, 0.5], max_new_tokens=NEW, **MODES[mode])
    for row, budget in enumerate([2, 16, 0.5]):
        alone = model.generate(**sample_of(inputs, row), token_budget=budget, max_new_tokens=NEW, **MODES[mode])
        assert alone.answer_ids[0] == together.answer_ids[row]


@pytest.mark.parametrize(("dtype", "attention"), each_once([torch.float32, torch.bfloat16], ["eager", "sdpa"]))
def test_full_budget_is_stock_for_kernels_and_formats(
    family_folder: Path, inputs: dict[str, Any], dtype: torch.dtype, attention: str
) -> None:
    full = AdaLlava.from_pretrained(
        str(family_folder), method="full", dtype=dtype, device="cpu", attn_implementation=attention
    )
    stock = full.base.generate(**inputs, max_new_tokens=4, do_sample=False)
    for method in MECHANISMS:
        if method in lacking(full):
            continue
        model = with_every_option(full, method)
        assert model.dtype == dtype
        if not model.selector.ignores_budget:  # type: ignore[union-attr]
            assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False).sequences, stock)


def test_eager_and_sdpa_give_the_same_tokens(family_folder: Path, inputs: dict[str, Any]) -> None:
    answers = []
    for attention in ("eager", "sdpa"):
        model = AdaLlava.from_pretrained(
            str(family_folder), method="question", device="cpu", attn_implementation=attention
        )
        answers.append(model.generate(**inputs, token_budget=5, max_new_tokens=5, do_sample=False).answer_ids)
    assert answers[0] == answers[1]


def test_padding_on_either_side_gives_the_same_answers(uniform: AdaLlava, inputs: dict[str, Any]) -> None:
    order = inputs["attention_mask"].argsort(dim=1, descending=True, stable=True)
    right = {**inputs, **{name: inputs[name].gather(1, order) for name in ("input_ids", "attention_mask")}}
    assert right["attention_mask"][0, 0] == 1
    left_output = uniform.generate(**inputs, token_budget=5, max_new_tokens=5)
    right_output = uniform.generate(**right, token_budget=5, max_new_tokens=5)
    assert torch.equal(left_output.sequences, right_output.sequences)


def test_a_prompt_without_an_image_is_answered_as_by_the_stock_model(uniform: AdaLlava) -> None:
    batch = tiny_inputs(uniform.processor, ["why?", "what is it?"], images_each=0)
    batch.pop("pixel_values", None)
    output = uniform.generate(**batch, token_budget=0.5, max_new_tokens=5, do_sample=False)
    assert torch.equal(output.sequences, uniform.base.generate(**batch, max_new_tokens=5, do_sample=False))
    assert output.records[0].kept_indices == ()
    assert output.records[0].num_vision_tokens == 0


@pytest.mark.parametrize("budget", [1.0, 3])
def test_max_length_counts_the_full_prompt_at_every_budget(
    uniform: AdaLlava, inputs: dict[str, Any], budget: float
) -> None:
    limit = inputs["input_ids"].shape[1] + 4
    stock = uniform.base.generate(**inputs, max_length=limit, do_sample=False)
    ours = uniform.generate(**inputs, token_budget=budget, max_length=limit, do_sample=False)
    assert max(ours.answer_lengths) == stock.shape[1] - inputs["input_ids"].shape[1] == 4


def test_a_generation_config_is_taken_and_left_as_it_was(uniform: AdaLlava, inputs: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=3, num_beams=2)
    before = config.to_dict()
    ours = uniform.generate(**inputs, token_budget=1.0, generation_config=config)
    assert config.to_dict() == before
    assert torch.equal(ours.sequences, uniform.base.generate(**inputs, generation_config=config))


REFUSED: list[dict[str, Any]] = [
    {"use_cache": False},
    {"assistant_model": object()},
    {"prompt_lookup_num_tokens": 3},
    {"inputs_embeds": torch.zeros(1)},
    {"position_ids": torch.zeros(1)},
    {"past_key_values": object()},
    {"cache": object()},
    {"stop_strings": ["."]},
    {"max_time": 1.0},
]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: next(iter(refused)))
def test_a_mode_that_would_be_wrong_is_refused_with_its_reason(
    uniform: AdaLlava, inputs: dict[str, Any], refused: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedModeError, match=rf"generate\({next(iter(refused))}=.* is not supported: .{{20,}}"):
        uniform.generate(**inputs, **refused)


def test_a_misspelled_argument_is_an_error(uniform: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_new_token"):
        uniform.generate(**inputs, max_new_token=3)


def test_max_length_without_room_for_an_answer_is_an_error() -> None:
    with pytest.raises(InputError, match="max_length=10 leaves no new token after a prompt of 12"):
        plan_generation({"max_length": 10}, SimpleNamespace(), prompt_columns=12)


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        ({}, {"max_new_tokens": 20}),
        ({"max_new_tokens": 7, "max_length": 99}, {"max_new_tokens": 7}),
        ({"max_length": 17}, {"max_new_tokens": 5}),
        ({"max_length": 17, "min_length": 14}, {"max_new_tokens": 5, "min_new_tokens": 2}),
    ],
)
def test_lengths_become_numbers_of_new_tokens(asked: dict[str, int], passed: dict[str, int]) -> None:
    kwargs = plan_generation(asked, SimpleNamespace(), prompt_columns=12).kwargs
    assert {name: value for name, value in kwargs.items() if name.endswith("tokens")} == passed
    assert kwargs["max_length"] is None


def test_a_clock_names_every_part_and_changes_no_answer(uniform: AdaLlava, inputs: dict[str, Any]) -> None:
    clock = StageClock()
    timed = uniform.generate(**inputs, token_budget=3, max_new_tokens=4, clock=clock)
    untimed = uniform.generate(**inputs, token_budget=3, max_new_tokens=4)
    assert timed.part_ms is not None
    assert tuple(timed.part_ms) == PART_NAMES
    assert all(ms >= 0 for ms in timed.part_ms.values())
    assert untimed.part_ms is None
    assert torch.equal(timed.sequences, untimed.sequences)
    again = uniform.generate(**inputs, token_budget=3, max_new_tokens=4, clock=clock)
    assert tuple(again.part_ms or ()) == PART_NAMES


def test_a_clock_is_started_before_it_is_read() -> None:
    with pytest.raises(InputError, match="before start"):
        StageClock().mark("vision")
