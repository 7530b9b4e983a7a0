"""JSONL files: any file becomes a task whose samples can be asked and scored, or an error in words."""

import base64
import io
import json
from functools import partial
from pathlib import Path

import pytest
from fuzzing import SECONDS_EACH, fuzz, has_words, judge
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, json_text
from PIL import Image

from adallava.errors import AdallavaError
from adallava.tasks import Task
from adallava.tasks.local import local_task
from adallava.tasks.task import TaskSample

FINDINGS = {"no column to name": b"{}"}
"""Files that broke a rule, by what they are."""


def _png() -> str:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


_ROWS = [
    {"id": "a", "image": "red.png", "question": "What is it?", "answers": "red", "kind": "color"},
    {"id": 2, "image": {"bytes": _png(), "path": None}, "question": "Is it red?", "answers": [True, "yes"], "x": {}},
    {"id": "c", "image": _png(), "question": "How many?", "answers": 1.0, "kind": None},
    {"id": "d", "image": f"data:image/png;base64,{_png()}", "question": "Who?", "answers": [{"answer": "a"}] * 10},
]
_KEYS = ("id", "image", "question", "answer", "answers", "label", "kind", "bytes", "path")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    rows = draw(st.lists(st.sampled_from(_ROWS), min_size=1, max_size=4))
    rows = draw(damaged_json(rows, extra_keys=_KEYS))
    line_end = draw(st.sampled_from(("\n", "\n", "\n", "\r\n", "\n\n", "\r", "")))
    text = line_end.join(map(json_text, rows if isinstance(rows, list) else [rows]))
    data = text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))), "surrogatepass")
    return draw(damaged_bytes(data, most=draw(st.sampled_from((0, 0, 2)))))


def check(folder: Path, data: bytes) -> None:
    """Read a file by first and by random rows, show each picture, and score an answer to each question."""
    (folder / "questions.jsonl").write_bytes(data)
    check_task(local_task(folder / "questions.jsonl"))
    check_task(local_task(folder / "questions.jsonl", limit=2, sample="random", seed=3))


def check_task(task: Task) -> None:
    """Hold every sample to what a sweep takes for granted; a picture may fail, in words."""
    assert task.samples
    assert len({sample.id for sample in task.samples}) == len(task.samples)
    score = task.scorer()
    for sample in task.samples:
        json.dumps([sample.id, sample.question, sample.answers, sample.kind], ensure_ascii=False).encode()
        assert all(map(str.strip, (sample.id, sample.question, "".join(sample.answers))))
        assert all(0 <= score(sample, response) <= 1 for response in ("red", sample.question, *sample.answers))
        assert _shown(sample) in ("RGB", "refused")


def _shown(sample: TaskSample) -> str:
    try:
        return sample.load_images()[0].mode
    except AdallavaError as error:
        return "refused" if has_words(str(error)) else f"refused without words: {error}"


@pytest.mark.parametrize("name", FINDINGS)
def test_files_that_failed_once(name: str, folder: Path) -> None:
    judge(partial(check, folder), FINDINGS[name], folder)


def test_a_valid_file_is_a_task(folder: Path) -> None:
    assert judge(partial(check, folder), "\n".join(map(json.dumps, _ROWS)).encode(), folder) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_jsonl(folder: Path) -> None:
    tally = fuzz("JSONL files", files(), partial(check, folder), folder, findings=len(FINDINGS))
    assert tally.answered
    assert tally.refused
