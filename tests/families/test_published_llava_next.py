"""A checkpoint with the names, fields and files of `llava-hf/llava-v1.6-vicuna-7b-hf` loads; only widths are tiny.

Facts: key names from transformers' own script that converted the published weights; config.json and
preprocessor_config.json from copies in public repositories (the pinpoints, ids and vocabulary are LLaVA-1.6's for its
Vicuna and its Mistral). The tokenizer's files are those of LLaVA-1.5, which has the same vocabulary and added tokens;
the published chat template was not found, so the prompt's wording is not checked here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_llava import (
    IMAGE_TOKEN_ID,
    config_fields,
    new_name,
    random_weights,
    write_model,
    write_processor,
)

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.costs.shapes import LLAVA_1_5_7B, model_shape_from_config
from adallava.model import build_prompt

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def next_fields(*, tiny: bool = True) -> dict[str, Any]:
    """Return the published config.json, with tiny widths unless told otherwise."""
    fields = config_fields("7b", tiny=tiny)
    return fields | {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "image_grid_pinpoints": PINPOINTS,
        "model_type": "llava_next",
        "transformers_version": "4.39.0.dev0",
        "use_image_newline_parameter": True,
    }


def next_weights() -> dict[str, torch.Tensor]:
    config = next_fields()
    newline = torch.randn(config["text_config"]["hidden_size"], generator=torch.Generator().manual_seed(3))
    return {**random_weights(config), "image_newline": newline.half()}


def write_next(folder: Path, layout: str = "old") -> Path:
    """Write the tiny checkpoint, in two shards, and its processor; return the folder."""
    write_model(folder, next_fields(), next_weights(), layout)
    write_processor(
        folder,
        "json",
        family="LlavaNext",
        pictures={
            "aspect_ratio_setting": "anyres",
            "do_pad": True,
            "image_grid_pinpoints": PINPOINTS,
            "image_processor_type": "LlavaNextImageProcessor",
        },
    )
    return folder


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_next(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def published(folder: Path) -> AdaLlava:
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu", dtype="float32")


@pytest.mark.parametrize("layout", ["old", "new"])
def test_every_weight_arrives_under_either_layout_of_names(tmp_path: Path, layout: str) -> None:
    model = AdaLlava.from_pretrained(str(write_next(tmp_path, layout)), method="full", device="cpu")
    assert model.dtype == torch.float16
    assert (model.shape.num_vision_tokens, model.shape.grid) == (576, (24, 24))
    loaded = {name.replace("vision_model.", ""): tensor for name, tensor in model.base.state_dict().items()}
    expected = {new_name(name).replace("vision_model.", ""): w for name, w in next_weights().items()}
    assert set(loaded) == set(expected)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, expected[name]), name


def test_a_picture_has_the_tokens_that_the_published_settings_give_it(published: AdaLlava) -> None:
    """899 x 1024 is the size of the conversion script's own check; by hand, with tiles of 24 x 24 patches.

    1024 wide and 899 high fits 672 x 672: 48 columns, and int(899 * 48 / 1024) = 42 rows: 576 + 42 * 49. 500 x 336 is
    as large in two tiles side by side as in four, which waste more: 24 rows and 35 of 48 columns, so 6 are cut off on
    each side and 36 left: 576 + 24 * 37.
    """
    pictures, prompts = [_picture(1024, 899), _picture(500, 336)], [build_prompt(published.processor, "why?")] * 2
    inputs = published.processor(images=pictures, text=prompts, return_tensors="pt", padding=True)
    assert inputs["image_sizes"].tolist() == [[899, 1024], [336, 500]]
    placeholders = (inputs["input_ids"] == IMAGE_TOKEN_ID).sum(dim=1).tolist()
    assert placeholders == [576 + 42 * 49, 576 + 24 * 37]
    family = published.family.for_sizes(inputs["image_sizes"])
    assert family.grids(inputs["pixel_values"]) == ((24, 24), (42, 49), (24, 24), (24, 37))
    assert family.tower_runs(inputs["pixel_values"]) == (1, 4, 1, 2)


def test_it_answers_as_the_stock_model_does_and_from_fewer_tokens(published: AdaLlava) -> None:
    pictures, prompts = [_picture(1024, 899), _picture(500, 336)], [build_prompt(published.processor, "why?")] * 2
    inputs: dict[str, Any] = dict(published.processor(images=pictures, text=prompts, return_tensors="pt", padding=True))
    ours = published.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(ours.sequences, published.base.generate(**inputs, max_new_tokens=3, do_sample=False))
    for method in ("visionzip", "fastv"):
        records = published.with_method(method).generate(**inputs, token_budget=[64, 0.25], max_new_tokens=2).records
        assert [record.tokens_at_end for record in records] == [64, 366]


def test_its_costs_have_the_shapes_of_llava_1_5() -> None:
    """The same tower, projector and LLM; what differs is how many tiles and tokens a picture has."""
    fields = next_fields(tiny=False)
    fields["text_config"] |= {"hidden_size": 4096, "intermediate_size": 11008}
    assert model_shape_from_config(fields) == LLAVA_1_5_7B


def test_a_user_asks_it_by_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _picture(500, 336).save(tmp_path / "picture.png")
    model = ["--model", str(folder), "--method", "uniform", "--token-budget", "0.25", "--device", "cpu"]
    ask = [
        "--image",
        str(tmp_path / "picture.png"),
        "--question",
        "why?",
        "--max-new-tokens",
        "2",
        "--dtype",
        "float32",
    ]
    assert main(["generate", *model, *ask, "--json", "--output-image", str(tmp_path / "kept.png")]) in (0, 1)
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["num_vision_tokens"], result["tokens_kept"]) == (1464, 366)
    assert (tmp_path / "kept.png").is_file()
