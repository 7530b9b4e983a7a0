"""Load a run folder of `adallava sweep` for the doctor."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from adallava.doctor.answers import NO_BUDGET, Answer, AnswerCell, AnswerFile
from adallava.errors import RunFolderError
from adallava.records import FULL_METHOD, Results, Run, SampleRecord
from adallava.records.cells import split_cell
from adallava.records.first_samples import first_samples, id_of, told
from adallava.records.journal import share_files
from adallava.records.jsonl import read_lines
from adallava.records.lines import parse_line, what_is_wrong
from adallava.records.regular_files import open_regular, read_regular

_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value", bound=Hashable)


def sample_files(folder: Path) -> list[Path]:
    """The files of a run folder that hold `SampleRecord` lines."""
    return [*sorted(folder.glob("samples.jsonl")), *share_files(folder)]


def load_run_folder(path: Path) -> AnswerFile:
    """Load a run folder, or one of its `samples*.jsonl` files with the summary beside it.

    A last line without its end (the process was killed while writing) is left out and noted.

    Raises:
        RunFolderError: if there is no sample, or a file is not what this package writes.
    """
    folder, files = (path, sample_files(path)) if path.is_dir() else (path.parent, [path])
    notes: list[str] = []
    run = _read_model(folder / "run.json", Run)
    only = first_samples(files, run)
    if only is not None:
        notes.append(f"{told(only)}, and held to no results.json")
    shared, by_cell = _Shared(), defaultdict[str, list[Answer]](list)
    for file in files:
        for record in _read_samples(file, notes, only):
            by_cell[record.cell].append(_to_answer(record, shared))
    if not by_cell:
        raise RunFolderError(f"{path} holds no answered sample: is it the folder that a sweep wrote to?")
    return AnswerFile(
        source=str(path),
        form="run-folder",
        cells=tuple(_to_cell(label, answers) for label, answers in by_cell.items()),
        results=None if only is not None else _read_model(folder / "results.json", Results),
        config=run.config if run else None,
        notes=tuple(notes),
    )


def _read_model(path: Path, model: type[_Model]) -> _Model | None:
    if not path.exists():
        return None
    try:
        return model.model_validate_json(read_regular(path))
    except ValidationError as error:
        raise RunFolderError(f"{path} is not a {model.__name__} of this package: {what_is_wrong(error)}") from error


def _read_samples(path: Path, notes: list[str], only: frozenset[str] | None) -> Iterator[SampleRecord]:
    with open_regular(path) as file:
        for line in read_lines(file):
            if line.blank:
                continue
            if line.torn:
                notes.append(f"{path.name}: the last line is torn, as after a kill; it was left out")
                return
            if only is not None and (id_ := id_of(line.data)) is not None and id_ not in only:
                continue
            yield parse_line(path, line.number, line.data, SampleRecord)


class _Shared:
    """One object for all that are equal: a run's answers repeat each other, and indices of patches are most of them."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(self, value: _Value) -> _Value:
        """Return the first value that was equal to this one."""
        known: _Value = self._known.setdefault(value, value)
        return known

    def indices(self, lists: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...] | None:
        """Return lists of indices as tuples."""
        return None if lists is None else tuple(map(self._known_indices, map(tuple, lists)))

    def _known_indices(self, indices: tuple[int, ...]) -> tuple[int, ...]:
        known: tuple[int, ...] | None = self._known.get(indices)
        return self(tuple(map(self, indices))) if known is None else known


def _to_cell(label: str, answers: list[Answer]) -> AnswerCell:
    method, budget, positions = split_cell(label)
    answered = [answer for answer in answers if answer.finish_reason != "error"]
    # K = N makes a cell the full model's, whatever the budget's form (1.0, 100%, 576).
    keeps_all = all(answer.tokens_asked == answer.num_vision_tokens for answer in answered)
    full = method == FULL_METHOD or (budget != NO_BUDGET and bool(answered) and keeps_all)
    full = full and not any("/" in (answer.method or "") for answer in answers)
    return AnswerCell(
        label=label,
        task="",
        method=method or None,
        budget=budget,
        full=full,
        answers=tuple(answers),
        positions=positions,
    )


def _to_answer(record: SampleRecord, shared: _Shared) -> Answer:
    ran = record.ran
    schedule = "" if ran.scheduler is None else f"/{ran.scheduler}@{ran.latency_asked}"
    return Answer(
        cell=shared(record.cell),
        sample_id=shared(record.sample_id),
        draw=record.draw,
        positions=ran.positions,
        question=shared(record.question),
        targets=shared(tuple(record.answers)),
        response=shared(record.response),
        score=record.score,
        kind=shared(record.kind),
        picture_sha256=shared(record.picture_sha256),
        seen_share=shared(record.seen_share),
        error=record.error,
        method=shared(ran.method + schedule),
        budget_asked=shared(ran.budget_asked),
        num_vision_tokens=ran.num_vision_tokens,
        tokens_asked=ran.tokens_asked,
        tokens_planned=ran.tokens_planned,
        chosen_per_sample=ran.chosen_per_sample,
        tokens_kept=ran.tokens_kept,
        tokens_at_end=ran.tokens_at_end,
        kept_indices=shared.indices(ran.kept_indices or None),
        latency_asked=shared(ran.latency_asked),
        groups_run=shared(shared.indices(ran.groups_run)),
        groups_per_layer=ran.groups_per_layer,
        tokens_per_image=shared(tuple(ran.tokens_per_image)) if ran.grids else None,
        # The latency token is no token of the text, whose length must be the same in every cell.
        prompt_length=ran.prompt_length - ran.latency_tokens,
        answer_length=ran.answer_length,
        finish_reason=ran.finish_reason,
        empty_cause=record.empty_cause,
        engine=ran.engine,
        # The clock's reading is the batch's own: two neighbouring batches never share it to the last bit.
        batch_key=shared((record.batch_ms, record.batch_size)),
        batch_size=record.batch_size,
    )
