"""LLaVA-NeXT under the contracts of every method: pictures of different sizes, in tiles, with row ends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import (
    INSIDE_LLM,
    METHOD_OPTIONS,
    TINY_SHAPE,
    tiny_next_base,
    tiny_next_processor,
)
from PIL import Image

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.errors import InputError, UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.llava_next import _places, _tiling
from adallava.model import build_prompt
from adallava.registry import load_selector_class, selector_names
from adallava.selection import build_selector
from adallava.selection.contract import Need, OwnCountMethod, RoundingMethod
from adallava.selection.layer_contract import LayerSelector

# (width, height): the last has no padding to cut off.
SIZES = [(60, 40), (30, 90), (56, 56)]
QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]
NEW = 4


def _needs_what_next_lacks(name: str) -> bool:
    cls = load_selector_class(name)
    needs = getattr(cls, "needs", frozenset())
    lacks = {Need.BUDGET_TOKEN, Need.RESIZED_PICTURE, Need.TEXT_TOWER}
    return name == "budget-token" or (not isinstance(needs, property) and bool(needs & lacks))


METHODS = [name for name in selector_names() if not _needs_what_next_lacks(name)]


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_next_base(), tiny_next_processor())


@pytest.fixture(params=METHODS)
def model(request: pytest.FixtureRequest, full: AdaLlava) -> AdaLlava:
    return _with_method(full, request.param)


def _with_method(full: AdaLlava, name: str) -> AdaLlava:
    options = METHOD_OPTIONS.get(name, {})
    if not load_selector_class(name).learned:
        return full.with_selector(build_selector(name, full.shape, **options))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        selector: Any = build_selector(name, full.shape, **options)
        for parameter in selector.parameters():
            torch.nn.init.normal_(parameter, std=0.12)
    return full.with_selector(selector.eval())


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _inputs(full: AdaLlava, which: list[int]) -> dict[str, Any]:
    return dict(
        full.processor(
            images=[_picture(*SIZES[index]) for index in which],
            text=[build_prompt(full.processor, QUESTIONS[index]) for index in which],
            return_tensors="pt",
            padding=True,
        )
    )


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return _inputs(full, [0, 1, 2])


def _logits(output: Any) -> torch.Tensor:
    return torch.stack(output.transformers_output.logits, dim=1)


def test_a_picture_is_its_whole_and_its_tiles(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """By hand: 60 x 40 fits 56 x 56 best, 8 columns and int(40 * 8 / 60) = 5 rows: 1 of 8 is cut off above and below.

    30 x 90 fits 28 x 84: three tiles, 12 rows, 4 columns. 56 x 56 is four whole tiles. A row's end is one column more.
    """
    family = full.family.for_sizes(inputs["image_sizes"])
    assert family.grids(inputs["pixel_values"]) == ((4, 4), (6, 9), (4, 4), (12, 5), (4, 4), (8, 9))
    placeholders = (inputs["input_ids"] == full.base.config.image_token_id).sum(dim=1)
    assert placeholders.tolist() == [16 + 54, 16 + 60, 16 + 72]


PUBLISHED_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Of the config.json of llava-hf/llava-v1.6-vicuna-7b-hf; tiles of 336 pixels, 24 patches a side."""


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_any_picture_has_as_many_tokens_and_tiles_as_in_transformers(height: int, width: int) -> None:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    tiling = _tiling((height, width), PUBLISHED_PINPOINTS, 336, 24)
    assert tiling.num_tiles == image_size_to_num_patches((height, width), PUBLISHED_PINPOINTS, 336)
    placeholders = LlavaNextProcessor._get_unpadded_features(None, height, width, 24, 24, tiling.down, tiling.across)
    assert (tiling.rows * tiling.columns, tiling.rows) == placeholders
    (places,) = _places([tiling], 24)[1:]
    total = 576 * tiling.num_tiles
    patches = places[: tiling.rows * (tiling.columns + 1)]
    assert (patches == total).sum() == tiling.rows
    assert len(patches[patches < total].unique()) == tiling.rows * tiling.columns


@torch.no_grad()
def test_every_token_is_the_stock_models(full: AdaLlava, inputs: dict[str, Any]) -> None:
    pixels, sizes = inputs["pixel_values"], inputs["image_sizes"]
    stock = full.base.model.get_image_features(pixels, sizes).pooler_output
    family = full.family.for_sizes(sizes)
    ours = family.project(family.encode(pixels).features)
    for picture, tokens in enumerate(stock):
        tiled = len(tokens) - 16
        torch.testing.assert_close(ours[2 * picture, :16], tokens[:16], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours[2 * picture + 1, :tiled], tokens[16:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_merged_token_is_the_mixture_of_what_it_holds(full: AdaLlava) -> None:
    family, newline = full.family, full.base.model.image_newline
    patches = torch.randn(2, 32)
    ended = torch.zeros(33)
    ended[-1] = 1
    one, two = torch.nn.functional.pad(patches, (0, 1))
    merged = torch.stack([one, (one + two) / 2, (one + two + ended) / 3, ended])[None]
    mean = full.base.model.multi_modal_projector(patches.mean(dim=0))
    expected = torch.stack([full.base.model.multi_modal_projector(patches[0]), mean, (2 * mean + newline) / 3, newline])
    torch.testing.assert_close(family.project(merged)[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["full", *(name for name in METHODS if name != "none")])
def test_full_budget_is_the_stock_model(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    model = full if method == "full" else _with_method(full, method)
    if model.selector is not None and not isinstance(model.selector, LayerSelector) and model.selector.ignores_budget:
        pytest.skip("sets its own counts")
    options = {"max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    ours = model.generate(**inputs, token_budget=1.0, **options)
    stock = full.base.generate(**inputs, **options)
    assert torch.equal(ours.sequences, stock.sequences)
    # To the bit where one matrix product gives a row the same whatever stands beside it.
    torch.testing.assert_close(_logits(ours), torch.stack(stock.logits, dim=1), atol=1e-5, rtol=1e-5)


def test_exactly_k_tokens_reach_the_llm(model: AdaLlava, inputs: dict[str, Any]) -> None:
    budgets = [1.0, 0.25, 7]
    output = model.generate(**inputs, token_budget=budgets, seed=[1, 2, 3], max_new_tokens=1)
    family = model.family.for_sizes(inputs["image_sizes"])
    grids = family.grids(inputs["pixel_values"])
    for row, (record, asked) in enumerate(zip(output.records, [70, 19, 7], strict=True)):
        total = [70, 76, 88][row]
        assert record.num_vision_tokens == total
        for indices, (rows, columns) in zip(record.kept_indices, grids[2 * row : 2 * row + 2], strict=True):
            assert list(indices) == sorted(set(indices))
            assert all(0 <= index < rows * columns for index in indices)
        kept = sum(map(len, record.kept_indices))
        if isinstance(model.selector, OwnCountMethod):
            assert 2 <= kept <= total
        elif model.method == "none":
            assert kept == 0
        elif isinstance(model.selector, RoundingMethod):
            assert record.tokens_asked == asked
            assert 1 <= kept <= asked
        else:
            assert record.tokens_asked == kept == asked
        entered = total if model.method in INSIDE_LLM else kept
        placeholders = (output.sequences[row, : output.prompt_length] == model.base.config.image_token_id).sum()
        assert placeholders == record.tokens_kept == entered


def test_a_batch_gives_each_sample_what_it_gives_alone(full: AdaLlava, model: AdaLlava, inputs: dict[str, Any]) -> None:
    budgets, seeds = [0.5, 0.25, 9], [11, 12, 13]
    options = {"max_new_tokens": NEW, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    together = model.generate(**inputs, token_budget=budgets, seed=seeds, **options)
    for row in range(3):
        alone = model.generate(**_inputs(full, [row]), token_budget=budgets[row], seed=seeds[row], **options)
        assert alone.records[0].kept_indices == together.records[row].kept_indices
        length = alone.answer_lengths[0]
        assert length == together.answer_lengths[row]
        torch.testing.assert_close(_logits(alone)[0, :length], _logits(together)[row, :length], atol=2e-4, rtol=2e-4)


def test_a_shortened_prompt_is_the_manual_one(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """Stock embeddings, the columns that were kept, their original positions: the same logits."""
    model = _with_method(full, "random")
    alone = _inputs(full, [0])
    with torch.no_grad():
        ours = model.forward(**alone, token_budget=20, seed=4)
        (sample,) = model.select(**alone, token_budget=20, seed=4)
        ids = alone["input_ids"]
        embeds = full.base.get_input_embeddings()(ids)
        image = torch.cat(
            list(full.base.model.get_image_features(alone["pixel_values"], alone["image_sizes"]).pooler_output)
        )
        is_image = ids[0] == full.base.config.image_token_id
        embeds[0, is_image] = image
        places = is_image.nonzero().flatten()
        whole, tiles = sample.kept_indices
        keep = ~is_image
        keep[places[list(whole)]] = True
        keep[places[[16 + index for index in tiles]]] = True
        columns = keep.nonzero().flatten()
        stock = full.base(
            inputs_embeds=embeds[:, columns],
            attention_mask=torch.ones(1, len(columns), dtype=torch.int64),
            position_ids=columns[None],
        )
    torch.testing.assert_close(ours.logits, stock.logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_of_cls_is_each_tiles_own(inputs: dict[str, Any]) -> None:
    base = tiny_next_base(attn_implementation="eager")
    family = wrap_model(base).for_sizes(inputs["image_sizes"])
    vision = family.encode(inputs["pixel_values"], needs={Need.FEATURE_LAYER})
    assert vision.feature_layer is not None
    ours = vision.feature_layer.cls_attention()
    # The third picture: four whole tiles of 4 x 4, in 8 rows of 8 patches and an end.
    tiles = base.model.vision_tower(inputs["pixel_values"][2, :5], output_attentions=True).attentions[0][:, :, 0, 1:]
    whole = tiles[0]
    rows = [torch.cat([tiles[1 + 2 * (r // 4) + half].view(2, 4, 4)[:, r % 4] for half in (0, 1)], 1) for r in range(8)]
    expected = torch.stack([torch.nn.functional.pad(row, (0, 1)) for row in rows], dim=1).flatten(1)
    torch.testing.assert_close(ours[4, :, :16], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[5, :, :72], expected, atol=1e-5, rtol=1e-5)


def test_it_loads_from_a_folder_as_any_model(tmp_path: Path, full: AdaLlava, inputs: dict[str, Any]) -> None:
    full.base.save_pretrained(tmp_path)
    full.processor.save_pretrained(tmp_path)
    model = AdaLlava.from_pretrained(str(tmp_path), method="uniform", device="cpu")
    expected = _with_method(full, "uniform").generate(**inputs, token_budget=0.5, max_new_tokens=2).sequences
    assert torch.equal(model.generate(**inputs, token_budget=0.5, max_new_tokens=2).sequences, expected)


def test_the_command_line_answers_and_says_what_it_cannot(
    tmp_path: Path, full: AdaLlava, capsys: pytest.CaptureFixture[str]
) -> None:
    full.base.save_pretrained(tmp_path / "next")
    full.processor.save_pretrained(tmp_path / "next")
    _picture(*SIZES[0]).save(tmp_path / "picture.png")
    model = ["--model", str(tmp_path / "next"), "--method", "visionzip", "--token-budget", "0.5"]
    ask = ["generate", *model, "--image", str(tmp_path / "picture.png"), "--question", "why?", "--device", "cpu"]
    main([*ask, "--no-image", "--json", "--max-new-tokens", "2"])
    assert json.loads(capsys.readouterr().out)["results"][0]["tokens_kept"] == 35
    assert main(ask) == 2
    assert "in tiles" in capsys.readouterr().err
    assert main(["sweep", *model, "--limit", "1", "--output", str(tmp_path / "run"), "--device", "cpu"]) == 2
    assert "cannot count the FLOPs of a model whose model_type is 'llava_next'" in capsys.readouterr().err


def test_what_it_lacks_is_told(full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModeError, match="'downsample' needs resized-picture"):
        full.with_selector(build_selector("downsample", TINY_SHAPE))
    with pytest.raises(InputError, match="needs the pictures' sizes: give the processor's image_sizes"):
        full.generate(**{name: value for name, value in inputs.items() if name != "image_sizes"})
    narrow = {**inputs, "image_sizes": torch.tensor([[1, 900], [90, 30], [56, 56]])}
    with pytest.raises(InputError, match="a picture of 900 x 1 pixels is so narrow"):
        full.generate(**narrow)
    with pytest.raises(InputError, match="image_sizes has 1 rows, pixel_values 3"):
        full.generate(**{**inputs, "image_sizes": inputs["image_sizes"][:1]})
