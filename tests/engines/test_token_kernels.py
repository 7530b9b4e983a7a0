"""The kernels of one token do what PyTorch's steps do. Triton's interpreter runs them where there is no GPU."""

import pytest
import torch

from adallava.engines.layer_kernels import PLAIN, LayerKernels, LayerSizes, Reads

ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3}
"""float16 rounds at 2 ** -11, here of numbers up to about 4."""


def one_row() -> LayerKernels:
    """Return the kernels, interpreted: see `tests/conftest.py`."""
    pytest.importorskip("triton")
    from adallava.engines.token_kernels import ONE_ROW

    return ONE_ROW


def a_row(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def check_products(kernels: LayerKernels, dtype: torch.dtype, width: int, size: int) -> None:
    """Sizes that are no powers of two, and wider than a program reads at a time."""
    row, norm = a_row(1, 1, width, dtype=dtype, seed=1), a_row(width, dtype=dtype, seed=2)
    weight, residual = (
        a_row(2 * size, width, dtype=dtype, seed=3) / width**0.5,
        a_row(1, 1, 2 * size, dtype=dtype, seed=4),
    )
    for bias in (None, a_row(2 * size, dtype=dtype, seed=5)):
        joined = (weight, bias)
        for got, wanted in (
            (kernels.normed(row, norm, 1e-5, joined), PLAIN.normed(row, norm, 1e-5, joined)),
            (kernels.gated(row, norm, 1e-5, joined), PLAIN.gated(row, norm, 1e-5, joined)),
            (kernels.added(row, joined, residual), PLAIN.added(row, joined, residual)),
        ):
            torch.testing.assert_close(got, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


def check_attention(
    kernels: LayerKernels, dtype: torch.dtype, heads: int, kv_heads: int, at: int, normed: bool
) -> None:
    """The new key and value are written; columns that the mask hides, or that are not written yet, are not read."""
    width, capacity = 16, 300
    sizes = LayerSizes(heads, kv_heads, width, 1e-5, width**-0.5)
    joined = a_row(1, 1, (heads + 2 * kv_heads) * width, dtype=dtype, seed=1)
    angles = a_row(1, 1, width // 2, dtype=torch.float32, seed=2).repeat(1, 1, 2)
    seen = torch.arange(capacity) <= at
    seen[1] = False  # of two columns or more: one that is hidden
    mask = torch.zeros(1, 1, 1, capacity, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    caches = [a_row(1, kv_heads, capacity, width, dtype=dtype, seed=seed) for seed in (3, 4)]
    norms = (a_row(width, dtype=dtype, seed=5), a_row(width, dtype=dtype, seed=6)) if normed else None
    both = []
    for run in (kernels, PLAIN):
        keys, values = (cache.clone() for cache in caches)
        reads = Reads(angles.cos().to(dtype), angles.sin().to(dtype), mask, keys, values, torch.tensor([at]), norms)
        both.append((run.attend(joined, reads, sizes), keys, values))
    for got, wanted in zip(*both, strict=True):
        torch.testing.assert_close(got, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("dtype", ROUNDING)
def test_products_of_one_row(dtype: torch.dtype) -> None:
    kernels = one_row()
    check_products(kernels, dtype, 96, 7)
    check_products(kernels, dtype, 4100, 1)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_attention_of_one_token(dtype: torch.dtype) -> None:
    kernels = one_row()
    check_attention(kernels, dtype, heads=4, kv_heads=4, at=0, normed=True)
    check_attention(kernels, dtype, heads=6, kv_heads=2, at=280, normed=False)
