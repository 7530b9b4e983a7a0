"""A tower's layers run in another way, over weights that were moved: its features, and its own weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_qwen import tiny_qwen_base, tiny_qwen_processor

from adallava import AdaLlava
from adallava.engines.room import Room
from adallava.families.picture_inputs import PictureInputs
from adallava.families.tower_kernels import HasTowerKernels, OtherMLP, TowerKernels, lay_out, with_kernels

GRIDS = torch.tensor([[1, 10, 14], [1, 4, 6], [1, 8, 8]])
KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def _pictures() -> PictureInputs:
    patches = torch.randn(int(GRIDS.prod(1).sum()), 96, generator=torch.Generator().manual_seed(0))
    return PictureInputs(patches, {"image_grid_thw": GRIDS})


def _model(kind: str, width: int = 64) -> AdaLlava:
    base = tiny_qwen_base(kind)
    for block in base.model.visual.blocks:
        mlp: Any = block.mlp
        if hasattr(mlp, "gate_proj"):
            mlp.gate_proj, mlp.up_proj = (torch.nn.Linear(32, width) for _ in range(2))
            mlp.down_proj = torch.nn.Linear(width, 32)
    return AdaLlava(base.eval(), tiny_qwen_processor(kind))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_features_are_the_stock_towers(kind: str) -> None:
    model = _model(kind, width=61)
    family: Any = model.family
    assert isinstance(family, HasTowerKernels)
    want = family.encode(_pictures())
    lay_out(model.base.modules())
    torch.testing.assert_close(family.encode(_pictures()).features, want.features)
    got = family.with_tower_kernels(TowerKernels()).encode(_pictures())
    torch.testing.assert_close(got.features, want.features, rtol=1e-5, atol=1e-5)
    assert got.order.tolist() == want.order.tolist()


def test_moved_weights_are_the_models_own(tmp_path: Path) -> None:
    model = _model("qwen2_5_vl", width=61)
    visual = model.base.model.visual
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    lay_out(model.base.modules())
    down, gate = visual.blocks[0].mlp.down_proj.weight, visual.blocks[0].mlp.gate_proj.weight
    # 16 bytes are 4 values of float32.
    assert (down.stride(), gate.untyped_storage().nbytes()) == ((64, 1), 64 * 32 * 4)
    after = visual.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    places = [down.data_ptr(), gate.data_ptr()]
    lay_out(model.base.modules())
    assert [down.data_ptr(), gate.data_ptr()] == places, "what lies right is left there"
    model.base.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    (name,) = (name for name in saved if name.endswith("blocks.0.mlp.down_proj.weight"))
    assert torch.equal(saved[name], before["blocks.0.mlp.down_proj.weight"])
    with torch.no_grad():
        down.mul_(2)
        wider = OtherMLP(visual.blocks[0].mlp, TowerKernels())
        hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(wider(hidden), visual.blocks[0].mlp(hidden))


@pytest.mark.parametrize("replaced", ["gate_proj", "up_proj", "down_proj"])
@torch.no_grad()
def test_one_product_replaced_is_laid_out_anew(replaced: str) -> None:
    # As merging an adapter does: the weight is then in a place of its own, without room for rows of padding.
    model = _model("qwen2_5_vl", width=61)
    lay_out(model.base.modules())
    block = model.base.model.visual.blocks[0]
    weight = getattr(block.mlp, replaced).weight
    weight.data = weight.data.clone().contiguous()
    assert "mlp" not in with_kernels(block, TowerKernels())
    lay_out(model.base.modules())
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(with_kernels(block, TowerKernels())["mlp"](hidden), block.mlp(hidden))


@pytest.mark.parametrize("level", ["graphs", "compiled"])
def test_an_llms_weights_stay_where_they_are_or_were_joined(level: Any) -> None:
    """94 values of float32 are no whole 16 bytes, in the LLM either."""
    base = tiny_qwen_base("qwen2_5_vl", intermediate_size=94)
    tower, llm = base.model.visual.blocks[0].mlp, base.model.language_model.layers[0].mlp
    tower.gate_proj, tower.up_proj = (torch.nn.Linear(32, 61) for _ in range(2))
    tower.down_proj = torch.nn.Linear(61, 32)
    base.eval()
    down = llm.down_proj.weight.data_ptr()
    Room(base, level).start_anew()
    assert (llm.down_proj.weight.data_ptr(), llm.down_proj.weight.stride()) == (down, (94, 1))
    gate, up = llm.gate_proj.weight, llm.up_proj.weight
    joined = gate.untyped_storage().data_ptr() == up.untyped_storage().data_ptr()
    assert joined == (level == "compiled")
    assert tower.down_proj.weight.stride() == (64, 1)
