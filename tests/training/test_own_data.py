"""A user's own questions: shuffled by the seed, checked before a stage begins, known by what they say and show."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adallava.errors import InputError
from adallava.tasks import TaskSample
from adallava.training.own_data import OwnExamples, TaskExamples


def _anything_goes(_: TaskSample) -> None:
    return None


def _rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write pictures of different greys; return their rows."""
    for number in range(count):
        Image.new("RGB", (8, 8), (number, number, number)).save(folder / f"{number}.png")
    return [{"image": f"{n}.png", "question": f"question {n}", "answer": "yes"} for n in range(count)]


def _write(path: Path, rows: list[dict[str, Any]]) -> TaskExamples:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TaskExamples.from_file(path, {})


def _questions(examples: OwnExamples) -> list[str]:
    return [examples[index].questions[0] for index in range(len(examples))]


def test_each_epoch_has_every_usable_sample_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 12)
    (tmp_path / "4.png").write_bytes(b"no picture")
    data = _write(tmp_path / "mine.jsonl", rows)
    read = _questions(data.shuffled(22, 0, _anything_goes))
    whole = {row["question"] for row in rows} - {"question 4"}
    first, second = read[:11], read[11:]
    assert set(first) == set(second) == whole
    assert first != second
    assert first != sorted(first, key=lambda text: int(text.split()[1]))
    # The same seed gives the same order, so that a resumed run goes on in it; a longer one begins with it.
    assert read == _questions(data.shuffled(22, 0, _anything_goes))
    assert read == _questions(data.shuffled(33, 0, _anything_goes))[:22]
    assert read != _questions(data.shuffled(22, 1, _anything_goes))


def test_a_sample_has_each_question_once_and_is_not_the_first_rows(tmp_path: Path) -> None:
    data = _write(tmp_path / "mine.jsonl", _rows(tmp_path, 12))
    drawn = _questions(data.sample(5, 0, _anything_goes))
    assert set(Counter(drawn).values()) == {1}
    assert set(drawn) != {f"question {n}" for n in range(5)}
    assert len(data.sample(50, 0, _anything_goes)) == 12


def test_what_cannot_be_used_is_counted_with_its_reason(tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    rows = _rows(tmp_path, 4)
    (tmp_path / "1.png").write_bytes(b"no picture")
    data = _write(tmp_path / "mine.jsonl", rows)
    examples = data.shuffled(8, 0, lambda sample: "too long" if sample.question == "question 2" else None)
    assert (examples.num_rows, set(examples.left_out)) == (4, {"row-1", "row-2"})
    assert examples.left_out["row-2"] == "too long"
    assert "leaves out 2 of 4 samples" in "".join(record.getMessage() for record in logged)
    with pytest.raises(InputError, match=r"no sample of --data can be used: 4 of 4 .*too long"):
        data.shuffled(8, 0, lambda _: "too long")


def test_data_are_known_by_content_not_by_spelling(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 3)
    known = _write(tmp_path / "mine.jsonl", rows).shuffled(6, 0, _anything_goes).sha256
    # Another order of keys, another name, other files of the same pictures, and another format.
    (tmp_path / "copy").mkdir()
    for number in range(3):
        Image.open(tmp_path / f"{number}.png").save(tmp_path / "copy" / f"picture-{number}.bmp")
    spelt = [
        {"answer": r["answer"], "question": r["question"], "image": f"picture-{n}.bmp"} for n, r in enumerate(rows)
    ]
    assert _write(tmp_path / "copy" / "b.jsonl", spelt).shuffled(6, 0, _anything_goes).sha256 == known
    held = {
        "image": [{"bytes": (tmp_path / row["image"]).read_bytes(), "path": None} for row in rows],
        "question": [row["question"] for row in rows],
        "answer": [row["answer"] for row in rows],
    }
    pq.write_table(pa.table(held), tmp_path / "mine.parquet")
    parquet = TaskExamples.from_file(tmp_path / "mine.parquet", {})
    assert parquet.shuffled(6, 0, _anything_goes).sha256 == known
    # Another answer, and another picture under the same name.
    other = [*rows[:2], {**rows[2], "answer": "no"}]
    assert _write(tmp_path / "other.jsonl", other).shuffled(6, 0, _anything_goes).sha256 != known
    Image.new("RGB", (8, 8), "red").save(tmp_path / "0.png")
    assert _write(tmp_path / "mine.jsonl", rows).shuffled(6, 0, _anything_goes).sha256 != known


def test_a_picture_that_is_gone_is_told_by_its_sample(tmp_path: Path) -> None:
    examples = _write(tmp_path / "mine.jsonl", _rows(tmp_path, 1)).shuffled(2, 0, _anything_goes)
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match=r"sample row-0 could be read when training began.*put it back"):
        examples[1]


def test_a_blank_first_answer_is_not_what_is_learned(tmp_path: Path) -> None:
    rows = [{**_rows(tmp_path, 1)[0], "answer": ["", "yes"]}]
    assert _write(tmp_path / "mine.jsonl", rows).shuffled(1, 0, _anything_goes)[0].answers == ("yes",)
