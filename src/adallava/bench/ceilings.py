"""What this machine does at most, measured: the rates that floors are computed from."""

import time
from collections.abc import Callable

import torch
from torch.nn.functional import linear

from adallava.costs.roofline import Hardware

_BLOCKS = 3
"""The best of them counts: a ceiling is not a mean."""


FP8 = "fp8"
"""The name of the rate of products in float8."""


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, in_fp8: bool = False) -> Hardware:
    """Return the rate of a large linear layer in a type, and of a large copy (bytes read and bytes written).

    Args:
        device: to measure.
        dtype: of the layer.
        in_fp8: whether the rate of a product in float8, with one scale a tensor, is wanted too.
    """
    on_cuda = device.type == "cuda"
    side, copied_bytes, repeats = (8192, 2**29, 10) if on_cuda else (512, 2**25, 3)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = {dtype_name(dtype): _rate(lambda: linear(one, other), 2.0 * side**3, repeats, device)}
    if in_fp8:
        eight, eight_t, scale = (
            one.to(torch.float8_e4m3fn),
            other.to(torch.float8_e4m3fn).t(),
            one.new_ones((), dtype=torch.float32),
        )
        rates[FP8] = _rate(
            lambda: torch._scaled_mm(eight, eight_t, scale, scale, out_dtype=torch.bfloat16, use_fast_accum=True),
            2.0 * side**3,
            repeats,
            device,
        )
    return Hardware(
        rates,
        _rate(lambda: target.copy_(source), 2.0 * copied_bytes, repeats, device),
        (torch.cuda.get_device_name(device),) if on_cuda else (),
        f"measured: a product of {side} x {side}, a copy of {copied_bytes / 2**20:.0f} MiB",
    )


def dtype_name(dtype: torch.dtype) -> str:
    """Return `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _rate(work: Callable[[], object], amount: float, repeats: int, device: torch.device) -> float:
    """Return the most that was done in a second."""
    work()
    rates = []
    for _ in range(_BLOCKS):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize(device)
        rates.append(repeats * amount / (time.perf_counter() - begin))
    return max(rates)
