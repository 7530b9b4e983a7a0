"""A sweep killed at random moments, again and again, ends as if it had never been touched."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest
from sweep_inputs import deterministic_results, deterministic_samples, local_questions


class Sweeps:
    """One after the other, each in a process of its own that no launcher started, and really killed."""

    def __init__(self, server, log):
        self._server, self._log = server, log

    def start(self, arguments):
        (process,) = self._server.start(arguments, 1, self._log, launched=False)
        return process

    def wait(self):
        """Return the process's exit code; negative: the signal that ended it."""
        (code,) = self._server.wait()
        return code


@pytest.fixture(scope="module")
def sweeps(server, tmp_path_factory):
    return Sweeps(server, tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def arguments(tiny_folder, tmp_path_factory):
    task = local_questions(tmp_path_factory.mktemp("task"))
    return [
        "sweep", "--model", str(tiny_folder), "--task", str(task), "--limit", "all", "--batch-size", "4",
        "--max-new-tokens", "3", "--method", "random,none", "--token-budget", "0.5,3", "--no-report", "--draws", "2",
        "--positions", "original,compact",
    ]  # fmt: skip


def wait_until_written(path: Path, num_bytes: int, process: int) -> bool:
    """Return True once the file has so many bytes, False if the process ended before."""
    while not path.exists() or path.stat().st_size < num_bytes:
        if not Path(f"/proc/{process}").exists():
            return False
        time.sleep(0.001)
    return True


@pytest.fixture(scope="module")
def untouched(sweeps, arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "untouched"
    sweeps.start([*arguments, "--output", str(folder)])
    assert sweeps.wait() == 1, "two pictures of the task cannot be read"
    return folder


def assert_as_if_untouched(folder, untouched):
    samples = deterministic_samples(folder)
    assert len({(sample["cell"], sample["sample_id"], sample["draw"]) for sample in samples}) == len(samples)
    assert samples == deterministic_samples(untouched)
    assert deterministic_results(folder) == deterministic_results(untouched)
    runs = [json.loads((one / "run.json").read_text()) for one in (untouched, folder)]
    for run in runs:
        del run["provenance"]["started_at"], run["provenance"]["command"]
    assert runs[0] == runs[1]


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="watches processes through /proc")
def test_killed_in_the_middle_it_ends_as_if_untouched(sweeps, arguments, untouched, tmp_path):
    journal = tmp_path / "killed" / "samples.jsonl"
    process = sweeps.start([*arguments, "--output", str(tmp_path / "killed")])
    assert wait_until_written(journal, (untouched / "samples.jsonl").stat().st_size // 2, process)
    os.kill(process, signal.SIGKILL)
    assert sweeps.wait() == -signal.SIGKILL
    with journal.open("r+b") as file:  # As a kill in the middle of a write leaves it.
        file.truncate(journal.stat().st_size - 7)
    sweeps.start([*arguments, "--output", str(tmp_path / "killed")])
    assert sweeps.wait() == 1
    assert_as_if_untouched(tmp_path / "killed", untouched)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="watches processes through /proc")
def test_killed_at_random_moments_it_ends_as_if_untouched(sweeps, arguments, untouched, tmp_path):
    total_bytes = (untouched / "samples.jsonl").stat().st_size
    draw = random.Random(0)
    killed, code, journal = 0, None, tmp_path / "killed" / "samples.jsonl"
    while code != 1:
        process = sweeps.start([*arguments, "--output", str(tmp_path / "killed")])
        # Each time up to a bit further: within the answers, and before, between and after their files.
        if wait_until_written(journal, draw.randrange(1 + total_bytes * (killed + 1) // 6), process):
            time.sleep(draw.random() * 0.02)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        code = sweeps.wait()
        assert code in (-signal.SIGKILL, 1)
        killed += code == -signal.SIGKILL
        assert killed < 50

    assert killed >= 4
    assert_as_if_untouched(tmp_path / "killed", untouched)


@pytest.mark.timeout(900)
@pytest.mark.long
def test_two_at_once_are_refused(sweeps, arguments, tmp_path):
    command = [*arguments, "--output", str(tmp_path)]
    process = sweeps.start(command)
    assert wait_until_written(tmp_path / "run.json", 1, process)
    os.kill(process, signal.SIGSTOP)  # for as long as the other one needs to look
    try:
        second = subprocess.run(
            [sys.executable, "-m", "adallava", *command], capture_output=True, text=True, check=False
        )
    finally:
        os.kill(process, signal.SIGCONT)
    assert sweeps.wait() == 1
    assert second.returncode == 2
    assert "another process is writing" in second.stderr
    assert "Traceback" not in second.stderr
    assert len(deterministic_samples(tmp_path)) == 6 * (2 + 4 * 2)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="watches processes through /proc")
def test_killed_while_timing_it_times_the_batch_size_again(sweeps, arguments, tmp_path):
    command = [*arguments, "--output", str(tmp_path), "--timing-batch-sizes", "1,3"]
    command[command.index("0.5,3")] = "3"
    timings = tmp_path / "timings.jsonl"
    process = sweeps.start(command)
    assert wait_until_written(timings, 1, process), "the first batch size is done"
    os.kill(process, signal.SIGKILL)
    sweeps.wait()
    first = timings.read_bytes()
    assert {json.loads(line)["batch_size"] for line in first.splitlines()} == {1}
    answers = (tmp_path / "samples.jsonl").read_bytes()
    sweeps.start(command)
    assert sweeps.wait() == 1
    assert timings.read_bytes().startswith(first)
    lines = [json.loads(line) for line in timings.read_text().splitlines()]
    cells = {"full@1.0", "none@none", "random@3", "random@3+compact"}
    assert sorted((line["cell"], line["batch_size"]) for line in lines) == sorted(product(cells, (1, 3)))
    assert all(line["error"] is None for line in lines)
    assert (tmp_path / "samples.jsonl").read_bytes() == answers
