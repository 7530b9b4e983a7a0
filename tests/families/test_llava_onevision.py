"""LLaVA-OneVision: tokens are packed behind the projector, and chosen there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from masked_tokens import check_alone, check_dropped_are_masked, check_gradients, check_stock_bits, counted_and_expected
from models import BEFORE_LLM, IN_A_FAMILY, rest_is_long, tiny_image
from safetensors.torch import save_file
from tiny_onevision import (
    GRIDS,
    LACKS,
    ONEVISION_SHAPE,
    SIZES,
    prompts_with_pictures,
    tiny_onevision,
    tiny_onevision_base,
    tiny_onevision_processor,
)

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.llava_onevision import LlavaOnevisionFamily
from adallava.families.needs import check_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

SERVED = [name for name in BEFORE_LLM if name not in {*LACKS, "question"}]
BUDGETS: list[Any] = [5, 20, 0.5]

IMAGES = [[16, 36], [16, 1, 16, 1], [16, 30]]
"""By hand, N of the images of each prompt of `prompts_with_pictures`: tiles of pictures alone, ends of a pair."""


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_onevision_base(), tiny_onevision_processor())


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return prompts_with_pictures(full.processor)


def prompt_of(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one prompt of a batch alone, without padding."""
    real, counts = inputs["attention_mask"][row].bool(), inputs["batch_num_images"].tolist()
    own = slice(sum(counts[:row]), sum(counts[: row + 1]))
    alone = {name: inputs[name][row : row + 1, real] for name in ("input_ids", "attention_mask")}
    alone |= {name: inputs[name][own] for name in ("pixel_values", "image_sizes")}
    return alone | {"batch_num_images": inputs["batch_num_images"][row : row + 1]}


def test_the_grids_are_what_they_are_by_hand(full: AdaLlava, inputs: dict[str, Any]) -> None:
    assert full.shape == ONEVISION_SHAPE
    for size, grids in zip(SIZES, GRIDS, strict=True):
        one = prompts_with_pictures(full.processor, [[size]])
        found = PictureInputs.of(*(one[name] for name in ("pixel_values",)), image_sizes=one["image_sizes"])
        assert found is not None
        assert full.family.grids(found) == grids
        placeholders = int((one["input_ids"] == full.family.image_token_id).sum())
        assert placeholders == sum(rows * columns for rows, columns in grids)
    kept = [one.kept_indices for one in full.with_method("uniform").select(**inputs, token_budget=1.0)]
    assert [list(map(len, images)) for images in kept] == IMAGES


@pytest.mark.newest
def test_the_full_budget_has_the_stock_models_bits(full: AdaLlava, inputs: dict[str, Any]) -> None:
    check_stock_bits(full, inputs, prompt_of(inputs, 1), ("divprune", "fastv"))


@pytest.mark.newest
@pytest.mark.parametrize("method", rest_is_long(SERVED, IN_A_FAMILY))
def test_dropped_tokens_are_masked_ones(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_dropped_are_masked(full, inputs, method, BUDGETS, [5, 20, 23], IMAGES)


@pytest.mark.parametrize("method", ["tome", "fastv"])
def test_an_answer_does_not_depend_on_its_batch(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_alone(full.with_method(method), inputs, BUDGETS, lambda row: prompt_of(inputs, row))


def test_labels_and_gradients_are_those_of_masked_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    weights = [full.base.model.multi_modal_projector.linear_1.weight, full.base.model.image_newline]
    check_gradients(full, inputs, weights, 12, IMAGES)


@torch.no_grad()
def test_keys_are_packed_as_tokens_are(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """The tiles of 28 x 28 alone are its 16 patches again, a fifth column for the ends of rows."""
    one = prompts_with_pictures(full.processor, [[SIZES[0]]])
    pictures = PictureInputs.of(one["pixel_values"], image_sizes=one["image_sizes"])
    assert pictures is not None
    layer = full.family.encode(pictures, needs=(Need.FEATURE_LAYER,)).feature_layer
    assert layer is not None
    tower = full.base.model.vision_tower
    states = tower(one["pixel_values"][0], output_hidden_states=True).hidden_states[-2]
    block = tower.encoder.layers[-1] if hasattr(tower, "encoder") else tower.vision_model.encoder.layers[-1]
    keys = block.self_attn.k_proj(block.layer_norm1(states))
    torch.testing.assert_close(layer.patch_keys[0, :16], keys[0], atol=1e-5, rtol=1e-4)
    grid = layer.patch_keys[1].view(4, 5, 32)
    torch.testing.assert_close(grid[:, :4].flatten(0, 1), keys[1], atol=1e-5, rtol=1e-4)
    assert not grid[:, 4].any()
    torch.testing.assert_close(layer.of_image(1, 20).patch_keys[0], layer.patch_keys[1])
    torch.testing.assert_close(layer.of_image(0, 16).patch_keys[0], layer.patch_keys[0, :16])


def test_what_is_shown_has_a_square_for_each_token(full: AdaLlava, inputs: dict[str, Any]) -> None:
    pictures = PictureInputs.of(
        inputs["pixel_values"], image_sizes=inputs["image_sizes"], batch_num_images=inputs["batch_num_images"]
    )
    assert pictures is not None
    shown = full.family.pictures(pictures)  # type: ignore[attr-defined]
    assert [tuple(one.shape[1:]) for one in shown] == [(7 * r, 7 * c) for r, c in full.family.grids(pictures)]


@pytest.mark.parametrize(("method", "budget"), [("divprune", 5), ("tome", 30), ("uniform", 52)])
def test_its_costs_are_what_pytorch_counts(full: AdaLlava, method: str, budget: int) -> None:
    model = full.with_method(method)
    counted, expected = counted_and_expected(model, prompts_with_pictures(full.processor, [[SIZES[2]]]), budget)
    assert expected["projector"] == 0
    # Two images of 16 and 36 tokens, of which 9 and 21 are left, are merged in one product, padded to the larger.
    padding = 2 * 48 * (2 * 21 * 36 - 9 * 16 - 21 * 36) if method == "tome" else 0
    assert sum(expected.values()) == counted - padding


@pytest.mark.parametrize("method", LACKS)
def test_what_its_tower_cannot_serve_is_refused(full: AdaLlava, method: str) -> None:
    with pytest.raises(UnsupportedModeError, match=method):
        check_needs(full.family, build_selector(method, full.shape))


def test_what_does_not_fit_is_named(full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="batch_num_images says 3 images, and pixel_values has 4"):
        full.forward(**inputs | {"batch_num_images": torch.tensor([1, 1, 1])})
    with pytest.raises(InputError, match="give the processor's image_sizes too"):
        full.forward(**{name: tensor for name, tensor in inputs.items() if name != "image_sizes"})
    with pytest.raises(InputError, match="only images are supported, and pixel_values_videos belongs to a video"):
        full.forward(**inputs, pixel_values_videos=torch.zeros(1, 2, 3, 28, 28))
    base = tiny_onevision_base()
    base.config.vision_aspect_ratio = "anyres"
    with pytest.raises(CheckpointError, match="vision_aspect_ratio is 'anyres'"):
        LlavaOnevisionFamily(base)
    narrow = prompts_with_pictures(full.processor, [[SIZES[0]]])
    with pytest.raises(InputError, match="so narrow that none"):
        full.forward(**narrow | {"image_sizes": torch.tensor([[400, 3]])})


OLD_NAMES = {
    "lm_head": "language_model.lm_head",
    "model.language_model": "language_model.model",
    "model.vision_tower": "vision_tower.vision_model",
    "model.multi_modal_projector": "multi_modal_projector",
    "model.image_newline": "image_newline",
}
"""Of keys in the published checkpoints, which transformers 4.45 wrote."""


@pytest.mark.long
def test_the_published_names_and_fields_load(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """Fields of config.json and of the processor's files as transformers' script writes them for the published ones."""
    folder = tiny_onevision(tmp_path / "model")
    base = tiny_onevision_base()
    config = json.loads((folder / "config.json").read_text())
    config |= {"ignore_index": -100, "torch_dtype": "float16", "use_image_newline_parameter": True}
    config["text_config"] |= {"_name_or_path": "Qwen/Qwen2-7B-Instruct", "rope_theta": 1e6, "max_window_layers": 28}
    config["vision_config"] |= {"vision_use_head": False}
    (folder / "config.json").write_text(json.dumps(config))
    old = {}
    for name, weight in base.state_dict().items():
        start = next(start for start in OLD_NAMES if name.startswith(start))
        rest = name.removeprefix(start).removeprefix(".vision_model")
        old[OLD_NAMES[start] + rest] = weight.clone()
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    pictures = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    pictures |= {"image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    own = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"}
    own |= {"image_token": "<image>", "video_token": "<video>", "processor_class": "LlavaOnevisionProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(own))
    model = AdaLlava.from_pretrained(str(folder), method="uniform", device="cpu", dtype=torch.float32)
    made = prompts_with_pictures(model.processor)
    assert torch.equal(made["input_ids"], inputs["input_ids"])
    assert torch.equal(model.base.model.image_newline, base.model.image_newline)
    stock = model.base.generate(**made, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(**made, max_new_tokens=3, do_sample=False).sequences, stock)
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "be short"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "alike?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": [{"type": "text", "text": "why?"}]},
    ]
    prompt = model.processor.apply_chat_template(turns, add_generation_prompt=True)
    pair = [[tiny_image(1, SIZES[0]), tiny_image(2, SIZES[3])]]
    chat = dict(model.processor(images=pair, text=[prompt], return_tensors="pt"))
    assert [len(one) for one in model.select(**chat, token_budget=0.5)[0].kept_indices] == [8, 1, 8, 0]


@pytest.mark.long
def test_a_folder_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_onevision(tmp_path / "model")
    for number, size in enumerate(SIZES[2:]):
        tiny_image(number, size).save(tmp_path / f"{number}.png")
    common = ["--model", str(folder), "--method", "tome", "--token-budget", "0.5", "--device", "cpu"]
    ask = ["--question", "why?", "--max-new-tokens", "2", "--json", "--output-image", str(tmp_path / "kept.png")]
    assert main(["generate", *common, "--image", str(tmp_path / "0.png"), *ask]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["tokens_kept"], result["num_vision_tokens"]) == (26, 52)
    assert main(["sweep", *common, "--limit", "2", "--max-new-tokens", "2", "--output", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(line["flops"]["vision"] > 0 and not line.get("error") for line in lines)
    assert main(["doctor", "--model", str(folder), "--method", "uniform", "--device", "cpu"]) == 0
