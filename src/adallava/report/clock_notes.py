"""Whether a run's milliseconds can be compared: how busy the machine was, how far its readings spread and drifted."""

from collections.abc import Iterator, Sequence

from adallava.analysis.measured_ms import table_batch_size
from adallava.records import Cell, MachineLoad, Spread, Timing

BUSY_CPU = 0.10
"""From this share of all cores on, used by other processes, the machine was busy."""

BUSY_LOAD = 1.25
"""Processes that run or wait by core: this one's threads alone are at most 1."""

BUSY_GPU_BYTES = 2 * 2**30
"""Memory of the device in use by others; the context of this process is some 0.5 GB of it."""

WIDE_SPREAD = 0.20
"""From the 10th to the 90th percentile of warm repeats, as a share of the median."""

WIDE_SPREAD_OF_ANSWERS = 0.50
"""The same over the answers of a sweep, which also differ in length."""

WIDE_DRIFT = 0.10
"""Between the first and the last third of the repeats, whichever way."""

_WIDE_SHARE = 0.25
"""Of the cells: one that was disturbed once does not spoil a run."""


def clock_note(cells: Sequence[Cell], batch_size: int | None) -> str:
    """Say why the milliseconds of a run are not to be compared; empty if they are, and of older files.

    Args:
        cells: of the run.
        batch_size: of the timing pass; None for the answers themselves.
    """
    timed = [cell for cell in cells if cell.accuracy is not None]
    reasons = list(_of_answers(timed) if batch_size is None else _of_timings(timed, batch_size))
    return f"ms cannot be compared: {'; '.join(reasons)}" if reasons else ""


def table_clock_note(cells: Sequence[Cell]) -> str:
    """Say it of the milliseconds that tables and fronts read."""
    return clock_note(cells, table_batch_size(cells))


def _of_answers(cells: Sequence[Cell]) -> Iterator[str]:
    shares = [cell.cpu_by_others for cell in cells if cell.cpu_by_others is not None]
    if shares and sum(shares) / len(shares) >= BUSY_CPU:
        yield _cpu_words(sum(shares) / len(shares))
    yield from _spread_words([cell.first_token_spread for cell in cells], WIDE_SPREAD_OF_ANSWERS)


def _of_timings(cells: Sequence[Cell], batch_size: int) -> Iterator[str]:
    timings = [timing for cell in cells for timing in cell.timings if timing.batch_size == batch_size]
    machine = next((timing.machine for timing in timings if timing.machine is not None), None)
    if machine is not None:
        yield from _machine_words(machine)
    yield from _spread_words([timing.part_ms.get("time_to_first_token") for timing in timings], WIDE_SPREAD)
    yield from _drift_words(timings)


def _machine_words(machine: MachineLoad) -> Iterator[str]:
    if machine.cpu_by_others is not None and machine.cpu_by_others >= BUSY_CPU:
        yield _cpu_words(machine.cpu_by_others)
    loads = [load for load in (machine.load_before, machine.load_after) if load is not None]
    if loads and max(loads) > BUSY_LOAD:
        yield f"the machine was busy: {max(loads):.1f} processes for each of {machine.num_cores} cores"
    if machine.gpu_processes_by_others:
        yield f"{machine.gpu_processes_by_others} other processes were on the GPU"
    elif machine.gpu_processes_by_others is None and (machine.gpu_bytes_by_others or 0) > BUSY_GPU_BYTES:
        yield f"others held {(machine.gpu_bytes_by_others or 0) / 2**30:.1f} GiB of the GPU"


def _cpu_words(share: float) -> str:
    return f"the machine was busy: other processes used {100 * share:.0f} % of its cores"


def _spread_words(spreads: Sequence[Spread | None], limit: float) -> Iterator[str]:
    known = [spread for spread in spreads if spread is not None and spread.median > 0.0]
    wide = sum((spread.high - spread.low) / spread.median > limit for spread in known)
    if known and wide > _WIDE_SHARE * len(known):
        yield f"times of {wide} of {len(known)} cells spread over more than {100 * limit:.0f} % of their median"


def _drift_words(timings: Sequence[Timing]) -> Iterator[str]:
    drifts = [timing.drift for timing in timings if timing.drift is not None]
    far = sum(abs(drift - 1.0) > WIDE_DRIFT for drift in drifts)
    if drifts and far > _WIDE_SHARE * len(drifts):
        yield f"times of {far} of {len(drifts)} cells drifted by more than {100 * WIDE_DRIFT:.0f} % over the repeats"
