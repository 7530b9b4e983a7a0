"""Failure 6: an answer that depends on its neighbors in the batch, or on its place among them.

lmms-eval records no batches, so two runs of one cell are compared, such as at batch sizes 1 and 8. A run folder does:
neighboring rows with one clock reading were one batch.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from adallava.doctor.answers import (
    EMPTY_SHARE_LIMIT,
    MIN_SAMPLES_TO_COMPARE,
    NUM_EXAMPLES,
    Answer,
    AnswerCell,
    AnswerFile,
    percent,
)
from adallava.doctor.checks.budgets import chose_some
from adallava.doctor.findings import Observation, found, not_visible, passed

_Z_LIMIT = 4.0
"""Standard deviations. At 50 cells a healthy run crosses it about once in 150 runs."""

_MIN_EFFECT = 0.2
"""Smaller differences in accuracy between places in the batch are not a sign of a broken batch."""

_OTHER_SHARE = 0.05
"""In half precision another batch size changes a few answers of a healthy model."""

Batch = Sequence[Answer]


def batches(cell: AnswerCell) -> Iterator[Batch]:
    """The batches of a cell with two rows or more, in order."""
    keyed = (answer for answer in cell.answered if answer.batch_key is not None)
    grouped = (list(rows) for _, rows in groupby(keyed, key=lambda answer: answer.batch_key))
    return (rows for rows in grouped if len(rows) > 1)


def check_batch_dependence(file: AnswerFile) -> Observation:
    """Failure 6: what a sample gets depends on the batch it is in."""
    evidence: list[str] = []
    examples: list[str] = []
    for cell in file.cells:
        for line, ids in (*_contradicting(cell), *_shared_selection(cell)):
            evidence.append(line)
            examples.extend(f"{sample_id} in {cell.label}" for sample_id in ids)
        evidence.extend(_place_effects(cell))
    for line, ids in _same_work(file):
        evidence.append(line)
        examples.extend(ids)
    certain, num_pairs = bool(evidence), 0
    if file.form == "lmms-eval":
        pairs = list(_runs_of_one_cell(file))
        num_pairs = len(pairs)
        for first, second in pairs:
            lines, names = _differing(first, second)
            evidence.extend(lines)
            examples.extend(names)
    if evidence:
        return found("harness-bug" if certain else "cannot-tell", evidence, examples)
    if num_pairs:
        return passed(f"{num_pairs} pairs of runs of one cell agree")
    if file.form == "lmms-eval":
        return not_visible(
            f"lmms-eval records no batches, and no two runs of one cell share {MIN_SAMPLES_TO_COMPARE} samples; run a "
            "budget once more at another --batch_size, into a folder next to this one"
        )
    if not any(cell.answered for cell in file.cells):
        return not_visible("no sample was answered")
    largest = max((len(rows) for cell in file.cells for rows in batches(cell)), default=1)
    if largest == 1:
        return not_visible("every batch held one sample: run with --batch-size above 1 to see it")
    return passed(
        f"batches of up to {largest}: scores do not depend on the place in the batch, selections are per sample"
    )


def _runs_of_one_cell(file: AnswerFile) -> Iterator[tuple[AnswerCell, AnswerCell]]:
    """Yield pairs of files that were asked for the same, of enough samples that both answered."""
    for cells in file.groups.values():
        for first, second in combinations(cells, 2):
            if first.budget is None or (first.method, first.budget) != (second.method, second.budget):
                continue
            if len(first.by_sample.keys() & second.by_sample.keys()) >= MIN_SAMPLES_TO_COMPARE:
                yield first, second


def _differing(first: AnswerCell, second: AnswerCell) -> tuple[list[str], list[str]]:
    """Return a line of evidence, and samples, if two runs of one cell answer differently."""
    shared = first.by_sample.keys() & second.by_sample.keys()
    ids = sorted(one for one in shared if first.by_sample[one].response != second.by_sample[one].response)
    if len(ids) <= _OTHER_SHARE * len(shared):
        return [], []
    count = percent(len(ids), len(shared))
    line = f"{first.label} and {second.label} have the same settings, yet {count} answers differ"
    return [line], [f"{sample_id} in {second.label}" for sample_id in ids]


def _contradicting(cell: AnswerCell) -> Iterator[tuple[str, list[str]]]:
    """Samples that one cell answered twice in one draw, differently."""
    responses = cell.repeated_responses(cell.answered)
    twice = [key for key, texts in responses.items() if len(texts) > 1]
    if twice:
        texts = " and ".join(map(repr, sorted(responses[twice[0]])[:2]))
        yield (
            f"{cell.label}: {len(twice)} samples were answered twice, differently ({twice[0][0]}: {texts})",
            [sample_id for sample_id, _ in twice],
        )


def _shared_selection(cell: AnswerCell) -> Iterator[tuple[str, list[str]]]:
    """One row's selection used for its whole batch: equal inside every batch, different between batches."""
    chosen, equal_across = 0, 0
    first: Batch = ()
    last: Answer | None = None
    for rows in batches(cell):
        if not all(chose_some(answer) for answer in rows):
            continue
        if len({answer.kept_sets for answer in rows}) > 1:
            return
        equal_across += last is not None and last.kept_sets == rows[0].kept_sets
        chosen, first, last = chosen + 1, first or rows, rows[-1]
    # Neighbors may show one image; then their selections agree across the border of two batches as well.
    if chosen > 1 and equal_across < 0.5 * (chosen - 1):
        line = f"{cell.label}: in each of {chosen} batches all samples kept the same patches"
        yield line, [answer.sample_id for answer in first]


def _place_effects(cell: AnswerCell) -> Iterator[str]:
    """Accuracy of the first and of the last rows of the batches against the others'."""
    effects = {place: PlaceEffect() for place in _PLACES}
    for rows in batches(cell):
        for number, answer in enumerate(rows):
            for place, is_there in _PLACES.items():
                effects[place].add(answer, marked=is_there(number, len(rows)))
    for place, found_there in effects.items():
        z, effect = found_there.judge()
        if abs(z) > _Z_LIMIT and abs(effect) > _MIN_EFFECT:
            yield (
                f"{cell.label}: the {place} rows of the batches score {effect:+.2f} against the others "
                f"({abs(z):.1f} standard deviations, question types held equal)"
            )


_PLACES: dict[str, Callable[[int, int], bool]] = {
    "first": lambda index, size: index == 0,
    "last": lambda index, size: index == size - 1,
}


@dataclass
class _Stratum:
    """Sums over the scored answers of one question type."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    marked: int = 0
    marked_total: float = 0.0


class PlaceEffect:
    """Compares the scores of marked answers with the others' within each question type.

    Question types often alternate with the sample's number, and so with its place in the batch: an easy type
    that always comes last would look like a broken batch.
    """

    def __init__(self) -> None:
        """Begin without an answer."""
        self._strata: dict[str | None, _Stratum] = defaultdict(_Stratum)

    def add(self, answer: Answer, *, marked: bool) -> None:
        """Take an answer in."""
        if answer.score is None:
            return
        stratum = self._strata[answer.kind]
        stratum.count += 1
        stratum.total += answer.score
        stratum.squares += answer.score**2
        if marked:
            stratum.marked += 1
            stratum.marked_total += answer.score

    def judge(self) -> tuple[float, float]:
        """Return what the answers say.

        Returns:
            The stratified permutation test's z (exact mean and variance of the marked answers' total score when
            scores are shuffled within types, normal approximation), and the marked answers' mean score minus the
            mean expected then.
        """
        excess, variance, num_informative = 0.0, 0.0, 0
        for one in self._strata.values():
            if one.count < 2 or one.marked in (0, one.count):
                continue
            mean = one.total / one.count
            spread = max(0.0, one.squares / one.count - mean**2)
            excess += one.marked_total - one.marked * mean
            variance += one.marked * (one.count - one.marked) / (one.count - 1) * spread
            num_informative += one.marked
        if variance == 0.0:
            return 0.0, 0.0
        return excess / math.sqrt(variance), excess / num_informative


def _same_work(file: AnswerFile) -> Iterator[tuple[str, list[str]]]:
    """Two cells of one method that kept the same patches at the same positions must answer a sample alike."""
    methods: dict[tuple[object, ...], list[AnswerCell]] = defaultdict(list)
    for cell in file.cells:
        methods[cell.task, cell.method, cell.positions].append(cell)
    compared, differing, examples = 0, 0, list[str]()
    for cells in methods.values():
        for earlier, later, sample_id, agree in _pairs_of_same_work(_with_shared_counts(cells)):
            compared += 1
            differing += not agree
            if not agree and len(examples) < NUM_EXAMPLES:
                examples.append(f"{sample_id} in {earlier} and {later}")
    if differing > EMPTY_SHARE_LIMIT * compared:
        counted = percent(differing, compared)
        yield f"{counted} pairs of one sample, one method and the same kept patches have two answers", examples


def _with_shared_counts(cells: Sequence[AnswerCell]) -> list[AnswerCell]:
    """Return the cells that can have kept the same patches as another: of budgets far apart none can."""
    if len(cells) < 2:
        return []
    counts = [{answer.num_kept for answer in cell.answered if chose_some(answer)} for cell in cells]
    times = Counter(count for own in counts for count in own)
    return [cell for cell, own in zip(cells, counts, strict=True) if any(times[count] > 1 for count in own)]


def _pairs_of_same_work(cells: Sequence[AnswerCell]) -> Iterator[tuple[str, str, str, bool]]:
    """Yield two cells, a sample that both answered from the same patches, and whether they answered alike."""
    seen: dict[int, tuple[int, str]] = {}
    for number, cell in enumerate(cells):
        for answer in cell.by_sample.values():
            if not chose_some(answer):
                continue
            # Hashes, as the sets of all cells of a method are many; one in billions is another's.
            key = hash((answer.sample_id, answer.kept_sets))
            earlier, response = seen.setdefault(key, (number, answer.response))
            if earlier != number and response.strip() and not answer.empty:
                yield cells[earlier].label, cell.label, answer.sample_id, response == answer.response
