"""A checkpoint with the names, fields and files of `HuggingFaceTB/SmolVLM2-500M-Video-Instruct` loads; widths are tiny.

Facts: config.json, preprocessor_config.json, processor_config.json, special tokens with their ids and the chat
template from public copies that name the repository; key names are today's. Its merges were not seen: here every byte
is a token.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_image
from published_llava import random_checkpoint, write_files, write_model
from tiny_idefics3 import expanded

from adallava import AdaLlava
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.model import build_prompt
from adallava.processors.stock_processor import make_inputs

pytestmark = pytest.mark.long

WORDS, VOCAB, IMAGE = 49152, 49280, 49190
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
ADDED = {"<global-img>": WORDS, "<fake_token_around_image>": 49189, "<image>": IMAGE, "<end_of_utterance>": 49279}
ADDED |= {f"<row_{r}_col_{c}>": WORDS + 1 + (r - 1) * 6 + c - 1 for r in range(1, 7) for c in range(1, 7)}
ADDED |= {f"<|reserved_special_token_{i}|>": 49191 + i for i in range(88)}

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def fields() -> dict[str, Any]:
    """The published config.json, with widths and depths tiny."""
    tiny_text = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 3}
    tiny_vision = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 48}
    return {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": IMAGE,
        "model_type": "smolvlm",
        "pad_token_id": 128002,
        "scale_factor": 4,
        "text_config": {
            "architectures": ["VLlama3ForCausalLM"],
            "head_dim": 16,
            "is_llama_config": True,
            "max_position_embeddings": 8192,
            "model_type": "llama",
            "neftune_noise_alpha": 0.0,
            "num_key_value_heads": 1,
            "pad_token_id": 2,
            "pixel_shuffle_factor": 4,
            "qk_layer_norms": False,
            "rms_norm_eps": 1e-05,
            "rope_interleaved": False,
            "rope_theta": 100000,
            "torch_dtype": "bfloat16",
            "use_resampler": False,
            "vocab_size": VOCAB,
            **tiny_text,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.47.1",
        "use_cache": False,
        "use_reentrant_checkpointing": False,
        "vision_config": {
            "image_size": 512,
            "max_image_size": {"longest_edge": 512},
            "model_type": "smolvlm_vision",
            "patch_size": 16,
            "size": {"longest_edge": 2048},
            "tie_word_embeddings": False,
            "use_base_siglip": False,
            **tiny_vision,
        },
        "vocab_size": VOCAB,
    }


def write_tokenizer(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = dict(SPECIAL)
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[letter] = len(vocab)
    vocab |= {f"filler{place}": place for place in range(len(vocab), WORDS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token, _ in sorted({**SPECIAL, **ADDED}.items(), key=lambda pair: pair[1]):
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    assert tokenizer.token_to_id("<end_of_utterance>") == 49279
    tokenizer.save(str(folder / "tokenizer.json"))


IMAGES = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SmolVLMImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": 512},
    "processor_class": "SmolVLMProcessor",
    "resample": 1,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": 2048},
    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}},
}

ROLES = {
    "end_of_utterance_token": "<end_of_utterance>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
}

TOKENIZER = {
    "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
    "bos_token": "<|im_start|>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<end_of_utterance>",
    "extra_special_tokens": ROLES,
    "model_max_length": 8192,
    "pad_token": "<|im_end|>",
    "processor_class": "SmolVLMProcessor",
    "tokenizer_class": "GPT2Tokenizer",
    "truncation_side": "left",
    "unk_token": "<|endoftext|>",
    "vocab_size": 49152,
    **ROLES,
}


def write_published(folder: Path) -> dict[str, torch.Tensor]:
    """Write the checkpoint as published; return its weights."""
    weights = random_checkpoint(folder, fields(), "SmolVLMForConditionalGeneration", torch.float32)
    assert {name.split(".")[1] for name in weights} == {"text_model", "vision_model", "connector", "weight"}
    write_model(folder, fields(), weights, "old")
    ends = {"bos_token_id": 1, "eos_token_id": 49279, "pad_token_id": 2}
    files = {
        "preprocessor_config.json": IMAGES,
        "processor_config.json": {"image_seq_len": 64, "processor_class": "SmolVLMProcessor"},
        "tokenizer_config.json": TOKENIZER,
        "generation_config.json": {"_from_model_config": True, **ends, "transformers_version": "4.47.1"},
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
    }
    write_files(folder, files)
    write_tokenizer(folder)
    return weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import SmolVLMImageProcessorPil  # type: ignore[attr-defined]

    try:
        SmolVLMImageProcessorPil()
    except ImportError as error:  # of older versions without torchvision
        pytest.skip(" ".join(str(error).split())[:80])
    return tmp_path_factory.mktemp("smolvlm")


@pytest.fixture(scope="module")
def weights_and_model(folder: Path) -> tuple[dict[str, torch.Tensor], AdaLlava]:
    weights = write_published(folder)
    return weights, AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_every_weight_arrives(weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava]) -> None:
    weights, model = weights_and_model
    assert (model.shape.num_vision_tokens, model.shape.grid, model.shape.vision_width) == (64, (8, 8), 16 * 24)
    loaded = model.base.state_dict()
    assert set(loaded) == set(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.items())


def test_a_picture_of_it_is_cut_as_published(weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava]) -> None:
    """A photograph of 4:3 is made 2048 x 1536: 3 rows of 4 tiles, and the whole; `<image>` 13 times 64."""
    model = weights_and_model[1]
    prompt = build_prompt(model.processor, "why?")
    assert prompt == "<|im_start|>User:<image>why?<end_of_utterance>\nAssistant:"
    inputs = make_inputs(model.processor, [tiny_image(0, (400, 300))], [prompt])
    (ids,) = inputs["input_ids"].tolist()
    assert (ids.count(IMAGE), ids.count(1)) == (13 * 64, 1)
    assert [ADDED[f"<row_{r}_col_{c}>"] in ids for r, c in ((1, 1), (3, 4), (4, 1), (1, 5))] == [
        True,
        True,
        False,
        False,
    ]
    pictures, _ = take_pictures(model.family, inputs)
    assert pictures is not None
    assert model.family.grids(pictures) == ((24, 32), (8, 8))


def test_several_turns_with_pictures_and_a_system_prompt_are_answered_as_by_the_stock_model(
    weights_and_model: tuple[dict[str, torch.Tensor], AdaLlava],
) -> None:
    model = weights_and_model[1]

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": words}

    sizes = [(400, 100), (300, 300), (100, 500)]
    picture = [{"type": "image", "image": tiny_image(seed, size)} for seed, size in enumerate(sizes)]
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
        size={"longest_edge": 1024},
    )
    ours = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    stock = model.base.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert torch.equal(ours.sequences, stock)
    # 1024 on the longer side: a row of 2 tiles, 2 x 2, and a column of 2, with a whole each.
    (ran,) = model.with_method("divprune").generate(**inputs, token_budget=0.25, max_new_tokens=2).records
    assert ran.grids == ((8, 16), (8, 8), (16, 16), (8, 8), (16, 8), (8, 8))
    assert [len(kept) for kept in ran.kept_indices] == [32, 16, 64, 16, 32, 16]


def test_its_own_processor_words_pictures_alike() -> None:
    """That one reads videos, too, and needs packages for it; tests/families/test_idefics3.py holds the other."""
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    tokens = {"fake_token_around_image": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    for cut in ((0, 0), (1, 2), (3, 2)):
        assert get_image_prompt_string(*cut, 16, image_token="<image>", **tokens) == expanded(cut)
