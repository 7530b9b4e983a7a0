"""The highest memory that a piece of work needed."""

import contextlib
import re
import resource
from pathlib import Path

import torch


def reset_peak_memory(device: torch.device) -> None:
    """Begin again: the next reading covers what comes from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            # Linux: sets the process's peak back to what it holds now.
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak since the reset: of CUDA's allocator, or of the process (off Linux: of its life so far)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(peak) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
