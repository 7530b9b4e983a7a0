"""What is LLaVA-NeXT's own: pictures in tiles, with row ends. All that is generation's, `tests/pipeline` crosses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import METHOD_OPTIONS, TINY_SHAPE
from PIL import Image
from tiny_next import NEXT_LACKS, tiny_next_base, tiny_next_processor

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.doctor.live.checks import diagnose_model
from adallava.errors import InputError, UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.anyres import fitted
from adallava.families.llava_next import _places
from adallava.families.picture_inputs import PictureInputs
from adallava.model import build_prompt
from adallava.records import SampleRecord
from adallava.registry import load_selector_class, selector_names
from adallava.report.drawn_choice import seen_pictures
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

# (width, height): the last has no padding to cut off.
SIZES = [(60, 40), (30, 90), (56, 56)]
QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]
NEW = 4


METHODS = [name for name in selector_names() if name not in NEXT_LACKS]


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_next_base(), tiny_next_processor())


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


def test_a_picture_is_its_whole_and_its_tiles(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """By hand: 60 x 40 fits 56 x 56 best, 8 columns and int(40 * 8 / 60) = 5 rows: 1 of 8 is cut off above and below.

    30 x 90 fits 28 x 84: three tiles, 12 rows, 4 columns. 56 x 56 is four whole tiles. A row's end is one column more.
    """
    family, given = full.family, PictureInputs(inputs["pixel_values"], {"image_sizes": inputs["image_sizes"]})
    assert family.grids(given) == ((4, 4), (6, 9), (4, 4), (12, 5), (4, 4), (8, 9))
    placeholders = (inputs["input_ids"] == full.base.config.image_token_id).sum(dim=1)
    assert placeholders.tolist() == [16 + 54, 16 + 60, 16 + 72]


PUBLISHED_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Of the config.json of llava-hf/llava-v1.6-vicuna-7b-hf; tiles of 336 pixels, 24 patches a side."""


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_any_picture_has_as_many_tokens_and_tiles_as_in_transformers(height: int, width: int) -> None:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    tiling = fitted((height, width), PUBLISHED_PINPOINTS, 336, 24)
    assert tiling.num_tiles == image_size_to_num_patches((height, width), PUBLISHED_PINPOINTS, 336)
    placeholders = LlavaNextProcessor._get_unpadded_features(None, height, width, 24, 24, tiling.down, tiling.across)
    assert (tiling.rows * tiling.columns, tiling.rows) == placeholders
    (places,) = _places([tiling], 24)[1:]
    total = 576 * tiling.num_tiles
    patches = places[: tiling.rows * (tiling.columns + 1)]
    assert (patches == total).sum() == tiling.rows
    assert len(patches[patches < total].unique()) == tiling.rows * tiling.columns


@pytest.mark.newest
@torch.no_grad()
def test_every_token_is_the_stock_models(full: AdaLlava, inputs: dict[str, Any]) -> None:
    pixels, sizes = inputs["pixel_values"], inputs["image_sizes"]
    stock = full.base.model.get_image_features(pixels, sizes).pooler_output
    family, given = full.family, PictureInputs(pixels, {"image_sizes": sizes})
    ours = family.project(family.encode(given).features)
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


@torch.no_grad()
def test_attention_of_cls_is_each_tiles_own(inputs: dict[str, Any]) -> None:
    base = tiny_next_base(attn_implementation="eager")
    given = PictureInputs(inputs["pixel_values"], {"image_sizes": inputs["image_sizes"]})
    vision = wrap_model(base).encode(given, needs={Need.FEATURE_LAYER})
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
    run = tmp_path / "run"
    few = ["--limit", "6", "--batch-size", "4", "--max-new-tokens", "3"]
    assert main(["sweep", *model, *few, "--output", str(run), "--device", "cpu"]) == 0
    capsys.readouterr()
    records = [SampleRecord.model_validate_json(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert len(records) == 12
    assert {tuple(record.ran.tokens_per_image) for record in records} == {(16, 72)}
    assert {len(record.ran.kept_indices or []) for record in records} == {2}
    assert "The model read each image whole and in tiles" in (run / "report.html").read_text()
    # Random weights may well end an answer at once, which the doctor finds; it finds nothing wrong with the counts.
    main(["doctor", str(run), "--json"])
    (diagnosis,) = json.loads(capsys.readouterr().out)["diagnoses"]
    found = {outcome["check"]: outcome for outcome in diagnosis["outcomes"]}
    assert found["budget-not-applied"]["status"] == "passed"


def test_training_is_refused_with_the_reason(
    tmp_path: Path, full: AdaLlava, capsys: pytest.CaptureFixture[str]
) -> None:
    full.base.save_pretrained(tmp_path / "next")
    full.processor.save_pretrained(tmp_path / "next")
    train = ["train", "tiny/budget-token", "--model", str(tmp_path / "next"), "--output", str(tmp_path / "trained")]
    assert main([*train, "--device", "cpu", "--steps", "1"]) == 2
    assert "budget" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("method", ["fastv", "prumerge"])
def test_the_live_doctor_finds_nothing(full: AdaLlava, method: str) -> None:
    diagnosis = diagnose_model(_with_method(full, method), num_samples=3)
    found = {outcome.check for outcome in diagnosis.outcomes if outcome.status == "found"}
    # That random weights end an answer at once says nothing of the code.
    assert found <= {"first-token-eos"}


def test_a_spatial_method_sees_the_grid_that_the_tokens_have(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """By hand: 9 of 16 + 54 tokens are shared as 2 and 7. The 6 x 9 grid is cut into 2 bands of 3 rows, these into 3
    cells of 3 columns, and 4 of 2, 2, 2 and 3; of two middle places, the left one.

    The last column holds the ends of the rows: they are places in the grid like others.
    """
    (first, *_) = _with_method(full, "uniform").select(**inputs, token_budget=9)
    assert first.kept_indices[0] == (4, 6)
    rows_and_columns = [divmod(index, 9) for index in first.kept_indices[1]]
    assert [row for row, _ in rows_and_columns] == [1, 1, 1, 4, 4, 4, 4]
    assert [column for _, column in rows_and_columns] == [1, 4, 7, 0, 2, 4, 7]


@torch.no_grad()
def test_pooling_averages_cells_of_each_images_grid(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """At 9 tokens the tiles' first cell is rows and columns 0 to 2 of the joined picture, as above."""
    model = _with_method(full, "pool")
    family, given = full.family, PictureInputs(inputs["pixel_values"], {"image_sizes": inputs["image_sizes"]})
    features = family.encode(given).features[1, :54].view(6, 9, -1)
    cell = family.project(features[:3, :3].reshape(1, 9, -1).mean(dim=1, keepdim=True))[0, 0]
    output = model.forward(**{name: tensor[:1] for name, tensor in inputs.items()}, token_budget=9)
    embeds = output.batch.inputs_embeds[0][output.layout.vision_slots[0] >= 0]
    torch.testing.assert_close(embeds[2], cell, atol=1e-5, rtol=1e-5)


def test_what_is_drawn_is_what_the_tokens_look_at(full: AdaLlava) -> None:
    """A picture of one colour a quarter: each token of the joined tiles lies on its own quarter; row ends are blank."""
    quarters = np.zeros((56, 56, 3), dtype=np.uint8)
    quarters[:28, :28, 0], quarters[:28, 28:, 1], quarters[28:, :28, 2] = 255, 255, 255
    prompt = build_prompt(full.processor, "why?")
    inputs = full.processor(images=[Image.fromarray(quarters)], text=[prompt], return_tensors="pt")
    family, given = full.family, PictureInputs(inputs["pixel_values"], {"image_sizes": inputs["image_sizes"]})
    whole, joined = seen_pictures(family.pictures(given), full.processor.image_processor)
    assert (whole.size, joined.size) == ((28, 28), (63, 56))
    assert np.array_equal(np.asarray(joined)[:, :56], quarters)
    assert len(np.unique(np.asarray(joined)[:, 56:].reshape(-1, 3), axis=0)) == 1
    narrow = _inputs(full, [1])
    pictures = full.family.pictures(PictureInputs(narrow["pixel_values"], {"image_sizes": narrow["image_sizes"]}))
    # 12 rows of 4 patches and an end, of 7 pixels each.
    assert [tuple(picture.shape) for picture in pictures] == [(3, 28, 28), (3, 84, 35)]


@pytest.mark.parametrize("method", NEXT_LACKS)
def test_a_method_that_it_lacks_something_for_is_refused_with_the_reason(full: AdaLlava, method: str) -> None:
    with pytest.raises(UnsupportedModeError, match=f"'{method}' needs .*, which this model does not have"):
        full.with_selector(build_selector(method, TINY_SHAPE))


@pytest.mark.parametrize("method", METHODS)
def test_every_other_method_is_accepted(full: AdaLlava, method: str) -> None:
    assert _with_method(full, method).method == method


def test_what_it_lacks_is_told(full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs the images' sizes: give the processor's image_sizes"):
        full.generate(**{name: value for name, value in inputs.items() if name != "image_sizes"})
    narrow = {**inputs, "image_sizes": torch.tensor([[1, 900], [90, 30], [56, 56]])}
    with pytest.raises(InputError, match="an image of 900 x 1 pixels is so narrow"):
        full.generate(**narrow)
    with pytest.raises(InputError, match="image_sizes has 1 rows, pixel_values 3"):
        full.generate(**{**inputs, "image_sizes": inputs["image_sizes"][:1]})
