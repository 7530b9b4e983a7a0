"""A task from a file of the user's own: JSONL or parquet with images, questions and answers."""

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from textwrap import shorten

from PIL import Image

from adallava.errors import InputError
from adallava.records import SampleName

from .images import MAX_SAMPLE_PIXELS, open_rgb
from .references import PictureFolder, of_several
from .rows import Row, Rows, open_rows
from .sampling import random_order
from .scoring import EXACT_MATCH, check_answers, check_can_be_right
from .task import Task, TaskSample
from .values import answers_of, question_of, text_of

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("image",),
    "question": ("question",),
    "answer": ("answers", "answer", "label"),
    "id": ("id",),
    "kind": ("kind",),
}
"""What a column can be for, and the names that are recognized by themselves, the first match first."""

_REQUIRED = ("image", "question", "answer")


def local_task(
    path: Path,
    *,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    metric: str | None = None,
    sample: SampleName = "first",
    seed: int = 0,
    allow_outside: bool = False,
) -> Task:
    """Read rows of a `.jsonl` or `.parquet` file as a task.

    Args:
        path: image paths in it are relative to its folder.
        limit: of rows; None reads all.
        columns: which column is `image`, `question`, `answer`, `id`, `kind`; others are recognized by name.
            Without an id column, ids are `row-0`, `row-1`, ...
        metric: a name of `METRICS`, to score responses by; None where nothing will be scored.
        sample: which rows: the first, or a random sample, see `sampling.random_order`.
        seed: of the random sample.
        allow_outside: let image paths lead out of the file's folder.

    Raises:
        InputError: for an unreadable file, a missing column, a row without question or answer, or with answers that the
            metric cannot score, a value that is none (see `values`), an image path that leads out of the folder, or
            repeated ids; naming the row.
            A picture that cannot be read, or a list without any, is an error of its sample, raised by `load_images`.
    """
    rows = open_rows(path)
    chosen = resolve_columns(rows.columns, columns or {}, path)
    reader = _SampleReader(rows, chosen, PictureFolder(path, allow_outside), metric)
    samples = reader.first(limit) if sample == "first" else reader.random(limit, seed)
    _check_ids_unique((sample.id for sample in samples), path)
    return Task(str(path), samples, split=None, sha256=_file_sha256(path), columns=chosen, metric=metric or EXACT_MATCH)


def resolve_columns(present: Sequence[str], named: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return the column for each role: as named, else by its usual name; optional roles may be absent.

    Raises:
        InputError: listing the file's columns, if one is missing.
    """
    chosen: dict[str, str] = {}
    for role, usual in ROLES.items():
        if role in named and named[role] not in present:
            raise InputError(f"{path} has no column {named[role]!r}; {_told_columns(present)}")
        column = named.get(role) or next((name for name in usual if name in present), None)
        if column is not None:
            chosen[role] = column
        elif role in _REQUIRED:
            raise InputError(
                f"{path} has no column {' or '.join(map(repr, usual))}: name its {role} column with "
                f"--{role}-column; {_told_columns(present)}"
            )
    return chosen


def _told_columns(present: Sequence[str]) -> str:
    """Say which columns there are, of many the first."""
    names = [repr(name) if not name.isprintable() or not name.strip() else name for name in present]
    told = shorten(", ".join(names), 500, placeholder=" …")
    return f"its columns are: {told}" if told else "it has none"


class _SampleReader:
    """Turns rows into samples; what a row lacks is reported with file, row and column."""

    def __init__(self, rows: Rows, columns: Mapping[str, str], pictures: PictureFolder, metric: str | None) -> None:
        self._metric = metric
        self._rows = rows
        self._columns = columns
        self._pictures = pictures
        self._real_path = cache(os.path.realpath)

    def first(self, limit: int | None) -> tuple[TaskSample, ...]:
        """Return the first samples."""
        end = None if limit is None else min(limit, sys.maxsize)
        return tuple(self._read(range(sys.maxsize if end is None else end), end).values())

    def random(self, limit: int | None, seed: int) -> tuple[TaskSample, ...]:
        """Return a random sample, in the order of `random_order`."""
        roles = [self._columns[role] for role in ("id", "kind") if role in self._columns]
        all_rows = self._rows.read(roles or [self._columns["question"]], None, range(sys.maxsize), None)
        ids = [self._id(number, row) for number, row in all_rows.items()]
        _check_ids_unique(ids, self._pictures.file)
        kinds = [self._kind(number, row) for number, row in all_rows.items()]
        order = random_order(ids, kinds, seed)[:limit]
        samples = self._read(frozenset(order), max(order) + 1)
        return tuple(samples[number] for number in order)

    def _read(self, wanted: range | frozenset[int], end: int | None) -> dict[int, TaskSample]:
        image = self._columns["image"]
        texts = [column for role, column in self._columns.items() if role != "image"]
        return {number: self._sample(number, row) for number, row in self._rows.read(texts, image, wanted, end).items()}

    def _sample(self, number: int, row: Row) -> TaskSample:
        with self._told(number, "question") as column:
            question = question_of(row[column])
        with self._told(number, "answer") as column:
            answers = answers_of(row[column])
            if not any(answer.strip() for answer in answers):
                raise InputError("holds no answer")
            check_can_be_right(self._metric, answers)
        with self._told(number, "image") as column:
            named = [self._checked(name) for name in row.get(column, (None,))]
        sample_id = self._id(number, row)
        check_answers(self._metric, sample_id, answers)
        return TaskSample(
            id=sample_id,
            question=question,
            answers=answers,
            kind=self._kind(number, row),
            load_images=partial(_load_images, self._rows, self._pictures, number, column),
            pictures=tuple(name for name in named if name is not None) if all(named) else None,
        )

    def _checked(self, picture: str | None) -> str | None:
        """Return an image's name, the same for the same file."""
        if picture is None or self._pictures.is_inline(picture):
            return picture
        self._pictures.check(picture, self._real_path)
        return os.path.normpath(picture)

    def _id(self, number: int, row: Row) -> str:
        if "id" not in self._columns:
            return f"row-{number}"
        with self._told(number, "id") as column:
            given = "" if row[column] is None else text_of(row[column])
            if not given.strip():
                raise InputError("is empty; every sample needs an id")
            return given

    def _kind(self, number: int, row: Row) -> str | None:
        if "kind" not in self._columns or row[self._columns["kind"]] is None:
            return None
        with self._told(number, "kind") as column:
            return text_of(row[column])

    @contextmanager
    def _told(self, number: int, role: str) -> Iterator[str]:
        """Give the column of a role, and put file, row and column before what is said of its value."""
        column = self._columns[role]
        try:
            yield column
        except InputError as error:
            raise InputError(f"{self._rows.where(number)}: column {column!r} {error}") from None


def _load_images(rows: Rows, pictures: PictureFolder, number: int, column: str) -> tuple[Image.Image, ...]:
    sources = pictures.sources(rows.picture(number, column))
    images: list[Image.Image] = []
    for place, source in enumerate(sources, 1):
        with of_several(place, len(sources)):
            images.append(open_rgb(source))
            if sum(image.width * image.height for image in images) > MAX_SAMPLE_PIXELS:
                raise InputError(f"with those before it it is over the limit of {MAX_SAMPLE_PIXELS} pixels of a sample")
    return tuple(images)


def _check_ids_unique(ids: Iterable[str], path: Path) -> None:
    seen: set[str] = set()
    for sample_id in ids:
        if sample_id in seen:
            raise InputError(f"{path}: id {sample_id!r} repeats; name a column of unique ids with --id-column")
        seen.add(sample_id)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
