"""The 13B in the layout of the original code: its published config, every one of its layers and heads, tiny widths."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from original_llava import TOWER, write_clip, write_original
from published_llava import config_fields, index_kb, new_name, old_names
from safetensors.torch import load_file
from torch import Tensor

from adallava import AdaLlava
from adallava.conversion import convert_llava

# A verbatim copy of liuhaotian/llava-v1.5-13b's config.json, from a public repository's tests.
PUBLISHED: dict[str, Any] = {
    "_name_or_path": "llava-v1.5-13b",
    "architectures": ["LlavaLlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "freeze_mm_mlp_adapter": False,
    "freeze_mm_vision_resampler": False,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "image_aspect_ratio": "pad",
    "initializer_range": 0.02,
    "intermediate_size": 13824,
    "max_length": 4096,
    "max_position_embeddings": 4096,
    "mm_hidden_size": 1024,
    "mm_projector_type": "mlp2x_gelu",
    "mm_resampler_type": None,
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_feature": "patch",
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "model_type": "llava",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.31.0",
    "tune_mm_mlp_adapter": False,
    "tune_mm_vision_resampler": False,
    "unfreeze_mm_vision_tower": False,
    "use_cache": True,
    "use_mm_proj": True,
    "vocab_size": 32000,
}
# Of zhuoyanxu/ada-llava-v1.5-13b's config.json, on a stored page of huggingface.co, what differs.
PUBLISHED_ADALLAVA: dict[str, Any] = {
    **PUBLISHED,
    "_name_or_path": "zhuoyanxu/ada-llava-v1.5-13b",
    "architectures": ["AdaLlavaLlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mm_patch_merge_type": "flat",
    "mm_projector_lr": None,
    "model_type": "ada_llava_llama",
    "num_prefix_layers": 20,
    "rope_theta": 10000.0,
    "scheduler_type": "L",
    "token_selecting": "none",
    "tokenizer_model_max_length": 2048,
    "tokenizer_padding_side": "right",
    "transformers_version": "4.37.2",
}
WIDTH, INNER = 80, 120
TINY = {**PUBLISHED, "hidden_size": WIDTH, "intermediate_size": INNER, "mm_hidden_size": TOWER}


def _weights() -> dict[str, Tensor]:
    """Return every weight of 40 layers under its original name, float16 as published."""
    g = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return (0.1 * torch.randn(shape, generator=g)).half()

    weights = {"model.embed_tokens.weight": noise(32000, WIDTH), "lm_head.weight": noise(32000, WIDTH)}
    weights["model.norm.weight"] = noise(WIDTH)
    for layer in range(40):
        at = f"model.layers.{layer}."
        weights |= {f"{at}self_attn.{part}_proj.weight": noise(WIDTH, WIDTH) for part in "qkvo"}
        weights |= {f"{at}mlp.{part}_proj.weight": noise(INNER, WIDTH) for part in ("gate", "up")}
        weights[f"{at}mlp.down_proj.weight"] = noise(WIDTH, INNER)
        weights |= {f"{at}{norm}_layernorm.weight": noise(WIDTH) for norm in ("input", "post_attention")}
    for index, inputs in ((0, TOWER), (2, WIDTH)):
        weights[f"model.mm_projector.{index}.weight"] = noise(WIDTH, inputs)
        weights[f"model.mm_projector.{index}.bias"] = noise(WIDTH)
    return weights


def _scheduler(num_logits: int) -> dict[str, Tensor]:
    net = "scheduler.scheduler_up_proj.net."
    shapes = {"0.weight": (256,), "0.bias": (256,), "1.weight": (WIDTH, 256), "1.bias": (WIDTH,)}
    shapes |= {"3.weight": (WIDTH, WIDTH), "3.bias": (WIDTH,)}
    weights = {f"{net}{name}": torch.ones(shape).half() for name, shape in shapes.items()}
    head = torch.randn(num_logits, WIDTH, generator=torch.Generator().manual_seed(1)).half()
    return weights | {"scheduler.mlp_head.weight": head, "scheduler.mlp_head.bias": torch.zeros(num_logits).half()}


def _published_name(original: str) -> str:
    """Return llava-hf's name of an LLM's or projector's weight."""
    for number, index in ((1, 0), (2, 2)):
        original = original.replace(f"model.mm_projector.{index}.", f"multi_modal_projector.linear_{number}.")
    return original if original.startswith("multi_modal") else f"language_model.{original}"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("13b")
    source = write_original(root / "llava-v1.5-13b", _weights(), TINY)
    convert_llava(source, write_clip(root / "clip"), root / "stock")
    return root / "stock"


@pytest.mark.long
def test_every_weight_of_the_13b_arrives_under_its_published_name(stock: Path) -> None:
    written: dict[str, Tensor] = {}
    for file in stock.glob("model-*.safetensors"):
        written |= load_file(file)
    of_llm = {name for name in old_names(40, 3) if not name.startswith("vision_tower.")}
    assert {name for name in written if not name.startswith("vision_tower.")} == of_llm
    loaded = AdaLlava.from_pretrained(str(stock), method="full", device="cpu").base.state_dict()
    for original, weight in _weights().items():
        name = _published_name(original)
        assert torch.equal(written[name][: len(weight)], weight), name
        assert torch.equal(loaded[new_name(name)][: len(weight)], weight), name


def test_its_config_is_that_of_llava_hf_but_for_the_widths(stock: Path) -> None:
    """What the published original says, and what llava-hf's 13B says, agree."""
    made = json.loads((stock / "config.json").read_text())["text_config"]
    expected = config_fields("13b", tiny=False)["text_config"]
    widths = {"hidden_size": WIDTH, "intermediate_size": INNER}
    shared = set(made) & set(expected)
    assert {"num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size", "rms_norm_eps"} < shared
    assert {name: made[name] for name in shared} == {name: expected[name] for name in shared} | widths
    assert all(expected[name] == PUBLISHED[name] for name in widths)


def _names_of_llm(layers: int) -> list[str]:
    names = list(_weights())
    of_layer = [name for name in names if ".layers.0." in name]
    around = [name for name in names if ".layers." not in name]
    return around + [name.replace(".0.", f".{layer}.", 1) for layer in range(layers) for name in of_layer]


TOWER_NAMES = [f"model.vision_tower.{name}" for name in old_names(0, 24) if name.startswith("vision_tower.")]


@pytest.mark.parametrize(
    ("layers", "shards", "tower", "total_size", "published_kb"),
    [
        (32, 3, [], 13_560_000_000, 24.9),
        (40, 6, [], 26_170_000_000, 30.8),
        (40, 6, TOWER_NAMES, 26_780_000_000, 79.7),
    ],
    ids=["ada-llava-L-v1.5-7b", "ada-llava-L-v1.5-13b", "ada-llava-v1.5-13b-prumerge"],
)
def test_adallavas_published_indexes_have_room_for_these_names(
    layers: int, shards: int, tower: list[str], total_size: int, published_kb: float
) -> None:
    """Their sizes on huggingface.co: the scheduler's eight names, and a tower in the one with PruMerge alone."""
    names = [*_names_of_llm(layers), *_scheduler(20), *tower]
    assert round(index_kb(names, shards, total_size), 1) == published_kb
    assert index_kb([*_names_of_llm(layers), *tower], shards, total_size) < published_kb - 0.5


@pytest.mark.long
def test_adallavas_13b_has_a_prefix_of_twenty(tmp_path: Path) -> None:
    """As its published config says, which names no rank; the default prefix, for the 7B, is 16."""
    config = {**PUBLISHED_ADALLAVA, "hidden_size": WIDTH, "intermediate_size": INNER, "mm_hidden_size": TOWER}
    source = write_original(tmp_path / "ada-llava-L-v1.5-13b", _weights() | _scheduler(20), config, pickled=False)
    done = convert_llava(source, write_clip(tmp_path / "clip"), tmp_path / "stock")
    model = AdaLlava.from_pretrained(str(tmp_path / "stock"), method="full", device="cpu", dtype="float32")
    scheduler = model.with_scheduler("adallava-layers").scheduler
    assert scheduler is not None
    units = scheduler.units(model.family.decoder().shape)
    assert (units.num_layers, units.prefix_layers, units.count) == (40, 20, 20)
    assert done.scheduler is not None
    config = json.loads((done.scheduler / "adapter_config.json").read_text())
    assert (config["scheduler"], config["scheduler_config"]) == ("adallava-layers", {"prefix_layers": 20})
