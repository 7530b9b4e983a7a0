"""The kernels of a tower's small steps do what PyTorch's do. Triton's interpreter runs them where there is no GPU."""

import pytest
import torch

from adallava.families.tower_kernels import TowerKernels

ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3}
"""float16 rounds at 2 ** -11, here of numbers up to about 4."""


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_they_do_what_pytorch_does(dtype: torch.dtype) -> None:
    """Sizes that are no powers of two."""
    pytest.importorskip("triton")
    from adallava.engines.patch_kernels import PATCH_KERNELS

    plain, patches, heads, width = TowerKernels(), 7, 3, 20
    joined = drawn(patches, 3 * heads * width, dtype=dtype).view(patches, 3, heads, width)
    angles = drawn(patches, width // 2, seed=1).repeat(1, 2)
    # Real tables need not repeat: both halves are read.
    cosines, sines = angles.cos() + torch.arange(width) / 100, angles.sin()
    for order in (None, torch.tensor([3, 1, 0, 6, 5, 2, 4])):
        got = PATCH_KERNELS.arranged(joined, cosines, sines, order)
        wanted = plain.arranged(joined, cosines, sines, order)
        torch.testing.assert_close(got, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
    gate, up = drawn(13, 101, dtype=dtype, seed=2), drawn(13, 101, dtype=dtype, seed=3)
    torch.testing.assert_close(PATCH_KERNELS.gated(gate, up), plain.gated(gate, up), rtol=4e-3, atol=ROUNDING[dtype])
    hidden, weight = drawn(5, 33, dtype=dtype, seed=4), drawn(33, dtype=dtype, seed=5)
    got, wanted = (one.rms_normed(hidden, weight, 1e-6) for one in (PATCH_KERNELS, plain))
    torch.testing.assert_close(got, wanted, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
