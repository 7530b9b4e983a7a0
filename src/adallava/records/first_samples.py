"""Of a run with more answers than fit into memory, the first samples: each with its answers in every cell."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from adallava.records import Run
from adallava.records.cells import plan_cells
from adallava.records.jsonl import read_lines
from adallava.records.regular_files import open_regular

MOST_ANSWERS = 1_000_000
"""That page and doctor hold: up to 5 GB, where the sets of patches differ."""

_CHUNK_BYTES = 2**20
_ID = re.compile(rb'"sample_id":("(?:[^"\\]|\\.)*")')


def first_samples(files: Iterable[Path], run: Run | None, most: int = MOST_ANSWERS) -> frozenset[str] | None:
    """Return the ids of as many samples as have `most` answers together; None if all of the run's have.

    Args:
        files: that hold the answers, cell after cell.
        run: says how many cells there are.
        most: answers.
    """
    there = [path for path in files if path.exists()]
    if run is None or sum(map(_count_lines, there)) <= most:
        return None
    config = run.config
    # At most so many: which methods draw, or have one cell for all budgets, the file does not say.
    cells = plan_cells(
        config.methods, config.token_budgets, positions=config.positions, drawing=config.methods, draws=config.draws,
        schedulers=config.schedulers, latencies=config.latencies, with_token=config.schedulers,
    )  # fmt: skip
    num_samples = max(1, most // sum(plan.draws for plan in cells))
    ids: set[str] = set()
    for path in there:
        with open_regular(path) as file:
            for line in read_lines(file):
                sample_id = None if line.blank or line.torn else id_of(line.data)
                if sample_id is not None:
                    ids.add(sample_id)
                if len(ids) == num_samples:
                    return frozenset(ids)
    return frozenset(ids)


def id_of(line: bytes) -> str | None:
    """Return whose answer a line is, without reading the rest of it; None where it does not say so plainly."""
    found = _ID.search(line)
    if found is None:
        return None
    try:
        return str(json.loads(found[1]))
    except ValueError:
        return None


def told(ids: frozenset[str]) -> str:
    """Say what was read."""
    return f"the run has more than {MOST_ANSWERS:,} answers: those of its first {len(ids):,} samples were read"


def _count_lines(path: Path) -> int:
    count = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            count += chunk.count(b"\n")
    return count
