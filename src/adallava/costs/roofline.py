"""How long work takes at the least on a machine: the larger of computing it and of moving its bytes.

A roofline (Williams, Waterman & Patterson 2009) is a bound, not a forecast: it knows no launches, no overhead and no
kernel below its peak. Measured time stands beside it, never in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from adallava.costs.flops import decode_flops, kv_bytes, prefill_flops
from adallava.costs.shapes import LLMShape
from adallava.errors import InputError


@dataclass(frozen=True)
class Hardware:
    """Ceilings of one machine.

    Attributes:
        flops_per_s: dense 16-bit matrix products, accumulated in 32 bits.
        bytes_per_s: of its memory.
        source: where both figures are from.
    """

    flops_per_s: float
    bytes_per_s: float
    source: str


HARDWARE: dict[str, Hardware] = {
    "v100": Hardware(112e12, 900e9, "NVIDIA V100 data sheet, PCIe: 112 TFLOP/s, 900 GB/s"),
    "a100": Hardware(312e12, 2.039e12, "NVIDIA A100 data sheet, 80 GB SXM: 312 TFLOP/s, 2039 GB/s"),
    "h100": Hardware(989e12, 3.35e12, "NVIDIA H100 data sheet, SXM: 1979 TFLOP/s with sparsity, 3.35 TB/s"),
    "h200": Hardware(989e12, 4.8e12, "NVIDIA H200 data sheet, SXM: 1979 TFLOP/s with sparsity, 4.8 TB/s"),
    "rtx4090": Hardware(165.2e12, 1.008e12, "NVIDIA Ada GPU architecture paper: 165.2 TFLOP/s, 1008 GB/s"),
}
"""By name. Of one device, without sparsity."""


def hardware(name: str) -> Hardware:
    """Return a machine's ceilings.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    if name not in HARDWARE:
        raise InputError(f"no ceilings are known of hardware {name!r}: give one of {', '.join(HARDWARE)}")
    return HARDWARE[name]


def floor_ms(machine: Hardware, flops: int, num_bytes: int) -> float:
    """Return the least milliseconds for work of so many FLOPs over so many bytes."""
    return 1000.0 * max(flops / machine.flops_per_s, num_bytes / machine.bytes_per_s)


def prefill_floor_ms(
    machine: Hardware,
    llm: LLMShape,
    sequence_length: int | Sequence[int],
    *,
    batch_size: int = 1,
    bytes_per_value: int = 2,
    layer_shares: Sequence[Fraction] | None = None,
) -> float:
    """Return the floor of one pass over B prompts: weights are read once, keys and values written.

    Args:
        machine: its ceilings.
        llm: shape of the LLM.
        sequence_length: L, or that of each layer.
        batch_size: B, prompts of that length with one plan.
        bytes_per_value: 2 in half precision.
        layer_shares: the share of each layer that runs; None = all.
    """
    flops = prefill_flops(llm, sequence_length, layer_shares=layer_shares)
    held = kv_bytes(llm, sequence_length, 1, bytes_per_value=bytes_per_value, layer_shares=layer_shares)
    num_bytes = weight_bytes(llm, bytes_per_value=bytes_per_value, layer_shares=layer_shares) + batch_size * held
    return floor_ms(machine, batch_size * flops, num_bytes)


def decode_floor_ms(
    machine: Hardware,
    llm: LLMShape,
    prompt_length: int | Sequence[int],
    *,
    batch_size: int = 1,
    bytes_per_value: int = 2,
    layer_shares: Sequence[Fraction] | None = None,
) -> float:
    """Return the floor of one decoded token behind B prompts: weights, keys and values are read once."""
    flops = decode_flops(llm, prompt_length, 2, layer_shares=layer_shares)
    held = kv_bytes(llm, prompt_length, 2, bytes_per_value=bytes_per_value, layer_shares=layer_shares)
    num_bytes = weight_bytes(llm, bytes_per_value=bytes_per_value, layer_shares=layer_shares) + batch_size * held
    return floor_ms(machine, batch_size * flops, num_bytes)


def weight_bytes(llm: LLMShape, *, bytes_per_value: int, layer_shares: Sequence[Fraction] | None = None) -> int:
    """Return the bytes of the matrices that one pass reads: those of the layers that run, and the output layer."""
    # One token without any key: two FLOPs a weight, and 4 * width a layer for the one pair of query and key.
    pairs = 4 * llm.query_heads * llm.head_dim
    shares = [Fraction(1)] * llm.layers if layer_shares is None else layer_shares
    flops = prefill_flops(llm, 1, layer_shares=shares) - int(pairs * sum(shares, Fraction(0)))
    return flops // 2 * bytes_per_value
