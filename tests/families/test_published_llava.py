"""`llava-hf/llava-1.5-7b-hf` and `-13b-hf` load as published: their names, fields and files; only widths are tiny."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_llava import (
    IMAGE_TOKEN_ID,
    TOTAL_SIZE_BYTES_7B,
    config_fields,
    new_name,
    old_names,
    random_weights,
    shapes,
    write_published,
)

from adallava import AdaLlava
from adallava.families import wrap_model
from adallava.model import build_prompt


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> AdaLlava:
    folder = write_published(tmp_path_factory.mktemp("published"), "7b")
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu", dtype="float32")


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize(("size", "chat_template"), [("7b", "json"), ("13b", "jinja")])
def test_every_weight_arrives_under_either_layout_of_names(
    tmp_path: Path, size: str, chat_template: str, layout: str
) -> None:
    folder = write_published(tmp_path, size, layout=layout, chat_template=chat_template)
    model = AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    assert model.dtype == torch.float16
    assert (model.shape.num_vision_tokens, model.shape.grid) == (576, (24, 24))
    loaded = model.base.state_dict()
    expected = {
        new_name(name).replace("vision_model.", ""): w for name, w in random_weights(config_fields(size)).items()
    }
    assert {name.replace("vision_model.", "") for name in loaded} == set(expected)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, expected[name.replace("vision_model.", "")]), name


def test_the_7b_has_the_published_size() -> None:
    """Every key of the published index, in the shapes of the published config, takes the bytes that the index says."""
    fields = config_fields("7b", tiny=False)
    # What the published file leaves to LlamaConfig's defaults.
    fields["text_config"] |= {"hidden_size": 4096, "intermediate_size": 11008}
    names = old_names(32, 24)
    assert 2 * sum(int(np.prod(shapes(fields, name))) for name in names) == TOTAL_SIZE_BYTES_7B


@pytest.mark.parametrize(("size", "layers"), [("7b", 32), ("13b", 40)])
def test_transformers_makes_these_shapes_of_the_published_config(size: str, layers: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    fields = config_fields(size, tiny=False)
    config = LlavaConfig.from_dict(dict(fields))
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    made = {name.replace("vision_model.", ""): tuple(w.shape) for name, w in model.state_dict().items()}
    if size == "7b":
        fields["text_config"] |= {"hidden_size": 4096, "intermediate_size": 11008}
    names = old_names(layers, 24)
    assert made == {new_name(name).replace("vision_model.", ""): shapes(fields, name) for name in names}


@pytest.mark.parametrize("chat_template", ["json", "jinja"])
def test_the_prompt_is_that_of_the_published_template(tmp_path: Path, chat_template: str) -> None:
    folder = write_published(tmp_path, "7b", chat_template=chat_template)
    model = AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    assert build_prompt(model.processor, "what is it?") == "USER: <image>\nwhat is it? ASSISTANT:"


def test_the_prompt_becomes_the_ids_of_the_published_tokenizer(published: AdaLlava) -> None:
    prompt = build_prompt(published.processor, "what is it?")
    inputs = published.processor(images=[_picture(40, 30)], text=[prompt], return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    vocab = published.processor.tokenizer.get_vocab()

    def letters(text: str) -> list[int]:
        return [vocab[letter] for letter in text]

    # By the published tokenizer.json's rules: <s> first; ▁ before each text between special tokens, so behind <image>
    # too (29871 in the real vocabulary, as in LLaVA's own code); a space is ▁; a newline is its byte.
    before, behind = letters("▁USER:▁"), [vocab["▁"], vocab["<0x0A>"], *letters("what▁is▁it?▁ASSISTANT:")]
    assert ids[: 1 + len(before)] == [1, *before]
    assert ids[1 + len(before) :][:576] == [IMAGE_TOKEN_ID] * 576
    assert ids[1 + len(before) + 576 :] == behind
    assert inputs["pixel_values"].shape == (1, 3, 336, 336)


@pytest.mark.parametrize("size", [(500, 375), (300, 700), (336, 336), (1200, 340)])
def test_pixels_are_the_published_settings_arithmetic(published: AdaLlava, size: tuple[int, int]) -> None:
    """Shortest edge to 336 by Pillow's bicubic filter, the middle 336 x 336, / 255, less the mean, by the deviation."""
    picture = _picture(*size)
    ours = published.processor.image_processor([picture], return_tensors="np")["pixel_values"][0]
    scale = 336 / min(size)
    width, height = (336 if side == min(size) else int(side * scale) for side in size)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    top, left = (height - 336) // 2, (width - 336) // 2
    middle = resized[top : top + 336, left : left + 336] / 255
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = ((middle - mean) / deviation).transpose(2, 0, 1)
    assert ours.shape == (3, 336, 336)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_it_answers_as_the_stock_model_does_and_from_fewer_tokens(published: AdaLlava) -> None:
    prompts = [build_prompt(published.processor, text) for text in ("what is it?", "why?")]
    pictures = [_picture(60, 40), _picture(40, 60)]
    inputs: dict[str, Any] = dict(published.processor(images=pictures, text=prompts, return_tensors="pt", padding=True))
    ours = published.generate(**inputs, max_new_tokens=4, do_sample=False)
    stock = published.base.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(ours.sequences, stock)
    for method in ("uniform", "visionzip", "fastv"):
        records = published.with_method(method).generate(**inputs, token_budget=[64, 0.25], max_new_tokens=2).records
        assert [(record.num_vision_tokens, record.tokens_asked) for record in records] == [(576, 64), (576, 144)]


def test_the_pad_id_is_the_published_one(published: AdaLlava) -> None:
    assert wrap_model(published.base).pad_token_id == 32001
