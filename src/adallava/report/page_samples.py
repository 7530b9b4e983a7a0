"""The samples of a page as packed columns: what its list, its filters and its images are made from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adallava.records.picture_frames import seen_share
from adallava.report.packed import bitmap, pack_bytes, pack_numbers, pack_texts
from adallava.report.pick_pictures import Pictures, kinds_of
from adallava.report.sample_table import Answers, SampleRow, SampleTable

SCORE_STEPS = 240
"""A score in [0, 1] is stored as a whole number of 240ths, rounded down: exact for tenths, thirds and halves, and never
moved over the line between wrong and right."""

FAILED, ABSENT = 255, 254
"""In place of a score: the cell failed on the sample; the cell never met it."""

RESPONSES_BYTES = 6_000_000
"""For all responses, packed: the different texts, and which is whose. With more, only the samples with an image keep
theirs."""

_MAX_RESPONSE, _MAX_QUESTION = 240, 500


def samples_json(
    table: SampleTable, pictures: Pictures, hard: frozenset[str] | None, drawn: SampleTable
) -> dict[str, Any]:
    """Return the packed columns. Rows are the samples in the table's order, columns the cells in the table's order.

    `drawn` is the table of the samples with images alone, whose answers have their patches.

    `scores` and `responses` are packed matrices [cells, samples]; of samples with images, `kept` is a packed matrix
    of bitmaps [samples, cells, kept_bytes], those of a sample's images one after the other, each from a byte's
    start, with a byte each in `has_kept` [samples, cells].
    """
    rows, cells = table.rows, list(table.columns)
    kinds = kinds_of(rows)
    texts, numbers, complete = _responses(table, set(pictures.ids))
    place = {row.sample_id: number for number, row in enumerate(rows)}
    kept, has_kept, kept_bytes = _kept(drawn, cells, [rows[place[id_]] for id_ in pictures.ids])
    return {
        "num_samples": len(rows),
        "cells": cells,
        "ids": pack_texts([row.sample_id for row in rows]),
        "questions": pack_texts([clipped(row.question, _MAX_QUESTION) for row in rows]),
        "expected": pack_texts([clipped(", ".join(row.expected), _MAX_RESPONSE) for row in rows]),
        "kinds": list(kinds),
        "kind_of": pack_numbers(np.array([_kind_number(row, kinds) for row in rows], dtype=np.uint32)),
        "scores": pack_bytes(_scores(table).tobytes()),
        "response_texts": texts,
        "responses": numbers,
        "responses_complete": complete,
        "hard": None if hard is None else pack_bytes(_hard(rows, hard)),
        "pictures": {
            "rows": [place[id_] for id_ in pictures.ids],
            "uris": [list(uris) for uris in pictures.uris],
            "missing": {place[id_]: reason for id_, reason in pictures.missing.items()},
            "frames": [
                [None if frame is None else [round(edge, 6) for edge in frame] for frame in frames]
                for frames in pictures.frames
            ],
            "shares": [_shares(rows[place[id_]]) for id_ in pictures.ids],
            "grids": [[list(grid) for grid in rows[place[id_]].grids] for id_ in pictures.ids],
            "kept": kept,
            "has_kept": has_kept,
            "kept_bytes": kept_bytes,
        },
    }


def clipped(text: str, most: int) -> str:
    """Return a text of at most so many characters, with an ellipsis for what was cut off."""
    return text if len(text) <= most else text[: most - 1] + "…"


def coded_score(answers: Answers | None) -> int:
    """Return a score in `SCORE_STEPS`, or `FAILED` or `ABSENT`."""
    if answers is None:
        return ABSENT
    score = answers.score
    return FAILED if score is None else int(score * SCORE_STEPS + 1e-6)


def _kind_number(row: SampleRow, kinds: Sequence[str]) -> int:
    """Return the type's place from 1 on; 0 is a sample without a type."""
    return kinds.index(row.kind) + 1 if row.kind else 0


def _shares(row: SampleRow) -> list[float | None]:
    """Return the share of each image that the model sees; None where it is not known."""
    if row.frames is None:
        return [None] * len(row.grids)
    return [round(seen_share(frame), 4) for frame in row.frames]


def _scores(table: SampleTable) -> NDArray[np.uint8]:
    coded = np.empty((len(table.columns), len(table.rows)), dtype=np.uint8)
    for number, answers in enumerate(table.columns.values()):
        coded[number] = np.fromiter((coded_score(answers.get(row.sample_id)) for row in table.rows), dtype=np.uint8)
    return coded


def _responses(table: SampleTable, with_picture: set[str]) -> tuple[str, str, bool]:
    """Return the different responses, each cell's responses by number, and whether all samples have theirs.

    Number 0 is a response that is not in the page.
    """
    everything = _numbered(table, None)
    texts, numbers = pack_texts(everything[0]), pack_numbers(everything[1])
    if len(texts) + len(numbers) <= RESPONSES_BYTES:
        return texts, numbers, True
    few = _numbered(table, with_picture)
    return pack_texts(few[0]), pack_numbers(few[1]), False


def _numbered(table: SampleTable, only: set[str] | None) -> tuple[list[str], NDArray[np.uint32]]:
    numbers: dict[str, int] = {"": 0}
    matrix = np.zeros((len(table.columns), len(table.rows)), dtype=np.uint32)
    for cell_number, answers_of in enumerate(table.columns.values()):
        for row_number, row in enumerate(table.rows):
            answers = answers_of.get(row.sample_id) if only is None or row.sample_id in only else None
            if answers is None:
                continue
            # A leading mark, so that an empty response differs from none.
            text = "=" + clipped(answers.text, _MAX_RESPONSE)
            matrix[cell_number, row_number] = numbers.setdefault(text, len(numbers))
    return list(numbers), matrix


def _hard(rows: Sequence[SampleRow], hard: frozenset[str]) -> bytes:
    return bitmap([number for number, row in enumerate(rows) if row.sample_id in hard], len(rows))


def _kept(drawn: SampleTable, cells: Sequence[str], rows: Sequence[SampleRow]) -> tuple[str, str, int]:
    kept_bytes = max((sum(-(-down * across // 8) for down, across in row.grids) for row in rows), default=0)
    bits, known = bytearray(), bytearray()
    for row in rows:
        for cell in cells:
            found = _kept_of(drawn.columns[cell], row)
            known.append(found is not None)
            bits += (found or b"").ljust(kept_bytes, b"\0")
    return pack_bytes(bytes(bits)), pack_bytes(bytes(known)), kept_bytes


def _kept_of(answers_of: Mapping[str, Answers], row: SampleRow) -> bytes | None:
    answers = answers_of.get(row.sample_id)
    if answers is None or answers.kept is None or answers.grids != row.grids:
        return None  # of another grid: it cannot be drawn on this one
    return b"".join(answers.kept)
