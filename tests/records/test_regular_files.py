"""A run folder may be a stranger's: what is no file in it is named, never waited on, never written through."""

import os
from pathlib import Path

import pytest
from run_records import sample_record

from adallava.doctor import load_answers
from adallava.errors import RunFolderError
from adallava.records import read
from adallava.records.durable import make_folder, write_atomically
from adallava.records.journal import find_run, locked_folder, read_done, read_timings

READERS = {
    "run.json": (read.read_run, find_run),
    "results.json": (read.read_results, load_answers),
    "samples.jsonl": (lambda folder: list(read.read_samples(folder)), read_done, load_answers),
    "timings.jsonl": (read_timings,),
    ".lock": (lambda folder: locked_folder(folder).__enter__(),),
}


@pytest.mark.parametrize(
    ("name", "reader"), [(name, reader) for name, readers in READERS.items() for reader in readers]
)
def test_a_pipe_in_a_run_folder_is_refused_by_name(tmp_path: Path, name: str, reader: object) -> None:
    (tmp_path / "samples.jsonl").write_text(sample_record().model_dump_json() + "\n")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunFolderError, match=f"{name}.* is (a pipe|not a run)"):
        reader(tmp_path)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["pipe", "samples_t.jsonl", "x.jsonl.gz"])
def test_the_doctor_opens_no_pipe(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunFolderError, match="is a pipe"):
        load_answers(tmp_path / name)


def test_a_planted_partial_file_leads_nowhere(tmp_path: Path) -> None:
    """A link where the writer puts its unfinished file would have it write over what the link names."""
    users_own = tmp_path / "notes.txt"
    users_own.write_text("keep")
    (tmp_path / "report.html.partial").symlink_to(users_own)
    write_atomically(tmp_path / "report.html", [b"page"])

    assert users_own.read_text() == "keep"
    assert (tmp_path / "report.html").read_bytes() == b"page"
    assert not (tmp_path / "report.html").is_symlink()


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file cannot be made \(File exists\): name another"):
        make_folder(tmp_path / "file")
