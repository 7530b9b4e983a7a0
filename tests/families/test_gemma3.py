"""Gemma 3: tokens are means of patches that see each other, and windows count what is kept."""

from typing import Any

import pytest
import torch
from masked_tokens import (
    check_alone,
    check_dropped_are_masked,
    check_gradients,
    counted_and_expected,
    logits_masked_from_layer,
    masked_logits,
    staying,
)
from models import BEFORE_LLM, IN_A_FAMILY, each_once, rest_is_long
from tiny_gemma3 import prompts_with_pictures, tiny_gemma3_base, tiny_gemma3_processor

from adallava import AdaLlava
from adallava.errors import UnsupportedModeError
from adallava.families.needs import check_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.picture_cuts import find_frames
from adallava.records.picture_frames import WHOLE
from adallava.scheduling.first import FirstScheduler
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

LACKS = {"budget-token", "downsample", "cls-attention", "visionzip", "prumerge", "prumerge-k"}
LACKS |= {"prumerge-plus", "prumerge-plus-k"}
"""By hand: methods that read a class token, which SigLIP has not, or send something else through the tower."""

IN_WINDOWS = each_once([{}, {"num_beams": 2}, {"cache_implementation": "static"}], [8, 512])
"""Ways to generate, and windows of layers that slide: narrower than the prompts, and not."""

SERVED = [name for name in BEFORE_LLM if name not in {*LACKS, "question"}]


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_gemma3_base(), tiny_gemma3_processor())


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return prompts_with_pictures(full.processor)


def test_the_whole_picture_is_seen(full: AdaLlava) -> None:
    assert find_frames(full.processor, [(40, 90)])[0] == WHOLE


def test_its_processor_says_which_tokens_are_a_pictures(full: AdaLlava, inputs: dict[str, Any]) -> None:
    companions = full.family.companions(inputs["input_ids"], None, None)
    assert torch.equal(companions["token_type_ids"], inputs["token_type_ids"])


@pytest.mark.newest
@pytest.mark.parametrize(("options", "window"), IN_WINDOWS, ids=str)
def test_the_full_budget_is_the_stock_model(full: AdaLlava, inputs: dict[str, Any], options: Any, window: int) -> None:
    model = full if window == 512 else AdaLlava(tiny_gemma3_base(window=window), full.processor)
    stock = model.base.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    for each in (model, model.with_method("divprune")):
        ours = each.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
        assert torch.equal(ours.sequences, stock)
    assert type(model.base).__name__ == "Gemma3ForConditionalGeneration"
    assert "prepare_inputs_for_generation" not in vars(model.base)


@torch.no_grad()
def test_its_logits_have_the_stock_models_bits(full: AdaLlava, inputs: dict[str, Any]) -> None:
    right = prompts_on_the_right(inputs)
    real = right["attention_mask"].bool()
    stock = full.base(**right, use_cache=False).logits
    assert torch.equal(full.forward(**right).logits[real], stock[real])


def prompts_on_the_right(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a batch that is padded on the left as one padded on the right."""
    order = inputs["attention_mask"].argsort(dim=1, descending=True, stable=True)
    texts = ("input_ids", "attention_mask", "token_type_ids")
    return inputs | {name: inputs[name].gather(1, order) for name in texts}


@pytest.mark.newest
@pytest.mark.parametrize("method", rest_is_long(SERVED, IN_A_FAMILY))
def test_dropped_tokens_are_masked_ones(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_dropped_are_masked(full, inputs, method, [5, 11, 1.0], [5, 11, 16])


@torch.no_grad()
def test_with_a_narrow_window_they_are_not_and_the_record_says_so(full: AdaLlava, inputs: dict[str, Any]) -> None:
    narrow = AdaLlava(tiny_gemma3_base(window=8), full.processor).with_method("uniform")
    made = narrow.forward(**inputs, token_budget=4)
    kept = [ran.kept_indices for ran in narrow.select(**inputs, token_budget=4)]
    expected = masked_logits(narrow.base, inputs, kept)[0]
    assert (made.logits[0, : len(expected)] - expected).abs().max() > 0.1
    few, all_tokens = (
        narrow.generate(**inputs, token_budget=budget, max_new_tokens=1).records[0] for budget in (4, 1.0)
    )
    assert (few.window_tokens, few.window_reaches_further, all_tokens.window_reaches_further) == (8, True, False)
    wide = full.with_method("uniform").generate(**inputs, token_budget=4, max_new_tokens=1).records[0]
    assert (wide.window_tokens, wide.window_reaches_further) == (512, False)


def alone_of(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one prompt of a batch without padding, with its pictures."""
    real = inputs["attention_mask"][row].bool()
    texts = {name: inputs[name][row : row + 1, real] for name in ("input_ids", "attention_mask", "token_type_ids")}
    return texts | {"pixel_values": inputs["pixel_values"][slice((0, 1, 3)[row], (1, 3, 4)[row])]}


def test_an_answer_does_not_depend_on_its_batch(full: AdaLlava, inputs: dict[str, Any]) -> None:
    check_alone(full.with_method("divprune"), inputs, [5, 11, 0.5], lambda row: alone_of(inputs, row))


def test_labels_and_gradients_are_those_of_masked_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    check_gradients(full, inputs, [full.base.model.multi_modal_projector.mm_input_projection_weight], 6)


def test_two_pictures_without_text_between_are_one_block_here_as_there(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """The prompts of its processor always have some; by hand they can be made without."""
    text, place = torch.tensor([[65, 66]]), full.family.image_token_id
    ids = torch.cat([text, torch.full((1, 32), place), text], dim=1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": inputs["pixel_values"][:2]}
    types = {"token_type_ids": (ids == place).long()}
    model = full.with_method("uniform")
    with torch.no_grad():
        assert torch.equal(full.forward(**given).logits, full.base(**given, **types, use_cache=False).logits)
        made = model.forward(**given, token_budget=6).logits[0]
        (ran,) = model.select(**given, token_budget=6)
        (expected,) = masked_logits(full.base, given | types, [ran.kept_indices])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_methods_read_means_of_its_tower(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """Token 5 is in row 1 and column 1 of 4 x 4, so of rows and columns 2 and 3 of the 8 x 8 patches."""
    vision = full.family.encode(PictureInputs(inputs["pixel_values"]), needs=(Need.FEATURE_LAYER,))
    patches = full.base.model.vision_tower(inputs["pixel_values"]).last_hidden_state
    cell = patches[:, [18, 19, 26, 27]].mean(dim=1)
    torch.testing.assert_close(vision.features[:, 5], cell, atol=1e-5, rtol=1e-5)
    assert vision.feature_layer is not None
    assert vision.feature_layer.keys.shape == (4, 16, 32)
    every = torch.arange(16).expand(4, -1)
    kept = full.family.project(vision.features.gather(1, every.unsqueeze(-1).expand(-1, -1, 32)))
    torch.testing.assert_close(kept, full.base.model.multi_modal_projector(patches), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", sorted(LACKS))
def test_what_its_tower_cannot_serve_is_refused(full: AdaLlava, method: str) -> None:
    with pytest.raises(UnsupportedModeError, match=f"{method}.* such as 'uniform'"):
        check_needs(full.family, build_selector(method, full.shape))


@pytest.mark.parametrize(("method", "budget"), [("divprune", 5), ("tome", 11), ("uniform", 16)])
def test_its_costs_are_what_pytorch_counts(full: AdaLlava, method: str, budget: int) -> None:
    model = AdaLlava(tiny_gemma3_base(window=8), full.processor).with_method(method)
    counted, expected = counted_and_expected(model, prompts_with_pictures(full.processor, [1]), budget)
    assert sum(expected.values()) == counted


@pytest.mark.newest
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_is_dropped_inside_its_llm_is_masked_from_there_on(inputs: dict[str, Any], attention: str) -> None:
    """The tokens of a picture that are left go on to see each other, in front of them and behind."""
    base = tiny_gemma3_base()
    base.set_attn_implementation(attention)
    full = AdaLlava(base, tiny_gemma3_processor())
    model = full.with_method("fastv")
    made = model.forward(**inputs, token_budget=[5, 11, 1.0])
    records = model.generate(**inputs, token_budget=[5, 11, 1.0], max_new_tokens=1).records
    assert [ran.tokens_kept_by_layer for ran in records] == [(16, 16, 5, 5), (32, 32, 11, 11), (16, 16, 16, 16)]
    stays = staying(inputs, full.family.image_token_id, [ran.kept_indices for ran in records]).bool()
    dropped = inputs["attention_mask"].bool() & ~stays
    expected = logits_masked_from_layer(base, inputs, 2, dropped)
    for row in range(3):
        left = expected[row][stays[row]]
        torch.testing.assert_close(made.logits[row, : len(left)], left, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("options", "window"), IN_WINDOWS, ids=str)
def test_methods_inside_its_llm_answer_alone_as_in_a_batch(inputs: dict[str, Any], options: Any, window: int) -> None:
    full = AdaLlava(tiny_gemma3_base(window=window), tiny_gemma3_processor())
    model = full.with_method("pyramiddrop")
    stock = full.base.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False, **options).sequences, stock)
    together = model.generate(**inputs, token_budget=[5, 11, 0.5], max_new_tokens=4, do_sample=False, **options)
    for row, budget in enumerate([5, 11, 0.5]):
        alone = model.generate(
            **alone_of(inputs, row), token_budget=budget, max_new_tokens=4, do_sample=False, **options
        )
        assert alone.answer_ids[0] == together.answer_ids[row]
        assert alone.records[0].kept_indices == together.records[row].kept_indices


def test_a_schedule_leaves_layers_of_its_llm_out(inputs: dict[str, Any]) -> None:
    """Of four layers two slide; the first two run, as in a model that has no more."""
    full = AdaLlava(tiny_gemma3_base(window=8), tiny_gemma3_processor())
    model = full.with_method("uniform").with_scheduler(FirstScheduler(prefix_layers=1))
    output = model.generate(**inputs, token_budget=9, latency=[1.0, 0.5, 0.75], max_new_tokens=3, do_sample=False)
    assert [ran.layer_share for ran in output.records] == [1.0, 0.5, 0.75]
    whole = full.with_method("uniform").generate(**inputs, token_budget=9, max_new_tokens=3, do_sample=False)
    assert whole.text[0] == output.text[0]
    smaller = tiny_gemma3_base(window=8)
    smaller.model.language_model.layers = smaller.model.language_model.layers[:2]
    smaller.config.text_config.num_hidden_layers = 2
    smaller.config.text_config.layer_types = smaller.config.text_config.layer_types[:2]
    cut = AdaLlava(smaller, full.processor).with_method("uniform")
    assert cut.generate(**inputs, token_budget=9, max_new_tokens=3, do_sample=False).text[1] == output.text[1]


@torch.no_grad()
def test_a_merged_token_is_the_mean_of_its_features_behind_the_projector(
    full: AdaLlava, inputs: dict[str, Any]
) -> None:
    made = full.with_method("pool").forward(**inputs, token_budget=4)
    vision = full.family.encode(PictureInputs(inputs["pixel_values"][:1]))
    cells = vision.features.view(1, 2, 2, 2, 2, 32).mean(dim=(2, 4)).flatten(1, 2)
    merged = made.batch.inputs_embeds[0, made.layout.vision_slots[0] >= 0]
    torch.testing.assert_close(merged, full.family.project(cells)[0], atol=1e-5, rtol=1e-5)
