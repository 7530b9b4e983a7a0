"""Checkpoints: whatever stands in a folder's JSON files, it gives a model that answers, or an error in words."""

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from models import tiny_image
from mutations import damaged_bytes, damaged_json, json_text

from adallava import AdaLlava
from adallava.processors.stock_processor import build_prompt

FINDINGS: dict[str, tuple[str, str, Any]] = {
    "text for a flag": ("config.json", "text_config.output_hidden_states", "False"),
    "a deviation for two of three colors": ("processor_config.json", "image_processor.image_std", [0.26, 0.27]),
    "a size of pictures among the tokenizer's settings": ("tokenizer_config.json", "size", 0),
}
"""A file, a key in it and its value, by what is wrong."""

_FILES = (
    "config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json",
)  # fmt: skip
_KEYS = (
    "auto_map", "num_hidden_layers", "model_type", "rope_scaling", "rope_parameters", "quantization_config",
    "torch_dtype",
    "dtype", "tie_word_embeddings", "attn_implementation", "_attn_implementation", "eos_token_id", "max_length",
    "hidden_act",
    "num_beams", "do_sample", "temperature", "top_k", "image_size", "size", "crop_size", "resample", "image_token",
    "patch_size", "vision_feature_layer", "vision_feature_select_strategy", "architectures", "chat_template",
    "return_dict",
    "num_labels", "id2label", "layer_types", "sliding_window", "head_dim", "pad_token", "extra_special_tokens",
    "use_cache",
    "added_tokens_decoder", "transformers_version", "attention_dropout", "mlp_bias", "initializer_range", "sub_configs",
)  # fmt: skip


def inputs(valid: dict[str, Any]) -> st.SearchStrategy[dict[str, str]]:
    """Return a strategy of damaged files by name; those that are not named stay as they are."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> dict[str, str]:
        damaged = {}
        for name in draw(st.lists(st.sampled_from(_FILES), min_size=1, max_size=2, unique=True)):
            # tokenizer.json is mostly words, which are of no interest.
            value = json_text(draw(damaged_json(valid.get(name, {}), extra_keys=_KEYS)))
            if draw(st.integers(0, 9)) == 0:
                value = draw(damaged_bytes(value.encode(), most=2)).decode("latin-1")
            damaged[name] = value
        return damaged

    return draw_one()


def check(original: Path, folder: Path, texts: dict[str, str]) -> None:
    """Load a folder with these files in place of its own, and ask the model something if it loads."""
    model_folder = folder / "model"
    shutil.rmtree(model_folder, ignore_errors=True)
    model_folder.mkdir()
    for path in original.iterdir():
        if path.is_file():
            (model_folder / path.name).symlink_to(path)
    for name, text in texts.items():
        (model_folder / name).unlink(missing_ok=True)
        (model_folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    model = AdaLlava.from_pretrained(str(model_folder), method="full", device="cpu")
    prompt = build_prompt(model.processor, "what is it?")
    assert isinstance(prompt, str)
    ask(model, prompt)


def ask(model: AdaLlava, prompt: str) -> None:
    """Answer one question with two tokens."""
    inputs = model.processor(images=[tiny_image()], text=[prompt], return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=2)
    assert len(output.text) == 1


@pytest.fixture(scope="module")
def valid(tiny_folder: Path) -> dict[str, Any]:
    found = {path.name: json.loads(path.read_text()) for path in tiny_folder.glob("*.json") if path.name in _FILES}
    return found | {"preprocessor_config.json": found.get("processor_config.json", {}).get("image_processor", {})}


@pytest.mark.parametrize("name", FINDINGS)
def test_checkpoints_that_failed_once(name: str, tiny_folder: Path, valid: dict[str, Any], tmp_path: Path) -> None:
    file, keys, value = FINDINGS[name]
    whole = copy.deepcopy(valid[file])
    *outer, last = keys.split(".")
    inner = whole
    for key in outer:
        inner = inner[key]
    inner[last] = value
    judge(partial(check, tiny_folder, tmp_path), {file: json_text(whole)}, tmp_path)


def test_a_valid_checkpoint_answers(tiny_folder: Path, valid: dict[str, Any], tmp_path: Path) -> None:
    texts = {name: json.dumps(value) for name, value in valid.items() if name in ("config.json", "tokenizer.json")}
    assert judge(partial(check, tiny_folder, tmp_path), texts, tmp_path) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_checkpoints(tiny_folder: Path, valid: dict[str, Any], tmp_path: Path) -> None:
    fuzzed = partial(check, tiny_folder, tmp_path)
    tally = fuzz("checkpoints", inputs(valid), fuzzed, tmp_path, findings=len(FINDINGS), at_once=25)
    assert tally.answered
    assert tally.refused
