"""Every argument of transformers' `generate` and of the stock `forward` is taken as by stock, or refused by name."""

import inspect
from typing import Any

import pytest
import torch
from models import INSIDE_LLM, tiny_base, tiny_inputs, tiny_processor
from transformers import (
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    LogitsProcessorList,
)
from transformers.utils.generic import TransformersKwargs

from adallava import AdaLlava
from adallava.errors import InputError, UnsupportedModeError
from adallava.pipeline.stock_arguments import (
    AS_CONFIGURED,
    FORWARD_REFUSED,
    FORWARD_TAKEN,
    GENERATE_IDLE,
    GENERATE_REFUSED,
    GENERATE_TAKEN,
)

MODELS = (LlavaForConditionalGeneration, LlavaNextForConditionalGeneration)
OWN = {"self", "kwargs", "input_ids", "attention_mask", "pixel_values", "image_sizes"}
"""Arguments that `AdaLlava` names itself."""

ATTRIBUTES = {name for name in vars(GenerationConfig()) if name[0] != "_"} - {"transformers_version"}
CALLED = {name for name in inspect.signature(MODELS[0].generate).parameters if name not in OWN}
OF_FORWARD = {name for model in MODELS for name in inspect.signature(model.forward).parameters} | set(
    TransformersKwargs.__optional_keys__
)

ODD_VALUES: dict[str, Any] = {
    "assistant_confidence_threshold": 0.7,
    "num_assistant_tokens_schedule": "heuristic",
    "penalty_alpha": 0.6,
    "diversity_penalty": 0.5,
}
"""Of arguments for which 3 says nothing, or the wrong thing."""

PARITY: dict[str, dict[str, Any]] = {
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 3.0},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1, "num_beams": 2},
    "guidance_scale": {"guidance_scale": 2.0},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1, "max_new_tokens": 30},
    "suppress_tokens": {"suppress_tokens": [63, 131]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [63, 131]},
    "bad_words_ids": {"bad_words_ids": [[63], [131, 109]]},
    "sequence_bias": {"sequence_bias": [[[7], 50.0]]},
    "forced_eos_token_id": {"forced_eos_token_id": 9},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (1, 9.0), "max_new_tokens": 9},
    "length_penalty": {"num_beams": 3, "length_penalty": -2.0, "early_stopping": True},
    "min_p": {"do_sample": True, "min_p": 0.01, "top_k": 0},
    "typical_p": {"do_sample": True, "typical_p": 0.9, "renormalize_logits": True},
    "watermarking_config": {"watermarking_config": {"bias": 5.0}},
    "logits_to_keep": {"logits_to_keep": 2},
    "max_cache_len": {"cache_implementation": "static", "max_cache_len": 99},
}


@pytest.fixture(scope="module")
def model() -> AdaLlava:
    return AdaLlava(tiny_base(), tiny_processor()).with_method("uniform")


@pytest.fixture(scope="module")
def inputs(model: AdaLlava) -> dict[str, Any]:
    return tiny_inputs(model.processor, ["what is it?", "why?"])


def test_every_argument_of_transformers_stands_in_one_list() -> None:
    """A new one in a newer transformers fails here, and is refused as unknown until somebody has looked at it."""
    lists = (GENERATE_TAKEN, GENERATE_REFUSED.keys(), GENERATE_IDLE.keys(), AS_CONFIGURED)
    for name in ATTRIBUTES | CALLED:
        assert sum(name in names for names in lists) == 1, name
    # Stock forward reads everything else that generate is called with.
    for name in OF_FORWARD - OWN - {"use_cache"}:
        assert sum(name in names for names in lists) == 1, name
    of_forward = (FORWARD_TAKEN, FORWARD_REFUSED.keys(), AS_CONFIGURED)
    for name in OF_FORWARD - OWN - {"labels"}:
        assert sum(name in names for names in of_forward) == 1, name


@pytest.mark.parametrize("name", sorted({*GENERATE_REFUSED, *GENERATE_IDLE}))
def test_what_generate_cannot_give_is_refused_by_name(model: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    with pytest.raises(
        UnsupportedModeError, match=rf"^generate\({name}=.*\) is not supported: .{{20,}}|give input_ids"
    ):
        model.generate(**inputs, **{name: ODD_VALUES.get(name, 3)})


@pytest.mark.parametrize("name", sorted({*GENERATE_REFUSED, *GENERATE_IDLE} & ATTRIBUTES))
def test_a_given_configuration_is_refused_likewise(model: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    config = GenerationConfig()
    setattr(config, name, ODD_VALUES.get(name, 3))
    with pytest.raises(UnsupportedModeError, match=rf"^generate\({name}="):
        model.generate(**inputs, generation_config=config)


@pytest.mark.parametrize("name", sorted(FORWARD_REFUSED))
def test_what_forward_cannot_give_is_refused_by_name(model: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedModeError, match=rf"^forward\({name}=3\) is not supported: .{{20,}}"):
        model.forward(**inputs, **{name: 3})


@pytest.mark.parametrize("name", PARITY)
def test_what_is_taken_is_stock_at_the_full_budget(model: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    asked = {"max_new_tokens": 5, **PARITY[name]}
    assert name in asked
    torch.manual_seed(3)
    stock = model.base.generate(**inputs, **asked)
    torch.manual_seed(3)
    assert torch.equal(model.generate(**inputs, **asked).sequences, stock)
    if name not in ("logits_to_keep", "max_cache_len"):
        assert not torch.equal(stock, model.base.generate(**inputs, max_new_tokens=asked["max_new_tokens"])), (
            "the value says nothing here"
        )


def test_functions_of_the_caller_see_what_stock_shows_them(model: AdaLlava, inputs: dict[str, Any]) -> None:
    class Seen:
        def __init__(self) -> None:
            self.put_ids: list[list[Any]] = []
            self.prompts: list[list[int]] = []

        def put(self, value: torch.Tensor) -> None:
            self.put_ids.append(value.tolist())

        def end(self) -> None:
            self.put_ids.append([])

        def allowed(self, batch_id: int, ids: torch.Tensor) -> list[int]:
            self.prompts.append(ids.tolist())
            return [5, 6 + batch_id]

    seen = Seen(), Seen()
    for one, generate in zip(seen, (model.base.generate, model.generate), strict=True):
        single = {name: tensor[:1] for name, tensor in inputs.items()}
        generate(**single, max_new_tokens=3, streamer=one, prefix_allowed_tokens_fn=one.allowed)
    assert seen[0].put_ids == seen[1].put_ids
    assert seen[0].prompts == seen[1].prompts
    assert {one[0] for one in seen[1].put_ids[1:-1]} <= {5, 6}


def test_a_checkpoint_that_asks_for_the_impossible_is_named_and_can_be_overruled(inputs: dict[str, Any]) -> None:
    model = AdaLlava(tiny_base(), tiny_processor())
    model.base.generation_config.stop_strings = ["x"]
    model.base.generation_config.num_assistant_tokens = 5  # Does nothing on its own, in stock too.
    with pytest.raises(UnsupportedModeError, match=r"the model's generation_config has stop_strings=.*=None\) goes"):
        model.generate(**inputs, max_new_tokens=2)
    assert model.generate(**inputs, max_new_tokens=2, stop_strings=None).answer_lengths == (2, 2)


def test_a_checkpoint_without_a_cache_is_answered_with_one_and_a_warning(inputs: dict[str, Any]) -> None:
    model = AdaLlava(tiny_base(), tiny_processor())
    stock = model.base.generate(**inputs, max_new_tokens=4)
    model.base.generation_config.use_cache = False
    with pytest.warns(UserWarning, match="use_cache=False, which is ignored"):
        warned = model.generate(**inputs, max_new_tokens=4)
    assert torch.equal(warned.sequences, stock)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, use_cache=True).sequences, stock)


def test_a_length_of_the_checkpoint_can_be_overruled(inputs: dict[str, Any]) -> None:
    model = AdaLlava(tiny_base(), tiny_processor())
    free = model.generate(**inputs, max_new_tokens=6, forced_bos_token_id=None)
    ends = model.base.generation_config.eos_token_id = free.answer_ids[0][1]
    model.base.generation_config.min_new_tokens = 5
    assert model.generate(**inputs, max_new_tokens=6).answer_lengths[0] >= 5
    for overruled in ({"min_new_tokens": 0}, {"min_new_tokens": None}):
        output = model.generate(**inputs, max_new_tokens=6, **overruled)
        assert output.answer_ids[0] == free.answer_ids[0][:2]
        assert output.answer_ids[0][-1] == ends


@pytest.mark.parametrize("value", [0, -1])
def test_no_new_token_is_refused_by_its_own_name(model: AdaLlava, inputs: dict[str, Any], value: int) -> None:
    with pytest.raises(InputError, match=f"max_new_tokens={value} asks for no answer"):
        model.generate(**inputs, max_new_tokens=value)


def test_single_values_of_taken_arguments_are_refused(model: AdaLlava, inputs: dict[str, Any]) -> None:
    for name, value in (("cache_implementation", "paged"), ("return_dict_in_generate", False)):
        with pytest.raises(UnsupportedModeError, match=rf"{name}={value!r}\) is not supported"):
            model.generate(**inputs, **{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"streamer": object()}, "streamer=….*type object has no put and no end"),
        ({"negative_prompt_ids": torch.ones(2, 3)}, "negative_prompt_ids=….*does nothing without guidance_scale"),
        ({"negative_prompt_ids": torch.ones(2, 3), "guidance_scale": 1.0}, "does nothing without guidance_scale"),
        (
            {"negative_prompt_attention_mask": torch.ones(2, 3), "guidance_scale": 2.0},
            "does nothing without negative_prompt_ids",
        ),
    ],
)
def test_what_would_do_nothing_or_break_later_is_one_clear_error(
    model: AdaLlava, inputs: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.generate(**inputs, **arguments)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 4000}, "num_beams=4000 is over the limit of 128"),
        ({"do_sample": True, "num_return_sequences": 4000}, "num_return_sequences=4000 is over the limit of 128"),
        ({"generation_config": GenerationConfig(num_beams=4000)}, "num_beams=4000 is over the limit"),
        ({"cache_implementation": "static", "max_cache_len": 10**9}, "max_cache_len is 1000000000, and the LLM has"),
        ({"forced_eos_token_id": [3, 10**6]}, "forced_eos_token_id is 1000000, and the LLM has words 0 to"),
        ({"pad_token_id": -1}, "pad_token_id is -1, and the LLM has words 0 to"),
    ],
)
def test_what_takes_all_memory_or_no_word_is_refused_before_the_tower_runs(
    model: AdaLlava, inputs: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.generate(**inputs, token_budget=4, **asked)


def test_a_second_prompt_is_read_as_by_stock(model: AdaLlava, inputs: dict[str, Any]) -> None:
    single = {name: tensor[:1] for name, tensor in inputs.items()}
    asked = {"max_new_tokens": 3, "guidance_scale": 3.0, "negative_prompt_ids": torch.tensor([[7, 9, 11]])}
    assert torch.equal(model.generate(**single, **asked).sequences, model.base.generate(**single, **asked))


@pytest.mark.parametrize("call", ["generate", "forward"])
def test_the_towers_features_are_the_checkpoints(model: AdaLlava, inputs: dict[str, Any], call: str) -> None:
    run = getattr(model, call)
    for other in ({"vision_feature_layer": -1}, {"vision_feature_select_strategy": "full"}):
        with pytest.raises(UnsupportedModeError, match=f"{next(iter(other))}=.* the model has"):
            run(**inputs, **other)
    run(**inputs, vision_feature_layer=-2, vision_feature_select_strategy="default")


@pytest.mark.parametrize("method", INSIDE_LLM[:1])
def test_layers_that_read_different_tokens_refuse_more(model: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    inside = model.with_method(method)
    for refused in ({"guidance_scale": 2.0}, {"disable_compile": False}, {"output_attentions": True}):
        with pytest.raises(UnsupportedModeError, match=next(iter(refused))):
            inside.generate(**inputs, token_budget=4, **refused)
    with pytest.raises(UnsupportedModeError, match="use_cache=True"):
        inside.forward(**inputs, token_budget=4, use_cache=True)


def test_forward_returns_a_tuple_where_one_is_asked_for(model: AdaLlava, inputs: dict[str, Any]) -> None:
    single = {name: tensor[:1] for name, tensor in inputs.items()}
    ids = single["input_ids"]
    labels = ids.masked_fill(ids == model.base.config.image_token_id, -100)  # Vision tokens are never learned here.
    stock = model.base(**single, labels=labels, return_dict=False)
    loss, logits = model.forward(**single, labels=labels, return_dict=False)  # type: ignore[misc]
    assert torch.equal(loss, stock[0])
    assert torch.equal(logits, stock[1])
    assert len(model.forward(**single, return_dict=False)) == 1  # type: ignore[arg-type]


def test_forward_hands_on_what_stock_returns_beside_the_logits(model: AdaLlava, inputs: dict[str, Any]) -> None:
    single = {name: tensor[:1] for name, tensor in inputs.items()}
    stock = model.base(**single, output_hidden_states=True, use_cache=True)
    ours = model.forward(**single, output_hidden_states=True, use_cache=True).transformers_output
    assert len(ours.hidden_states) == len(stock.hidden_states) == 5
    assert all(torch.equal(one, other) for one, other in zip(ours.hidden_states, stock.hidden_states, strict=True))
    assert ours.past_key_values.get_seq_length() == stock.past_key_values.get_seq_length()
    last = model.base(**single, logits_to_keep=1).logits
    assert torch.equal(model.forward(**single, logits_to_keep=1).logits, last)


def test_the_last_logits_of_rows_of_different_lengths_are_refused(model: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModeError, match=r"logits_to_keep=1\) is not supported for rows of"):
        model.forward(**inputs, logits_to_keep=1)


@pytest.mark.parametrize("call", ["generate", "forward"])
def test_a_name_that_nobody_knows_is_an_error(model: AdaLlava, inputs: dict[str, Any], call: str) -> None:
    with pytest.raises(InputError, match=f"{call} has no argument 'tokenbudget': did you mean 'token_budget'"):
        getattr(model, call)(**inputs, tokenbudget=4)
    with pytest.raises(InputError, match=f"{call} has no argument 'logits_to_kep': did you mean 'logits_to_keep'"):
        getattr(model, call)(**inputs, logits_to_kep=1)


@pytest.mark.parametrize("named", [258, None])
def test_padding_in_sequences_is_stocks(inputs: dict[str, Any], named: int | None) -> None:
    """Before the prompt the caller's own; behind the answer the model's, or where it names none its EOS."""
    model = AdaLlava(tiny_base(), tiny_processor()).with_method("uniform")
    config = model.base.generation_config
    config.pad_token_id = named
    config.eos_token_id = model.generate(**inputs, max_new_tokens=3).answer_ids[0][0]
    other = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 17)
    stock = model.base.generate(**{**inputs, "input_ids": other}, max_new_tokens=3)
    ours = model.generate(**{**inputs, "input_ids": other}, max_new_tokens=3)
    assert torch.equal(ours.sequences, stock)
    assert ours.sequences[1, 0] == 17
    assert ours.sequences[0, -1] == (config.eos_token_id if named is None else named)


def test_type_and_device_follow_the_base() -> None:
    model = AdaLlava(tiny_base(), tiny_processor()).with_method("uniform")
    inputs = tiny_inputs(model.processor, ["why?"])
    model.base.to(torch.bfloat16)
    assert model.dtype == model.family.dtype == torch.bfloat16
    stock = model.base.generate(**inputs, max_new_tokens=3)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3).sequences, stock)
    model.base.to("meta")
    assert model.device == model.family.device == torch.device("meta")


def test_processors_of_the_caller_run_beside_ours(model: AdaLlava, inputs: dict[str, Any]) -> None:
    def only_seven(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -100.0).index_fill(1, torch.tensor([7]), 0.0)

    given = LogitsProcessorList([only_seven])
    output = model.generate(**inputs, max_new_tokens=2, logits_processor=given, encoder_repetition_penalty=2.0)
    assert output.answer_ids == [[7, 7], [7, 7]]
    assert list(given) == [only_seven]
