"""lmms-eval's files may be a stranger's: a gzipped one holds a thousand times its size, a number has any length."""

import gzip
from pathlib import Path

import pytest

from adallava.doctor import load_answers
from adallava.doctor.sources import lmms_eval_rows
from adallava.errors import InputError


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmms_eval_rows, "MAX_UNPACKED_BYTES", 100)
    path = tmp_path / "samples_t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"doc_id": 1}' + b" " * 87))
    assert lmms_eval_rows.read_rows(path)[0] == [{"doc_id": 1}]

    path.write_bytes(gzip.compress(b'{"doc_id": 1}' + b" " * 88))
    with pytest.raises(InputError, match="unpacks to more than 100 bytes"):
        lmms_eval_rows.read_rows(path)


def test_a_score_that_no_float_holds_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "samples_t.jsonl"
    path.write_text(f'{{"doc_id": 1, "resps": ["x"], "exact_match": {"9" * 400}}}\n')
    with pytest.raises(InputError, match=r"samples_t.jsonl, entry 1: not a sample of lmms-eval"):
        load_answers(path)
