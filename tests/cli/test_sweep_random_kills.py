"""A sweep killed at random, whatever state its folder is in and whatever it is at, ends as if nobody had touched it.

`ADALLAVA_KILLS` says how many kills (100), `ADALLAVA_KILLS_SEED` after which seed (0), and `ADALLAVA_KILLS_OUTPUT`
names a file for the counts, which `docs/how_to/processes.md` shows.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer

import pytest
from kill_points import LEADER_PHASES, OTHERS_PHASES, KillPoint
from kill_states import STATES, key_of, prepare, whole_lines
from rank_server import RankServer, wait_until
from sweep_inputs import deterministic_results, deterministic_samples, local_questions

from adallava.cli.main import main
from adallava.measuring.provenance import collect_provenance

pytestmark = [pytest.mark.long, pytest.mark.timeout(7200)]

FILES = {".lock", "run.json", "samples.jsonl", "results.json", "report.html"}
ENDED = {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM}
SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGINT, signal.SIGTERM)
TOUCHES = {"loading": 14, "answering": 40, "summing up": 10, "results.json": 3, "report.html": 9, "ending": 2}
"""Of files of the run folder in a phase, about."""
SECONDS = {
    "loading": 1.0,
    "answering": 1.0,
    "summing up": 0.1,
    "results.json": 0.02,
    "report.html": 0.5,
    "ending": 0.02,
}
"""Of a phase, about."""

HANGING_S = 120.0
"""By far more than a launch takes to end once one of its processes is killed."""


@dataclass
class Found:
    """What was done, and what came out."""

    kills: int = 0
    kills_by: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("state", "signal", "phase", "processes")}
    )
    folders: int = 0
    runs: int = 0
    answers_kept: int = 0
    wrong: Counter[str] = field(
        default_factory=lambda: Counter(lost=0, doubled=0, differing=0, left_over=0, unhealthy=0, untold=0, hanging=0)
    )
    reasons: list[str] = field(default_factory=list)

    def blame(self, kind: str, count: int, reason: str) -> None:
        """Note what is wrong, if anything is."""
        self.wrong[kind] += count
        if count:
            self.reasons.append(f"{kind}: {reason}")


@dataclass(frozen=True)
class Attempt:
    """One launch, to be killed."""

    world_size: int
    launched: bool
    supervised: bool
    rank: int
    phase: str
    number: int
    touch: int | None
    """At which touch of a file of the folder the process kills itself; None: the clock decides."""

    @classmethod
    def drawn(cls, draw: random.Random) -> "Attempt":
        launched = draw.random() < 0.8
        world_size = draw.randrange(1, 4) if launched else 1
        rank = draw.randrange(world_size)
        phase = draw.choice(OTHERS_PHASES if rank else LEADER_PHASES)
        touch = draw.randrange(TOUCHES[phase]) if draw.random() < 0.6 else None
        # A process that rank 0 has not met yet, by what it says of itself: the launcher has to end all with it.
        unmet = phase == "loading" or (rank > 0 and touch is not None and touch < 3)
        supervised = unmet or draw.random() < 0.5
        return cls(world_size, launched, supervised, rank, phase, draw.choice(SIGNALS), touch)


@pytest.fixture(scope="module")
def arguments(tiny_folder, tmp_path_factory):
    """Two cells, seven questions about readable pictures, four batches of which the last is half full."""
    task = local_questions(tmp_path_factory.mktemp("task"))
    rows = [row for row in map(json.loads, task.read_text().splitlines()) if row["id"] not in ("corrupt", "missing")]
    rows += [{**row, "id": f"{row['id']}-again"} for row in rows[:3]]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "sweep", "--model", str(tiny_folder), "--task", str(task), "--batch-size", "2", "--max-new-tokens", "3",
        "--method", "random", "--token-budget", "3", "--draws", "2", "--retry-failed", "--pad-to-square",
    ]  # fmt: skip


def test_killed_at_random_in_every_state_it_ends_as_if_untouched(server, arguments, tmp_path, capsys):
    num_kills, seed = int(os.environ.get("ADALLAVA_KILLS", "100")), int(os.environ.get("ADALLAVA_KILLS_SEED", "0"))
    finished, shorter, draw, found = tmp_path / "finished", tmp_path / "shorter", random.Random(seed), Found()
    for folder, limit in ((finished, "all"), (shorter, "3")):
        assert server.run([*arguments, "--limit", limit, "--output", str(folder)], 1, tmp_path / "log") == [0]
    assert main(["doctor", str(finished)]) == 0
    started = time.monotonic()
    while found.kills < num_kills:
        folder = tmp_path / f"run-{found.folders}"
        command = [*arguments, "--limit", "all", "--output", str(folder)]
        _kill_and_finish(server, command, STATES[found.folders % len(STATES)], (finished, shorter), draw, found)
        _judge(folder, finished, found)
        found.blame("unhealthy", main(["doctor", str(folder)]), f"{folder.name}, {capsys.readouterr().out}")
        found.folders += 1
    _keep(found, time.monotonic() - started)
    assert not found.reasons, "\n".join(found.reasons)


def _kill_and_finish(server, command, state, others, draw, found) -> None:
    """Bring a folder into a state, kill some launches in it, and let one finish; note what they lost."""
    folder = Path(command[-1])
    prepare(state, folder, *others, draw)
    kept = {key_of(line): {line} for line in whole_lines(folder)}
    for _ in range(draw.randrange(1, 4)):
        attempt = Attempt.drawn(draw)
        codes = _killed(server, command, folder, attempt, draw, found)
        found.runs += 1
        _check_words(server, attempt, codes, found)
        for line in whole_lines(folder):
            kept.setdefault(key_of(line), set()).add(line)
        if codes[attempt.rank] not in ENDED:
            break  # it was faster
        _count(found, state, attempt, server.phase(attempt.rank))
    world_size = draw.randrange(1, 4)
    without_report = ["--no-report"] if draw.random() < 0.3 else []
    codes = server.run([*command, *without_report], world_size, folder.with_name("log"))
    found.runs += 1
    found.blame("unhealthy", int(any(codes)), f"{folder.name} ended with {codes}: {server.written('stderr')}")
    final = {key_of(line): line for line in whole_lines(folder)}
    lost = [key for key, lines in kept.items() if final.get(key) not in lines]
    found.answers_kept += len(kept)
    found.blame("lost", len(lost), f"{folder.name}, {state}: {lost}")


def _killed(
    server: RankServer, command, folder: Path, attempt: Attempt, draw: random.Random, found: Found
) -> list[int]:
    """Launch a sweep, end one of its processes, and return the exit codes."""
    point = None
    if attempt.touch is not None:
        point = KillPoint(attempt.rank, attempt.phase, attempt.touch, attempt.number)
    log = folder.with_name("log-of-killed")
    for path in log.glob("*"):
        path.unlink()
    pids = server.start(
        command,
        attempt.world_size,
        log,
        supervised=attempt.supervised,
        launched=attempt.launched,
        watched=folder,
        point=point,
    )
    if point is None:
        process = Path(f"/proc/{pids[attempt.rank]}")
        wait_until(lambda: server.phase(attempt.rank) == attempt.phase or not process.exists())
        time.sleep(draw.random() * SECONDS[attempt.phase])
        # Ctrl-C reaches all of a terminal's processes.
        for pid in pids if attempt.number == signal.SIGINT else pids[attempt.rank : attempt.rank + 1]:
            with suppress(ProcessLookupError):
                os.kill(pid, attempt.number)
    return _ended(server, attempt, found)


def _ended(server: RankServer, attempt: Attempt, found: Found) -> list[int]:
    """Return the exit codes; a launch that does not end is ended."""

    def end() -> None:
        found.blame("hanging", 1, f"{attempt}: {server.written('stderr')}")
        for pid in server.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    timer = Timer(HANGING_S, end)
    timer.start()
    codes = server.wait()
    timer.cancel()
    return codes


def _check_words(server: RankServer, attempt: Attempt, codes: list[int], found: Found) -> None:
    """One line says how to go on, at most; if rank 0 of a launch was killed, exactly one does."""
    if codes[0] == -signal.SIGKILL and attempt.launched and (attempt.touch is not None or attempt.phase != "ending"):
        wait_until(lambda: "process 0 is gone" in server.written("stderr")[0], 5.0)
        untold = server.written("stderr")[0].count("process 0 is gone") != 1
        found.blame("untold", int(untold), f"{attempt}: {server.written('stderr')}")
    told = "".join(server.written("stderr"))
    found.blame("untold", told.count("Traceback"), f"{attempt}: {told}")
    found.blame("untold", max(0, told.count("to continue") - 1), f"{attempt}: {told}")


def _count(found: Found, state: str, attempt: Attempt, phase: str) -> None:
    found.kills += 1
    found.kills_by["state"][state] += 1
    found.kills_by["signal"][signal.Signals(attempt.number).name] += 1
    found.kills_by["phase"][phase if attempt.rank == 0 else f"{phase}, another rank"] += 1
    found.kills_by["processes"][str(attempt.world_size)] += 1


def _judge(folder: Path, finished: Path, found: Found) -> None:
    """Compare a folder, killed and resumed, with one that nobody disturbed."""
    # But for the size of its batch: the last one of a smaller limit may be half full.
    samples, expected = (
        {
            (one["cell"], one["sample_id"], one["draw"]): {**one, "batch_size": None}
            for one in deterministic_samples(run)
        }
        for run in (folder, finished)
    )
    num_lines = len(deterministic_samples(folder))
    differing = [key for key in samples.keys() | expected.keys() if samples.get(key) != expected.get(key)]
    found.blame("doubled", num_lines - len(samples), folder.name)
    found.blame("differing", len(differing), f"{folder.name}: {differing}")
    found.blame("differing", int(deterministic_results(folder) != deterministic_results(finished)), f"{folder.name}")
    left_over = {path.name for path in folder.iterdir()} - FILES
    found.blame("left_over", len(left_over), f"{folder.name}: {left_over}")
    configs = [json.loads((one / "run.json").read_text())["config"] for one in (folder, finished)]
    found.blame("differing", int(configs[0] != configs[1]), f"{folder.name}: run.json")
    report = folder / "report.html"  # the last run may have been one without
    whole = not report.exists() or report.read_bytes().rstrip().endswith(b"</html>")
    found.blame("differing", int(not whole), f"{folder.name}: report.html")


def _keep(found: Found, seconds: float) -> None:
    if "ADALLAVA_KILLS_OUTPUT" not in os.environ:
        return
    ran = collect_provenance(
        weights_sha256="",
        adapter_sha256={},
        scheduler_sha256={},
        weight_counts={},
        task_sha256=None,
        command=f"ADALLAVA_KILLS={os.environ.get('ADALLAVA_KILLS', '100')} "
        f"ADALLAVA_KILLS_SEED={os.environ.get('ADALLAVA_KILLS_SEED', '0')} "
        "python -m pytest -m long tests/cli/test_sweep_random_kills.py",
    )
    made = {
        "command": ran.command,
        "date": ran.started_at[:10],
        "versions": {"adallava": ran.adallava_version, **ran.versions},
        "git_commit": ran.git_commit,
        "git_dirty": ran.git_dirty,
        "hardware": ran.hardware,
        "kills": found.kills,
        "kills_by": {name: dict(sorted(counts.items())) for name, counts in found.kills_by.items()},
        "folders": found.folders,
        "runs": found.runs,
        "answers_kept": found.answers_kept,
        "seconds": round(seconds, 1),
        **found.wrong,
    }
    Path(os.environ["ADALLAVA_KILLS_OUTPUT"]).write_text(json.dumps(made, indent=1) + "\n")
