"""What patches receive of attention, told beside SDPA: held to the weights of eager attention in the stock tower."""

import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from models import tiny_base, tiny_image
from test_needs import siglip_base
from tiny_gemma3 import tiny_gemma3_base
from tiny_internvl import tiny_internvl_base
from tiny_next import tiny_next_base, tiny_next_processor
from tiny_qwen import QWEN_GRIDS, QWEN_SIZES, tiny_qwen_base, tiny_qwen_processor
from torch import Tensor

from adallava import AdaLlava
from adallava.errors import UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs
from adallava.families.tower_layer import layer_at, mean_received
from adallava.selection import build_selector
from adallava.selection.selector_contract import AskedAttention

OF_ALL = (AskedAttention(0.5), AskedAttention(1.0))
OF_CLASS = (AskedAttention(1.0, of_class_token=True),)


def _received(base: Any, pictures: PictureInputs, asked: Sequence[AskedAttention]) -> Tensor:
    family: Any = wrap_model(base)
    with torch.no_grad():
        vision = family.encode_with_attention(pictures, asked)
        stock = family.encode(pictures)
    assert torch.equal(vision.features, stock.features)
    received: Tensor = vision.attention_received
    assert received.dtype == torch.float32
    return received


def _eager(base: Any, pixels: Tensor) -> Any:
    """Each layer's weights, averaged over heads, [I, S, S]."""
    base.set_attn_implementation("eager")
    with torch.no_grad():
        made = base.model.vision_tower(pixels, output_attentions=True)
    return [weights.mean(dim=1) for weights in made.attentions]


@pytest.mark.parametrize(("feature_layer", "produces"), [(-1, 1), (-2, 0)])
def test_a_tower_with_a_class_token_tells_its_row_and_the_mean_over_all(feature_layer: int, produces: int) -> None:
    base, pixels = tiny_base(vision_feature_layer=feature_layer), torch.randn(2, 3, 28, 28)
    of_all = _received(base, PictureInputs(pixels), OF_ALL)
    of_class = _received(base, PictureInputs(pixels), OF_CLASS)
    layers = _eager(base, pixels)
    torch.testing.assert_close(of_all[..., 0], layers[0].mean(dim=1)[:, 1:])
    torch.testing.assert_close(of_all[..., 1], layers[produces].mean(dim=1)[:, 1:])
    torch.testing.assert_close(of_class[..., 0], layers[produces][:, 0, 1:])


def test_a_tower_without_one_tells_the_mean_over_all_patches() -> None:
    base, pixels = siglip_base(), torch.randn(2, 3, 28, 28)
    received = _received(base, PictureInputs(pixels), (*OF_CLASS, *OF_ALL))
    assert torch.equal(received[..., 0], received[..., 2])
    torch.testing.assert_close(received.sum(dim=1), torch.ones(2, 3))
    layers = _eager(base, pixels)
    # Its config reads `hidden_states[-2]`, which layer 0 of two puts out.
    torch.testing.assert_close(received[..., 0], layers[0].mean(dim=1))


def test_tiles_are_told_each_on_its_own_and_the_end_of_a_row_receives_nothing() -> None:
    base, processor = tiny_next_base(), tiny_next_processor()
    made = processor.image_processor([tiny_image(0, (56, 28))], return_tensors="pt")
    pictures = PictureInputs(made["pixel_values"], {"image_sizes": made["image_sizes"]})
    received = _received(base, pictures, OF_CLASS)[..., 0]
    whole, left, right = _eager(base, made["pixel_values"][0])[0][:, 0, 1:].view(3, 4, 4)
    torch.testing.assert_close(received[0, :16].view(4, 4), whole)
    joined = torch.cat([left, right, torch.zeros(4, 1)], dim=1)
    torch.testing.assert_close(received[1].view(4, 9), joined)


@pytest.mark.parametrize("make", [tiny_gemma3_base, tiny_internvl_base])
def test_a_token_of_several_patches_receives_their_mean(make: Any) -> None:
    base = make()
    side = wrap_model(base).shape.grid[0]
    vision = base.config.vision_config
    size = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
    pixels = torch.randn(2, 3, size, size)
    received = _received(base, PictureInputs(pixels), (AskedAttention(1.0),))[..., 0]
    of_all = _eager(base, pixels)[-1].mean(dim=1)
    patches = of_all[:, of_all.shape[1] % side :]
    cell = int((patches.shape[1] // side**2) ** 0.5)
    cells = patches.view(2, side, cell, side, cell).mean(dim=(2, 4))
    torch.testing.assert_close(received, cells.flatten(1))


@pytest.mark.parametrize(("kind", "layer"), [("qwen2_5_vl", 1), ("qwen3_vl", 2)])
def test_patches_of_a_token_are_averaged_whatever_the_windows(
    kind: str, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_qwen_base(kind)
    images = [tiny_image(seed, size) for seed, size in enumerate(QWEN_SIZES)]
    made = tiny_qwen_processor(kind).image_processor(images, return_tensors="pt")
    pictures = PictureInputs(made["pixel_values"], {"image_grid_thw": made["image_grid_thw"]})
    received = _received(base, pictures, (AskedAttention(1.0),))[..., 0]
    alone = made["pixel_values"].split([4 * rows * columns for rows, columns in QWEN_GRIDS])
    for image, (rows, columns) in enumerate(QWEN_GRIDS):
        own = PictureInputs(alone[image], {"image_grid_thw": made["image_grid_thw"][image, None]})
        count = rows * columns
        assert torch.equal(received[image, :count], _received(base, own, (AskedAttention(1.0),))[0, :, 0])
        assert not received[image, count:].any()
        weights, order = _eager_qwen(base, own, layer, monkeypatch)
        expected = weights.mean(dim=(0, 1)).view(count, 4).mean(dim=1)
        torch.testing.assert_close(received[image, :count], expected[order])


def _eager_qwen(
    base: Any, pictures: PictureInputs, layer: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """One layer's weights, [heads, S, S], in the tower's own order of patches, and the place there of each token."""
    module, visual = importlib.import_module(type(base).__module__), base.model.visual
    seen: list[tuple[Any, Tensor]] = []
    eager = module.eager_attention_forward

    def recording(block: Any, *args: Any, **kwargs: Any) -> Any:
        made = eager(block, *args, **kwargs)
        seen.append((block, made[1][0]))
        return made

    base.set_attn_implementation("eager")
    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(module, "eager_attention_forward", recording)
        made = visual(pictures.pixel_values, grid_thw=pictures.beside["image_grid_thw"], return_dict=True)
        in_order = visual.merger(made.last_hidden_state)
    base.set_attn_implementation("sdpa")
    (weights,) = [weights for block, weights in seen if block is visual.blocks[layer].attn]
    return weights, torch.cdist(made.pooler_output, in_order).argmin(dim=1)


def test_a_share_of_the_depth_names_the_authors_layers() -> None:
    # HiPrune's README: layer 9 of CLIP's 24, 16 of Qwen2.5-VL's 32, whose layers 8, 16, 24 and 32 see whole pictures.
    assert layer_at(0.375, range(23), 24) + 1 == 9
    assert layer_at(0.375, [7, 15, 23, 31], 32) + 1 == 16
    assert [layer_at(depth, range(23), 24) for depth in (0.01, 1.0)] == [0, 22]


def test_many_tokens_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    whole = mean_received(queries, keys)
    monkeypatch.setattr("adallava.families.tower_layer._MOST_WEIGHTS", 2 * 9 * 2)
    torch.testing.assert_close(mean_received(queries, keys), whole)


def test_a_tower_whose_layers_are_not_known_is_refused() -> None:
    base = siglip_base()
    del base.model.vision_tower.encoder.layers[0].layer_norm1
    with pytest.raises(UnsupportedModeError, match="method 'hiprune' needs the attention that patches receive"):
        AdaLlava(base, None, build_selector("hiprune", wrap_model(base).shape))
