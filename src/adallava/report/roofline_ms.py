"""The least time that a cell's first token takes on a machine, next to the measured one."""

from dataclasses import dataclass

from adallava.analysis.measured_ms import table_batch_size
from adallava.costs.roofline import BYTES_PER_VALUE, Hardware, floor_ms, hardware, hardware_of_device
from adallava.errors import InputError
from adallava.records import Cell, Results, Run


@dataclass(frozen=True)
class Roofline:
    """What a bound is computed for.

    Attributes:
        name: of the machine.
        machine: its ceilings.
        dtype: of the run.
        batch_size: that the milliseconds next to it were measured at.
        weights: of the model's matrices, by part.
    """

    name: str
    machine: Hardware
    dtype: str
    batch_size: int
    weights: dict[str, int]

    @property
    def words(self) -> str:
        """What it was computed for, and what it is not."""
        return (
            f"least ms to the first token by FLOPs and bytes on {self.name}, {self.dtype}, batch {self.batch_size}, a "
            "sample; a bound, no forecast"
        )


def run_roofline(run: Run, results: Results, asked: str | None = None) -> Roofline | None:
    """Return what to bound a run's times by: the machine asked for, else its own; None if that is not known.

    Raises:
        InputError: for a machine that is asked for and not known, or has no ceiling for the run's dtype; and for a run
            of a version that did not record its weights.
    """
    weights, dtype = run.provenance.weight_counts, run.config.dtype
    name = asked or _own(run)
    if name is None:
        return None
    machine = hardware(name)
    if run.config.quantization != "none":
        if asked is None:
            return None
        raise InputError(f"--roofline {asked} knows no ceilings of quantized weights ({run.config.quantization})")
    if asked is None and (not weights or dtype not in machine.flops_per_s):
        return None
    machine.peak(dtype)
    if not weights:
        raise InputError(f"--roofline {asked} needs the sizes of the model's weights, which this run did not record")
    size = table_batch_size(results.cells) or run.config.batch_size
    return Roofline(name, machine, dtype, size, weights)


def _own(run: Run) -> str | None:
    """Return what the run was made on, if its ceilings are known: a run takes one device."""
    devices = run.provenance.hardware.get("cuda_devices") or []
    kind, _, number = (run.config.device or "").partition(":")
    place = int(number) if number.isdigit() else 0
    return hardware_of_device(devices[place]) if kind == "cuda" and place < len(devices) else None


def cell_roofline_ms(cell: Cell, roofline: Roofline) -> float | None:
    """Return the least milliseconds to the first token for one sample of a batch, the parts one after the other.

    Each part takes as long as its FLOPs or its bytes, whichever is longer: the weights it reads once a batch, and for
    the prefill the keys and values that it writes. A batch's plans are taken to be one: of several, more weights are
    read.
    """
    if cell.accuracy is None or not cell.flops:
        return None
    batch, width = roofline.batch_size, BYTES_PER_VALUE[roofline.dtype]
    weights = roofline.weights
    length = cell.prompt_length / max(1.0, cell.prompt_length + cell.answer_length - 1)
    num_bytes = {
        "vision": width * weights["vision"],
        "selector": 0.0,
        "projector": width * weights["projector"],
        "prefill": width * (cell.layer_share * weights["layers"] + weights["output"])
        + batch * length * (cell.kv_bytes or 0.0),
    }
    floors = [
        floor_ms(roofline.machine, batch * flops, moved, dtype=roofline.dtype)
        for part, moved in num_bytes.items()
        if (flops := cell.flops.get(part, 0.0)) > 0
    ]
    return sum(floors) / batch
