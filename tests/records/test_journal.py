import errno
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from run_records import failed, run, sample_record

from adallava.errors import RunFolderError
from adallava.records import TimingRecord, file_locks
from adallava.records.answer_places import answer_key
from adallava.records.file_locks import lock_file
from adallava.records.journal import (
    Journal,
    append_durably,
    locked_folder,
    read_timings,
    record_lines,
    share_file,
    write_atomically,
    write_record,
    write_timings,
)


def records(*ids):
    return [sample_record(sample_id=i, question=f"é\n{i}") for i in ids]


def held(journal):
    """Return what a journal reads of its only cell."""
    found = journal.read_cell("full@1.0")
    assert len(journal.done) == len(found)
    assert all(answer_key(record) in journal.done for record in found)
    return found


def test_what_was_appended_is_there_again(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a", "b"))
        journal.append(records("c"))
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a", "b", "c")


def test_cut_at_any_byte_whole_lines_stay_and_the_rest_can_be_written_again(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a", "b"))
    whole = (tmp_path / "samples.jsonl").read_bytes()
    # Bytes of one value are alike: about each end of a line all of them, elsewhere every fifth.
    ends = [place for place in range(len(whole) + 1) if b"\n" in whole[max(0, place - 4) : place + 4]]
    for cut in sorted({*ends, *range(0, len(whole) + 1, 5)}):
        (tmp_path / "samples.jsonl").write_bytes(whole[:cut])
        with Journal(tmp_path, run()) as journal:
            left = records("a", "b")[: whole[:cut].count(b"\n")]
            assert held(journal) == left
            journal.append(records("a", "b")[len(left) :])
        assert (tmp_path / "samples.jsonl").read_bytes() == whole


@pytest.mark.parametrize("num_bytes", [1, 2**16 - 1, 2**16, 200_000])
def test_zeros_that_a_power_cut_left_are_cut_off(tmp_path, num_bytes):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(bytes(num_bytes))
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a")


def test_blank_lines_are_none(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a", "b"))
    first, second = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join([b"", first, b"  ", second, b"", b""]))
    with Journal(tmp_path, run()) as journal:
        assert [record.sample_id for record in journal.read_cell(records("a")[0].cell)] == ["a", "b"]


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"cell": 1'])
def test_damage_before_the_last_line_is_refused(tmp_path, line):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a", "b"))
    first, second = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    (tmp_path / "samples.jsonl").write_bytes(b"\n".join([first, line, second, b""]))
    with pytest.raises(RunFolderError, match="line 2"):
        Journal(tmp_path, run())


def test_a_sample_twice_is_refused(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
        journal.append(records("a"))
    with pytest.raises(RunFolderError, match=r"line 2 of .*samples\.jsonl holds an answer twice.* remove that line"):
        Journal(tmp_path, run())


@pytest.mark.parametrize("second", ["2", "3"], ids=["agreeing", "differing"])
def test_of_an_answer_twice_in_a_share_the_first_stays_and_nothing_is_lost(tmp_path, second):
    first, again = sample_record(batch_ms=8.0), sample_record(batch_ms=9.0, response=second, score=float(second == "2"))
    with lock_file(tmp_path / "samples-1.jsonl") as share:
        append_durably(share, record_lines([first, *records("b"), again, *records("c")]))
    write_record(tmp_path / "run.json", run())
    for _ in range(2):
        with Journal(tmp_path, run()) as journal:
            assert held(journal) == [first, *records("b", "c")]
    assert not (tmp_path / "samples-1.jsonl").exists()


@pytest.mark.parametrize(
    ("config", "provenance", "named"),
    [
        ({"seed": 1}, {}, ["--seed was 0 and is 1"]),
        ({"limit": 9}, {}, ["--limit was 10 and is 9", "extended but not cut short", "ask for 10 or more"]),
        ({"sample": "random"}, {}, ["--sample was first and is random"]),
        ({"metric_version": 2}, {}, ["the version of the metric was 1 and is 2"]),
        ({"limit": 20, "seed": 1}, {}, ["--seed was 0 and is 1"]),
        ({"methods": ["random", "pool"]}, {}, ["--method was random and is random,pool"]),
        (
            {"batch_size": 4, "dtype": "bfloat16"},
            {},
            ["--batch-size was 2 and is 4", "--dtype was float32 and is bfloat16"],
        ),
        ({"question_suffix": " "}, {}, ['--question-suffix was none and is " "']),
        ({"draws": 2}, {}, ["--draws was 1 and is 2"]),
        ({"positions": ["original", "compact"]}, {}, ["--positions was original and is original,compact"]),
        ({}, {"weights_sha256": "f" * 64}, ["SHA-256 of the weights", " and is ffffffffffff…"]),
        ({}, {"adapter_sha256": {"question": "f" * 64}}, ["SHA-256 of the adapters", "question ffffffffffff…"]),
        ({}, {"task_sha256": None}, ["SHA-256 of the task's questions", "and is not recorded"]),
        ({}, {"adallava_version": "0.2.0"}, ["version of adallava"]),
        ({}, {"versions": {"torch": "2.13.0", "transformers": "5.17.0"}}, ["version of torch"]),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path, config, provenance, named):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunFolderError) as refused:
        Journal(tmp_path, run(config, provenance))
    assert all(name in str(refused.value) for name in [*named, "--output"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_same_run_at_another_time_by_another_command_goes_on(tmp_path):
    Journal(tmp_path, run()).__exit__()
    later = {"started_at": "2026-01-01T00:00:00+00:00", "command": "python -m adallava sweep", "git_dirty": True}
    Journal(tmp_path, run(provenance=later)).__exit__()
    assert json.loads((tmp_path / "run.json").read_text())["provenance"]["started_at"].startswith("2025")


def test_batch_sizes_to_time_at_are_added_to_the_same_run(tmp_path):
    for asked, named in (([], []), ([8, 1], [1, 8]), ([], [1, 8]), ([4], [1, 4, 8])):
        with Journal(tmp_path, run({"timing_batch_sizes": sorted(asked)})) as journal:
            assert journal.run.config.timing_batch_sizes == tuple(named)
        assert json.loads((tmp_path / "run.json").read_text())["config"]["timing_batch_sizes"] == named


def test_a_title_decides_no_answer_and_the_last_one_given_stays(tmp_path):
    for asked, titled in (("", ""), ("First", "First"), ("", "First"), ("Second", "Second")):
        with Journal(tmp_path, run({"title": asked})) as journal:
            assert journal.run.config.title == titled
        assert json.loads((tmp_path / "run.json").read_text())["config"]["title"] == titled


@pytest.mark.parametrize("name", ["samples.jsonl", "samples-1.jsonl", "results.json"])
def test_results_of_unknown_origin_are_not_touched(tmp_path, name):
    (tmp_path / name).write_text("something\n")
    with pytest.raises(RunFolderError, match="holds results without"):
        Journal(tmp_path, run())
    assert not (tmp_path / "run.json").exists()


def test_a_run_file_of_another_schema_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(RunFolderError, match="not a run of this version"):
        Journal(tmp_path, run())


def test_failed_samples_are_done_unless_asked_for_again(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append([*records("a"), failed(sample_id="b"), *records("c")])
    with Journal(tmp_path, run()) as journal:
        assert [record.sample_id for record in held(journal)] == ["a", "b", "c"]
    with Journal(tmp_path, run(), retry_failed=True) as journal:
        assert [record.sample_id for record in held(journal)] == ["a", "c"]
        journal.append(records("b"))
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a", "c", "b")


def test_draws_of_one_sample_are_answers_of_their_own(tmp_path):
    draws = [sample_record(draw=draw) for draw in range(3)]
    with Journal(tmp_path, run()) as journal:
        journal.append(draws)
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == draws
        journal.append(draws[1:2])
    with pytest.raises(RunFolderError, match="twice"):
        Journal(tmp_path, run())


def test_a_torn_line_of_the_timings_is_left_out_and_damage_before_it_refused(tmp_path):
    lines = [TimingRecord(cell=cell, batch_size=1, timing=None, error="no memory") for cell in "ab"]
    assert read_timings(tmp_path) == []
    write_timings(tmp_path, lines)
    path = tmp_path / "timings.jsonl"
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert read_timings(tmp_path) == lines[: whole[:cut].count(b"\n")]
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(RunFolderError, match=r"line 1 of .* is not a TimingRecord"):
        read_timings(tmp_path)


def test_a_file_that_cannot_be_written_is_named_and_what_was_written_stays(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
    with Journal(tmp_path, run()) as journal:
        # As on a full disk: every write to it fails, that of closing it too.
        os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file.fileno())
        with pytest.raises(RunFolderError, match=r"samples.jsonl cannot be written \(No space left on device\)"):
            journal.append(records("b"))
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a")
        journal.append(records("b"))
        assert held(journal) == records("a", "b")


def test_one_process_at_a_time(tmp_path):
    with locked_folder(tmp_path / "run"):
        attempt = (
            "import sys; from pathlib import Path; from adallava.records.journal import locked_folder\n"
            "from adallava.errors import RunFolderError\n"
            "try:\n  locked_folder(Path(sys.argv[1])).__enter__()\n"
            "except RunFolderError as error: sys.exit(str(error))"
        )
        other = subprocess.run(
            [sys.executable, "-c", attempt, str(tmp_path / "run")], capture_output=True, text=True, check=False
        )
        assert other.returncode == 1
        assert "another process is writing" in other.stderr
    with locked_folder(tmp_path / "run"):
        pass


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, [b"o", b"ld"])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, [b"new"])
    assert path.read_bytes() == b"old"


def test_what_a_kill_left_of_an_unfinished_file_is_dropped_though_this_run_writes_no_such_file(tmp_path):
    for name in ("samples.jsonl", "report.html"):
        (tmp_path / f"{name}.partial").write_text("the first half")
    with Journal(tmp_path, run()):
        assert {path.name for path in tmp_path.iterdir()} == {"run.json", "samples.jsonl"}


def test_what_other_ranks_left_is_moved_into_the_one_file(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
    for rank, ids in ((1, "bc"), (10, "d")):
        lines = [record.model_dump_json().encode() + b"\n" for record in records(*ids)]
        (tmp_path / f"samples-{rank}.jsonl").write_bytes(b"".join(lines) + lines[0][:40])
    with Journal(tmp_path, run()) as journal:
        assert sorted(record.sample_id for record in held(journal)) == ["a", "b", "c", "d"]
        journal.append(records("e"))
    assert [path.name for path in tmp_path.glob("samples*")] == ["samples.jsonl"]
    with Journal(tmp_path, run()) as journal:
        assert sorted(record.sample_id for record in held(journal)) == ["a", "b", "c", "d", "e"]


def test_moved_but_not_yet_dropped_they_are_not_doubled(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a", "b", "c"))
    whole = (tmp_path / "samples.jsonl").read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    # Killed within the move: the last line is torn in the one file, and whole in the other.
    (tmp_path / "samples.jsonl").write_bytes(first + second + third[:30])
    (tmp_path / "samples-1.jsonl").write_bytes(second + third)
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a", "b", "c")
    assert (tmp_path / "samples.jsonl").read_bytes() == whole


def test_failed_answers_of_other_ranks_are_forgotten_too(tmp_path):
    Journal(tmp_path, run()).__exit__()
    (tmp_path / "samples-1.jsonl").write_text(failed(sample_id="b").model_dump_json() + "\n")
    with Journal(tmp_path, run(), retry_failed=True) as journal:
        assert held(journal) == []


def test_a_file_that_a_rank_still_writes_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(file_locks, "_STRAGGLERS_S", 0.0)
    Journal(tmp_path, run()).__exit__()
    line = records("b")[0].model_dump_json() + "\n"
    (tmp_path / "samples-1.jsonl").write_text(line)
    with lock_file(tmp_path / "samples-1.jsonl"), pytest.raises(RunFolderError, match="still writing"):
        Journal(tmp_path, run())
    assert (tmp_path / "samples-1.jsonl").read_text() == line
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("b")


def test_a_journal_keeps_no_answer_in_memory_but_knows_them_all(tmp_path):
    answers = [sample_record(cell, str(number), kept_indices=[[*range(576)]]) for cell in "ab" for number in range(300)]
    with Journal(tmp_path, run()) as journal:
        journal.append(answers[:200])
    with lock_file(tmp_path / "samples-1.jsonl") as share:
        append_durably(share, record_lines(answers[200:]))
    tracemalloc.start()
    with Journal(tmp_path, run()) as journal:
        kept_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert kept_bytes / len(answers) < 500, "the indices alone are 576 pointers each"
        assert len(journal.done) == len(answers)
        assert all(answer_key(record) in journal.done for record in answers)
        assert ("a", "300", 0) not in journal.done
        assert journal.read_cell("b") == answers[300:]
        assert journal.read_cell("c") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_named_wherever_it_is_met_and_leaves_no_part(tmp_path):
    def lines_until_full():
        yield b"new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunFolderError, match=r"results.json.partial cannot be written \(No space left on device\)"):
        write_atomically(tmp_path / "results.json", lines_until_full())
    assert list(tmp_path.iterdir()) == []

    with Journal(tmp_path, run()) as journal:
        share_file(tmp_path, 1).write_bytes(b"".join(record_lines(records("a"))))
        journal._path = Path("/dev/full")
        with pytest.raises(RunFolderError, match=r"/dev/full cannot be written"):
            journal.gather()
    assert share_file(tmp_path, 1).exists()
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a")


def test_a_users_own_copy_of_answers_is_left_alone(tmp_path):
    with Journal(tmp_path, run()) as journal:
        journal.append(records("a"))
    copy = tmp_path / "samples-backup.jsonl"
    copy.write_text("anything")
    with Journal(tmp_path, run()) as journal:
        assert held(journal) == records("a")
    assert copy.read_text() == "anything"
