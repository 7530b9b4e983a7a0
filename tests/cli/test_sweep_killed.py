"""A sweep killed at random moments, again and again, ends as if it had never been touched."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from models import tiny_llava
from sweep_inputs import deterministic_cells, deterministic_samples, local_questions

# Forks once per line of input, so that torch is imported once for all attempts; every attempt is a process of its
# own, and really killed. Nothing runs torch before the fork.
_FORK_SERVER = """
import os, sys
import torch, adallava.evaluation.sweep
from adallava.cli.main import main
torch.set_num_threads(1)
print("ready", flush=True)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        os._exit(main(sys.argv[1:]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """Starts the same command again and again."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORK_SERVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._read() == "ready"

    def start(self) -> int:
        """Return the id of a new attempt's process."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._read())

    def wait(self) -> int:
        """Return the attempt's exit code; negative: the signal that ended it."""
        return int(self._read())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _read(self) -> str:
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    model = tiny_llava(folder / "model", adapters=False)
    task = local_questions(folder / "task")
    return [
        "sweep", "--model", str(model), "--task", str(task), "--limit", "all", "--batch-size", "4",
        "--max-new-tokens", "3", "--method", "random,pool,none", "--token-budget", "0.5,3", "--no-report",
    ]  # fmt: skip


def wait_until_written(path: Path, num_bytes: int, process: int) -> bool:
    """Return True once the file has so many bytes, False if the process ended before."""
    while not path.exists() or path.stat().st_size < num_bytes:
        if not Path(f"/proc/{process}").exists() or "zombie" in Path(f"/proc/{process}/status").read_text():
            return False
        time.sleep(0.0005)
    return True


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="watches processes through /proc")
def test_killed_at_random_moments_it_ends_as_if_untouched(arguments, tmp_path):
    draw = random.Random(0)
    server = ForkServer([*arguments, "--output", str(tmp_path / "untouched")])
    server.start()
    assert server.wait() == 1, "two pictures of the task cannot be read"
    server.close()
    expected = deterministic_samples(tmp_path / "untouched")
    total_bytes = (tmp_path / "untouched" / "samples.jsonl").stat().st_size

    killed, journal = 0, tmp_path / "killed" / "samples.jsonl"
    server = ForkServer([*arguments, "--output", str(tmp_path / "killed")])
    for attempt in range(40):
        process = server.start()
        # A few steps further each time: within the answers, and before, between and after their files.
        if wait_until_written(journal, draw.randrange(1 + total_bytes * (attempt + 1) // 8), process):
            time.sleep(draw.random() * 0.02)
        if Path(f"/proc/{process}").exists():
            os.kill(process, signal.SIGKILL)
        code = server.wait()
        assert code in (-signal.SIGKILL, 1)
        killed += code == -signal.SIGKILL
        if code == 1:
            break
    else:
        server.start()
        assert server.wait() == 1
    server.close()

    assert killed >= 5
    samples = deterministic_samples(tmp_path / "killed")
    assert len({(sample["cell"], sample["sample_id"]) for sample in samples}) == len(samples)
    assert samples == expected
    assert deterministic_cells(tmp_path / "killed") == deterministic_cells(tmp_path / "untouched")
    runs = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("untouched", "killed")]
    for run in runs:
        del run["provenance"]["started_at"], run["provenance"]["command"]
    assert runs[0] == runs[1]


def test_two_at_once_are_refused(arguments, tmp_path):
    first = [*arguments, "--limit", "all", "--output", str(tmp_path)]
    server = ForkServer(first)
    process = server.start()
    assert wait_until_written(tmp_path / "run.json", 1, process)
    os.kill(process, signal.SIGSTOP)  # for as long as the other one needs to look
    try:
        second = subprocess.run(
            [sys.executable, "-m", "adallava", *first], capture_output=True, text=True, check=False
        )
    finally:
        os.kill(process, signal.SIGCONT)
    assert second.returncode == 2
    assert "another process is writing" in second.stderr
    assert "Traceback" not in second.stderr
    assert server.wait() == 1
    server.close()
    assert len(deterministic_samples(tmp_path)) == 6 * 6
