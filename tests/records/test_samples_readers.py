"""The three that read `samples.jsonl` (a sweep that goes on, the doctor, the report) read the same lines."""

from collections.abc import Callable
from pathlib import Path

import pytest
from run_records import sample_record

from adallava.doctor import load_answers
from adallava.errors import RunFolderError
from adallava.records.journal import read_done
from adallava.records.read import read_samples

LINES = [sample_record(sample_id=name, question="é").model_dump_json().encode() + b"\n" for name in "ab"]

READERS: dict[str, Callable[[Path], int]] = {
    "sweep": lambda folder: len(read_done(folder)),
    "doctor": lambda folder: len(list(load_answers(folder).answers)),
    "report": lambda folder: len(list(read_samples(folder))),
}


def write(folder: Path, data: bytes) -> Path:
    (folder / "samples.jsonl").write_bytes(data)
    return folder


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("blank", [b"", b"\n", b" \t\r\n\n"])
def test_blank_lines_are_nothing_to_read(tmp_path: Path, reader: str, blank: bytes) -> None:
    write(tmp_path, blank + LINES[0] + blank + LINES[1] + blank)
    assert READERS[reader](tmp_path) == 2


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "damage",
    [b"{}", b"[1]", b"\xff\xfe", LINES[1].replace("é".encode(), b"\xe9").strip(), b"[" * 100_000, b"\0" * 40],
)
def test_a_damaged_line_is_refused_by_file_and_line(tmp_path: Path, reader: str, damage: bytes) -> None:
    with pytest.raises(
        RunFolderError, match=r"line 2 of .*samples\.jsonl is not .*\. Remove that line: the others stay"
    ):
        READERS[reader](write(tmp_path, LINES[0] + damage + b"\n"))


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_line_is_left_for_a_sweep_noted_by_the_doctor_and_refused_for_a_report(tmp_path: Path, cut: int) -> None:
    write(tmp_path, LINES[0] + LINES[1][:-cut])
    assert len(read_done(tmp_path)) == 1
    file = load_answers(tmp_path)
    assert (len(list(file.answers)), len(file.notes)) == (1, 1)
    with pytest.raises(RunFolderError, match=r"line 2 of .*samples\.jsonl is torn.* run the same sweep again"):
        list(read_samples(tmp_path))


def test_of_the_same_line_twice_a_report_reads_one_and_says_so_and_refuses_another_answer(tmp_path: Path) -> None:
    said: list[str] = []
    write(tmp_path, LINES[0] + LINES[1] + LINES[0])
    assert [record.sample_id for record in read_samples(tmp_path, said.append)] == ["a", "b"]
    assert said == [f"note: 1 lines of {tmp_path / 'samples.jsonl'} are there twice, and were read once"]
    other = sample_record(sample_id="a", question="é", response="another").model_dump_json().encode() + b"\n"
    with pytest.raises(RunFolderError, match=r"line 3 of .*samples\.jsonl is another answer .*, a, draw 0\): remove"):
        list(read_samples(write(tmp_path, LINES[0] + LINES[1] + other)))
