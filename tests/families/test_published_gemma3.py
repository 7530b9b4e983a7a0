"""A checkpoint with the names, fields and files of `google/gemma-3-4b-it` loads; only widths and words are tiny.

Facts: config.json from public copies that name it; key names and the chat template from transformers' own script that
converted the published weights (release 4.50 wrote them under `language_model.model` and `vision_tower.vision_model`);
settings of the processor from that script and the class's defaults.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_image
from published_llava import random_checkpoint, write_files, write_model

from adallava import AdaLlava
from adallava.model import build_prompt
from adallava.processors.stock_processor import make_inputs

pytestmark = pytest.mark.long

BOI, EOI, IMAGE, VOCAB = 255999, 256000, 262144, 262208

CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""


def fields() -> dict[str, Any]:
    """The published config.json: what it names, with widths and depths of the two parts tiny."""
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": BOI,
        "eoi_token_index": EOI,
        "eos_token_id": [1, 106],
        "image_token_index": IMAGE,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "model_type": "gemma3_text",
            "num_hidden_layers": 6,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
            # Of the published one these are the class's defaults.
            "head_dim": 16,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {
            "hidden_size": 32,
            "image_size": 896,
            "intermediate_size": 64,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }


def published_name(name: str) -> str | None:
    """Return a weight's name in the published files; None for the head, which is the embedding."""
    if name == "lm_head.weight":
        return None
    parts = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    (new,) = (part for part in parts if name.startswith(part))
    return parts[new] + name.removeprefix(new).removeprefix("vision_model.")


def tokenizer_json() -> dict[str, Any]:
    special = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 105: "<start_of_turn>", 106: "<end_of_turn>"}
    special |= {BOI: "<start_of_image>", EOI: "<end_of_image>", IMAGE: "<image_soft_token>"}
    words = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *(chr(code) for code in range(33, 127)), "\n", "\n\n"]
    vocab: dict[str, int] = {token: place for place, token in special.items() if place != IMAGE}
    rest = iter(words)
    for place in range(IMAGE):
        if place not in special:
            vocab[next(rest, f"filler{place}")] = place
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": place, "content": token, **plain} for place, token in sorted(special.items())],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [["\n", "\n"]],
        },
    }


FILES: dict[str, Any] = {
    "processor_config.json": {"image_seq_length": 256, "processor_class": "Gemma3Processor"},
    "preprocessor_config.json": {
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_pan_and_scan": None,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Gemma3ImageProcessor",
        "image_seq_length": 256,
        "image_std": [0.5, 0.5, 0.5],
        "pan_and_scan_max_num_crops": None,
        "pan_and_scan_min_crop_size": None,
        "pan_and_scan_min_ratio_to_activate": None,
        "processor_class": "Gemma3Processor",
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 896, "width": 896},
    },
    "tokenizer_config.json": {
        "add_bos_token": True,
        "add_eos_token": False,
        "boi_token": "<start_of_image>",
        "bos_token": "<bos>",
        "eoi_token": "<end_of_image>",
        "eos_token": "<eos>",
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        "image_token": "<image_soft_token>",
        "pad_token": "<pad>",
        "processor_class": "Gemma3Processor",
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "<unk>",
    },
    "generation_config.json": {
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "do_sample": True,
        "eos_token_id": [1, 106],
        "pad_token_id": 0,
        "top_k": 64,
        "top_p": 0.95,
        "transformers_version": "4.50.0.dev0",
    },
    "chat_template.json": {"chat_template": CHAT_TEMPLATE},
}
"""Of the processor and of decoding, as published."""


def write_published(folder: Path) -> dict[str, torch.Tensor]:
    """Write the checkpoint as published, in two shards; return its weights by today's names."""
    weights = random_checkpoint(folder, fields(), "Gemma3ForConditionalGeneration", torch.bfloat16)
    published = {published_name(name): tensor for name, tensor in weights.items()}
    write_model(folder, fields(), {name: tensor for name, tensor in published.items() if name is not None}, "old")
    write_files(folder, {**FILES, "tokenizer.json": tokenizer_json()})
    return weights


@pytest.fixture(scope="module")
def weights_and_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], AdaLlava]:
    folder = tmp_path_factory.mktemp("gemma3")
    weights = write_published(folder)
    return weights, AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_every_weight_arrives(weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava]) -> None:
    weights, model = weights_and_model
    assert model.dtype == torch.bfloat16
    assert (model.shape.num_vision_tokens, model.shape.grid) == (256, (16, 16))
    loaded = model.base.state_dict()
    assert set(loaded) == set(weights)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, weights["model.language_model.embed_tokens.weight" if "lm_head" in name else name])


def test_its_prompt_is_that_of_the_published_template(
    weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava],
) -> None:
    """The template writes the beginning of the text: the tokenizer adds no second one."""
    processor = weights_and_model[1].processor
    prompt = build_prompt(processor, "why?", 2)
    turn = "<start_of_turn>user\n<start_of_image><start_of_image>why?<end_of_turn>\n<start_of_turn>model\n"
    assert prompt == "<bos>" + turn
    (ids,) = make_inputs(processor, [tiny_image(0), tiny_image(1)], [prompt])["input_ids"].tolist()
    assert (ids.count(2), ids.count(IMAGE), ids.count(BOI), ids.count(EOI)) == (1, 512, 2, 2)
    assert (
        ids
        == processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": tiny_image(i)} for i in (0, 1)]
                    + [{"type": "text", "text": "why?"}],
                }
            ],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )["input_ids"][0].tolist()
    )


def test_several_turns_with_pictures_and_a_system_prompt_are_answered_as_by_the_stock_model(
    weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava],
) -> None:
    model = weights_and_model[1]

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    picture = [{"type": "image", "image": tiny_image(seed, (90, 60))} for seed in range(3)]
    inputs = model.processor.apply_chat_template(
        [
            {"role": "system", "content": [text("be brief")]},
            {"role": "user", "content": [picture[0], text("what is it?"), picture[1]]},
            {"role": "assistant", "content": [text("red")]},
            {"role": "user", "content": [picture[2], text("and this?")]},
        ],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ours = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    stock = model.base.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(ours.sequences, stock)
    for method in ("divprune", "tome"):
        (ran,) = model.with_method(method).generate(**inputs, token_budget=96, max_new_tokens=2).records
        assert [len(kept) for kept in ran.kept_indices] == [32, 32, 32]
        assert ran.prompt_length == inputs["input_ids"].shape[1] - 3 * 256 + 96


def test_with_pan_and_scan_crops_are_more_images(
    weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava],
) -> None:
    model = weights_and_model[1]
    inputs = model.processor(
        images=[[tiny_image(0, (1200, 600))]],
        text=[build_prompt(model.processor, "why?")],
        return_tensors="pt",
        do_pan_and_scan=True,
    )
    (ran,) = model.with_method("uniform").select(**inputs, token_budget=30)
    # 1200 x 600 is cut into 2 x 1 crops of 600 x 600.
    assert [len(kept) for kept in ran.kept_indices] == [10, 10, 10]
