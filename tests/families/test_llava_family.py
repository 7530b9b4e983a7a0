from typing import Any

import pytest
import torch
from models import TINY_SHAPE, tiny_base

from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.newest
@pytest.mark.parametrize("layer", [-2, -1, [-2, -1], [0, 1, 2]])
@torch.no_grad()
def test_encode_and_project_are_the_stock_image_features(layer: Any, pixels: torch.Tensor) -> None:
    base = tiny_base(vision_feature_layer=layer)
    family = wrap_model(base)
    stock = torch.stack(list(base.model.get_image_features(pixels).pooler_output))
    features = family.encode(PictureInputs(pixels)).features
    assert features.shape == (3, family.shape.num_vision_tokens, family.shape.vision_width)
    assert torch.equal(family.project(features), stock)


@pytest.mark.parametrize("layer", [-2, -1, [-2, -1]])
@torch.no_grad()
def test_a_budget_token_goes_in_behind_the_patches(layer: Any, pixels: torch.Tensor) -> None:
    base = tiny_base(vision_feature_layer=layer)
    token = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    ours = wrap_model(base).encode_with_token(PictureInputs(pixels), token)

    tower = base.model.vision_tower
    hook = tower.embeddings.register_forward_hook(lambda _, __, out: torch.cat([out, token[:, None]], dim=1))
    states = tower(pixels, output_hidden_states=True).hidden_states
    hook.remove()
    layers = layer if isinstance(layer, list) else [layer]
    expected = torch.cat([states[index] for index in layers], dim=-1)
    assert torch.equal(ours.features, expected[:, 1:17])
    assert ours.budget_features is not None
    assert torch.equal(ours.budget_features, expected[:, 17])


def test_the_shape_is_read_from_the_config() -> None:
    assert wrap_model(tiny_base()).shape == TINY_SHAPE
    assert wrap_model(tiny_base(vision_feature_layer=[-2, -1])).shape.vision_width == 64


def test_text_is_embedded_as_by_the_stock_model() -> None:
    base = tiny_base()
    ids = torch.tensor([[1, 5], [7, 0]])
    assert torch.equal(wrap_model(base).embed_text(ids), base.get_input_embeddings()(ids))


def test_another_family_is_refused_with_those_supported() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(UnsupportedModeError, match=r"family 'llama'; supported are: .*llava"):
        wrap_model(LlamaForCausalLM(config))


def test_parts_on_two_devices_are_refused_with_their_names() -> None:
    base = tiny_base()
    base.lm_head.to("meta")
    with pytest.raises(CheckpointError, match=r"one real device.*'lm_head.weight' on meta"):
        wrap_model(base)


def test_weights_that_are_not_floating_point_are_refused() -> None:
    base = tiny_base()
    base.lm_head.weight = torch.nn.Parameter(base.lm_head.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' has type torch.int8"):
        wrap_model(base)
