"""Methods inside the LLM: against the same done by hand, and what a view of the model leaves behind."""

from itertools import product
from typing import Any

import pytest
import torch
from layer_reference import ByHand
from models import (
    DROPS,
    INSIDE_LLM,
    base_like,
    each_once,
    sample_of,
    tiny_grids,
    tiny_image,
    tiny_inputs,
    tiny_tokens,
)
from stock_reference import llm_of, projector_of
from torch import Tensor

from adallava import AdaLlava
from adallava.errors import AdallavaError, InputError, UnsupportedModeError
from adallava.pipeline.allocate import share_over_images
from adallava.pipeline.drops import plan_drops
from adallava.pipeline.standing import Standing
from adallava.selection import build_selector
from adallava.selection.fastv import FastVSelector
from adallava.selection.layer_contract import Drop

NEW = 3

LLMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"llm": "mistral", "sliding_window": None},
    # A window shorter than the prompt and than what is left of it: later layers have their own.
    "mistral-window": {"llm": "mistral", "sliding_window": 20},
}


@pytest.fixture(scope="module")
def llm(request: pytest.FixtureRequest) -> dict[str, Any]:
    options = LLMS[request.param]
    assert isinstance(options, dict)
    return options


@pytest.fixture(params=INSIDE_LLM)
def model(request: pytest.FixtureRequest, full: AdaLlava) -> AdaLlava:
    return full.with_method(request.param)


def _logits(output: Any) -> Tensor:
    return torch.stack(output.transformers_output.logits, dim=1)


QUICK = {
    *(("llama", method, ("original", "compact")[turn % 2]) for turn, method in enumerate(INSIDE_LLM)),
    *(("mistral-window", "fastv", "original"), ("mistral-window", "pyramiddrop", "compact")),
}
"""Every method on one LLM, at either positions in turn; one drop and several under a window. The rest is long."""

BY_HAND = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.long])
    for llm in LLMS
    for method in INSIDE_LLM
    for case in [(llm, method, "original"), (llm, method, "compact")]
]


@pytest.mark.newest
@pytest.mark.parametrize(("llm", "method", "positions"), BY_HAND, indirect=["llm"])
def test_dropping_inside_the_llm_is_what_it_is_by_hand(
    full: AdaLlava, inputs: dict[str, Any], llm: dict[str, Any], method: str, positions: Any
) -> None:
    model = AdaLlava(base_like(full, **llm), full.processor).with_method(method)
    budgets = [5, 16, 2]
    output = model.generate(
        **inputs,
        token_budget=budgets,
        positions=positions,
        max_new_tokens=NEW,
        do_sample=False,
        output_logits=True,
    )
    eager = base_like(full, attn_implementation="eager", **llm)
    selector = build_selector(method, model.shape)
    for row, budget in enumerate(budgets):
        sizes = tiny_tokens(model, [row])
        counts = share_over_images(budget, sizes)
        by_hand = ByHand(eager, selector, counts, sizes, compact=positions == "compact", grids=tiny_grids(model, [row]))
        tokens: list[int] = []
        for step in range(output.answer_lengths[row]):
            logits, kept, read = by_hand.logits(sample_of(inputs, row), tokens)
            torch.testing.assert_close(_logits(output)[row, step], logits, atol=1e-4, rtol=1e-4)
            tokens.append(int(logits.argmax()))
        assert output.answer_ids[row] == tokens
        assert output.records[row].kept_indices == tuple(map(tuple, kept))
        assert output.records[row].tokens_kept_by_layer == tuple(read)


CACHES: list[dict[str, Any]] = [{}, {"num_beams": 3}, {"cache_implementation": "static"}]


@pytest.mark.newest
@pytest.mark.parametrize(
    ("mode", "method"),
    [
        *each_once(CACHES, DROPS),
        *(pytest.param(*case, marks=pytest.mark.long) for case in product(CACHES, sorted({*INSIDE_LLM} - {*DROPS}))),
    ],
    ids=str,
)
def test_a_sliding_window_survives_every_cache(
    full: AdaLlava, inputs: dict[str, Any], method: str, mode: dict[str, Any]
) -> None:
    base = base_like(full, **LLMS["mistral-window"])
    model = AdaLlava(base, full.processor).with_method(method)
    together = model.generate(**inputs, token_budget=[5, 16, 2], max_new_tokens=NEW, do_sample=False, **mode)
    for row, budget in enumerate([5, 16, 2]):
        sample = sample_of(inputs, row)
        alone = model.generate(**sample, token_budget=budget, max_new_tokens=NEW, do_sample=False, **mode)
        assert alone.answer_ids[0] == together.answer_ids[row]
    stock = base.generate(**inputs, max_new_tokens=NEW, do_sample=False, **mode)
    assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, do_sample=False, **mode).sequences, stock)


@pytest.mark.parametrize(("attention", "dtype"), each_once(["eager", "sdpa"], [torch.bfloat16, torch.float32]))
def test_full_budget_is_stock_and_less_runs_for_kernels_and_formats(
    full: AdaLlava, inputs: dict[str, Any], attention: str, dtype: torch.dtype
) -> None:
    base = base_like(full, attn_implementation=attention, dtype=dtype)
    stock = base.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    for method in INSIDE_LLM:
        model = AdaLlava(base, full.processor).with_method(method)
        assert torch.equal(model.generate(**inputs, max_new_tokens=NEW, do_sample=False).sequences, stock)
        mixed = model.generate(**inputs, token_budget=[3, 16, 7], max_new_tokens=NEW, do_sample=False)
        assert [record.tokens_at_end for record in mixed.records] == [3, 16, 7]


def test_the_record_says_what_each_layer_read(llava: AdaLlava, llava_inputs: dict[str, Any]) -> None:
    def counts(method: str) -> tuple[int, ...] | None:
        model = llava.with_method(method)
        (record,) = model.generate(**sample_of(llava_inputs, 0), token_budget=2, max_new_tokens=1).records
        assert record.tokens_kept == record.num_vision_tokens == 16
        return record.tokens_kept_by_layer

    assert counts("fastv") == (16, 16, 2, 2)
    assert counts("pyramiddrop") == (16, 8, 4, 2)
    output = llava.with_method("uniform").generate(**sample_of(llava_inputs, 0), token_budget=2, max_new_tokens=1)
    assert output.records[0].tokens_kept_by_layer is None


def _attributes(base: Any) -> dict[str, dict[str, int]]:
    """Return every module's attributes and children by identity."""
    state = {}
    for name, module in base.named_modules():
        own = {key: id(value) for key, value in vars(module).items() if key not in ("_modules", "_parameters")}
        children = {f"child {key}": id(child) for key, child in module._modules.items()}
        hooks = {f"{key} length": len(value) for key, value in vars(module).items() if key.endswith("_hooks")}
        state[name] = {**own, **children, **hooks, "class": id(type(module))}
    return state


class _Failing(FastVSelector):
    def choose(self, inputs: Any) -> Any:
        raise RuntimeError("in the middle of the LLM")


@pytest.mark.parametrize("mode", [{}, {"cache_implementation": "static"}, {"num_beams": 2}], ids=str)
def test_nothing_is_ever_set_on_the_base(full: AdaLlava, inputs: dict[str, Any], mode: dict[str, Any]) -> None:
    base = base_like(full)
    holder = AdaLlava(base, full.processor)
    # transformers hangs hooks on the stock tower when its states are first asked for, by whomever.
    holder.generate(**inputs, max_new_tokens=1)
    before = _attributes(base)
    for method in INSIDE_LLM:
        model = holder.with_method(method)
        model.generate(**inputs, token_budget=3, max_new_tokens=2, do_sample=False, **mode)
        model.select(**inputs, token_budget=3)
        model.forward(**inputs, token_budget=3)
        assert _attributes(base) == before
    with pytest.raises(RuntimeError, match="in the middle"):
        holder.with_selector(_Failing()).generate(**inputs, token_budget=3, max_new_tokens=2, **mode)
    assert _attributes(base) == before


def test_two_calls_in_one_another_do_not_meet(model: AdaLlava, inputs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    other = tiny_inputs(model.processor, ["and this one, is it blue?"])
    expected = [model.generate(**inputs, token_budget=3, **options), model.generate(**other, token_budget=9, **options)]
    inner = []

    def interrupt(ids: Tensor, scores: Tensor) -> Tensor:
        inner.append(model.generate(**other, token_budget=9, **options).answer_ids)
        return scores

    outer = model.generate(**inputs, token_budget=3, logits_processor=[interrupt], **options)
    assert outer.answer_ids == expected[0].answer_ids
    assert len(inner) > 1
    assert all(ids == expected[1].answer_ids for ids in inner)


def test_images_keep_their_own_shares(model: AdaLlava) -> None:
    batch = tiny_inputs(model.processor, ["which?", "and these, which?"], images_each=2)
    records = model.generate(**batch, token_budget=[7, 20], max_new_tokens=1).records
    shares = [share_over_images(7, tiny_tokens(model, [0, 1])), share_over_images(20, tiny_tokens(model, [2, 3]))]
    assert [tuple(len(image) for image in record.kept_indices) for record in records] == shares
    assert [record.tokens_at_end for record in records] == [7, 20]
    others = {**batch, "pixel_values": -batch["pixel_values"]}
    other = model.generate(**others, token_budget=[7, 20], max_new_tokens=1).records
    assert [record.kept_indices for record in other] != [record.kept_indices for record in records]


def test_an_image_may_lose_everything_while_another_stays(model: AdaLlava) -> None:
    batch = tiny_inputs(model.processor, ["which?"], images_each=2)
    output = model.generate(**batch, token_budget=1, max_new_tokens=NEW, do_sample=False)
    counts = [len(image) for image in output.records[0].kept_indices]
    assert sorted(counts) == [0] * (len(counts) - 1) + [1]


def _labels(inputs: dict[str, Any]) -> Tensor:
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -3:] = inputs["input_ids"][:, -3:]
    return labels


def test_training_learns_from_what_the_last_layer_reads(model: AdaLlava, inputs: dict[str, Any]) -> None:
    budgets, labels = [3, 16, 9], _labels(inputs)
    output = model.forward(**inputs, labels=labels, token_budget=budgets)
    assert output.loss is not None
    assert output.batch.labels is not None
    assert output.batch.labels.shape == output.logits.shape[:2]
    lengths = [
        len(sample_of(inputs, row)["input_ids"][0]) - sum(tiny_tokens(model, [row])) + budget
        for row, budget in enumerate(budgets)
    ]
    assert output.layout.lengths == tuple(lengths)
    losses = []
    for row, length in enumerate(lengths):
        answer = inputs["input_ids"][row, -3:]
        losses.append(
            torch.nn.functional.cross_entropy(output.logits[row, length - 4 : length - 1], answer, reduction="none")
        )
    torch.testing.assert_close(output.loss, torch.cat(losses).mean())
    weights = [_projector_weight(model.base), model.base.lm_head.weight]
    for gradient in torch.autograd.grad(output.loss, weights):
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def _projector_weight(base: Any) -> torch.Tensor:
    weights = projector_of(base).parameters()
    return next(weight for weight in weights if weight.dim() > 1)


def test_the_answer_does_not_judge_the_image(model: AdaLlava, inputs: dict[str, Any]) -> None:
    labels = _labels(inputs)
    other = inputs["input_ids"].clone()
    other[:, -3:] = 40
    chosen = [
        model.forward(**{**inputs, "input_ids": ids}, labels=labels, token_budget=5).selection
        for ids in (inputs["input_ids"], other)
    ]
    assert chosen[0] is not None
    assert chosen[1] is not None
    assert torch.equal(chosen[0].indices, chosen[1].indices)
    torch.testing.assert_close(chosen[0].scores, chosen[1].scores)


def test_gradient_checkpointing_computes_the_same(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = base_like(full).train()
    model = AdaLlava(base, full.processor).with_method("pyramiddrop")
    weight = _projector_weight(base)
    gradients = []
    for _ in range(2):
        loss = model.forward(**inputs, labels=_labels(inputs), token_budget=4).loss
        assert loss is not None
        gradients += torch.autograd.grad(loss, [weight])
        base.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(*gradients)


def test_another_llm_is_refused_before_anything_runs(full: AdaLlava) -> None:
    other = AdaLlava(base_like(full, llm="olmo2"), full.processor)
    with pytest.raises(UnsupportedModeError, match="LLM is 'olmo2', whose layers are of the class Olmo2DecoderLayer"):
        other.with_method("fastv")
    with pytest.raises(UnsupportedModeError, match="this LLM has 2"):
        AdaLlava(base_like(full, num_hidden_layers=2), full.processor).with_method("fastv")


def test_a_layer_path_with_a_replaced_forward_is_refused(full: AdaLlava) -> None:
    base = base_like(full)
    llm_of(base).forward = base.model.language_model.forward
    with pytest.raises(
        UnsupportedModeError,
        match=r"forward of this model's (Llama|Qwen2|Qwen3VLText|Qwen2_5_VLText)Model was replaced",
    ):
        AdaLlava(base, full.processor).with_method("fastv")


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_states_of_different_lengths_are_refused(full: AdaLlava, inputs: dict[str, Any], name: str) -> None:
    model = full.with_method("fastv")
    for call in (model.generate, model.forward):
        with pytest.raises(UnsupportedModeError, match=f"{name}=True is not supported: a method inside the LLM"):
            call(**inputs, token_budget=3, **{name: True})
    base = base_like(full, attn_implementation="eager")
    setattr(base.config.text_config, name, True)
    with pytest.raises(UnsupportedModeError, match=f"config sets {name}"):
        AdaLlava(base, full.processor).with_method("fastv").select(**inputs, token_budget=3)


def test_a_picture_without_text_behind_it_is_refused(model: AdaLlava) -> None:
    text = f"USER: why? {model.processor.image_token}"
    batch = dict(model.processor(images=[tiny_image()], text=[text], return_tensors="pt"))
    if model.family.name == "internvl":
        pytest.skip("its processor puts a token behind every picture")
    with pytest.raises(InputError, match="sample 0 has no text after image 0"):
        model.generate(**batch, token_budget=3)


def test_labels_of_the_whole_prompt_leave_no_question_and_that_is_said(model: AdaLlava) -> None:
    batch = tiny_inputs(model.processor, ["why?"])
    with pytest.raises(InputError, match=r"after image 0 before its first label.*labels of the prompt to -100"):
        model.forward(**batch, labels=batch["input_ids"], token_budget=3)


def test_a_prompt_without_an_image_is_answered_as_by_the_stock_model(model: AdaLlava) -> None:
    batch = tiny_inputs(model.processor, ["why?", "what is it?"], images_each=0)
    batch.pop("pixel_values", None)
    output = model.generate(**batch, token_budget=0.5, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(output.sequences, model.base.generate(**batch, max_new_tokens=NEW, do_sample=False))
    assert output.records[0].kept_indices == ()
    assert output.records[0].tokens_kept_by_layer == (0, 0, 0, 0)


class _Rising(FastVSelector):
    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> Any:
        (drop,) = super().schedule(num_layers, num_vision_tokens, keep_count)
        return (drop, drop)


class _Wandering(FastVSelector):
    """Where it drops depends on the budget, so that a batch of several has no common layers."""

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> Any:
        layer = 1 if keep_count > 4 else 2
        return (Drop(layer, layer, keep_count),)


class _Forgetful(FastVSelector):
    def choose(self, inputs: Any) -> Any:
        return super().choose(type(inputs)(inputs.attention, inputs.hidden, inputs.token_counts, (2, 2, 2)))


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (_Rising(), "layers must ascend"),
        (_Wandering(), "at different layers"),
        (_Forgetful(), r"asked to keep \(3, 3, 8\) and returned \(2, 2, 2\)"),
    ],
)
def test_a_method_against_the_contract_is_an_error(
    llava: AdaLlava, llava_inputs: dict[str, Any], selector: Any, message: str
) -> None:
    with pytest.raises(AdallavaError, match=message):
        llava.with_selector(selector).generate(**llava_inputs, token_budget=[3, 3, 8], max_new_tokens=1)


def test_a_plan_by_hand() -> None:
    from adallava.budget import TokenBudget
    from adallava.pipeline.layout import plan_layout

    image = 9
    ids = torch.tensor([[1, 2, image, image, image, image, 3, 4], [0, 0, image, image, image, image, 5, 6]])
    mask = torch.tensor([[1] * 8, [0, 0] + [1] * 6])
    layout = plan_layout(
        ids,
        mask,
        tokens_per_image=[4, 4],
        image_token_id=image,
        budgets=[TokenBudget(count=2), TokenBudget(count=1)],
        side="left",
    )
    plan = plan_drops(FastVSelector(), layout, 4)
    (drop,) = plan.drops
    assert (drop.layer, drop.scored_by) == (2, 1)
    before = Standing.of(plan.layouts[0], torch.tensor([[0, 1, 2, 3]] * 2), plan)
    assert before.vision.tolist() == [[2, 3, 4, 5], [2, 3, 4, 5]]
    assert before.text.tolist() == [[6, 7], [6, 7]]
    # What is left stands on the right, as in any batch that is padded on the left; one token of the second image is.
    after = Standing.of(plan.layouts[1], torch.tensor([[1, 3], [2, 0]]), plan)
    assert after.sources(before).tolist() == [[0, 1, 3, 5, 6, 7], [0, 0, 0, 4, 6, 7]]
    assert after.vision.tolist() == [[2, 3], [3, 3]]
    assert after.text.tolist() == [[4, 5], [4, 5]]
    assert plan.layouts[1].mask.tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1]]
    assert plan.tokens_by_layer == ((4, 4, 2, 2), (4, 4, 1, 1))
