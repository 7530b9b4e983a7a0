"""Which of a run's clocks a table reads: the timing pass if there was one, else the answers themselves."""

from collections.abc import Sequence

from adallava.records import Cell, Timing

NO_CHOOSING_MS = "choosing inside the LLM is timed under prefill"
"""Why some cells have no milliseconds for the selector."""


def table_batch_size(cells: Sequence[Cell]) -> int | None:
    """Return the smallest batch size at which all answered cells were timed, in turns; None without one."""
    timed = [{timing.batch_size for timing in cell.timings} for cell in cells if cell.accuracy is not None]
    sizes = set.intersection(*timed) if timed else set()
    return min(sizes, default=None)


def timed_batch_sizes(cells: Sequence[Cell]) -> tuple[int, ...]:
    """Return the batch sizes at which any cell was timed, in ascending order."""
    return tuple(sorted({timing.batch_size for cell in cells for timing in cell.timings}))


def cell_ms(cell: Cell, part: str, batch_size: int | None) -> float | None:
    """Return the median milliseconds of a part for one sample; None where they were not clocked.

    Args:
        cell: of the run.
        part: a key of `Timing.part_ms`.
        batch_size: to read the timing pass at; None for the answers.
    """
    if part == "selector" and cell.tokens_kept_layer_average < cell.tokens_kept:
        return None
    if batch_size is None:
        return cell.part_ms.get(part)
    timing = _timing_at(cell, batch_size)
    spread = timing.part_ms.get(part) if timing else None
    return spread.median / batch_size if spread else None


def cell_peak_bytes(cell: Cell, batch_size: int | None) -> int | None:
    """Return the peak of memory, in the timing pass at a batch size or over the answers."""
    if batch_size is None:
        return cell.peak_memory_bytes
    timing = _timing_at(cell, batch_size)
    return timing.peak_memory_bytes if timing else None


def ms_source(batch_size: int | None) -> str:
    """Say where a table's milliseconds come from."""
    if batch_size is None:
        return "median per sample over the answers, cells one after the other"
    per_sample = "" if batch_size == 1 else ", divided by it"
    return f"median of the timing pass at batch {batch_size}{per_sample}, cells in turns"


def _timing_at(cell: Cell, batch_size: int) -> Timing | None:
    return next((timing for timing in cell.timings if timing.batch_size == batch_size), None)
