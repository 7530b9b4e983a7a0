"""Towers that a Llava may have: `full` is the stock model, and a method whose need the tower lacks is refused by it."""

from typing import Any

import pytest
import torch
from models import tiny_base, tiny_inputs, tiny_processor, tiny_tokenizer

from adallava import AdaLlava
from adallava.errors import UnsupportedModeError

CLASS_TOKEN = {"clip_vision_model": True, "mlcd_vision_model": True, "dinov2": True, "vit": True, "siglip": False}
KEYS = ("clip_vision_model", "siglip")
"""Towers whose layers' keys are known."""


def _base(tower: str, strategy: str | None = None) -> Any:
    from transformers import AutoConfig, AutoModelForImageTextToText, LlavaConfig

    kind = "siglip_vision_model" if tower == "siglip" else tower
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    config = LlavaConfig(
        vision_config=AutoConfig.for_model(kind, intermediate_size=64, **sizes),
        text_config=tiny_base().config.text_config,
        image_token_id=tiny_tokenizer().convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy=strategy or ("default" if CLASS_TOKEN[tower] else "full"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base = AutoModelForImageTextToText.from_config(config).eval()
    base.generation_config.pad_token_id = 0
    return base


@pytest.fixture(params=CLASS_TOKEN)
def tower(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@torch.no_grad()
def test_full_is_stock_and_methods_run_by_what_the_tower_has(tower: str) -> None:
    full = AdaLlava(_base(tower), tiny_processor())
    inputs = tiny_inputs(full.processor, ["what?", "whom?"])
    assert torch.equal(full.forward(**inputs).logits, full.base(**inputs, use_cache=False).logits)
    for method in ("divprune", "uniform", "fastv", "mmtok"):
        kept = full.with_method(method).select(**inputs, token_budget=4)
        assert [len(one.kept_indices[0]) for one in kept] == [4, 4]
    for method, need in [
        ("visionzip", "class token|feature layer"),
        ("tome", "feature layer"),
        ("downsample", "smaller images"),
    ]:
        served = {"tome": tower in KEYS}.get(method, tower == "clip_vision_model")
        if served:
            assert len(full.with_method(method).select(**inputs, token_budget=4)) == 2
        else:
            with pytest.raises(UnsupportedModeError, match=need):
                full.with_method(method)


@pytest.mark.parametrize(("tower", "strategy", "count"), [("clip_vision_model", "full", 17), ("siglip", "default", 15)])
@torch.no_grad()
def test_features_that_are_no_grid_run_full_as_stock_does_and_no_method(tower: str, strategy: str, count: int) -> None:
    processor = tiny_processor()
    processor.vision_feature_select_strategy, processor.num_additional_image_tokens = strategy, count - 16
    if strategy == "default":
        processor.num_additional_image_tokens = 0
    full = AdaLlava(_base(tower, strategy), processor)
    inputs = tiny_inputs(processor, ["what?", "whom?"])
    assert torch.equal(full.forward(**inputs).logits, full.base(**inputs, use_cache=False).logits)
    ours = full.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(ours.sequences, full.base.generate(**inputs, max_new_tokens=3, do_sample=False))
    assert [record.num_vision_tokens for record in ours.records] == [count, count]
    for method in ("uniform", "fastv"):
        with pytest.raises(UnsupportedModeError, match=f"select_strategy='{strategy}'.*only method 'full' runs"):
            full.with_method(method)
