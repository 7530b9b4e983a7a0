"""A checkpoint with the names, fields and files of `llava-hf/llava-v1.6-vicuna-7b-hf` loads; only widths are tiny.

Facts: key names from transformers' own script that converted the published weights; chat_template.json,
generation_config.json and the files' sizes from stored pages of huggingface.co/llava-hf/llava-v1.6-vicuna-7b-hf;
config.json from pages of copies that name it (the 7B's, quantised, and the 13B's), preprocessor_config.json from one of
another model of 772 bytes, as many as the published one has. The words of the vocabulary are not the published ones.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from costs_by_hand import LLAVA_1_5_7B
from PIL import Image
from published_llava import (
    IMAGE_TOKEN_ID,
    TOTAL_SIZE_BYTES_7B,
    config_fields,
    index_kb,
    new_name,
    old_names,
    random_weights,
    write_model,
    write_processor,
)
from transformers import LlavaNextConfig

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.cli.main import main
from adallava.costs.counted import count_costs
from adallava.families.picture_inputs import PictureInputs
from adallava.model import build_prompt

pytestmark = pytest.mark.long


PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def next_fields(size: str = "7b", *, tiny: bool = True) -> dict[str, Any]:
    """Return the published config.json of "7b" or "13b", with tiny widths unless told otherwise."""
    fields = config_fields(size, tiny=tiny)
    fields["text_config"] |= {"_name_or_path": f"lmsys/vicuna-{size}-v1.5", "pad_token_id": 0}
    if size == "13b":
        fields["text_config"]["max_length"] = 4096
    for name in ("pad_token_id", "tie_word_embeddings"):
        del fields[name]
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
        pad=False,
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


@pytest.mark.parametrize(("size", "published_kb"), [("7b", 1.17), ("13b", 1.34)])
def test_its_config_has_the_size_of_the_published_one(size: str, published_kb: float) -> None:
    """Every field that was read off a copy, and none besides: the files are as long as huggingface.co states."""
    assert round((len(json.dumps(next_fields(size, tiny=False), indent=2)) + 1) / 1000, 2) == published_kb


def test_its_index_and_its_processor_have_the_sizes_of_the_published_ones(folder: Path) -> None:
    names = [*old_names(32, 24), "image_newline"]
    assert round(index_kb(names, 3, TOTAL_SIZE_BYTES_7B + 2 * 4096), 1) == 70.2
    sizes = {"preprocessor_config.json": 772, "generation_config.json": 137, "special_tokens_map.json": 552}
    # Those that transformers wrote end in a line's end.
    assert {name: (folder / name).stat().st_size + 1 for name in sizes} == sizes


def test_its_prompt_is_that_of_the_published_template(published: AdaLlava) -> None:
    """Word by word LLaVA-1.5's: the sentence of Vicuna's system was taken out by its publishers."""
    assert build_prompt(published.processor, "why?") == "USER: <image>\nwhy? ASSISTANT:"


def test_unknown_words_pad_as_published(published: AdaLlava) -> None:
    assert (published.family.pad_token_id, published.processor.tokenizer.pad_token) == (0, "<unk>")


def test_a_revision_without_a_processor_config_holds_the_same_places(folder: Path, tmp_path: Path) -> None:
    """As 1ee238e was published: nothing says how large a patch is but the model's config."""
    older = Path(shutil.copytree(folder, tmp_path / "older"))
    (older / "processor_config.json").unlink()
    processor = AdaLlavaProcessor.from_pretrained(str(older))
    inputs = processor(images=[_picture(500, 336)], text=[build_prompt(processor, "why?")], return_tensors="pt")
    assert (inputs["input_ids"] == IMAGE_TOKEN_ID).sum() == 576 + 24 * 37


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
    family, given = published.family, PictureInputs(inputs["pixel_values"], {"image_sizes": inputs["image_sizes"]})
    assert family.grids(given) == ((24, 24), (42, 49), (24, 24), (24, 37))
    assert family.tower_runs(given) == (1, 4, 1, 2)


def test_it_answers_as_the_stock_model_does_and_from_fewer_tokens(published: AdaLlava) -> None:
    pictures, prompts = [_picture(1024, 899), _picture(500, 336)], [build_prompt(published.processor, "why?")] * 2
    inputs: dict[str, Any] = dict(published.processor(images=pictures, text=prompts, return_tensors="pt", padding=True))
    ours = published.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(ours.sequences, published.base.generate(**inputs, max_new_tokens=3, do_sample=False))
    for method in ("visionzip", "fastv"):
        records = published.with_method(method).generate(**inputs, token_budget=[64, 0.25], max_new_tokens=2).records
        assert [record.tokens_at_end for record in records] == [64, 366]


def test_its_parts_cost_those_of_llava_1_5() -> None:
    """The same tower, projector and LLM; what differs is how many tiles and tokens a picture has."""
    fields = next_fields(tiny=False)
    fields["text_config"] |= {"hidden_size": 4096, "intermediate_size": 11008}
    assert count_costs(LlavaNextConfig.from_dict(fields)) == LLAVA_1_5_7B


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
