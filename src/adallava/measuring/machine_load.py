"""How busy the machine was with anything else while this process was timed."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from adallava.records import MachineLoad

_STAT = Path("/proc/stat")
_IDLE, _IO_WAIT, _GUEST = 3, 4, 8
"""Places in the line `cpu` of /proc/stat (man 5 proc); the time of guests is counted under user time, too."""


@dataclass(frozen=True)
class LoadReading:
    """One look at the machine.

    Attributes:
        busy_s: seconds that all cores together have been busy since boot; None off Linux.
        own_s: of which in this process.
        clock_s: when it was.
        load_average: processes that run or wait, averaged over a minute; None where the system has none.
    """

    busy_s: float | None
    own_s: float
    clock_s: float
    load_average: float | None


def read_load() -> LoadReading:
    """Look at the machine; takes a fraction of a millisecond."""
    times = os.times()
    average = None
    with contextlib.suppress(OSError, AttributeError):
        average = os.getloadavg()[0]
    return LoadReading(_busy_s(), times.user + times.system, time.monotonic(), average)


def cpu_by_others(before: LoadReading, after: LoadReading) -> float | None:
    """Return the share of all cores that other processes used between two readings; None off Linux."""
    elapsed = (after.clock_s - before.clock_s) * num_cores()
    if before.busy_s is None or after.busy_s is None or elapsed <= 0.0:
        return None
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
    return min(1.0, max(0.0, others / elapsed))


def load_between(before: LoadReading, after: LoadReading, device: torch.device) -> MachineLoad:
    """Return what to record of the time between two readings."""
    cores = num_cores()
    return MachineLoad(
        num_cores=cores,
        load_before=None if before.load_average is None else before.load_average / cores,
        load_after=None if after.load_average is None else after.load_average / cores,
        cpu_by_others=cpu_by_others(before, after),
        gpu_processes_by_others=_gpu_processes_by_others(device),
        gpu_bytes_by_others=_gpu_bytes_by_others(device),
    )


def num_cores() -> int:
    """Return the cores of the machine, whoever may use them."""
    return os.cpu_count() or 1


def _busy_s() -> float | None:
    try:
        with _STAT.open() as file:
            fields = [int(field) for field in file.readline().split()[1:]]
        ticks = sum(fields[:_GUEST]) - fields[_IDLE] - fields[_IO_WAIT]
        return ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _gpu_bytes_by_others(device: torch.device) -> int | None:
    """Return memory in use that this process's allocator does not hold; its own context, some 0.5 GB, is in it."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return max(0, total - free - torch.cuda.memory_reserved(device))


def _gpu_processes_by_others(device: torch.device) -> int | None:
    """Return the number of other processes that compute on the device; None where pynvml is not installed."""
    pynvml = _pynvml()
    if device.type != "cuda" or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except (pynvml.NVMLError, AttributeError):
        return None
    return len([process for process in running if process.pid != os.getpid()])


def _pynvml() -> ModuleType | None:
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        return None
    module: ModuleType = pynvml
    return module
