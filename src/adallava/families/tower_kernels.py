"""How the small steps of a tower's layers run: as the stock tower's do, or each in one kernel; and how its weights lie.

    stock      norm (6 kernels)   qkv   rotary (14)   attention   proj   norm (6)   gate   up   act, product   down
    here       1                        1                                1                      1

A product over rows whose length is not a multiple of 16 bytes runs at a fifth of its speed (Qwen2.5-VL's tower: 3420
values). Such weights are moved to rows that are, and the parameters become views of them: nothing is held twice.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.transformers_internals import rotate_patches

_ALIGNED_BYTES = 16
_SILU = ("SiLUActivation", "SiLU")


def arranged(joined: Tensor, cosines: Tensor, sines: Tensor, order: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of patches, [S, heads, head width] each, turned by their places.

    Args:
        joined: [S, 3, heads, head width].
        cosines: [S, head width].
        sines: the same.
        order: [S] int64, of patches in what is returned; None = as they are.
    """
    queries, keys = rotate_patches(joined[:, 0], joined[:, 1], cosines, sines)
    values = joined[:, 2]
    return (queries, keys, values) if order is None else (queries[order], keys[order], values[order])


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Return SiLU(gate) * up."""
    return F.silu(gate) * up


def rms_normed(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return the RMS norm of `hidden`, [S, C], in float32 and back, as stock models have it."""
    wide = hidden.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(hidden.dtype)


@dataclass(frozen=True)
class TowerKernels:
    """The functions above, or others that do the same."""

    arranged: Callable[..., tuple[Tensor, Tensor, Tensor]] = arranged
    gated: Callable[[Tensor, Tensor], Tensor] = gated
    rms_normed: Callable[[Tensor, Tensor, float], Tensor] = rms_normed


@runtime_checkable
class HasTowerKernels(Protocol):
    """A family whose tower's small steps may run in another way."""

    def with_tower_kernels(self, kernels: TowerKernels) -> Self:
        """Return the family with the same model, whose tower runs by `kernels`."""
        ...


class OtherNorm(nn.Module):
    """Stands where an RMS norm is."""

    def __init__(self, norm: Any, kernels: TowerKernels) -> None:
        """Run a stock norm's weights by `kernels`."""
        super().__init__()
        self.norm, self._kernels = norm, kernels

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the norm of [S, C]."""
        return self._kernels.rms_normed(hidden, self.norm.weight, self.norm.variance_epsilon)


class OtherMLP(nn.Module):
    """Stands where a gated MLP is; reads weights that were laid out with all of their rows."""

    def __init__(self, mlp: Any, kernels: TowerKernels) -> None:
        """Run a stock MLP's weights by `kernels`."""
        super().__init__()
        self.mlp, self._kernels = mlp, kernels

    def forward(self, hidden: Tensor) -> Tensor:
        """Return what the MLP does, [S, C]."""
        gate, up, down = self.mlp.gate_proj, self.mlp.up_proj, self.mlp.down_proj
        width = _padded_width(down.weight)
        # Rows of padding are zeros, so that what comes of them is.
        passed = self._kernels.gated(_wider(gate, hidden, width), _wider(up, hidden, width))
        return F.linear(passed, down.weight.as_strided((len(down.weight), width), (width, 1)), down.bias)


class OtherEmbed(nn.Module):
    """Stands where patches are embedded: a convolution whose steps are its patches is one product."""

    def __init__(self, embed: Any) -> None:
        """Run a stock embedding's weights."""
        super().__init__()
        self.embed = embed

    def forward(self, patches: Tensor) -> Tensor:
        """Return the patches' embeddings, [S, C]."""
        convolution = self.embed.proj
        return F.linear(patches.to(convolution.weight.dtype), convolution.weight.flatten(1), convolution.bias)


def with_kernels(block: Any, kernels: TowerKernels) -> dict[str, nn.Module]:
    """Return replacements of a layer's parts, by name: its norms and its MLP, where they are known."""
    parts: dict[str, nn.Module] = {}
    for name in ("norm1", "norm2"):
        if hasattr(getattr(block, name), "variance_epsilon"):
            parts[name] = OtherNorm(getattr(block, name), kernels)
    if _is_gated(block.mlp) and _is_laid_out(block.mlp):
        parts["mlp"] = OtherMLP(block.mlp, kernels)
    return parts


def lay_out(modules: Iterable[nn.Module]) -> None:
    """Move gated MLPs' weights to rows of whole 16 bytes, where they are not; parameters become views.

    Args:
        modules: of a tower, children too.
    """
    for module in modules:
        if _is_gated(module) and not _is_laid_out(module):
            mlp: Any = module
            width = _padded_width(mlp.down_proj.weight)
            for linear in (mlp.gate_proj, mlp.up_proj):
                for parameter in (linear.weight, linear.bias):
                    if parameter is not None:
                        _move(parameter, 0, width)
            _move(mlp.down_proj.weight, 1, width)


def _is_gated(module: Any) -> bool:
    products = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    plain = all(type(product) is nn.Linear and type(product.weight) is nn.Parameter for product in products)
    return plain and type(getattr(module, "act_fn", None)).__name__ in _SILU


def _is_laid_out(mlp: Any) -> bool:
    """Whether all three products have room for padding: one alone may have been replaced, as by a merged adapter."""
    down, width = mlp.down_proj.weight, _padded_width(mlp.down_proj.weight)
    rows = [parameter for linear in (mlp.gate_proj, mlp.up_proj) for parameter in (linear.weight, linear.bias)]
    return bool(down.stride(0) == width) and all(_has_rows(row, width) for row in rows if row is not None)


def _has_rows(parameter: Tensor, rows: int) -> bool:
    held = parameter.untyped_storage().nbytes() // parameter.element_size() - parameter.storage_offset()
    return parameter.is_contiguous() and held >= rows * parameter[0].numel()


def _padded_width(down: Tensor) -> int:
    step = _ALIGNED_BYTES // down.element_size()
    return -(-down.shape[1] // step) * step


def _wider(linear: nn.Linear, hidden: Tensor, width: int) -> Tensor:
    """Return a product with the rows of padding after its weight, [S, width]."""
    weight, bias = linear.weight, linear.bias
    padded = None if bias is None else bias.as_strided((width,), (1,))
    return F.linear(hidden, weight.as_strided((width, weight.shape[1]), weight.stride()), padded)


def _move(parameter: nn.Parameter, dim: int, size: int) -> None:
    shape = list(parameter.shape)
    length, shape[dim] = shape[dim], size
    place = parameter.data.new_zeros(shape)
    view = place.narrow(dim, 0, length)
    view.copy_(parameter.data)
    parameter.data = view
