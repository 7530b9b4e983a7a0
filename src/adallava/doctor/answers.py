"""What the doctor reads, whatever file it came from: answers in cells. A field a format lacks is None."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Literal, Protocol, overload, runtime_checkable

from adallava.errors import InputError
from adallava.records import FULL_METHOD, EmptyCause, Results, RunConfig
from adallava.records.index_sets import IndexSet, size

EMPTY_SHARE_LIMIT = 0.01
"""Above this share of empty answers a cell's score is not a score."""

MIN_SAMPLES_TO_COMPARE = 10
"""Fewer samples than these may well agree by chance."""

NUM_EXAMPLES = 5
"""Samples that a finding names."""

NO_BUDGET = "none"
"""Stands for the budget of a method that ignores it."""

Form = Literal["run-folder", "lmms-eval"]


@dataclass(frozen=True)
class Answer:
    """One answer to one sample.

    Attributes:
        cell: label of the cell (or file) it belongs to.
        sample_id: pairs answers across cells.
        draw: of a method that draws at random; 0 for others.
        positions: of the kept tokens; None if the file does not say.
        question: the prompt's text, or None.
        targets: the right answers, as far as the file names them.
        response: what the model is said to have written.
        score: in [0, 1] for this project's runs; any metric's value for lmms-eval.
        kind: question type.
        picture_sha256: samples about one picture share it; None if the file does not say.
        seen_share: of its pictures that share which the model saw least of; None if the file does not say.
        error: why the sample failed, if it did.
        method, budget_asked: what ran, according to the row itself.
        num_vision_tokens, tokens_asked, tokens_kept: N, K asked for, tokens that entered the LLM.
        tokens_at_end: tokens that the LLM's last layer read; fewer, for a method inside the LLM.
        tokens_planned: K that the method can keep of what was asked; None = K asked.
        chosen_per_sample: whether the choice depends on the sample; a grid's does not.
        kept_sets: per image, the patches kept.
        latency_asked: as the caller wrote it, or None.
        groups_run: for each LLM layer, the groups of heads that ran; None = all.
        groups_per_layer: that a layer is split into.
        tokens_per_image: N of each image; None if the file does not say.
        prompt_length, answer_length: tokens; the answer with its EOS.
        finish_reason: `eos`, `length` or `error`.
        empty_cause: why the response is empty, as recorded.
        engine: that ran it; None if the file does not say.
        batch_key: equal for neighboring rows if and only if they were answered in one batch.
        batch_size: rows in that batch.
    """

    cell: str
    sample_id: str
    question: str | None
    targets: tuple[str, ...]
    response: str
    score: float | None
    draw: int = 0
    positions: str | None = None
    kind: str | None = None
    picture_sha256: str | None = None
    seen_share: float | None = None
    error: str | None = None
    method: str | None = None
    budget_asked: str | None = None
    num_vision_tokens: int | None = None
    tokens_asked: int | None = None
    tokens_planned: int | None = None
    chosen_per_sample: bool = False
    tokens_kept: int | None = None
    tokens_at_end: int | None = None
    kept_sets: tuple[IndexSet, ...] | None = None
    latency_asked: str | None = None
    groups_run: tuple[tuple[int, ...], ...] | None = None
    groups_per_layer: int = 1
    tokens_per_image: tuple[int, ...] | None = None
    prompt_length: int | None = None
    answer_length: int | None = None
    finish_reason: str | None = None
    empty_cause: EmptyCause | None = None
    engine: str | None = None
    batch_key: tuple[float, int] | None = None
    batch_size: int | None = None

    @property
    def failed(self) -> bool:
        """True if there is no answer because an error was recorded."""
        return self.error is not None or self.finish_reason == "error"

    @property
    def empty(self) -> bool:
        """True if the sample did not fail and yet nothing readable was answered."""
        return not self.failed and not self.response.strip()

    @property
    def num_kept(self) -> int:
        """Patches kept, of all images; 0 where none are recorded."""
        return sum(map(size, self.kept_sets or ()))


@dataclass
class Sightings:
    """Answers that show something: of any number of them, how many, and the first of a few samples."""

    count: int = 0
    by_sample: dict[str, Answer] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> "Sightings":
        """Count answers, as they come."""
        seen = cls()
        for answer in answers:
            seen.add(answer)
        return seen

    def add(self, answer: Answer) -> None:
        """Count one more."""
        self.count += 1
        if len(self.by_sample) < NUM_EXAMPLES:
            self.by_sample.setdefault(answer.sample_id, answer)

    @property
    def first(self) -> Answer:
        """The first of them; there must be one."""
        return next(iter(self.by_sample.values()))

    @property
    def names(self) -> list[str]:
        """The first few, as `sample in cell`."""
        return [f"{answer.sample_id} in {answer.cell}" for answer in self.by_sample.values()]


@runtime_checkable
class KnowsSamples(Protocol):
    """Answers that know of each sample without being read through, as those that are not in memory do."""

    by_sample: Mapping[str, Answer]
    """See `AnswerCell.by_sample`."""
    repeated: frozenset[tuple[str, int]]
    """See `AnswerCell.repeated`."""


@dataclass(frozen=True)
class AnswerCell:
    """One method at one budget on one task.

    Attributes:
        label: as the user knows it, for instance `question@0.25` or a file's name.
        task: cells are compared within a task only;
        setup: and within one of these: what else they were answered with, where that is not the same in all, such as
            the model.
        method: as asked for, with `/<scheduler>@<latency>` after it where layers are left out; None if the file does
            not say.
        budget: as asked for, or None.
        full: True if all N tokens were asked for, None if that is not known.
        answers: in the order of the file. Of a run they need not be in memory: a check goes through them, one after the
            other, and keeps none.
        positions: of the kept tokens, as asked for, or None.
    """

    label: str
    task: str
    method: str | None
    budget: str | None
    full: bool | None
    answers: Sequence[Answer]
    positions: str | None = None
    setup: str = ""

    @property
    def group(self) -> str:
        """What cells that are compared have in common: the task, and the setup if there are several."""
        return f"{self.task} ({self.setup})" if self.setup else self.task

    @property
    def selection(self) -> str | None:
        """The selection method alone."""
        return None if self.method is None else self.method.partition("/")[0]

    @property
    def schedule(self) -> str:
        """`<scheduler>@<latency>`, or nothing where every layer runs."""
        return "" if self.method is None else self.method.partition("/")[2]

    @cached_property
    def answered(self) -> "Sequence[Answer]":
        """The answers of samples that did not fail."""
        return _Answered(self.answers)

    @cached_property
    def by_sample(self) -> Mapping[str, Answer]:
        """The first answer to each sample that did not fail: of several draws, which the file may mix, the first."""
        if isinstance(self.answers, KnowsSamples):
            return self.answers.by_sample
        first: dict[str, Answer] = {}
        for answer in sorted(self.answered, key=lambda answer: answer.draw):
            first.setdefault(answer.sample_id, answer)
        return first

    @cached_property
    def num_empty(self) -> int:
        """How many answers are empty."""
        return sum(answer.empty for answer in self.answers)

    @cached_property
    def num_draws(self) -> int:
        """How many draws there are, counted up to the last."""
        return 1 + max((answer.draw for answer in self.answers), default=0)

    @cached_property
    def repeated(self) -> frozenset[tuple[str, int]]:
        """Samples, each with its draw, that the file has more than one answer to."""
        if isinstance(self.answers, KnowsSamples):
            return self.answers.repeated
        times = Counter((answer.sample_id, answer.draw) for answer in self.answers)
        return frozenset(key for key, count in times.items() if count > 1)

    def repeated_responses(self, answers: Iterable[Answer]) -> dict[tuple[str, int], set[str]]:
        """Return the different responses among some of the cell's answers to each sample and draw in `repeated`."""
        responses: dict[tuple[str, int], set[str]] = defaultdict(set)
        for answer in answers if self.repeated else ():
            if (answer.sample_id, answer.draw) in self.repeated:
                responses[answer.sample_id, answer.draw].add(answer.response)
        return responses


class _Answered(Sequence[Answer]):
    """Those of a sequence that did not fail, read again each time."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = answers

    def __iter__(self) -> Iterator[Answer]:
        return (answer for answer in self._answers if not answer.failed)

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Answer]: ...

    def __getitem__(self, index: int | slice) -> Answer | Sequence[Answer]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return next(islice(self, index, None))

    @cached_property
    def _length(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class AnswerFile:
    """Everything loaded from one run folder, or from one file or folder of lmms-eval.

    Attributes:
        source: the path, as given.
        form: which format it is.
        cells: in the order of the files.
        results: the summary next to the answers, if there is one (this project's runs).
        config: what was asked for (this project's runs).
        notes: what the reader should know about the reading itself, such as a torn last line.
    """

    source: str
    form: Form
    cells: tuple[AnswerCell, ...]
    results: Results | None = None
    config: RunConfig | None = None
    notes: tuple[str, ...] = ()

    @property
    def answers(self) -> Iterator[Answer]:
        """All answers of all cells."""
        return (answer for cell in self.cells for answer in cell.answers)

    @cached_property
    def groups(self) -> dict[str, tuple[AnswerCell, ...]]:
        """The cells that are compared with each other, by `AnswerCell.group`."""
        grouped: dict[str, list[AnswerCell]] = defaultdict(list)
        for cell in self.cells:
            grouped[cell.group].append(cell)
        return {group: tuple(cells) for group, cells in grouped.items()}

    def full_cell(self, group: str) -> AnswerCell | None:
        """The full-token model's cell: `full` itself, otherwise the first cell at the full budget."""
        full_cells = [cell for cell in self.groups[group] if cell.full]
        named = [cell for cell in full_cells if cell.method == FULL_METHOD]
        return next(iter(named + full_cells), None)


def with_targets(file: AnswerFile, task: str, targets: Mapping[str, Sequence[str]]) -> AnswerFile:
    """Return the file with the right answers to a task's samples.

    Args:
        file: whose lines name none, or others.
        task: of its cells that they are for.
        targets: by the samples' ids.

    Raises:
        InputError: if no cell is of the task, or its samples are others.
    """
    tasks = dict.fromkeys(cell.task for cell in file.cells)
    if task not in tasks:
        raise InputError(f"{file.source} holds no samples of task {task!r}, only of {', '.join(map(repr, tasks))}")
    strange = {answer.sample_id for cell in file.cells if cell.task == task for answer in cell.answers} - set(targets)
    if strange:
        raise InputError(
            f"task {task!r} has no sample {min(strange)!r}, which {file.source} holds: is it another version?"
        )
    return replace(
        file,
        cells=tuple(
            replace(cell, answers=tuple(replace(one, targets=tuple(targets[one.sample_id])) for one in cell.answers))
            if cell.task == task
            else cell
            for cell in file.cells
        ),
    )


def percent(part: float, whole: float) -> str:
    """Write a count with its share: `12 of 300 (4.0 %)`."""
    return f"{part:g} of {whole:g} ({100 * part / whole:.1f} %)" if whole else f"{part:g} of 0"


def same_answers(cells: Sequence[AnswerCell]) -> bool:
    """True if two cells or more give every one of their samples the same answer, and answer at all."""
    answered = [cell.by_sample for cell in cells if cell.answered]
    if len(answered) < 2 or all(answer.empty for answer in answered[0].values()):
        return False
    return all(
        len(other) >= MIN_SAMPLES_TO_COMPARE
        and other.keys() == answered[0].keys()
        and all(answer.response == answered[0][sample_id].response for sample_id, answer in other.items())
        for other in answered
    )
