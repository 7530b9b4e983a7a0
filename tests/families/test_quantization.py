"""Quantized weights: the same tokens by every engine and in every batch, and a line where they cannot be had.

What needs torchao runs in `make test-newest`, whose environment has it: transformers imports it into every process.
"""

import copy
import importlib.util
import sys
import warnings
from typing import Any

import pytest
import torch
from models import tiny_inputs

from adallava import AdaLlava
from adallava.engines.fused_layers import FusedStack
from adallava.engines.layer_kernels import PLAIN, kernels_for
from adallava.engines.watch import ModelWatch
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.head_groups import check_splittable
from adallava.families.layer_stack import layer_stack
from adallava.families.quantization import check_quantization, quantize, quantized_copy, stored_bytes

NAMES = ("int8", "fp8-weights")
"""Those that a CPU runs."""
SIX_TOKENS: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": [], "do_sample": False}

needs_torchao = [
    pytest.mark.newest,
    pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not here: make test-newest"),
]


def marked(*names: str) -> list[Any]:
    return [pytest.param(name, marks=needs_torchao) for name in names]


@pytest.fixture(scope="module")
def full(tiny_folder: Any) -> AdaLlava:
    return AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu", engine="stock")


@pytest.fixture
def quantized(full: AdaLlava, tiny_folder: Any, request: pytest.FixtureRequest) -> AdaLlava:
    base = quantized_copy(full.base, request.param)
    return AdaLlava(base, full.processor, name_or_path=str(tiny_folder), engine="stock")


@pytest.mark.parametrize("quantized", marked(*NAMES), indirect=True)
def test_every_engine_and_every_batch_gives_the_same_tokens(quantized: AdaLlava, full: AdaLlava) -> None:
    inputs = tiny_inputs(full.processor, ["what is it?", "is the colour red or blue?", "why?"])
    stock = quantized.base.generate(**inputs, **SIX_TOKENS)
    for method in ("uniform", "divprune", "fastv"):
        ours = quantized.with_method(method)
        assert torch.equal(ours.generate(**inputs, **SIX_TOKENS).sequences, stock), "the full budget is the base"
        mixed = ours.generate(**inputs, token_budget=[0.25, 0.5, 1.0], **SIX_TOKENS)
        eager = ours.with_engine("eager").generate(**inputs, token_budget=[0.25, 0.5, 1.0], **SIX_TOKENS)
        assert (mixed.engine, eager.engine) == ("stock", "eager")
        assert eager.answer_ids == mixed.answer_ids
        alone = tiny_inputs(full.processor, ["is the colour red or blue?"])
        alone["pixel_values"] = inputs["pixel_values"][1:2]
        assert ours.generate(**alone, token_budget=0.5, **SIX_TOKENS).answer_ids[0] == mixed.answer_ids[1]


@pytest.mark.parametrize("name", marked(*NAMES, "fp8"))
def test_joined_weights_are_quantized_as_one_and_held_once(
    full: AdaLlava, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Products in float8 run on a CPU, slowly; torchao refuses them there, and so do we.
    monkeypatch.setattr("torchao.quantization.quant_api._check_hardware_support", lambda _: None)
    base = AdaLlava.from_pretrained("tiny", method="full", dtype="bfloat16", device="cpu").base
    if name == "fp8":
        with pytest.raises(UnsupportedModeError, match="multiples of 16"):
            quantize(copy.deepcopy(full.base).to(torch.bfloat16), name)  # 24 rows
    stack = layer_stack(base)
    layer: Any = stack.layers[0]
    with torch.no_grad():
        layer.mlp.gate_proj.weight[5] = 0.0
    quantize(base, name)
    states = torch.randn(2, 5, stack.width, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    states[1, 3] = 0.0  # as a padded token is
    expected = torch.cat([part(states) for part in (layer.mlp.gate_proj, layer.mlp.up_proj)], dim=-1)
    assert expected.isfinite().all()
    assert not expected[1, 3].any()
    held = sum(stored_bytes(stack.layers[0]).values())
    fused = FusedStack(stack, compiles=False)
    assert torch.equal(torch.nn.functional.linear(states, *fused.weights[0].gate_up), expected)
    kernels = kernels_for(fused.weights[0].products())
    assert (kernels is PLAIN) == (name != "fp8")
    residual = torch.zeros_like(expected)
    added = kernels.added(states, fused.weights[0].gate_up, residual)
    torch.testing.assert_close(added, expected, rtol=2**-7, atol=2**-7)  # bfloat16, rounded twice
    assert layer.mlp.up_proj(states).equal(expected[..., expected.shape[-1] // 2 :]), "the stock model, as before"
    parts = [
        weight.qdata.untyped_storage().data_ptr() for weight in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)
    ]
    assert parts[0] == parts[1] == fused.weights[0].gate_up[0].qdata.untyped_storage().data_ptr()
    assert sum(stored_bytes(stack.layers[0]).values()) == held


@pytest.mark.parametrize("quantized", marked(*NAMES), indirect=True)
def test_kernels_of_one_row_read_weights_as_they_are_stored(quantized: AdaLlava) -> None:
    pytest.importorskip("triton")
    from adallava.engines.token_kernels import ONE_ROW

    weights = FusedStack(layer_stack(quantized.base), compiles=False).weights[0]
    row = torch.randn(1, 1, len(weights.first_norm), generator=torch.Generator().manual_seed(0))
    for step in ("normed", "gated"):
        made, expected = (
            getattr(kernels, step)(row, weights.second_norm, 1e-5, weights.gate_up) for kernels in (ONE_ROW, PLAIN)
        )
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quantized", marked("int8"), indirect=True)
def test_where_a_quantized_weight_goes_is_noticed(quantized: AdaLlava) -> None:
    watch = ModelWatch(list(quantized.base.modules()))
    assert watch.unchanged()
    weight = quantized.base.model.language_model.layers[1].mlp.up_proj.weight
    weight.qdata.add_(1)
    assert watch.unchanged(), "in place: a graph reads it as it is"
    weight.scale = weight.scale.clone()
    assert not watch.unchanged()


@pytest.mark.parametrize("quantized", marked("int8"), indirect=True)
def test_half_the_bytes_and_the_rest_in_common(quantized: AdaLlava, full: AdaLlava) -> None:
    assert (full.quantization, quantized.quantization, quantized.with_method("uniform").quantization) == (
        "none",
        *["int8"] * 2,
    )
    own, other = stored_bytes(full.base), stored_bytes(quantized.base)
    products = sum(
        module.weight.nbytes
        for module in full.base.model.language_model.layers.modules()
        if isinstance(module, torch.nn.Linear)
    )
    assert sum(own[place] for place in own.keys() - other.keys()) == products
    assert sum(other[place] for place in other.keys() - own.keys()) < products / 3, "of float32; with scales"


@pytest.mark.parametrize("quantized", marked("int8"), indirect=True)
def test_what_it_is_not_for_is_said(quantized: AdaLlava, full: AdaLlava, tmp_path: Any) -> None:
    peft = pytest.importorskip("peft")
    inputs = tiny_inputs(full.processor, ["why?"])
    with pytest.raises(UnsupportedModeError, match="gradients"):
        quantized.forward(**inputs)
    with torch.no_grad():
        assert quantized.forward(**inputs).logits.isfinite().all()
    with pytest.raises(UnsupportedModeError, match="not saved"):
        quantized.base.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnsupportedModeError, match="quantized"):
        check_splittable(quantized.base.model.language_model.layers[0])
    with warnings.catch_warnings(action="ignore"):
        adapted = peft.get_peft_model(quantized.base, peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(UnsupportedModeError, match="full precision"):
        AdaLlava(adapted, full.processor)


@pytest.mark.parametrize("name", marked("fp8"))
def test_products_in_fp8_need_hopper(name: str) -> None:
    with pytest.raises(InputError, match="needs a CUDA device"):
        check_quantization(name, torch.device("cpu"), "auto")
    assert check_quantization("int8", torch.device("cpu"), "auto") == "auto"


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(InputError, match=r"adallava\[quantization\]"):
        AdaLlava.from_pretrained("tiny", method="full", quantization="int8")
    with pytest.raises(InputError, match="none, int8, fp8-weights, fp8"):
        AdaLlava.from_pretrained("tiny", method="full", quantization="int4")
