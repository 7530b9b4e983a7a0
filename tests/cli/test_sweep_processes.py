"""A sweep shared by several processes of a host gives what one process gives, whoever is killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rank_server import answers_of, wait_until
from sweep_inputs import assert_same_answers, local_questions

from adallava.cli.main import main

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def arguments(tiny_folder, tmp_path_factory):
    """Six cells, two of the seven pictures unreadable, four batches of which the last is half full."""
    task = local_questions(tmp_path_factory.mktemp("task"))
    rows = [json.loads(line) for line in task.read_text().splitlines()]
    more = [{**row, "id": f"{row['id']}-again"} for row in rows[2:3]]
    task.write_text("".join(json.dumps(row) + "\n" for row in (*rows, *more)))
    return [
        "sweep", "--model", str(tiny_folder), "--task", str(task), "--limit", "all", "--batch-size", "2",
        "--max-new-tokens", "3", "--method", "random,none", "--token-budget", "0.5,3", "--no-report", "--draws", "3",
        "--positions", "original,compact",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alone(server, arguments, tmp_path_factory):
    """The run folder of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert server.run([*arguments, "--output", str(folder)], 1, folder.parent) == [1], "two pictures cannot be read"
    return folder


def assert_told_how_to_go_on(server):
    """The witness of rank 0 has said so, on rank 0's stream, and nobody else anything."""
    assert wait_until(lambda: "process 0 is gone" in server.written("stderr")[0])
    told = server.written("stderr")
    assert told[0].count("process 0 is gone; every answer so far is kept; to continue, with any number of") == 1
    assert set(told[1:]) <= {""}


def held_at_results(folder):
    """Hold rank 0, once it has summed up, for as long as nobody reads this: opening a pipe to write waits for that."""
    folder.mkdir()
    pipe = folder / "results.json.partial"
    os.mkfifo(pipe)
    return pipe


def num_answers(folder):
    path = folder / "samples.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def visible_files(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_processes_share_a_sweep_and_rank_0_alone_speaks(server, arguments, alone, tmp_path):
    folder, world_size = tmp_path / "run", 3
    codes = server.run([*arguments, "--output", str(folder)], world_size, tmp_path / "log")
    assert codes == [1] + [0] * (world_size - 1), "two pictures cannot be read, which rank 0 says"
    assert_same_answers(folder, alone)
    assert visible_files(folder) == {"run.json", "samples.jsonl", "results.json"}
    printed, noted = server.written("stdout"), server.written("stderr")
    assert "2 of 7 samples failed" in printed[0]
    assert "[1/6] full@1.0" in noted[0]
    assert printed[1:] == noted[1:] == [""] * (world_size - 1)


def test_a_killed_rank_ends_all_without_a_launcher_too_and_rank_0_says_how_to_go_on(server, arguments, alone, tmp_path):
    folder = tmp_path / "run"
    pids = server.start([*arguments, "--output", str(folder)], 3, tmp_path / "log", supervised=False)
    assert wait_until(lambda: answers_of(folder, 2) > 0)
    os.kill(pids[2], signal.SIGKILL)
    codes = server.wait()
    assert codes[0] == 2
    assert codes[1] in (0, 2), "rank 1 may have finished before"
    assert codes[2] == -signal.SIGKILL
    told = server.written("stderr")
    assert "process 2 of 0 to 2 did not finish: it ended without a message" in told[0]
    assert "to continue, with any number of processes: torchrun --nproc-per-node 3 -m adallava sweep --model" in told[0]
    assert told[1:] == ["", ""]
    kept = answers_of(folder, 1) + answers_of(folder, 2) + num_answers(folder)

    assert server.run([*arguments, "--output", str(folder)], 1, tmp_path / "log") == [1]
    assert f"resuming: {kept} of" in server.written("stderr")[0], "what every rank had written was used"
    assert_same_answers(folder, alone)
    assert visible_files(folder) == {"run.json", "samples.jsonl", "results.json"}


@pytest.mark.parametrize(
    "supervised",
    [pytest.param(True, marks=pytest.mark.long), False],
    ids=["launcher ends the others", "nobody does"],
)
def test_if_rank_0_is_killed_exactly_one_line_says_so(server, arguments, alone, tmp_path, supervised):
    folder = tmp_path / "run"
    pids = server.start([*arguments, "--output", str(folder)], 3, tmp_path / "log", supervised=supervised)
    assert wait_until(lambda: answers_of(folder, 1) > 0 and answers_of(folder, 2) > 0)
    os.kill(pids[0], signal.SIGKILL)
    codes = server.wait()
    assert codes[0] == -signal.SIGKILL
    assert all(code in (2, 128 + signal.SIGTERM) for code in codes[1:])
    assert_told_how_to_go_on(server)

    assert server.run([*arguments, "--output", str(folder)], 2, tmp_path / "log") == [1, 0]
    assert_same_answers(folder, alone)


@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.long), 3])
def test_if_rank_0_is_killed_after_the_others_have_ended_it_is_said_all_the_same(
    server, arguments, alone, tmp_path, world_size
):
    folder = tmp_path / "run"
    pipe = held_at_results(folder)
    pids = server.start([*arguments, "--output", str(folder)], world_size, tmp_path / "log")
    assert wait_until(lambda: num_answers(folder) == num_answers(alone))
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids[1:])), "they wait for nothing"
    os.kill(pids[0], signal.SIGKILL)
    assert server.wait() == [-signal.SIGKILL] + [0] * (world_size - 1)
    assert_told_how_to_go_on(server)

    pipe.unlink()
    assert server.run([*arguments, "--output", str(folder)], 1, tmp_path / "log") == [1]
    assert "process 0 is gone" not in server.written("stderr")[0]
    assert_same_answers(folder, alone)


@pytest.mark.long
def test_ctrl_c_twice_to_every_rank_is_told_once_by_rank_0(server, arguments, alone, tmp_path):
    folder = tmp_path / "run"
    pids = server.start([*arguments, "--output", str(folder)], 3, tmp_path / "log", supervised=False)
    assert wait_until(lambda: answers_of(folder, 1) > 0 and answers_of(folder, 2) > 0)
    for _ in range(2):  # of the terminal, and of the launcher that passes it on
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
    assert server.wait() == [128 + signal.SIGINT] * 3
    told = server.written("stderr")
    last = told[0].splitlines()[-1]
    assert last.startswith("adallava sweep: interrupted; every answer so far is kept; to continue, with any number of")
    assert told[1:] == ["", ""]
    assert "Traceback" not in told[0]

    assert server.run([*arguments, "--output", str(folder)], 2, tmp_path / "log") == [1, 0]
    assert_same_answers(folder, alone)


@pytest.mark.long
def test_killed_at_random_moments_by_any_number_of_processes_it_ends_as_if_untouched(
    server, arguments, alone, tmp_path
):
    draw, folder, killed = random.Random(1), tmp_path / "run", 0
    for _ in range(20):
        world_size = draw.randrange(1, 4)
        pids = server.start([*arguments, "--output", str(folder)], world_size, tmp_path / "log")
        if killed < 6:
            # One process alone has nobody to tell that it begins: its first answer does.
            wait_until(lambda: any((folder / name).exists() for name in (".begun", "samples.jsonl")), 20.0)
            time.sleep(draw.random() * 0.3)
            with suppress(ProcessLookupError):
                os.kill(draw.choice(pids), signal.SIGKILL)
        codes = server.wait()
        assert not any("Traceback" in text for text in server.written("stderr"))
        if codes == [1] + [0] * (world_size - 1):
            break
        killed += 1
        assert -signal.SIGKILL in codes
    assert codes[0] == 1
    assert killed >= 1, "on a machine so fast that none is met, kill earlier"
    assert_same_answers(folder, alone)


def test_a_mistake_is_told_by_rank_0_alone(server, arguments, tmp_path):
    for wrong, message in (
        (["--limit", "none"], "--limit"),
        (["--model", str(tmp_path)], str(tmp_path)),
    ):
        codes = server.run([*arguments, *wrong, "--output", str(tmp_path / "run")], 2, tmp_path / "log")
        assert codes[0] == 2
        assert codes[1] != 0
        told = server.written("stderr")
        assert message in told[0]
        assert told[1] == ""
    assert not (tmp_path / "run" / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "processes of one host"),
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is not set"),
        ({"RANK": "first"}, "RANK is 'first'"),
    ],
    ids=["several hosts", "rank left behind", "no number"],
)
def test_variables_of_no_launch_of_this_host_are_refused(arguments, tmp_path, monkeypatch, capsys, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


_ENDED_ON_TOP_OF_ITS_OWN_ERROR = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from adallava.cli import sweep_ranks
from adallava.runs.ranks import Ranks
from adallava.runs.executors.shares import ProcessEndedError

def find_another_gone(*_):
    raise ProcessEndedError("process 1 did not finish")

sweep_ranks.run_sweep, sweep_ranks._placed = find_another_gone, lambda request, ranks: request
request = SimpleNamespace(config=SimpleNamespace(model="tiny"), command="the command", output=Path(sys.argv[1]))
try:
    sweep_ranks.lead(request, Ranks(world_size=2))
except ProcessEndedError as error:
    os.kill(os.getpid(), signal.SIGTERM)
    print(error, file=sys.stderr)
"""


@pytest.mark.long
def test_a_leader_that_tells_of_another_is_not_made_to_tell_again_by_the_launcher(tmp_path):
    """The launcher ends all processes once one is gone, so often between the leader's finding out and its line."""
    command = [sys.executable, "-c", _ENDED_ON_TOP_OF_ITS_OWN_ERROR, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("process 1 did not finish; every answer so far is kept; to continue")
    assert done.returncode == 0


TORCHRUN = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}


@pytest.mark.long
@pytest.mark.parametrize("world_size", [1, 2])
def test_torchrun_whose_rank_0_is_killed_late_says_how_to_go_on(arguments, alone, tmp_path, world_size):
    folder = tmp_path / "run"
    pipe = held_at_results(folder)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world_size), "-m", "adallava"]
    command += [*arguments, "--output", str(folder)]
    launched = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=TORCHRUN)
    assert wait_until(lambda: num_answers(folder) == num_answers(alone), 120.0)
    assert wait_until(lambda: not (folder / ".begun").exists())
    os.kill(rank_of_torchrun(launched.pid, 0), signal.SIGKILL)
    _, told = launched.communicate(timeout=120)
    assert launched.returncode != 0
    assert told.count("process 0 is gone; every answer so far is kept; to continue") == 1
    pipe.unlink()
    done = subprocess.run(command, capture_output=True, text=True, env=TORCHRUN, timeout=300, check=False)
    assert "2 of 7 samples failed" in done.stdout
    assert_same_answers(folder, alone)


@pytest.mark.long
def test_torchrun_killed_and_resumed_by_two_and_by_one(server, arguments, alone, tmp_path):
    folder, copy = tmp_path / "run", tmp_path / "copy"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "adallava"]
    command += [*arguments, "--output", str(folder)]
    launched = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=TORCHRUN)
    assert wait_until(lambda: answers_of(folder, 1) > 0)
    os.kill(rank_of_torchrun(launched.pid, 1), signal.SIGKILL)
    _, told = launched.communicate(timeout=120)
    assert launched.returncode != 0
    assert told.count("to continue, with any number of processes: torchrun --nproc-per-node 2 -m adallava sweep") == 1
    assert (folder / "samples-1.jsonl").exists()
    assert not (folder / "results.json").exists()
    shutil.copytree(folder, copy)

    done = subprocess.run(command, capture_output=True, text=True, env=TORCHRUN, timeout=120, check=False)
    assert done.returncode != 0, "a cell is flagged"
    assert "2 of 7 samples failed" in done.stdout
    assert done.stdout.count("results.json") == 1
    assert_same_answers(folder, alone)

    assert server.run([*arguments, "--output", str(copy)], 1, tmp_path / "log") == [1]
    assert_same_answers(copy, alone)


def rank_of_torchrun(launcher, rank):
    """Return the process id of a rank."""
    for path in Path(f"/proc/{launcher}/task").glob("*/children"):
        for pid in path.read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return int(pid)
    raise AssertionError("no such rank")
