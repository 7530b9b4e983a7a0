"""Mistral 3: pictures at their own size, 2 x 2 patches a token, and breaks between rows, which stay."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from masked_tokens import (
    check_alone,
    check_dropped_are_masked,
    check_gradients,
    check_stock_bits,
    counted_and_expected,
    logits_masked_from_layer,
    staying,
)
from models import BEFORE_LLM, IN_A_FAMILY, rest_is_long, tiny_base, tiny_image, tiny_processor
from native_size_checks import check_commands, check_turns
from safetensors.torch import load_file
from tiny_mistral3 import (
    GRIDS,
    LACKS,
    SIZES,
    prompts_with_pictures,
    tiny_mistral3,
    tiny_mistral3_base,
    tiny_mistral3_processor,
)

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.costs.counted import count_costs
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.capabilities.of_pictures import made_up_ids, take_pictures
from adallava.families.llava import LlavaFamily
from adallava.families.mistral3 import Mistral3Family
from adallava.families.needs import check_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.picture_cuts import find_frames
from adallava.records.picture_frames import WHOLE
from adallava.scheduling.first import FirstScheduler
from adallava.selection import build_selector
from adallava.selection.selector_contract import AskedAttention

SERVED = [name for name in BEFORE_LLM if name not in {*LACKS, "question"}]
BUDGETS: list[Any] = [5, 12, 0.5]
SAMPLES = [(0,), (1, 2), (0,)]
"""The pictures of each prompt, by their number among `GRIDS`."""

TOKENS = [[GRIDS[number][0][0] * GRIDS[number][0][1] for number in own] for own in SAMPLES]


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_mistral3_base(), tiny_mistral3_processor())


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return prompts_with_pictures(full.processor)


def alone_of(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one prompt of a batch as it is alone: without padding, its pictures filled up to its own largest."""
    real, own = inputs["attention_mask"][row].bool(), slice((0, 1, 3)[row], (1, 3, 4)[row])
    sizes = inputs["image_sizes"][own]
    height, width = sizes.amax(dim=0).tolist()
    texts = {name: inputs[name][row : row + 1, real] for name in ("input_ids", "attention_mask")}
    return texts | {"pixel_values": inputs["pixel_values"][own, :, :height, :width], "image_sizes": sizes}


def pictures_of(full: AdaLlava, inputs: dict[str, Any]) -> PictureInputs:
    pictures, _ = take_pictures(full.family, inputs)
    assert pictures is not None
    return pictures


def test_a_picture_is_rows_of_placeholders_with_breaks_between(full: AdaLlava, inputs: dict[str, Any]) -> None:
    grids = full.family.grids(pictures_of(full, inputs))
    assert grids == tuple(GRIDS[number][0] for own in SAMPLES for number in own)
    ids = full.processor.tokenizer.convert_tokens_to_ids(["[IMG]", "[IMG_BREAK]", "[IMG_END]"])
    third = [name for name in inputs["input_ids"][1].tolist() if name in ids][8 * 3 :]
    assert third == [ids[0]] * 5 + [ids[1]] + [ids[0]] * 5 + [ids[2]]
    assert find_frames(full.processor, [(40, 90)])[0] == WHOLE
    picture = PictureInputs(torch.zeros(1, 3, 16, 24), {"image_sizes": torch.tensor([[16, 24]])})
    made_up = made_up_ids(full.family, picture, 1)
    image, stop, end = made_up[0], made_up[3], made_up[-1]
    assert made_up == [image] * 3 + [stop] + [image] * 3 + [end]
    assert len({image, stop, end}) == 3
    assert image == full.family.image_token_id


@pytest.mark.newest
def test_the_full_budget_has_the_stock_models_bits(full: AdaLlava, inputs: dict[str, Any]) -> None:
    for row in (0, 1):
        check_stock_bits(full, inputs, alone_of(inputs, row), ("divprune", "fastv"))


@pytest.mark.newest
@pytest.mark.parametrize("options", [{"num_beams": 2}, {"cache_implementation": "static"}], ids=str)
def test_so_it_has_in_a_search_and_with_a_static_cache(full: AdaLlava, options: Any) -> None:
    """One picture a prompt: of two, a search of transformers 5.17 shows each beam one of them twice."""
    inputs = prompts_with_pictures(full.processor, [1, 1, 1])
    stock = full.base.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    ours = full.with_method("uniform").generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    assert torch.equal(ours.sequences, stock)


@pytest.mark.newest
@pytest.mark.parametrize("method", rest_is_long(SERVED, IN_A_FAMILY))
def test_dropped_tokens_are_masked_ones(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_dropped_are_masked(full, inputs, method, BUDGETS, [5, 12, 8], TOKENS)


@pytest.mark.parametrize("method", ["hiprune", "fastv"])
def test_an_answer_does_not_depend_on_its_batch(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_alone(full.with_method(method), inputs, BUDGETS, lambda row: alone_of(inputs, row))


def test_labels_and_gradients_are_those_of_masked_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    projector, tower = full.base.model.multi_modal_projector, full.base.model.vision_tower
    weights = [projector.patch_merger.merging_layer.weight, tower.transformer.layers[0].attention.q_proj.weight]
    check_gradients(full, inputs, weights, 6, TOKENS)


@pytest.mark.newest
@pytest.mark.parametrize("method", ["fastv", "pyramiddrop"])
def test_methods_inside_its_llm_drop_what_they_drop_and_no_break(
    full: AdaLlava, inputs: dict[str, Any], method: str
) -> None:
    model = full.with_method(method)
    made = model.forward(**inputs, token_budget=BUDGETS)
    records = model.generate(**inputs, token_budget=BUDGETS, max_new_tokens=1).records
    assert [ran.tokens_at_end for ran in records] == [5, 12, 8]
    if method == "pyramiddrop":  # In stages, which no mask of one layer says.
        return
    stays = staying(inputs, full.family.image_token_id, [ran.kept_indices for ran in records], TOKENS).bool()
    with torch.no_grad():
        expected = logits_masked_from_layer(full.base, inputs, 2, inputs["attention_mask"].bool() & ~stays)
    for row in range(3):
        left = expected[row][stays[row]]
        torch.testing.assert_close(made.logits[row, : len(left)], left, atol=1e-4, rtol=1e-4)


def test_a_schedule_leaves_layers_of_its_llm_out(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("uniform").with_scheduler(FirstScheduler(prefix_layers=1))
    options: dict[str, Any] = {"max_new_tokens": 3, "do_sample": False}
    output = model.generate(**inputs, token_budget=9, latency=[1.0, 0.5, 0.75], **options)
    assert [ran.layer_share for ran in output.records] == [1.0, 0.5, 0.75]
    alone = model.generate(**alone_of(inputs, 1), token_budget=9, latency=0.5, **options)
    assert alone.answer_ids[0] == output.answer_ids[1]


@torch.no_grad()
def test_a_token_is_its_patches_side_by_side(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """Token 3 of the second picture, 8 x 2, is (1, 1): patches (2, 2) to (3, 3) of 16 x 4, behind 64 of the first."""
    vision = full.family.encode(pictures_of(full, inputs))
    assert vision.unprojected is not None
    places = [64 + place for place in (10, 11, 14, 15)]
    assert torch.equal(vision.features[1, 3], vision.unprojected[places].flatten())
    stock = full.base.model.get_image_features(inputs["pixel_values"], image_sizes=inputs["image_sizes"])
    projected, everything = full.family.project(vision.features), full.family.project_all(vision)
    for image, own in enumerate(stock.pooler_output):
        torch.testing.assert_close(projected[image, : len(own)], own, atol=1e-5, rtol=1e-5)
        assert torch.equal(everything[image, : len(own)], own)


@torch.no_grad()
def test_what_tokens_receive_of_attention_is_the_mean_of_their_patches(full: AdaLlava, inputs: dict[str, Any]) -> None:
    base = tiny_mistral3_base(attn_implementation="eager")
    family, pictures = Mistral3Family(base), pictures_of(full, inputs)
    received = family.encode_with_attention(pictures, (AskedAttention(0.5), AskedAttention(1.0))).attention_received
    assert received is not None
    weights = base.model.vision_tower(
        inputs["pixel_values"], image_sizes=inputs["image_sizes"], output_attentions=True
    ).attentions
    # Of the third picture, 2 x 5 tokens of 4 x 10 patches, behind two of 64.
    own = slice(128, 168)
    for layer in (0, 1):
        of_patches = weights[layer][0].mean(dim=0)[own, own].mean(dim=0)
        of_tokens = of_patches.view(2, 2, 5, 2).mean(dim=(1, 3)).flatten()
        torch.testing.assert_close(received[2, :10, layer], of_tokens)
        assert not received[2, 10:].any()


def test_pictures_are_drawn_without_what_fills_them_up(full: AdaLlava, inputs: dict[str, Any]) -> None:
    shown = full.family.pictures(pictures_of(full, inputs))
    assert [tuple(each.shape[1:]) for each in shown] == [(32, 32), (64, 16), (16, 40), (32, 32)]
    assert torch.equal(shown[2], inputs["pixel_values"][2, :, :16, :40])


@torch.no_grad()
def test_a_smaller_picture_is_what_the_stock_model_is_given(full: AdaLlava) -> None:
    inputs = prompts_with_pictures(full.processor, [1])
    smaller = torch.nn.functional.interpolate(inputs["pixel_values"], (16, 16), mode="bicubic", antialias=True)
    (expected,) = full.base.model.get_image_features(smaller, image_sizes=torch.tensor([[16, 16]])).pooler_output
    output = full.with_method("downsample").forward(**inputs, token_budget=4)
    is_vision = output.layout.vision_slots[0] >= 0
    torch.testing.assert_close(output.batch.inputs_embeds[0, is_vision], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "budget", "pictures"), [("uniform", 16, 1), ("hiprune", 5, 1), ("fastv", 7, 2), ("downsample", 9, 2)]
)
def test_its_costs_are_what_pytorch_counts(full: AdaLlava, method: str, budget: int, pictures: int) -> None:
    """Two pictures, 4 x 4 and 8 x 2, go through the tower as one sequence, each filled up to 8 x 4 before that."""
    inputs = prompts_with_pictures(full.processor, [pictures])
    counted, expected = counted_and_expected(full.with_method(method), inputs, budget)
    assert sum(expected.values()) == counted


def test_the_costs_of_its_tower_grow_with_a_pictures_size(full: AdaLlava) -> None:
    tower = count_costs(full.base.config).vision
    assert (tower.of_grid((5, 3)).num_vision_tokens, tower.one_sequence) == (4 * 5 * 3, True)


def test_what_its_tower_cannot_serve_is_refused(full: AdaLlava) -> None:
    for method in LACKS:
        with pytest.raises(UnsupportedModeError, match=f"method '{method}' needs"):
            check_needs(full.family, build_selector(method, full.shape))


def test_bad_input_is_one_clear_line(full: AdaLlava, inputs: dict[str, Any]) -> None:
    sizes, pixels = inputs["image_sizes"], inputs["pixel_values"]
    plain = tiny_processor()(images=[tiny_image(0)], text=["<image>why?"], return_tensors="pt")
    small = sizes.clone()
    small[1] = torch.tensor([4, 16])
    for given, words in (
        ({"image_sizes": None}, "needs the images' sizes: give the processor's image_sizes"),
        ({"pixel_values": plain["pixel_values"]}, r"image_sizes has 4 images, and pixel_values the shape \(1, 3, 28"),
        ({"image_sizes": sizes[:3]}, "image_sizes has 3 images, and pixel_values the shape"),
        ({"pixel_values": pixels[None]}, "image_sizes has 4 images, and pixel_values the shape"),
        ({"image_sizes": small}, "image of 4 x 16 pixels: this model needs sides of whole tokens, of 8 pixels"),
        ({"image_sizes": sizes + 4}, "image of 36 x 36 pixels: this model needs sides of whole"),
        ({"image_sizes": sizes + 8}, "image of 72 x 24 pixels, and pixel_values only 64 x 40"),
        ({"image_sizes": sizes.clamp_max(32)}, "sample 1 has 26 image placeholders, which its images do not fill"),
        ({"image_grid_thw": sizes}, "take no image_grid_thw"),
        ({"pixel_values": None}, "image_sizes without pixel_values"),
    ):
        with pytest.raises(InputError, match=words):
            full.generate(**inputs | given, max_new_tokens=1)


def test_models_of_another_make_are_refused(full: AdaLlava) -> None:
    for change, error, words in (
        ({"vision_feature_layer": [-1, -2]}, CheckpointError, "and one layer"),
        ({"spatial_merge_size": 0}, CheckpointError, "whole numbers from 1 on"),
    ):
        base = tiny_mistral3_base()
        for name, value in change.items():
            setattr(base.config, name, value)
        with pytest.raises(error, match=words):
            Mistral3Family(base)
    base = tiny_mistral3_base()
    base.config.vision_config = tiny_mistral3_base().config.text_config
    with pytest.raises(UnsupportedModeError, match="a mistral3 is driven with a 'pixtral' tower alone"):
        Mistral3Family(base)


def test_a_llava_with_its_tower_is_refused_with_the_reason() -> None:
    """Pixtral 12B is one: no pixels of a fixed size, and no patches merged."""
    import transformers

    base, vision = tiny_base(), tiny_mistral3_base().config.vision_config
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=base.config.text_config, image_token_id=base.config.image_token_id
    )
    with pytest.raises(UnsupportedModeError, match="its 'pixtral' tower takes images at their own size"):
        LlavaFamily(transformers.LlavaForConditionalGeneration(config))


def _published(folder: Path) -> Path:
    """Write a tiny checkpoint with the published names: keys, fields of the config, an image processor of old."""
    tiny_mistral3(folder)
    config = json.loads((folder / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    text |= {"rope_theta": 1000000000.0, "head_dim": 12, "sliding_window": None}
    vision |= {"rope_theta": 10000.0, "head_dim": 16, "num_channels": 3}
    for part in (text, vision):
        del part["rope_parameters"]
    for name in ("image_token_id", "tie_word_embeddings", "dtype", "transformers_version"):
        config.pop(name, None)
    config |= {"image_token_index": tiny_mistral3_base().config.image_token_id, "multimodal_projector_bias": False}
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32", "vision_feature_layer": -1}))
    # transformers writes the keys that it reads.
    written = {name.split(".layers")[0] for name in load_file(folder / "model.safetensors")}
    assert {"language_model.model", "vision_tower.transformer", "language_model.lm_head.weight"} <= written
    (folder / "processor_config.json").unlink()
    tokens = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
    words = {"patch_size": 4, "spatial_merge_size": 2, "processor_class": "PixtralProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(tokens | words))
    pictures = {"image_processor_type": "PixtralImageProcessorFast", "processor_class": "PixtralProcessor"}
    pictures |= {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3}
    pictures |= {"patch_size": 4, "rescale_factor": 1 / 255, "size": {"longest_edge": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


@pytest.mark.long
def test_a_folder_with_published_names_loads(tmp_path: Path) -> None:
    model = AdaLlava.from_pretrained(str(_published(tmp_path)), method="uniform", device="cpu", dtype=torch.float32)
    ours, made = model.base.state_dict(), tiny_mistral3_base().state_dict()
    assert all(torch.equal(ours[name], made[name]) for name in made)
    pictures = [tiny_image(number, size) for number, size in enumerate(SIZES)]
    check_turns(model, [pictures], [grid for (grid,) in GRIDS])


@pytest.mark.long
def test_a_folder_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_mistral3(tmp_path / "model")
    check_commands(folder, SIZES, capsys)
    bench = ["bench", "--model", str(folder), "--method", "uniform", "--device", "cpu", "--token-budget", "0.25"]
    assert main([*bench, "--text-tokens", "12", "--new-tokens", "2", "--output", str(tmp_path / "bench")]) == 0
