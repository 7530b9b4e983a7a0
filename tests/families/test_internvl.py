"""InternVL: tiles are images, 2 x 2 patches are a token, chosen behind the shuffle."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from masked_tokens import check_alone, check_dropped_are_masked, check_gradients, check_stock_bits, counted_and_expected
from models import BEFORE_LLM, IN_A_FAMILY, rest_is_long, tiny_image
from safetensors.torch import save_file
from tiny_internvl import (
    INTERNVL_SHAPE,
    TILES,
    prompts_with_pictures,
    tiny_internvl,
    tiny_internvl_base,
    tiny_internvl_processor,
)

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families.internvl import InternVLFamily
from adallava.families.needs import check_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
"""Of the processor of transformers 5.17 under the newest NumPy."""

SERVED = [name for name in BEFORE_LLM if name not in {"budget-token", "question"}]
BUDGETS: list[Any] = [5, 40, 0.5]


@pytest.fixture(scope="module")
def full() -> AdaLlava:
    return AdaLlava(tiny_internvl_base(), tiny_internvl_processor())


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return prompts_with_pictures(full.processor)


def alone_of(inputs: dict[str, Any], row: int) -> dict[str, Any]:
    """Return one prompt of a batch without padding, with its tiles."""
    tiles = slice((0, 1, 8)[row], (1, 8, 9)[row])
    real = inputs["attention_mask"][row].bool()
    texts = {name: inputs[name][row : row + 1, real] for name in ("input_ids", "attention_mask")}
    return texts | {"pixel_values": inputs["pixel_values"][tiles]}


def test_each_tile_is_an_image_of_its_own(full: AdaLlava, inputs: dict[str, Any]) -> None:
    grids = full.family.grids(PictureInputs(inputs["pixel_values"]))
    assert grids == ((4, 4),) * (TILES[0] + TILES[1] + TILES[2] + TILES[0])
    assert full.shape == INTERNVL_SHAPE
    (first, second, third) = full.with_method("uniform").select(**inputs, token_budget=BUDGETS)
    assert [len(one.kept_indices) for one in (first, second, third)] == [1, 7, 1]
    # 40 tokens over 7 tiles, as evenly as they go.
    assert sorted(map(len, second.kept_indices)) == [5, 5, 6, 6, 6, 6, 6]


@pytest.mark.newest
@pytest.mark.parametrize("llm", ["qwen2", "qwen3"])
def test_the_full_budget_has_the_stock_models_bits(full: AdaLlava, inputs: dict[str, Any], llm: str) -> None:
    model = full if llm == "qwen2" else AdaLlava(tiny_internvl_base(llm=llm, qk_norm=True), full.processor)
    check_stock_bits(model, inputs, alone_of(inputs, 0), ("divprune", "fastv"))


@pytest.mark.newest
@pytest.mark.parametrize("method", rest_is_long(SERVED, IN_A_FAMILY))
def test_dropped_tokens_are_masked_ones(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_dropped_are_masked(full, inputs, method, BUDGETS, [5, 40, 8])


@pytest.mark.parametrize("method", ["visionzip", "fastv"])
def test_an_answer_does_not_depend_on_its_batch(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    check_alone(full.with_method(method), inputs, BUDGETS, lambda row: alone_of(inputs, row))


def test_labels_and_gradients_are_those_of_masked_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    check_gradients(full, inputs, [full.base.model.multi_modal_projector.linear_1.weight], 6)


@torch.no_grad()
def test_methods_read_the_layer_that_the_tower_ran(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """Token 5, in row 1 and column 1 of 4 x 4, is of rows and columns 2 and 3 of patches, behind the class token."""
    base = tiny_internvl_base(attn_implementation="eager", qk_norm=True)
    needs = (Need.FEATURE_LAYER, Need.LAST_LAYER, Need.CLS_TOKEN)
    layer = InternVLFamily(base).encode(PictureInputs(inputs["pixel_values"]), needs=needs).feature_layer
    assert layer is not None
    attentions = base.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-1]
    places = [19, 20, 27, 28]
    torch.testing.assert_close(
        layer.cls_attention()[:, :, 5], attentions[:, :, 0, places].sum(-1), atol=1e-5, rtol=1e-4
    )
    own = layer.of_image(2, 16)
    torch.testing.assert_close(own.cls_attention()[0], layer.cls_attention()[2])
    torch.testing.assert_close(own.patch_keys[0], layer.patch_keys[2])
    block = base.model.vision_tower.encoder.layer[-1]
    states = base.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2]
    keys = block.attention.k_norm(block.attention.k_proj(block.layernorm_before(states)))[:, places].mean(dim=1)
    torch.testing.assert_close(layer.patch_keys[:, 5], keys, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("method", "budget"), [("divprune", 5), ("tome", 11), ("visionzip", 9), ("downsample", 4)])
def test_its_costs_are_what_pytorch_counts(full: AdaLlava, method: str, budget: int) -> None:
    model, inputs = full.with_method(method), prompts_with_pictures(full.processor, [1])
    counted, expected = counted_and_expected(model, inputs, budget)
    # A class token compares itself with 64 patches; a method counts the 16 tokens that it hears of.
    unheard = 2 * 32 * (64 - 16) if method == "visionzip" else 0
    assert sum(expected.values()) == counted - unheard


def test_what_its_tower_cannot_serve_is_refused(full: AdaLlava) -> None:
    with pytest.raises(UnsupportedModeError, match="budget-token"):
        check_needs(full.family, build_selector("budget-token", full.shape))


def test_what_does_not_fit_is_named(full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="tiles of 28 x 28 pixels, and this model's have 56 x 56"):
        full.forward(**inputs | {"pixel_values": inputs["pixel_values"][..., :28, :28]})
    with pytest.raises(InputError, match="placeholders"):
        full.forward(**inputs | {"pixel_values": inputs["pixel_values"][:-1]})
    base = tiny_internvl_base()
    base.config.vision_feature_select_strategy = "full"
    with pytest.raises(CheckpointError, match="without the class token"):
        InternVLFamily(base)


OLD_NAMES = {
    "lm_head": "language_model.lm_head",
    "model.language_model": "language_model.model",
    "model.vision_tower": "vision_tower",
    "model.multi_modal_projector": "multi_modal_projector",
}
"""Of keys in checkpoints that transformers' own script converted, with which 4.52 wrote them."""


@pytest.mark.long
@torch.no_grad()
def test_the_published_names_and_fields_load(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """Fields of config.json and the image processor's as transformers' script writes them for InternVL3-1B."""
    folder = tiny_internvl(tmp_path / "model")
    base = tiny_internvl_base()
    rope = {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}
    config = json.loads((folder / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    del text["rope_parameters"]
    text |= {"rope_scaling": rope, "rope_theta": 1e6, "max_window_layers": 70, "use_sliding_window": False}
    text |= {"sliding_window": None, "torch_dtype": "bfloat16", "layer_types": None, "bos_token_id": 151643}
    vision |= {"architectures": ["InternVisionModel"], "initializer_factor": 0.1, "projection_dropout": 0.0}
    vision |= {"torch_dtype": "bfloat16", "dropout": 0.0, "model_type": "internvl_vision"}
    config |= {"downsample_ratio": 0.5, "projector_hidden_act": "gelu", "vision_feature_layer": -1}
    (folder / "config.json").write_text(json.dumps(config))
    old = {}
    for name, weight in base.state_dict().items():
        start = next(start for start in OLD_NAMES if name.startswith(start))
        old[OLD_NAMES[start] + name.removeprefix(start)] = weight.clone()
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_length": 16, "processor_class": "InternVLProcessor"})
    )
    pictures = {"image_processor_type": "GotOcr2ImageProcessorFast", "processor_class": "InternVLProcessor"}
    pictures |= {"crop_to_patches": False, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True}
    pictures |= {"do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    pictures |= {"max_patches": 4, "min_patches": 1, "resample": 3, "rescale_factor": 1 / 255}
    pictures |= {"size": {"height": 56, "width": 56}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    model = AdaLlava.from_pretrained(str(folder), method="uniform", device="cpu", dtype=torch.float32)
    made = dict(prompts_with_pictures(model.processor))
    assert {name: tensor.shape for name, tensor in made.items()} == {name: t.shape for name, t in inputs.items()}
    stock = model.base.generate(**made, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(**made, max_new_tokens=3, do_sample=False).sequences, stock)
    assert torch.equal(model.base.model.language_model.norm.weight, base.model.language_model.norm.weight)
    turns = [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "alike?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        {"role": "user", "content": [{"type": "text", "text": "why?"}]},
    ]
    prompt = model.processor.apply_chat_template(turns, add_generation_prompt=True)
    pair = [tiny_image(1, (56, 56)), tiny_image(2, (112, 50))]
    chat = dict(model.processor(images=pair, text=[prompt], return_tensors="pt"))
    assert [len(one) for one in model.select(**chat, token_budget=0.5)[0].kept_indices] == [8] * 4


@pytest.mark.long
def test_a_folder_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_internvl(tmp_path / "model")
    assert json.loads((folder / "config.json").read_text())["vision_config"]["image_size"] == [56, 56]
    tiny_image(3, (112, 50)).save(tmp_path / "picture.png")
    common = ["--model", str(folder), "--method", "visionzip", "--token-budget", "0.25", "--device", "cpu"]
    ask = ["--image", str(tmp_path / "picture.png"), "--question", "why?", "--max-new-tokens", "2", "--json"]
    assert main(["generate", *common, *ask, "--output-image", str(tmp_path / "kept.png")]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["tokens_kept"], result["num_vision_tokens"]) == (12, 48)
    assert main(["sweep", *common, "--limit", "2", "--max-new-tokens", "2", "--output", str(tmp_path / "run")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(line["flops"]["vision"] > 0 and not line.get("error") for line in lines)
    assert main(["doctor", "--model", str(folder), "--method", "uniform", "--device", "cpu"]) == 0
