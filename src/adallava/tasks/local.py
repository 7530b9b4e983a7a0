"""A task from a file of the user's own: JSONL or parquet with images, questions and answers."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from adallava.errors import InputError

from .images import open_rgb
from .rows import Row, Rows, open_rows
from .task import Task, TaskSample

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "question": ("question",),
    "answer": ("answers", "answer", "label"),
    "id": ("id",),
    "kind": ("kind",),
}
"""What a column can be for, and the names that are recognised without being told, the first match first."""

_REQUIRED = ("image", "question", "answer")


def local_task(path: Path, *, limit: int | None = None, columns: Mapping[str, str] | None = None) -> Task:
    """Read the first `limit` rows of a `.jsonl` or `.parquet` file as a task.

    Args:
        path: image paths in it are relative to its folder.
        limit: None reads all rows.
        columns: which column is `image`, `question`, `answer`, `id`, `kind`; others are recognised by name.
            Without an id column, ids are `row-0`, `row-1`, ...

    Raises:
        InputError: for an unreadable file, a missing column, a row without question or answer, or repeated
        ids.
            A picture that cannot be read is an error of its sample, raised by `load_image`.
    """
    rows = open_rows(path)
    chosen = resolve_columns(rows.columns, columns or {}, path)
    texts = rows.read([column for role, column in chosen.items() if role != "image"], limit)
    samples = tuple(_sample(path, rows, chosen, number, row) for number, row in enumerate(texts))
    _check_ids_unique(samples, path)
    return Task(str(path), samples, split=None, sha256=_file_sha256(path), columns=chosen)


def resolve_columns(present: Sequence[str], named: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return the column for each role: as named, else by its usual name; optional roles may be absent.

    Raises:
        InputError: listing the file's columns, if one is missing.
    """
    chosen: dict[str, str] = {}
    for role, usual in ROLES.items():
        if role in named and named[role] not in present:
            raise InputError(f"{path} has no column {named[role]!r}; its columns are: {', '.join(present)}")
        column = named.get(role) or next((name for name in usual if name in present), None)
        if column is not None:
            chosen[role] = column
        elif role in _REQUIRED:
            raise InputError(
                f"{path} has no column {' or '.join(map(repr, usual))}: name its {role} column with "
                f"--{role}-column; its columns are: {', '.join(present)}"
            )
    return chosen


def _sample(path: Path, rows: Rows, columns: Mapping[str, str], number: int, row: Row) -> TaskSample:
    question = row[columns["question"]]
    answers = _answers(row[columns["answer"]])
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{path}, row {number}: column {columns['question']!r} holds no question")
    if not any(answer.strip() for answer in answers):
        raise InputError(f"{path}, row {number}: column {columns['answer']!r} holds no answer")
    given_id = row[columns["id"]] if "id" in columns else f"row-{number}"
    if given_id is None:
        raise InputError(f"{path}, row {number}: column {columns['id']!r} is empty; every sample needs an id")
    kind = row[columns["kind"]] if "kind" in columns else None
    return TaskSample(
        id=str(given_id),
        question=question,
        answers=answers,
        kind=None if kind is None else str(kind),
        load_image=partial(_load_image, rows, number, columns["image"]),
    )


def _answers(value: Any) -> tuple[str, ...]:
    # A list holds alternatives; VQA's files wrap each one as {"answer": ...}.
    values = value if isinstance(value, list) else [value]
    texts = (item.get("answer") if isinstance(item, dict) else item for item in values)
    # A blank one stays: it is what one of the people said, and no response is right by it alone.
    return tuple(str(text) for text in texts if text is not None)


def _load_image(rows: Rows, number: int, column: str) -> Image.Image:
    return open_rgb(rows.picture(number, column))


def _check_ids_unique(samples: Sequence[TaskSample], path: Path) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise InputError(f"{path}: id {sample.id!r} repeats; name a column of unique ids with --id-column")
        seen.add(sample.id)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
