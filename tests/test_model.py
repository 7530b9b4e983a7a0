"""Loading a model, and changing its method."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_base, tiny_image

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.adapters import weights_sha256
from adallava.adapters.store import sha256_of
from adallava.errors import BudgetError, CheckpointError, InputError, UnknownNameError, UnsupportedModeError
from adallava.model import build_prompt


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def test_a_loaded_model_says_what_it_is(tiny_folder: Path) -> None:
    model = AdaLlava.from_pretrained(str(tiny_folder), device="cpu")
    assert model.method == "question"
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert model.weights_sha256 == weights_sha256(tiny_folder)
    assert model.adapter_sha256 == sha256_of(tiny_folder / "adapters" / "question" / "adapter_model.safetensors")
    assert not model.base.training
    assert all(parameter.requires_grad for parameter in model.base.parameters())


def test_models_of_several_methods_share_one_base(full: AdaLlava) -> None:
    other = full.with_method("uniform")
    assert other.base is full.base
    assert (full.method, other.method) == ("full", "uniform")
    assert other.with_method("full").selector is None


def test_a_misspelled_method_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'question'"):
        AdaLlava.from_pretrained(str(tmp_path), method="qestion")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model: it has no config.json"):
        AdaLlava.from_pretrained(str(tmp_path), method="full")


def test_a_name_that_is_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no model 'no/such-model'"):
        AdaLlava.from_pretrained("no/such-model", method="full")


def test_a_folder_without_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"has no weights: neither model.safetensors nor model.safetensors.index.json is in it"
    ):
        AdaLlava.from_pretrained(str(folder), method="full")


def test_truncated_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model.safetensors is truncated or damaged: it has \d+ bytes"):
        AdaLlava.from_pretrained(str(folder), method="full")


def test_weights_that_do_not_fill_the_model_are_not_filled_with_random_ones(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "linear_1.weight" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fill the model.*linear_1.weight"):
        AdaLlava.from_pretrained(str(folder), method="full")


def test_a_folder_without_processor_is_named(folder: Path) -> None:
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer: neither tokenizer.json nor tokenizer.model"):
        AdaLlava.from_pretrained(str(folder), method="full")


def test_another_model_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnsupportedModeError, match=r"family 'bert'; supported are: .*llava"):
        AdaLlava.from_pretrained(str(tmp_path), method="full")


def test_a_learned_method_without_weights_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "adapters")
    with pytest.raises(CheckpointError, match=r"no adapter for the learned method 'question'.*'uniform' or 'full'"):
        AdaLlava.from_pretrained(str(folder))


def test_an_adapter_of_another_base_is_refused_at_load(tiny_folder: Path, folder: Path) -> None:
    tiny_base(seed=7).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"trained on .* this base has"):
        AdaLlava.from_pretrained(str(folder))
    assert AdaLlava.from_pretrained(str(folder), allow_other_base=True).method == "question"


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("full", {"adapter": "x"}, "'full' keeps every token"),
        ("uniform", {"adapter": "x"}, "'uniform' is not learned"),
        ("question", {"width": 3}, "'question' takes its options from its adapter.*width"),
    ],
)
def test_what_a_method_cannot_use_is_refused(
    full: AdaLlava, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        full.with_method(method, **arguments)


def test_the_full_model_has_one_budget(full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(BudgetError, match=r"token budget 0.5 asks for 8 of 16.*'full' keeps them all"):
        full.generate(**inputs, token_budget=0.5)
    assert full.generate(**inputs, token_budget=64, max_new_tokens=1).records[0].tokens_kept == 16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"token_budget": [1, 2]}, BudgetError, "2 token budgets for a batch of 3"),
        ({"token_budget": 1.5}, BudgetError, "token budget 1.5 is out of range"),
        ({"token_budget": 4, "seed": [1, 2]}, InputError, "2 seeds for a batch of 3"),
        ({"token_budget": 4, "positions": "relative"}, InputError, "positions='relative'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    full: AdaLlava, inputs: dict[str, Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        full.with_method("random").generate(**inputs, **arguments)


def test_a_question_about_a_photo_is_answered_as_its_prompt_is(full: AdaLlava) -> None:
    model, photo = full.with_method("uniform"), tiny_image().convert("L")
    asked = model.ask(photo, "why?", token_budget=[1.0, 4], max_new_tokens=3)
    assert f"text={asked.text!r}" in repr(asked)
    assert "tensor(" not in repr(asked)  # what is printed is the answer, not a screen of numbers
    prompts = [build_prompt(model.processor, "why?")] * 2
    inputs = model.processor(images=[photo.convert("RGB")] * 2, text=prompts, return_tensors="pt")
    answered = model.generate(**inputs, token_budget=[1.0, 4], max_new_tokens=3)
    assert asked.sequences.equal(answered.sequences)
    assert [record.tokens_kept for record in asked.records] == [16, 4]
    two = model.ask([photo, photo], "why?", max_new_tokens=1)
    assert [record.num_vision_tokens for record in two.records] == [32], "one question about both"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("photo.jpg", "opened by Pillow, .* not 'photo.jpg': call PIL.Image.open first"),
        ([Path("photo.jpg")], "call PIL.Image.open first"),
        (None, "not a value of type NoneType"),
        (np.zeros((4, 4, 3)), "not a value of type ndarray: call PIL.Image.fromarray first"),
        ([], "an empty list of images: give at least one"),
    ],
)
def test_what_is_no_opened_image_is_refused(full: AdaLlava, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        full.ask(images, "why?")


def test_several_questions_are_not_taken_for_one(full: AdaLlava) -> None:
    with pytest.raises(InputError, match="one question, as text, not a value of type list"):
        full.ask(tiny_image(), ["why?", "where?"])  # type: ignore[arg-type]


def test_a_question_needs_a_processor(full: AdaLlava) -> None:
    with pytest.raises(InputError, match=r"AdaLlava\(base, processor\)"):
        AdaLlava(full.base, None).ask(tiny_image(), "why?")


def test_a_seed_changes_the_choice_of_a_method_that_draws(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("random")
    choices = [model.select(**inputs, token_budget=4, seed=seed) for seed in (0, 0, 2**63, -1)]
    kept = [[sample.kept_indices for sample in choice] for choice in choices]
    assert kept[0] == kept[1]
    assert kept[0] != kept[2] != kept[3]


def test_the_processor_is_the_stock_one(tiny_folder: Path) -> None:
    processor = AdaLlavaProcessor.from_pretrained(str(tiny_folder))
    assert type(processor).__name__ == "LlavaProcessor"
    batch = processor(images=[tiny_image()], text=[build_prompt(processor, "why?")], return_tensors="pt")
    assert (batch["input_ids"] == processor.image_token_id).sum() == 16


def test_a_prompt_uses_the_chat_template_if_there_is_one(tiny_folder: Path) -> None:
    processor = AdaLlavaProcessor.from_pretrained(str(tiny_folder))
    assert build_prompt(processor, "why?", 2) == "USER: <image>\n<image>\nwhy? ASSISTANT:"
    processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
        "{% else %}Q:{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
    )
    assert build_prompt(processor, "why?", 2) == "<image><image>Q:why? A:"


def test_a_model_made_in_memory_has_no_weights_to_hash(full: AdaLlava) -> None:
    model = AdaLlava(full.base, full.processor)
    with pytest.raises(CheckpointError, match="made in memory"):
        _ = model.weights_sha256
