"""`llava-hf/llava-1.5-7b-hf` and `-13b-hf` load as published: their names, fields and files; only widths are tiny."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_llava import (
    IMAGE_TOKEN_ID,
    INDEX_KB,
    TOTAL_SIZE_BYTES_7B,
    TOTAL_SIZE_BYTES_13B,
    config_fields,
    index_kb,
    new_name,
    old_names,
    pixel_tolerance,
    random_weights,
    shapes,
    write_published,
)
from safetensors.torch import load_file, save_file

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.errors import CheckpointError
from adallava.families import wrap_model
from adallava.model import build_prompt


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> AdaLlava:
    folder = write_published(tmp_path_factory.mktemp("published"), "7b")
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu", dtype="float32")


def _picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.mark.newest
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


@pytest.mark.parametrize(
    ("size", "layers", "total_size"), [("7b", 32, TOTAL_SIZE_BYTES_7B), ("13b", 40, TOTAL_SIZE_BYTES_13B)]
)
def test_every_key_of_the_published_index_is_there(size: str, layers: int, total_size: int) -> None:
    """In the shapes of the published config they take the bytes that index or shards have, and an index its size."""
    fields = config_fields(size, tiny=False)
    if size == "7b":
        # What the published file leaves to LlamaConfig's defaults.
        fields["text_config"] |= {"hidden_size": 4096, "intermediate_size": 11008}
    names = old_names(layers, 24)
    assert 2 * sum(int(np.prod(shapes(fields, name))) for name in names) == total_size
    shards, published_kb = INDEX_KB[size]
    assert round(index_kb(names, shards, total_size), 1) == published_kb


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
    np.testing.assert_allclose(ours, expected, atol=pixel_tolerance())


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


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def _no_processor_config(folder: Path) -> None:
    (folder / "processor_config.json").unlink()


def _no_figures(folder: Path) -> None:
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))


def _no_class_token(folder: Path) -> None:
    _edit(folder / "processor_config.json", lambda fields: fields.pop("num_additional_image_tokens"))


def _saved_anew(folder: Path) -> None:
    """As today's transformers writes it: the pictures' settings in processor_config.json, the template apart."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    for name in ("preprocessor_config.json", "processor_config.json", "chat_template.json"):
        (folder / name).unlink()
    processor.save_pretrained(folder)
    assert not (folder / "preprocessor_config.json").exists()
    assert (folder / "chat_template.jinja").is_file()


def _no_template(folder: Path) -> None:
    (folder / "chat_template.json").unlink()


@pytest.mark.parametrize("change", [_no_processor_config, _no_figures, _no_class_token, _saved_anew, _no_template])
def test_older_and_newer_processors_hold_the_same_places(
    tmp_path: Path, published: AdaLlava, change: Callable[[Path], None]
) -> None:
    """Older folders leave the size of a patch to the model's config; without it transformers fails at the picture."""
    folder = write_published(tmp_path, "7b")
    change(folder)
    processor = AdaLlavaProcessor.from_pretrained(str(folder))
    prompt = build_prompt(processor, "what is it?")
    ours, expected = (
        p(images=[_picture(60, 40)], text=[prompt], return_tensors="pt") for p in (processor, published.processor)
    )
    assert torch.equal(ours["input_ids"], expected["input_ids"])
    assert torch.equal(ours["pixel_values"], expected["pixel_values"])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """Take the weights out of a folder."""
    held: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("model-*.safetensors")):
        held |= load_file(shard)
        shard.unlink()
    (folder / "model.safetensors.index.json").unlink()
    return held


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("metadata", [{"format": "pt"}, None])
def test_one_file_of_any_type_loads_as_stored(
    tmp_path: Path, stored: torch.dtype, metadata: dict[str, str] | None
) -> None:
    """As a fine-tuned model is saved, or one that low-rank weights were merged into; some tools write no metadata."""
    folder = write_published(tmp_path, "7b")
    save_file({name: w.to(stored) for name, w in _weights(folder).items()}, folder / "model.safetensors", metadata)
    _edit(folder / "config.json", lambda fields: fields.update(torch_dtype=str(stored).removeprefix("torch.")))
    model = AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    assert {parameter.dtype for parameter in model.base.parameters()} == {stored}


def _with_rows(folder: Path, rows: int) -> None:
    weights = _weights(folder)
    for name in ("language_model.lm_head.weight", "language_model.model.embed_tokens.weight"):
        weights[name] = weights[name][:rows].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _edit(
        folder / "config.json", lambda fields: (fields["text_config"].update(vocab_size=rows), fields.pop("vocab_size"))
    )


def test_a_vocabulary_that_is_not_padded_loads(tmp_path: Path) -> None:
    """32000 words, `<image>` and `<pad>`, without the 62 rows that the published one has behind them."""
    folder = write_published(tmp_path, "7b")
    _with_rows(folder, 32002)
    model = AdaLlava.from_pretrained(str(folder), method="uniform", device="cpu")
    prompts = [build_prompt(model.processor, text) for text in ("what is it?", "why?")]
    inputs = dict(model.processor(images=[_picture(60, 40)] * 2, text=prompts, return_tensors="pt", padding=True))
    assert 32001 in inputs["input_ids"]
    assert len(model.generate(**inputs, token_budget=64, max_new_tokens=2).records) == 2


def test_a_vocabulary_without_a_row_for_pictures_is_told(tmp_path: Path) -> None:
    folder = write_published(tmp_path, "7b")
    _with_rows(folder, 32000)
    with pytest.raises(CheckpointError, match="an image's token has the id 32000, and the embeddings only 32000 rows"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_low_rank_weights_that_are_not_merged_are_told(tmp_path: Path) -> None:
    """What peft's own `state_dict` holds, saved as if it were the model's."""
    folder = write_published(tmp_path, "7b")
    prefixed = {f"base_model.model.{name}": weight for name, weight in _weights(folder).items()}
    save_file(prefixed, folder / "model.safetensors", {"format": "pt"})
    message = (
        "73 are missing .*; it holds 73 that the model has not, the first 'base_model.model.language_model.lm_head"
    )
    with pytest.raises(CheckpointError, match=message):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    peft = {"peft_type": "LORA", "base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}
    (folder / "adapter_config.json").write_text(json.dumps(peft))
    with pytest.raises(CheckpointError, match=r"holds an adapter_config.json next to its model: merge"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"is an adapter, not a model: merge it into its model"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def _outside(folder: Path) -> None:
    (folder.parent / "outside.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    text = (folder / "model.safetensors.index.json").read_text()
    text = text.replace("model-00001-of-00002.safetensors", "../outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)


def _absolute(folder: Path) -> None:
    _outside(folder)
    text = (folder / "model.safetensors.index.json").read_text()
    text = text.replace("../outside.safetensors", str(folder.parent / "outside.safetensors"))
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize("change", [_outside, _absolute])
def test_an_index_may_not_name_files_outside_its_folder(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = write_published(tmp_path / "model", "7b")
    change(folder)
    with pytest.raises(CheckpointError, match=r"outside.safetensors', which lies outside its folder: it is refused"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


@pytest.mark.parametrize("weight_map", [{}, {"a": 5}, [], None])
def test_an_index_that_names_nothing_is_damaged(tmp_path: Path, weight_map: object) -> None:
    folder = write_published(tmp_path, "7b")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="is damaged: it has no readable weight_map"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_one_shard_in_the_place_of_two_is_told_by_a_weight(tmp_path: Path) -> None:
    folder = write_published(tmp_path, "7b")
    first = (folder / "model-00001-of-00002.safetensors").read_bytes()
    (folder / "model-00002-of-00002.safetensors").write_bytes(first)
    with pytest.raises(CheckpointError, match="do not fill the model: 36 are missing"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json"],
)
def test_a_truncated_file_beside_the_weights_is_named(tmp_path: Path, name: str) -> None:
    """transformers goes on without some of them, with other settings."""
    folder = write_published(tmp_path, "7b")
    (folder / name).write_text((folder / name).read_text()[:-5])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ raise_exception('no pictures') }}", "TemplateError: no pictures"),
        ("{{ messages[0]['role'] + 1 }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_damaged_template_is_told(tmp_path: Path, template: str, reason: str) -> None:
    folder = write_published(tmp_path, "7b")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(CheckpointError, match=f"the processor's chat template cannot be used: {reason}"):
        build_prompt(AdaLlavaProcessor.from_pretrained(str(folder)), "why?")
