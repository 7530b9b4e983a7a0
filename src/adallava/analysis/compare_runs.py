"""Two runs over samples in common: what changed, cell by cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.judge import PairedTest, judge
from adallava.analysis.margins import MARGIN
from adallava.analysis.run_differences import run_differences
from adallava.analysis.scores import RIGHT, tabulate_scores
from adallava.analysis.statistics import mean_interval
from adallava.errors import InputError
from adallava.records import FULL_LATENCY, FULL_METHOD, Results, Run, SampleRecord
from adallava.records.answer_places import AnswerKey, answer_key
from adallava.records.cells import NO_BUDGET, cells_of
from adallava.records.run_changes import CellChange, RunComparison


@dataclass(frozen=True)
class RunAnswers:
    """What is compared of a run.

    Attributes:
        name: for messages, such as its folder.
        run: what was asked for.
        cells: ids, in the order of the run.
        questions: question and right answers by sample id, in the order of the file, where a sweep of several
            processes leaves them in another than the task's.
        scores: [cells, samples], NaN where a sample failed.
        pictures: hashes by sample id, of those that were read.
    """

    name: str
    run: Run
    cells: tuple[str, ...]
    questions: Mapping[str, tuple[str, tuple[str, ...]]]
    scores: NDArray[np.float64]
    pictures: Mapping[str, str | None]


@dataclass(frozen=True)
class _Pair:
    cell: str
    a: NDArray[np.float64]
    b: NDArray[np.float64]

    @property
    def both(self) -> NDArray[np.bool_]:
        """Which samples both answered, [samples]."""
        return np.isfinite(self.a) & np.isfinite(self.b)


def gather_answers(name: str, run: Run, results: Results, records: Iterable[SampleRecord]) -> RunAnswers:
    """Collect a finished run's scores.

    Args:
        name: for messages.
        run: what was asked for.
        results: its summary, which a sweep writes last.
        records: its answers.

    Raises:
        InputError: for a run that lacks a cell, a sample or an answer of what was asked for, naming it.
    """
    draws = _planned_draws(name, run, results)
    questions: dict[str, tuple[str, tuple[str, ...]]] = {}
    scored: dict[AnswerKey, float | None] = {}
    pictures: dict[str, str | None] = {}
    for record in records:
        questions[record.sample_id] = (record.question, tuple(record.answers))
        scored[answer_key(record)] = record.score
        if record.picture_sha256 is not None:
            pictures[record.sample_id] = record.picture_sha256
    num_samples = max(cell.num_samples for cell in results.cells)
    if len(questions) < num_samples:
        raise _not_finished(name, f"it holds {len(questions)} of the {num_samples} samples that results.json counts")
    planned = [(cell, sample, draw) for cell, times in draws.items() for sample in questions for draw in range(times)]
    missing = [answer for answer in planned if answer not in scored]
    if missing:
        cell, sample_id, draw = missing[0]
        such = f"such as sample {sample_id!r} in {cell}, draw {draw}"
        raise _not_finished(name, f"{len(missing)} of {len(planned)} answers are missing, {such}")
    of_plan = {answer: scored[answer] for answer in planned}
    scores = tabulate_scores(tuple(draws), list(questions), of_plan).values
    return RunAnswers(name, run, tuple(draws), questions, scores, pictures)


def _planned_draws(name: str, run: Run, results: Results) -> dict[str, int]:
    """Return the draws of each cell that the run's configuration asks for.

    Which methods ignore the budget or draw at random is read from the summary: they need not be installed here.
    """
    there = {cell.cell: cell for cell in results.cells}
    plans = cells_of(
        run.config,
        {cell.selection for cell in results.cells if cell.budget_asked == NO_BUDGET},
        drawing=_drawing(results),
        with_token={cell.scheduler for cell in results.cells if cell.latency_asked == FULL_LATENCY and cell.scheduler},
    )
    lacking = [plan.cell for plan in plans if plan.cell not in there]
    if lacking:
        raise _not_finished(name, f"results.json lacks {', '.join(lacking)}")
    return {plan.cell: plan.draws for plan in plans}


def _drawing(results: Results) -> set[str]:
    """Return the methods, and with `/` before them the schedulers, that draw at random: by cells with nothing else."""
    drawn = [cell for cell in results.cells if cell.draws > 1]
    methods = {cell.selection for cell in drawn if cell.scheduler is None}
    return methods | {f"/{cell.scheduler}" for cell in drawn if cell.selection == FULL_METHOD}


def _not_finished(name: str, why: str) -> InputError:
    return InputError(f"{name} is not finished: {why}. Run the same sweep again, it continues where it stopped")


def compare_runs(a: RunAnswers, b: RunAnswers, margin: float = MARGIN) -> RunComparison:
    """Compare the cells that two runs have in common, over the samples that both answered.

    Args:
        a: one run.
        b: another.
        margin: within which accuracies are the same.

    Raises:
        InputError: if no sample is in both, or one has another question or other answers there.
    """
    ids = _common_samples(a, b)
    common = [cell for cell in a.cells if cell in set(b.cells)]
    pairs = [_Pair(cell, _scores_of(a, cell, ids), _scores_of(b, cell, ids)) for cell in common]
    answered = [pair for pair in pairs if pair.both.any()]
    clusters = Clusters.by_picture(ids, {**b.pictures, **a.pictures})
    verdicts = judge([PairedTest(pair.a, pair.b, planned=True) for pair in answered], clusters, seed=0, margin=margin)
    return RunComparison(
        num_samples=len(ids),
        samples_in_a_only=[sample_id for sample_id in a.questions if sample_id not in b.questions],
        samples_in_b_only=[sample_id for sample_id in b.questions if sample_id not in a.questions],
        differences=run_differences(a.run, b.run),
        cells=[
            _change(pair, np.array(ids), clusters, verdict) for pair, verdict in zip(answered, verdicts, strict=True)
        ],
        cells_in_a_only=[cell for cell in a.cells if cell not in common],
        cells_in_b_only=[cell for cell in b.cells if cell not in common],
        cells_not_answered=[pair.cell for pair in pairs if not pair.both.any()],
    )


def _common_samples(a: RunAnswers, b: RunAnswers) -> list[str]:
    common = [sample_id for sample_id in a.questions if sample_id in b.questions]
    differing = [sample_id for sample_id in common if a.questions[sample_id] != b.questions[sample_id]]
    tasks = "; ".join(f"{one.name} has {len(one.questions)} of {one.run.config.task}" for one in (a, b))
    if not common:
        raise InputError(f"the runs are not over the same samples: {tasks}; none is in both. Sweep the same task")
    if differing:
        raise InputError(
            f"the runs are not over the same samples: {tasks}; {len(differing)} samples have another question or "
            f"answer in the other run, such as {differing[0]!r}. Sweep the same task"
        )
    return common


def _scores_of(one: RunAnswers, cell: str, ids: Sequence[str]) -> NDArray[np.float64]:
    place = {sample_id: number for number, sample_id in enumerate(one.questions)}
    return one.scores[one.cells.index(cell), [place[sample_id] for sample_id in ids]]


def _change(pair: _Pair, ids: NDArray[np.str_], clusters: Clusters, verdict: dict[str, Any]) -> CellChange:
    both = pair.both
    right_a, right_b = both & (pair.a >= RIGHT), both & (pair.b >= RIGHT)
    return CellChange(
        cell=pair.cell,
        accuracy_a=mean_interval(pair.a[both], clusters.among(both)),
        accuracy_b=mean_interval(pair.b[both], clusters.among(both)),
        right_in_a_only=ids[right_a & ~right_b].tolist(),
        right_in_b_only=ids[right_b & ~right_a].tolist(),
        **verdict,
    )
