"""Two runs over the same samples: what changed, cell by cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.errors import InputError
from adallava.records import CellChange, Run, RunComparison, SampleRecord

from .scores import RIGHT, tabulate_scores
from .significance import ALPHA, holm, sign_flip_p_value
from .statistics import mean_interval, paired_difference


@dataclass(frozen=True)
class RunAnswers:
    """What is compared of a run.

    Attributes:
        name: for messages, such as its folder.
        run: what was asked for.
        cells: ids, in the order of the run.
        questions: question and right answers by sample id, in the order of the task.
        scores: [cells, samples], NaN where a sample failed.
    """

    name: str
    run: Run
    cells: tuple[str, ...]
    questions: Mapping[str, tuple[str, tuple[str, ...]]]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class _Pair:
    cell: str
    sample_ids: NDArray[np.str_]
    a: NDArray[np.float64]
    b: NDArray[np.float64]


def gather_answers(name: str, run: Run, records: Iterable[SampleRecord]) -> RunAnswers:
    """Collect a run's scores.

    Raises:
        InputError: for a run without answers, or with a cell that lacks some: it was not finished.
    """
    records = list(records)
    cells = tuple(dict.fromkeys(record.cell for record in records))
    questions = {record.sample_id: (record.question, tuple(record.answers)) for record in records}
    answered = {(record.cell, record.sample_id) for record in records}
    if not records or len(answered) < len(cells) * len(questions):
        raise InputError(f"{name} is not finished: run the same sweep again, it goes on where it stopped")
    return RunAnswers(name, run, cells, questions, tabulate_scores(cells, list(questions), records).values)


def compare_runs(a: RunAnswers, b: RunAnswers) -> RunComparison:
    """Compare the cells that two runs have in common, over the samples that both answered.

    Raises:
        InputError: if the runs are not over the same samples, or have no cell in common.
    """
    _refuse_other_samples(a, b)
    common = [cell for cell in a.cells if cell in set(b.cells)]
    if not common:
        raise InputError(f"{a.name} and {b.name} have no cell in common: {a.name} has {', '.join(a.cells)}")
    pairs = [_pair(a, b, cell) for cell in common]
    answered = [pair for pair in pairs if len(pair.sample_ids)]
    p_values = [sign_flip_p_value(pair.a - pair.b) for pair in answered]
    changes = [_change(*row) for row in zip(answered, p_values, holm(p_values), strict=True)]
    return RunComparison(
        num_samples=len(a.questions),
        cells=changes,
        cells_in_a_only=[cell for cell in a.cells if cell not in common],
        cells_in_b_only=[cell for cell in b.cells if cell not in common],
        cells_not_answered=[pair.cell for pair in pairs if not len(pair.sample_ids)],
    )


def _refuse_other_samples(a: RunAnswers, b: RunAnswers) -> None:
    differing = _differing(a.questions, b.questions)
    if not differing:
        return
    tasks = [f"{one.name} has {len(one.questions)} of {one.run.config.task}" for one in (a, b)]
    raise InputError(
        f"the runs are not over the same samples: {'; '.join(tasks)}; {len(differing)} samples are in one of them "
        f"only or have another question or answer, such as {differing[0]!r}. Sweep the same task with the same --limit"
    )


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> Sequence[str]:
    return [sample_id for sample_id in dict.fromkeys([*a, *b]) if a.get(sample_id) != b.get(sample_id)]


def _pair(a: RunAnswers, b: RunAnswers, cell: str) -> _Pair:
    place = {sample_id: number for number, sample_id in enumerate(b.questions)}
    x = a.scores[a.cells.index(cell)]
    y = b.scores[b.cells.index(cell)][[place[sample_id] for sample_id in a.questions]]
    both = np.isfinite(x) & np.isfinite(y)
    return _Pair(cell, np.array(list(a.questions))[both], x[both], y[both])


def _change(pair: _Pair, p_value: float, p_adjusted: float) -> CellChange:
    right_a, right_b = pair.a >= RIGHT, pair.b >= RIGHT
    return CellChange(
        cell=pair.cell,
        accuracy_a=mean_interval(pair.a),
        accuracy_b=mean_interval(pair.b),
        difference=paired_difference(pair.a, pair.b),
        p_value=p_value,
        p_adjusted=p_adjusted,
        significant=p_adjusted < ALPHA,
        right_in_a_only=pair.sample_ids[right_a & ~right_b].tolist(),
        right_in_b_only=pair.sample_ids[right_b & ~right_a].tolist(),
    )
