"""Load a run folder of `adallava sweep` for the doctor."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adallava.doctor.answers import NO_BUDGET, Answer, AnswerCell, AnswerFile
from adallava.doctor.stored_answers import Store, StoredAnswers
from adallava.errors import RunFolderError
from adallava.records import FULL_METHOD, Results, Run, SampleRecord
from adallava.records.cells import split_cell
from adallava.records.index_sets import IndexSet, index_set
from adallava.records.journal import share_files
from adallava.records.jsonl import Line, read_lines
from adallava.records.lines import parse_line, what_is_wrong
from adallava.records.regular_files import open_regular, read_regular
from adallava.records.sample import WITHOUT_PATCHES

_Model = TypeVar("_Model", bound=BaseModel)


def sample_files(folder: Path) -> list[Path]:
    """The files of a run folder that hold `SampleRecord` lines."""
    return [*sorted(folder.glob("samples.jsonl")), *share_files(folder)]


def load_run_folder(path: Path) -> AnswerFile:
    """Load a run folder, or one of its `samples*.jsonl` files with the summary next to it.

    A last line without its end (the process was killed while writing) is left out and noted. A run may have more
    answers than fit into memory: they are put aside (`stored_answers`).

    Raises:
        RunFolderError: if there is no sample, or a file is not what this package writes, or there is no room.
    """
    folder, files = (path, sample_files(path)) if path.is_dir() else (path.parent, [path])
    notes: list[str] = []
    run = _read_model(folder / "run.json", Run)
    store, by_cell = Store(), dict[str, _Loading]()
    for file in files:
        for record, kept_sets in _read_samples(file, notes):
            cell = by_cell.get(record.cell)
            if cell is None:
                cell = by_cell[record.cell] = _Loading(StoredAnswers(store))
            cell.add(_to_answer(record, kept_sets))
    if not by_cell:
        raise RunFolderError(f"{path} holds no answered sample: is it the folder that a sweep wrote to?")
    return AnswerFile(
        source=str(path),
        form="run-folder",
        cells=tuple(_to_cell(label, loaded) for label, loaded in by_cell.items()),
        results=_read_model(folder / "results.json", Results),
        config=run.config if run else None,
        notes=tuple(notes),
    )


@dataclass
class _Loading:
    """A cell while it is read, and what tells of a cell whether it is the full model's."""

    answers: StoredAnswers
    any_answered: bool = False
    keeps_all: bool = True
    any_scheduled: bool = False

    def add(self, answer: Answer) -> None:
        """Take one answer, and note what it shows of its method."""
        self.answers.add(answer)
        self.any_scheduled = self.any_scheduled or "/" in (answer.method or "")
        if answer.finish_reason != "error":
            self.any_answered = True
            self.keeps_all = self.keeps_all and answer.tokens_asked == answer.num_vision_tokens


def _read_model(path: Path, model: type[_Model]) -> _Model | None:
    if not path.exists():
        return None
    try:
        return model.model_validate_json(read_regular(path))
    except ValidationError as error:
        raise RunFolderError(f"{path} is not a {model.__name__} of this package: {what_is_wrong(error)}") from error


def _read_samples(path: Path, notes: list[str]) -> Iterator[tuple[SampleRecord, tuple[IndexSet, ...]]]:
    """Yield records without their patches, and the patches as the line has them, which takes less memory."""
    with open_regular(path) as file:
        for line in read_lines(file):
            if line.blank:
                continue
            if line.torn:
                notes.append(f"{path.name}: the last line is torn, as after a kill; it was left out")
                return
            record = parse_line(path, line.number, line.data, SampleRecord, WITHOUT_PATCHES)
            yield record, _kept_sets(path, line)


def _kept_sets(path: Path, line: Line) -> tuple[IndexSet, ...]:
    """Return the sets of patches of a line that is a record in all else.

    Raises:
        RunFolderError: if they are none.
    """
    sets = json.loads(line.data).get("kept_indices", [])
    with suppress(ValueError):
        if isinstance(sets, list) and all(map(_is_plain, sets)):
            return tuple(map(index_set, sets))
    # So that it is said what is wrong, or for numbers that are written as a person might.
    return tuple(map(index_set, parse_line(path, line.number, line.data, SampleRecord).ran.kept_indices))


def _is_plain(one: object) -> bool:
    return isinstance(one, str) or (isinstance(one, list) and set(map(type, one)) <= {int})


def _to_cell(label: str, loaded: _Loading) -> AnswerCell:
    method, budget, positions = split_cell(label)
    # K = N makes a cell the full model's, whatever the budget's form (1.0, 100%, 576).
    full = method == FULL_METHOD or (budget != NO_BUDGET and loaded.any_answered and loaded.keeps_all)
    full = full and not loaded.any_scheduled
    return AnswerCell(
        label=label,
        task="",
        method=method or None,
        budget=budget,
        full=full,
        answers=loaded.answers,
        positions=positions,
    )


def _to_answer(record: SampleRecord, kept_sets: tuple[IndexSet, ...]) -> Answer:
    ran = record.ran
    schedule = "" if ran.scheduler is None else f"/{ran.scheduler}@{ran.latency_asked}"
    return Answer(
        cell=record.cell,
        sample_id=record.sample_id,
        draw=record.draw,
        positions=ran.positions,
        question=record.question,
        targets=tuple(record.answers),
        response=record.response,
        score=record.score,
        kind=record.kind,
        picture_sha256=record.picture_sha256,
        seen_share=record.seen_share,
        error=record.error,
        method=ran.method + schedule,
        budget_asked=ran.budget_asked,
        num_vision_tokens=ran.num_vision_tokens,
        tokens_asked=ran.tokens_asked,
        tokens_planned=ran.tokens_planned,
        chosen_per_sample=ran.chosen_per_sample,
        tokens_kept=ran.tokens_kept,
        tokens_at_end=ran.tokens_at_end,
        kept_sets=kept_sets or None,
        latency_asked=ran.latency_asked,
        groups_run=ran.groups_run,
        groups_per_layer=ran.groups_per_layer,
        tokens_per_image=tuple(ran.tokens_per_image) if ran.grids else None,
        # The latency token is not a token of the text, whose length must be the same in every cell.
        prompt_length=ran.prompt_length - ran.latency_tokens,
        answer_length=ran.answer_length,
        finish_reason=ran.finish_reason,
        empty_cause=record.empty_cause,
        engine=ran.engine,
        # The clock's reading is the batch's own: two neighboring batches never share it to the last bit.
        batch_key=(record.batch_ms, record.batch_size),
        batch_size=record.batch_size,
    )
