"""Joined layers do what the stock ones do, over the same memory."""

import copy
from typing import Any

import pytest
import torch
from models import tiny_base
from tiny_qwen import tiny_qwen_base

from adallava import AdaLlava
from adallava.engines.fused_layers import FusedStack
from adallava.engines.layer_pass import LayerStep, Segment, decode, prefill
from adallava.engines.seat import Seat, cache_numel, make_seat
from adallava.errors import UnsupportedModeError
from adallava.families.layer_stack import LayerStack, layer_stack


@torch.no_grad()
def logits(stack: Any, plain: LayerStack, length: int = 7, groups: int = 1) -> torch.Tensor:
    """Return the logits of a prompt's last token and of the two that follow it, [3, B, V].

    Of several groups, row 0 runs the first one's heads and the last one's neurons, and row 1 everything.
    """
    generator = torch.Generator().manual_seed(0)
    seat: Seat = make_seat(plain, 2, 16, torch.zeros(2, cache_numel(plain, 2, 16)))
    seat.embeds_of(length).copy_(torch.randn(2, length, plain.width, generator=generator))
    positions = seat.positions_of(length)
    positions.copy_(torch.arange(length).expand_as(positions))
    if positions.dim() == 3:
        positions[2, :, 2:5] += 3
    seat.last.copy_(torch.tensor([length - 1, length - 3]))
    seat.parts[:, :, 1] = seat.parts[0, :, 0, 0] = seat.parts[1, :, 0, groups - 1] = True
    steps = tuple(LayerStep(layer, groups=groups) for layer in range(len(plain.layers)))
    whole = Segment(steps, enter=True, leave=True)
    prefill(stack, seat, length, whole, hides=False, adds=False, pick="greedy")
    seen = [seat.logits.clone()]
    for _ in range(2):
        decode(stack, seat, whole, pick="greedy")
        seen.append(seat.logits.clone())
    return torch.stack(seen)


@pytest.mark.parametrize(("llm", "options"), [("llama", {}), ("qwen2", {}), ("qwen3", {"head_dim": 16})])
def test_joined_layers_give_the_stock_layers_logits(llm: str, options: dict[str, Any]) -> None:
    base = tiny_base(llm=llm, **options)
    for parameter in base.model.language_model.parameters():
        if parameter.ndim == 1:  # Biases and norms, of heads too.
            parameter.data += 0.3 * torch.randn_like(parameter)
    stack = layer_stack(base)
    expected = logits(stack, stack)
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    fused = FusedStack(stack, compiles=False)
    assert torch.allclose(logits(fused, stack), expected, atol=1e-5)
    assert torch.allclose(logits(stack, stack), expected, atol=1e-6), "the stock model runs on the same memory"
    assert all(torch.equal(weight, before[name]) for name, weight in base.named_parameters())


def test_joined_layers_run_parts_as_the_stock_layers() -> None:
    stack = layer_stack(tiny_base())
    expected = logits(stack, stack, groups=2)
    whole = logits(stack, stack)
    assert torch.allclose(expected[:, 1], whole[:, 1], atol=1e-6)
    assert not torch.allclose(expected[:, 0], whole[:, 0], atol=1e-2)
    assert torch.allclose(logits(FusedStack(stack, compiles=False), stack, groups=2), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_joined_layers_read_rows_of_positions_as_the_stock_layers(kind: str) -> None:
    stack = layer_stack(tiny_qwen_base(kind))
    assert stack.position_rows == 3
    expected = logits(stack, stack)
    assert torch.allclose(logits(FusedStack(stack, compiles=False), stack), expected, atol=1e-5)


def test_weights_are_held_once_and_found_again(full: AdaLlava) -> None:
    base = copy.deepcopy(full.base)
    stack = layer_stack(base)
    fused, again = FusedStack(stack, compiles=False), FusedStack(stack, compiles=False)
    attention: Any = stack.layers[0].self_attn
    joined, _ = fused.weights[0].qkv
    assert joined.untyped_storage().data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    assert again.weights[0].qkv[0].data_ptr() == joined.data_ptr()
    with torch.no_grad():
        attention.k_proj.weight.fill_(0.25)
    rows = attention.q_proj.weight.shape[0]
    assert (joined[rows : rows + attention.k_proj.weight.shape[0]] == 0.25).all()


def test_another_activation_is_named(full: AdaLlava) -> None:
    base = copy.deepcopy(full.base)
    base.model.language_model.layers[0].mlp.act_fn = torch.nn.GELU()
    with pytest.raises(UnsupportedModeError, match="GELU"):
        FusedStack(layer_stack(base), compiles=False)
