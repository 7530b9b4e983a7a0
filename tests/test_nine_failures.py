"""Nine failures that once made a sweep worthless while every run looked fine. Each is guarded here by name.

What a sweep does about empty answers (1) and how they are counted (9) is tested with the sweep.
"""

import dataclasses
from typing import Any

import pytest
import torch
from models import INSIDE_LLM, MECHANISMS, sample_of, with_every_option

from adallava import AdaLlava, Selection
from adallava.errors import AdallavaError, CheckpointError, InputError
from adallava.pipeline.pack import CompactBatch
from adallava.registry import selector_names
from adallava.selection.selector_contract import OwnCountMethod, RoundingMethod
from adallava.selection.uniform import UniformSelector

NEW = 5


@pytest.mark.parametrize("budget", [1, 1.0], ids=lambda budget: f"budget {budget}")
@pytest.mark.parametrize("method", MECHANISMS)
def test_1_and_2_no_answer_is_empty_and_sequences_hold_the_prompt_and_then_the_answer(
    full: AdaLlava, inputs: dict[str, Any], method: str, budget: Any
) -> None:
    output = with_every_option(full, method).generate(
        **inputs, token_budget=budget, max_new_tokens=NEW, do_sample=False
    )
    assert all(length >= 1 for length in output.answer_lengths)
    assert [len(ids) for ids in output.answer_ids] == list(output.answer_lengths)
    decoded = full.processor.batch_decode(output.answer_ids, skip_special_tokens=True)
    assert list(output.text) == [text.strip() for text in decoded]
    assert output.sequences.shape[1] > output.prompt_length
    for row in range(3):
        text = sample_of(inputs, row)["input_ids"][0]
        text = text[text != full.base.config.image_token_id]
        begin = output.prompt_length - output.prompt_lengths[row]
        prompt = output.sequences[row, begin : output.prompt_length]
        assert torch.equal(prompt[prompt != full.base.config.image_token_id], text)


def test_3_placeholders_are_as_many_as_features(full: AdaLlava, inputs: dict[str, Any]) -> None:
    for keep_count in (1, 2, 7, 15, 16):
        output = full.with_method("random").generate(**inputs, token_budget=keep_count, max_new_tokens=1)
        placeholders = (output.sequences == full.base.config.image_token_id).sum(dim=1)
        assert placeholders.tolist() == [keep_count] * 3
    with pytest.raises(InputError, match="15 image placeholders"):
        full.generate(**{**sample_of(inputs, 2), **_without_one_placeholder(full, sample_of(inputs, 2))})


def _without_one_placeholder(full: AdaLlava, sample: dict[str, Any]) -> dict[str, Any]:
    place = int((sample["input_ids"][0] == full.base.config.image_token_id).nonzero()[0])
    return {
        name: torch.cat([sample[name][:, :place], sample[name][:, place + 1 :]], dim=1)
        for name in ("input_ids", "attention_mask")
    }


@pytest.mark.parametrize("method", MECHANISMS)
def test_4_the_full_budget_returns_what_smaller_budgets_return(
    full: AdaLlava, inputs: dict[str, Any], method: str
) -> None:
    model = with_every_option(full, method)
    if model.selector.ignores_budget:  # type: ignore[union-attr]
        pytest.skip("no full budget")
    whole = model.generate(**inputs, token_budget=1.0, max_new_tokens=NEW, do_sample=False)
    part = model.generate(**inputs, token_budget=15, max_new_tokens=NEW, do_sample=False)
    for field in dataclasses.fields(whole):
        assert type(getattr(whole, field.name)) is type(getattr(part, field.name))
    kept = model.selector.keep_count(15, (4, 4)) if isinstance(model.selector, RoundingMethod) else 15
    # All tokens enter the LLM of a method inside it.
    assert whole.prompt_length - part.prompt_length == (0 if method in INSIDE_LLM else 16 - kept)
    assert [record.tokens_at_end for record in (*whole.records, *part.records)] == [16] * 3 + [kept] * 3
    assert torch.equal(whole.sequences, full.base.generate(**inputs, max_new_tokens=NEW, do_sample=False))


def test_5_ids_embeds_mask_and_positions_have_one_length_where_they_are_made() -> None:
    with pytest.raises(InputError, match="differ in length"):
        CompactBatch(torch.zeros(1, 4), torch.zeros(1, 5, 2), torch.zeros(1, 5), torch.zeros(1, 5), None)


@pytest.mark.parametrize("method", MECHANISMS)
def test_6_each_sample_of_a_mixed_batch_has_its_own_positions(
    full: AdaLlava, inputs: dict[str, Any], method: str
) -> None:
    model = with_every_option(full, method)
    budgets = [2, 16, 9]
    together = model.forward(**inputs, token_budget=budgets, seed=1)
    for row in range(3):
        alone = model.forward(**sample_of(inputs, row), token_budget=budgets[row], seed=1)
        length = alone.layout.lengths[0]
        assert torch.equal(together.batch.position_ids[row, :length], alone.batch.position_ids[0])
        torch.testing.assert_close(together.logits[row, :length], alone.logits[0], atol=1e-4, rtol=1e-4)


def _text_length(full: AdaLlava, inputs: dict[str, Any], row: int) -> int:
    return int((sample_of(inputs, row)["input_ids"] != full.base.config.image_token_id).sum())


@pytest.mark.parametrize("method", [*selector_names(), "full"])
def test_7_the_record_says_what_ran(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    asked: Any = 1.0 if method == "full" else "25%"
    model = with_every_option(full, method)
    record = model.generate(**inputs, token_budget=asked, max_new_tokens=1).records[0]
    entered = record.prompt_length - _text_length(full, inputs, 0)
    expected = {"full": ("1.0", 16, 16), "none": ("none", 0, 0)}.get(method, ("0.25", 4, 4))
    if isinstance(model.selector, OwnCountMethod):
        expected = ("none", entered, entered)
    assert record.method == method
    assert (record.budget_asked, record.tokens_asked, record.tokens_at_end) == expected
    assert record.tokens_kept == entered


def test_7_asking_for_what_the_weights_cannot_do_is_an_error(full: AdaLlava, tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match="no adapter"):
        full.with_method("question", tmp_path)


class _Forgetful(UniformSelector):
    """A method whose budget never reaches it."""

    def select(self, inputs: Any) -> Selection:
        return super().select(dataclasses.replace(inputs, keep_counts=(16,) * len(inputs.keep_counts)))


class _Repeating(UniformSelector):
    """A method that keeps one token several times."""

    def select(self, inputs: Any) -> Selection:
        return Selection(torch.full((len(inputs.features), 4), 7), inputs.keep_counts)


@pytest.mark.parametrize(
    ("selector", "message"),
    [(_Forgetful(), r"asked to keep \(4,\) and returned \(16,\)"), (_Repeating(), "ascending, unique")],
)
def test_7_a_method_that_keeps_something_else_is_an_error(
    full: AdaLlava, inputs: dict[str, Any], selector: Any, message: str
) -> None:
    with pytest.raises(AdallavaError, match=message):
        full.with_selector(selector).generate(**inputs, token_budget=4, max_new_tokens=1)


def test_8_parts_on_two_devices_are_found_at_load(full: AdaLlava) -> None:
    from models import tiny_base

    base = tiny_base()
    base.model.multi_modal_projector.to("meta")
    with pytest.raises(CheckpointError, match="one real device"):
        AdaLlava(base, full.processor)


def test_9_eos_as_the_first_token_is_told_apart(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("uniform")
    first = model.generate(**inputs, token_budget=4, max_new_tokens=1).answer_ids
    eos = first[0][0]
    output = model.generate(**inputs, token_budget=4, max_new_tokens=NEW, eos_token_id=[eos, 1_000], do_sample=False)
    assert output.answer_lengths[0] == 1
    assert output.finish_reasons[0] == "eos"
    assert output.answer_ids[0] == [eos]
    others = [reason for row, reason in enumerate(output.finish_reasons) if eos not in output.answer_ids[row]]
    assert set(others) <= {"length"}


def test_9_padding_written_with_eos_is_not_part_of_an_answer(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("uniform")
    eos = model.generate(**inputs, token_budget=4, max_new_tokens=1).answer_ids[0][0]
    output = model.generate(
        **inputs, token_budget=4, max_new_tokens=NEW, eos_token_id=eos, pad_token_id=eos, do_sample=False
    )
    assert output.answer_lengths[0] == 1
    assert max(output.answer_lengths) == NEW
