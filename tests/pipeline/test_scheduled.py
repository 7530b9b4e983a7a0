"""What every scheduler promises in generation: baselines, whole layers and groups of heads alike."""

from typing import Any

import pytest
import torch
from models import (
    BEFORE_LLM,
    MECHANISMS,
    SCHEDULERS,
    WHOLE_LAYERS,
    each_once,
    rest_is_long,
    sample_of,
    scheduled,
    six_layers,
    tiny_tokens,
    with_every_option,
)
from stock_reference import adding, extended, greedy, llm_of, stock_features, stock_levels, stock_positions
from torch import Tensor
from truncated_reference import truncated

from adallava import AdaLlava
from adallava.errors import BudgetError, UnsupportedModeError
from adallava.families.capabilities.of_llms import adds_rows

NEW = 3
# Of six layers, three of them the prefix: one or two more run, or all. One sample of three runs everything.
LATENCIES = [4 / 6, 1.0, 5 / 6]
BUDGETS = [5, 1.0, 0.5]
LEARNED = ("heads", "layers")
FREE_TOKEN = tuple(name for name in SCHEDULERS if name.startswith("adallava-"))
"""Their latency token holds nothing of the prompt, and stands behind every prompt."""

MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beams": {"num_beams": 3, "do_sample": False},
    "beam returns": {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
    "static cache": {"cache_implementation": "static", "do_sample": False},
    "static cache with beams": {"cache_implementation": "static", "num_beams": 3, "do_sample": False},
}


_IN_EVERY_MODE = ("heads", "adallava-layers")
"""Parts of layers; whole ones, with a token of their own. What a mode does to a cache does not depend on who chose."""


_EACH = rest_is_long(SCHEDULERS, set(SCHEDULERS) - set(WHOLE_LAYERS))


_QUICK_MODES = ("greedy", "beam returns", "static cache with beams")
"""They have in them what the others do."""

_IN_MODES = [
    pytest.param(name, mode, marks=[pytest.mark.long] if name in WHOLE_LAYERS or mode not in _QUICK_MODES else [])
    for name in SCHEDULERS
    for mode in (MODES if name in _IN_EVERY_MODE else ("greedy",))
]


@pytest.fixture(params=_EACH)
def model(request: pytest.FixtureRequest, six_by_scheduler: dict[str, AdaLlava]) -> AdaLlava:
    return scheduled(six_by_scheduler[request.param], request.param).with_method("uniform")  # type: ignore[no-any-return]


def _logits(output: Any) -> Tensor:
    return torch.stack(output.transformers_output.logits, dim=1)


def _units_run(record: Any) -> int:
    return sum(map(len, record.groups_run[3:]))


def _layers_of(record: Any) -> tuple[Any, ...]:
    asked = (record.scheduler, record.latency_asked)
    return (*asked, record.groups_run, record.groups_per_layer, record.latency_tokens)


def test_exactly_n_units_run_and_the_record_names_them(model: AdaLlava, inputs: dict[str, Any]) -> None:
    output = model.generate(**inputs, latency=LATENCIES, seed=[1, 2, 3], max_new_tokens=1)
    assert model.scheduler is not None
    # In adallava-heads, two heads make a unit, and the record names heads.
    groups, of_a_unit = {"heads": (2, 1), "adallava-heads": (4, 2)}.get(model.scheduler.name, (1, 1))
    for record, latency, layers in zip(
        output.records, ["0.6666666666666666", "1.0", "0.8333333333333334"], (1, 3, 2), strict=True
    ):
        assert record.groups_run is not None
        assert (record.scheduler, record.latency_asked) == (model.scheduler.name, latency)
        assert record.groups_per_layer == groups
        assert len(record.groups_run) == 6
        assert record.groups_run[:3] == (tuple(range(groups)),) * 3
        assert _units_run(record) == layers * groups
        assert all(len(run) % of_a_unit == 0 for run in record.groups_run)


@pytest.mark.parametrize(("model", "mode"), _IN_MODES, indirect=["model"])
def test_a_mixed_batch_gives_each_sample_what_it_gives_alone(
    model: AdaLlava, inputs: dict[str, Any], mode: str
) -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, **MODES[mode]}
    together = model.generate(**inputs, token_budget=BUDGETS, latency=LATENCIES, seed=[1, 2, 3], **options)
    returns = options.get("num_return_sequences", 1)
    for row in range(3):
        alone = model.generate(
            **sample_of(inputs, row), token_budget=BUDGETS[row], latency=LATENCIES[row], seed=row + 1, **options
        )
        for number in range(returns):
            assert alone.answer_ids[number] == together.answer_ids[row * returns + number]
        if LATENCIES[row] < 1.0:
            assert _layers_of(alone.records[0]) == _layers_of(together.records[row * returns])


@pytest.mark.newest
@torch.no_grad()
def test_a_plan_is_the_stock_model_with_the_rest_taken_out(model: AdaLlava, inputs: dict[str, Any]) -> None:
    # At full tokens, one sample: the prompt, its free latency token if there is one, and a smaller model. A token that
    # only observes leaves no trace: the smaller model knows nothing of it.
    for row, latency in enumerate((4 / 6, 3 / 6, 5 / 6)):
        sample = sample_of(inputs, row)
        output = model.generate(**sample, latency=latency, max_new_tokens=NEW, do_sample=False, output_logits=True)
        record = output.records[0]
        assert record.groups_run is not None
        slices = _slices_run(model, sample, latency)
        smaller = truncated(model.base, record.groups_run, record.groups_per_layer, slices)
        embeds = _embeds(model, sample, latency)
        with _adding(model, smaller, sample, record.groups_run):
            tokens, logits = greedy(smaller, embeds, _positions(model, sample), NEW)
        assert output.answer_ids[0] == tokens
        torch.testing.assert_close(_logits(output)[0], logits, atol=2e-4, rtol=2e-4)


def _slices_run(model: AdaLlava, sample: dict[str, Any], latency: float) -> list[list[int]] | None:
    """Return which slices of each layer's MLP run, where they are not those of the heads."""
    schedule = model.forward(**sample, latency=latency).schedule
    if schedule is None or schedule.parts is None:
        return None
    (behind,) = schedule.parts.slices
    return [[0, 1, 2, 3]] * 3 + [layer.nonzero().flatten().tolist() for layer in behind]


def _embeds(model: AdaLlava, sample: dict[str, Any], latency: float) -> Tensor:
    """The whole prompt's embeddings, and behind them a free latency token, if there is one."""
    ids = sample["input_ids"]
    embeds = model.base.get_input_embeddings()(ids)
    embeds[ids == model.base.config.image_token_id] = stock_features(model.base, sample)
    scheduler: Any = model.scheduler
    if scheduler.name not in FREE_TOKEN:
        return embeds
    return torch.cat([embeds, scheduler.latency_token(torch.tensor([latency]))[None]], dim=1)


def _positions(model: AdaLlava, sample: dict[str, Any]) -> Tensor:
    """The prompt's positions, and behind them a free latency token's, if there is one."""
    scheduler: Any = model.scheduler
    return extended(stock_positions(model.base, sample), int(scheduler.name in FREE_TOKEN))


def _adding(model: AdaLlava, smaller: Any, sample: dict[str, Any], run: Any) -> Any:
    """Add what the stock model adds behind its layers, to what is left of them: behind the last one before each."""
    levels = [level.detach() for level in stock_levels(model.base, sample)]
    left: list[Any] = []
    for layer, groups in enumerate(run):
        if groups:
            left.append(0)
        left[-1] = left[-1] + (levels[layer] if layer < len(levels) else 0)
    rows = [rows for rows in left if isinstance(rows, Tensor)]
    return adding(smaller, rows, (sample["input_ids"][0] == model.base.config.image_token_id).nonzero().flatten())


_WITHOUT_FREE_TOKEN = [case for case in _IN_MODES if case.values[0] not in FREE_TOKEN]
"""An LLM that was tuned with a token behind every prompt has a test of its own, the next."""


@pytest.mark.parametrize(("model", "mode"), _WITHOUT_FREE_TOKEN, indirect=["model"])
def test_latency_one_is_the_stock_model_to_the_bit(model: AdaLlava, inputs: dict[str, Any], mode: str) -> None:
    stock = model.base.generate(**inputs, max_new_tokens=NEW, **MODES[mode])
    assert torch.equal(model.generate(**inputs, latency=1.0, max_new_tokens=NEW, **MODES[mode]).sequences, stock)
    output = model.generate(**inputs, latency="100%", max_new_tokens=1)
    assert output.records[0].groups_run is None


@torch.no_grad()
@pytest.mark.parametrize("name", FREE_TOKEN)
def test_a_free_token_stands_behind_every_prompt(
    six_by_scheduler: dict[str, AdaLlava], inputs: dict[str, Any], name: str
) -> None:
    """At latency 1.0 every stock layer runs, over the prompt and the token."""
    model = scheduled(six_by_scheduler[name], name).with_method("uniform")
    together = model.generate(**inputs, latency=1.0, max_new_tokens=NEW, do_sample=False)
    forward = model.forward(**inputs, latency=1.0)
    for row, record in enumerate(together.records):
        sample = sample_of(inputs, row)
        assert record.groups_run is not None
        assert (record.latency_tokens, set(record.layer_shares)) == (1, {1})
        assert together.prompt_lengths[row] == sample["input_ids"].shape[1] + 1
        embeds = _embeds(model, sample, 1.0)
        with _adding(model, model.base, sample, [(0,)] * 6):
            tokens, logits = greedy(model.base, embeds, _positions(model, sample), NEW)
        assert together.answer_ids[row] == tokens
        last = forward.logits[row, forward.layout.lengths[row] - 1]
        torch.testing.assert_close(last, logits[0], atol=2e-4, rtol=2e-4)
    with pytest.raises(UnsupportedModeError, match="output_hidden_states=True is not supported"):
        model.generate(**inputs, latency=1.0, output_hidden_states=True)


def test_a_latency_below_the_prefix_names_the_least(model: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(BudgetError, match=r"latency 0\.4 asks for 2\.4 of 6 layers.*give at least 0\.5, or 3 layers"):
        model.generate(**inputs, latency=[1.0, 0.4, 0.5], max_new_tokens=1)


def test_no_row_pays_for_anothers_plan(six: AdaLlava, inputs: dict[str, Any]) -> None:
    """Rows that reach each layer, and rows of its cache."""
    seen: dict[int, list[int]] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, index=index: seen.setdefault(index, []).append(len(args[0])))
        for index, layer in enumerate(llm_of(six.base).layers)
    ]
    model = scheduled(six, "first")
    output = model.generate(
        **inputs, latency=[3, 4, 5], max_new_tokens=2, min_new_tokens=2, return_dict_in_generate=True
    )
    for hook in hooks:
        hook.remove()
    assert seen == {0: [3, 3], 1: [3, 3], 2: [3, 3], 3: [2, 2], 4: [1, 1]}
    layers = output.transformers_output.past_key_values.layers
    held = [len(layer.keys) if layer.is_initialized else 0 for layer in layers]
    assert held == [3, 3, 3, 2, 1, 0]


@pytest.mark.newest
def test_groups_that_do_not_run_hold_no_keys(six: AdaLlava, inputs: dict[str, Any]) -> None:
    output = scheduled(six, "heads").generate(**inputs, latency=[0.5, 4 / 6, 5 / 6], max_new_tokens=2)
    values = 0
    for layer in output.transformers_output.past_key_values.layers[3:]:
        values += layer.keys[..., 0, 0].numel() if layer.is_initialized else 0
    # Two key-value heads a layer in two groups: one a unit.
    assert values == sum(_units_run(record) for record in output.records) == 0 + 2 + 4


@pytest.mark.parametrize(
    ("method", "name"), each_once([method for method in MECHANISMS if method in BEFORE_LLM], LEARNED)
)
def test_every_mechanism_before_the_llm_goes_with_a_scheduler(
    six: AdaLlava, inputs: dict[str, Any], method: str, name: str, full: AdaLlava
) -> None:
    if method in ("question", "budget-token"):
        model = with_every_option(scheduled(full, name), method)
        latencies: list[Any] = [1.0, 3, 2]
    else:
        model, latencies = with_every_option(scheduled(six, name), method), LATENCIES
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    together = model.generate(**inputs, token_budget=BUDGETS, latency=latencies, seed=[4, 5, 6], **options)
    plain = model.select(**inputs, token_budget=BUDGETS, seed=[4, 5, 6])
    for row in range(3):
        assert together.records[row].kept_indices == plain[row].kept_indices
        alone = model.generate(
            **sample_of(inputs, row), token_budget=BUDGETS[row], latency=latencies[row], seed=row + 4, **options
        )
        assert alone.answer_ids[0] == together.answer_ids[row]


@pytest.mark.parametrize("name", _EACH)
def test_a_method_inside_the_llm_goes_with_a_scheduler_behind_it(
    six_by_scheduler: dict[str, AdaLlava], inputs: dict[str, Any], name: str
) -> None:
    model = scheduled(six_by_scheduler[name], name).with_method("fastv")
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    # Greedy last: its first tokens are compared with a forward pass.
    modes: tuple[dict[str, Any], ...] = ({"num_beams": 2, "cache_implementation": "static"}, {})
    for mode in modes if name in _IN_EVERY_MODE else modes[1:]:
        together = model.generate(**inputs, token_budget=BUDGETS, latency=LATENCIES, seed=[4, 5, 6], **options, **mode)
        totals = [sum(tiny_tokens(model, [row])) for row in range(3)]
        assert [record.tokens_at_end for record in together.records] == [5, totals[1], totals[2] // 2]
        for row in range(3):
            alone = model.generate(
                **sample_of(inputs, row),
                token_budget=BUDGETS[row],
                latency=LATENCIES[row],
                seed=row + 4,
                **options,
                **mode,
            )
            assert alone.answer_ids[0] == together.answer_ids[row]
    forward = model.forward(**inputs, token_budget=BUDGETS, latency=LATENCIES, seed=[4, 5, 6])
    first = together.transformers_output.sequences[:, together.prompt_length]
    lengths = torch.tensor(forward.layout.lengths) - 1
    assert torch.equal(forward.logits[torch.arange(3), lengths].argmax(-1), first)


def test_drops_behind_the_prefix_are_refused(six: AdaLlava, inputs: dict[str, Any]) -> None:
    model = scheduled(six, "layers").with_method("pyramiddrop")
    with pytest.raises(UnsupportedModeError, match=r"'pyramiddrop' drops tokens before layer .* more prefix_layers"):
        model.generate(**inputs, token_budget=3, latency=0.5, max_new_tokens=1)
    model.generate(**inputs, token_budget=3, latency=1.0, max_new_tokens=1)


def test_sampling_draws_what_the_smaller_model_would(model: AdaLlava, inputs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"do_sample": True, "num_return_sequences": 3, "temperature": 1.5, "top_k": 0}
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(model.generate(**inputs, latency=LATENCIES, max_new_tokens=NEW, **options))
    assert torch.equal(drawn[0].sequences, drawn[1].sequences)
    assert len({tuple(ids) for ids in drawn[0].answer_ids}) > 3
    for sample in range(3):
        assert len({drawn[0].records[3 * sample + number].groups_run for number in range(3)}) == 1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("llm", "names"),
    [
        ({}, LEARNED),
        ({"llm": "mistral", "sliding_window": 160}, LEARNED),
        # Shorter than the prompt: a latency token would take a place in the window.
        ({"llm": "mistral", "sliding_window": 20}, ("spaced",)),
    ],
    ids=["llama", "window", "short window"],
)
def test_kernels_and_llms(
    full: AdaLlava, inputs: dict[str, Any], attention: str, llm: dict[str, Any], names: tuple[str, ...]
) -> None:
    base = six_layers(full, attn_implementation=attention, **llm)
    for name in names:
        model = scheduled(base, name)
        output = model.generate(**inputs, latency=LATENCIES, max_new_tokens=NEW, do_sample=False)
        for row in (0, 2):
            sample = sample_of(inputs, row)
            record = output.records[row]
            assert record.groups_run is not None
            smaller = truncated(model.base, record.groups_run, record.groups_per_layer)
            embeds = _embeds(model, sample, LATENCIES[row])
            with _adding(model, smaller, sample, record.groups_run):
                tokens, _ = greedy(smaller, embeds.detach(), _positions(model, sample), NEW)
            assert output.answer_ids[row] == tokens


@pytest.mark.parametrize("key_value_heads", [2, 4])
def test_nothing_is_left_on_the_base(full: AdaLlava, inputs: dict[str, Any], key_value_heads: int) -> None:
    six = six_layers(full, num_key_value_heads=key_value_heads)
    six.generate(**inputs, max_new_tokens=1)
    before = [(name, set(vars(module))) for name, module in six.base.named_modules()]
    for name in (name for name in SCHEDULERS if key_value_heads == 4 or name != "adallava-heads"):
        scheduled(six, name).generate(**inputs, latency=LATENCIES, num_beams=2, max_new_tokens=2)
    assert [(name, set(vars(module))) for name, module in six.base.named_modules()] == before


def test_a_number_of_layers_that_is_all_of_them_is_the_whole_llm(six: AdaLlava, inputs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    stock = six.generate(**inputs, **options)
    # Without a scheduler, and in a mode that a call which leaves layers out refuses: as one that adds rows does.
    states = {} if adds_rows(six.family) else {"output_hidden_states": True, "return_dict_in_generate": True}
    counted = six.generate(**inputs, latency=6, **states, **options)
    assert counted.answer_ids == stock.answer_ids
    with pytest.raises(BudgetError, match="no scheduler says which"):
        six.generate(**inputs, latency=5, **options)
