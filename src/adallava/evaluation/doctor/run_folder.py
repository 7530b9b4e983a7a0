"""Load a run folder of `adallava sweep` for the doctor."""

import json
from collections import defaultdict
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError
from adallava.records import FULL_METHOD, Results, Run, SampleRecord

from ..plan import split_cell
from .answers import NO_BUDGET, Answer, AnswerCell, AnswerFile

_Model = TypeVar("_Model", bound=BaseModel)


def sample_files(folder: Path) -> list[Path]:
    """The files of a run folder that hold `SampleRecord` lines."""
    return sorted(folder.glob("samples*.jsonl"))


def load_run_folder(path: Path) -> AnswerFile:
    """Load a run folder, or one of its `samples*.jsonl` files with the summary beside it.

    A last line without its end (the process was killed while writing) is left out and noted.

    Raises:
        RunFolderError: if there is no sample, or a file is not what this package writes.
    """
    folder, files = (path, sample_files(path)) if path.is_dir() else (path.parent, [path])
    notes: list[str] = []
    records = [record for file in files for record in _read_samples(file, notes)]
    if not records:
        raise RunFolderError(f"{path} holds no answered sample: is it the folder that a sweep wrote to?")
    by_cell: dict[str, list[SampleRecord]] = defaultdict(list)
    for record in records:
        by_cell[record.cell].append(record)
    run = _read_model(folder / "run.json", Run)
    return AnswerFile(
        source=str(path),
        form="run-folder",
        cells=tuple(_to_cell(label, cell_records) for label, cell_records in by_cell.items()),
        results=_read_model(folder / "results.json", Results),
        config=run.config if run else None,
        notes=tuple(notes),
    )


def _read_model(path: Path, model: type[_Model]) -> _Model | None:
    if not path.exists():
        return None
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not a {model.__name__} of this package: {_first_line(error)}") from error


def _read_samples(path: Path, notes: list[str]) -> list[SampleRecord]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path} is not text: {error}") from error
    lines = text.split("\n")
    # The part behind the last line break is empty in a whole file and a torn record in an interrupted one.
    if lines.pop().strip():
        notes.append(f"{path.name}: the last line is torn, as after a kill; it was left out")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(SampleRecord.model_validate(json.loads(line)))
        except (ValidationError, json.JSONDecodeError) as error:
            raise RunFolderError(f"{path}, line {number}: not a sample record: {_first_line(error)}") from error
    return records


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        return f"{'.'.join(map(str, detail['loc'])) or 'file'}: {detail['msg']}"
    return str(error)


def _to_cell(label: str, records: list[SampleRecord]) -> AnswerCell:
    method, budget, positions = split_cell(label)
    answered = [record for record in records if record.finish_reason != "error"]
    # K = N makes a cell the full model's, whatever the budget's form (1.0, 100%, 576).
    keeps_all = all(record.tokens_asked == record.num_vision_tokens for record in answered)
    full = method == FULL_METHOD or (budget != NO_BUDGET and bool(answered) and keeps_all)
    full = full and all(record.scheduler is None for record in records)
    return AnswerCell(
        label=label,
        task="",
        method=method or None,
        budget=budget,
        full=full,
        answers=tuple(map(_to_answer, records)),
        positions=positions,
    )


def _to_answer(record: SampleRecord) -> Answer:
    kept, run = record.kept_indices, record.groups_run
    schedule = "" if record.scheduler is None else f"/{record.scheduler}@{record.latency_asked}"
    return Answer(
        cell=record.cell,
        sample_id=record.sample_id,
        draw=record.draw,
        positions=record.positions,
        question=record.question,
        targets=tuple(record.answers),
        response=record.response,
        score=record.score,
        kind=record.kind,
        error=record.error,
        method=record.method + schedule,
        budget_asked=record.budget_asked,
        num_vision_tokens=record.num_vision_tokens,
        tokens_asked=record.tokens_asked,
        tokens_planned=record.tokens_planned,
        chosen_per_sample=record.chosen_per_sample,
        tokens_kept=record.tokens_kept,
        tokens_at_end=record.tokens_at_end,
        kept_indices=None if kept is None else tuple(tuple(image) for image in kept),
        latency_asked=record.latency_asked,
        groups_run=None if run is None else tuple(tuple(groups) for groups in run),
        groups_per_layer=record.groups_per_layer,
        tokens_per_image=None if record.grids is None else tuple(record.tokens_per_image),
        # The latency token is no token of the text, whose length must be the same in every cell.
        prompt_length=record.prompt_length - record.latency_tokens,
        answer_length=record.answer_length,
        finish_reason=record.finish_reason,
        empty_cause=record.empty_cause,
        # The clock's reading is the batch's own: two neighbouring batches never share it to the last bit.
        batch_key=(record.batch_ms, record.batch_size),
        batch_size=record.batch_size,
    )
