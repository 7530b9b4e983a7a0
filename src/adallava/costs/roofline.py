"""How long work takes at the least on a machine: the larger of computing it and of moving its bytes.

A roofline (Williams, Waterman & Patterson 2009) is a bound, not a forecast: it knows no launches, no overhead and no
kernel below its peak. Measured time is shown next to it, never in its place.

Ceilings are the makers', of one device, dense (NVIDIA's data sheets since Ampere also give Tensor Core figures "with
sparsity", which are twice those), 16-bit products accumulated in 32 bits. float32 is torch's default: without TF32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction

from adallava.costs.flops import prefill_flops
from adallava.costs.parts import LLMCosts, ModelCosts
from adallava.errors import InputError

BYTES_PER_VALUE: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""By dtype, as torch names them."""


@dataclass(frozen=True)
class Hardware:
    """Ceilings of one machine.

    Attributes:
        flops_per_s: of matrix products, by dtype; one that the machine has no units for is missing.
        bytes_per_s: of its memory.
        device_names: what CUDA calls it.
        source: where the figures are from.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float
    device_names: tuple[str, ...]
    source: str

    def peak(self, dtype: str) -> float:
        """Return the FLOP/s of a dtype.

        Raises:
            InputError: for one that the machine has no ceiling of, with those it has.
        """
        if dtype not in self.flops_per_s:
            raise InputError(
                f"no ceiling is known for dtype {dtype!r} on this hardware: it has {', '.join(self.flops_per_s)}"
            )
        return self.flops_per_s[dtype]


def _ceilings(half: float, single: float) -> dict[str, float]:
    return {"bfloat16": half * 1e12, "float16": half * 1e12, "float32": single * 1e12}


_HOPPER = "NVIDIA H100 Tensor Core GPU Architecture white paper: 989.4 TFLOP/s dense, 66.9 in FP32"
_AMPERE = "NVIDIA A100 data sheet (1758950-r4): 312 TFLOP/s dense, 19.5 in FP32"

HARDWARE: dict[str, Hardware] = {
    "h200-sxm": Hardware(
        _ceilings(989.4, 66.9), 4.8e12, ("NVIDIA H200",),
        "NVIDIA H200 data sheet: 4.8 TB/s, products as H100 SXM; " + _HOPPER,
    ),
    "h100-sxm": Hardware(
        _ceilings(989.4, 66.9), 3.35e12, ("NVIDIA H100 80GB HBM3",),
        "NVIDIA H100 data sheet: SXM, 3.35 TB/s; " + _HOPPER,
    ),
    "h100-pcie": Hardware(
        _ceilings(756.5, 51.0), 2.0e12, ("NVIDIA H100 PCIe",),
        "NVIDIA H100 data sheet (2022): PCIe, 1513 TFLOP/s with sparsity, 51 in FP32, 2 TB/s",
    ),
    "a100-sxm-80gb": Hardware(
        _ceilings(312.0, 19.5), 2.039e12, ("NVIDIA A100-SXM4-80GB",), f"{_AMPERE}; 80 GB SXM: 2039 GB/s"
    ),
    "a100-sxm-40gb": Hardware(
        _ceilings(312.0, 19.5), 1.555e12, ("NVIDIA A100-SXM4-40GB",), f"{_AMPERE}; 40 GB: 1555 GB/s"
    ),
    "a100-pcie-80gb": Hardware(
        _ceilings(312.0, 19.5), 1.935e12, ("NVIDIA A100 80GB PCIe",), f"{_AMPERE}; 80 GB PCIe: 1935 GB/s"
    ),
    "l40s": Hardware(
        _ceilings(362.05, 91.6), 864e9, ("NVIDIA L40S",),
        "NVIDIA L40S data sheet: 362.05 TFLOP/s dense, 91.6 in FP32, 864 GB/s",
    ),
    "rtx-4090": Hardware(
        _ceilings(165.2, 82.6), 1.008e12, ("NVIDIA GeForce RTX 4090",),
        "NVIDIA Ada GPU Architecture white paper: 165.2 TFLOP/s with FP32 accumulate, 82.6 in FP32, 1008 GB/s",
    ),
    "v100-sxm2": Hardware(
        {"float16": 125e12, "float32": 15.7e12}, 900e9, ("Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"),
        "NVIDIA V100 data sheet, NVLink: 125 TFLOP/s, 15.7 in FP32, 900 GB/s; no bfloat16",
    ),
}  # fmt: skip
"""By name."""


def hardware(name: str) -> Hardware:
    """Return a machine's ceilings.

    Raises:
        InputError: for an unknown name, with the known ones.
    """
    if name not in HARDWARE:
        near = [known for known in HARDWARE if known.startswith(name.lower())] or get_close_matches(name, HARDWARE, 1)
        hint = f"did you mean {' or '.join(near)}? " if name and near else ""
        raise InputError(
            f"the peak speed of hardware {name!r} is not known: {hint}known are {', '.join(HARDWARE)}; for other "
            "hardware leave --roofline out, and the report shows measured times alone"
        )
    return HARDWARE[name]


def hardware_of_device(device_name: str) -> str | None:
    """Return the name of what CUDA calls so, or None if its ceilings are not known."""
    return next((name for name, machine in HARDWARE.items() if device_name in machine.device_names), None)


def floor_ms(machine: Hardware, flops: float, num_bytes: float, *, dtype: str) -> float:
    """Return the least milliseconds for work of so many FLOPs over so many bytes."""
    return 1000.0 * max(flops / machine.peak(dtype), num_bytes / machine.bytes_per_s)


def weight_bytes(llm: LLMCosts, *, bytes_per_value: int, layer_shares: Sequence[Fraction] | None = None) -> int:
    """Return the bytes of the matrices that one pass reads: those of the layers that run, and the output layer."""
    shares = [Fraction(1)] * len(llm.layers) if layer_shares is None else layer_shares
    # One token without any key: two FLOPs a weight, and of a layer's FLOPs the one pair of query and key is none.
    pairs = sum((layer.per_pair * share for layer, share in zip(llm.layers, shares, strict=True)), Fraction(0))
    flops = prefill_flops(llm, 1, layer_shares=shares) - int(pairs)
    return flops // 2 * bytes_per_value


def weight_counts(model: ModelCosts) -> dict[str, int]:
    """Return the weights of the matrices that a first token reads: `vision`, `projector`, `layers`, `output`.

    One token's products are two FLOPs a weight; of a mixture these are the experts that it takes.
    """
    vision, output = model.vision, model.llm.per_logits // 2
    return {
        "vision": (vision.fixed + vision.per_patch + vision.per_token) // 2,
        "projector": model.projector_per_token // 2,
        "layers": weight_bytes(model.llm, bytes_per_value=1) - output,
        "output": output,
    }
