"""How the processes of one sweep know of each other: by files in the run folder and the kernel's locks on them.

Rank 0 leads. It alone holds the folder, writes `samples.jsonl` and sums up. When it has the folder in order it locks
`.begun`; then every other rank locks `samples-<rank>.jsonl`, appends its answers there, and keeps `.rank-<rank>.json`
up to date: how many, and how it ended. A lock falls with the process that held it, so that nobody waits for the dead,
and nothing of an earlier launch is taken for alive. No ports, no collectives: a process waits for another one only at
the start and at the end.
"""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

from adallava.records import SampleRecord
from adallava.records.durable import append_durably, close_file
from adallava.records.file_locks import is_locked, lock_file
from adallava.records.journal import record_lines, share_file
from adallava.records.regular_files import open_regular, read_regular
from adallava.runs.batches import describe_error
from adallava.runs.executors.executor_contract import ProcessEndedError
from adallava.runs.observer import SweepObserver
from adallava.runs.ranks import Ranks, launch_id

POLL_S = 0.1
"""Between two looks at another process's files."""

ARRIVAL_S = 900.0
"""How long the leader, done with its own share, waits for a process that has not shown up."""

_BEGUN_FILE = ".begun"


@dataclass(frozen=True)
class Standing:
    """What a rank says about itself.

    Attributes:
        answers: on disk, since it began.
        failed: of them.
        ended: `finished` with its share, `failed` with a reason; None while at work.
        reason: of failing.
    """

    answers: int = 0
    failed: int = 0
    ended: Literal["finished", "failed"] | None = None
    reason: str = ""


class Lead:
    """The leader's side: lets the others begin, counts what they answer, and notices when one fails."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        """Prepare; the others begin on entering."""
        self._folder = folder
        self._ranks = ranks
        self._seen = {rank: Standing() for rank in range(1, ranks.world_size)}

    def __enter__(self) -> "Lead":
        """Let the others begin."""
        clear_standings(self._folder)
        self._begun = lock_file(self._folder / _BEGUN_FILE)
        # After the lock, into a new file: whoever reads this launch's name meets a leader that is alive.
        append_durably(self._begun, [launch_id(self._ranks).encode()])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the others know that all has ended."""
        try:
            if error is None:
                clear_standings(self._folder)
        finally:
            self._begun.close()

    def look(self, observer: SweepObserver) -> bool:
        """Tell the observer what the others have answered since, and return True once all are finished and gone.

        Raises:
            ProcessEndedError: if one has failed or died.
        """
        over = True
        for rank, before in self._seen.items():
            # In this order: whoever has said something held its file by then, and one that is gone has said its last.
            known = read_standing(self._folder, rank) is not None
            gone = known and not is_locked(share_file(self._folder, rank))
            now = read_standing(self._folder, rank)
            over = over and gone
            if now is None:
                continue
            if now.answers > before.answers:
                observer.answered(now.answers - before.answers, now.failed - before.failed)
            self._seen[rank] = now
            if now.ended == "failed" or (gone and now.ended != "finished"):
                reason = now.reason or "it ended without a message: killed, out of memory, or unable to write"
                raise ProcessEndedError(f"process {rank} of 0 to {self._ranks.world_size - 1} did not finish: {reason}")
        return over

    def wait(self, observer: SweepObserver) -> None:
        """Return when every other process has finished its share and ended.

        Raises:
            ProcessEndedError: if one has failed or died, or never showed up, or cannot any more without its launcher.
        """
        deadline = time.monotonic() + ARRIVAL_S
        while not self.look(observer):
            missing = [rank for rank in self._seen if read_standing(self._folder, rank) is None]
            if missing and os.getppid() != self._ranks.launcher_pid:
                raise ProcessEndedError(f"the launcher ended before process {missing[0]} had begun")
            if missing and time.monotonic() > deadline:
                raise ProcessEndedError(f"process {missing[0]} has not begun within {ARRIVAL_S:.0f} s")
            time.sleep(POLL_S)


class Share:
    """The side of every other rank: its answers, and what it says about itself.

    As a context it tells the leader of an error that leaves it, and stays until the leader has ended: a launcher ends
    all processes once one has failed, and the leader is to say why before that.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        """Prepare; nothing is written before `begin`."""
        self._folder = folder
        self._ranks = ranks
        self._rank = ranks.rank
        self._standing = Standing()
        self._begun: IO[bytes] | None = None
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Share":
        """Return the share itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell of an error, and close the files; what was appended is on disk already.

        This rank's file stays locked until the process ends: up to then its model is on the device, and the leader is
        to time alone.
        """
        try:
            if isinstance(error, Exception) and not isinstance(error, ProcessEndedError):
                self._report(error)
        finally:
            if self._file is not None:
                # A copy that nobody closes but the kernel.
                os.dup(self._file.fileno())
            for file in (self._file, self._begun):
                if file is not None:
                    close_file(file)

    def begin(self) -> None:
        """Wait until the leader has the folder in order, and open this rank's file.

        Raises:
            ProcessEndedError: if the launcher is gone before.
        """
        while not self._has_begun():
            if os.getppid() != self._ranks.launcher_pid:
                raise ProcessEndedError("the launcher ended before the sweep began")
            time.sleep(POLL_S)
        self._file = lock_file(share_file(self._folder, self._rank))
        self._say(self._standing)

    def append(self, records: Sequence[SampleRecord]) -> None:
        """Add records and return when they are on disk.

        Raises:
            ProcessEndedError: if the leader is gone.
            RunFolderError: if they cannot be written.
        """
        assert self._file is not None
        append_durably(self._file, record_lines(records))
        num_failed = sum(record.score is None for record in records)
        standing = self._standing
        self._say(replace(standing, answers=standing.answers + len(records), failed=standing.failed + num_failed))
        self._check_leader()

    def finish(self) -> None:
        """Say that all of this rank's answers are there.

        Raises:
            ProcessEndedError: if the leader is gone.
        """
        self._check_leader()
        self._say(replace(self._standing, ended="finished"))

    def _has_begun(self) -> bool:
        path = self._folder / _BEGUN_FILE
        if not is_locked(path):
            return False
        self._begun = open_regular(path)
        if self._begun.read().decode() == launch_id(self._ranks):
            return True
        self._begun.close()
        self._begun = None
        return False

    def _check_leader(self) -> None:
        if not self._leader_is_there():
            raise ProcessEndedError("process 0 ended before all answers were there")

    def _leader_is_there(self) -> bool:
        return self._begun is not None and is_locked(self._begun)

    def _report(self, error: Exception) -> None:
        if self._file is None:
            self.begin()
        with suppress(OSError):  # a full disk takes no reason, and is one
            self._say(replace(self._standing, ended="failed", reason=describe_error(error)))
        while self._leader_is_there():
            time.sleep(POLL_S)

    def _say(self, standing: Standing) -> None:
        self._standing = standing
        _write_standing(self._folder, self._rank, standing)


def clear_standings(folder: Path) -> None:
    """Take away what ranks have said about themselves: they have ended, or are of an earlier launch."""
    for path in (*folder.glob(".rank-*.json*"), folder / _BEGUN_FILE):
        path.unlink(missing_ok=True)


def read_standing(folder: Path, rank: int) -> Standing | None:
    """Return what a rank says about itself, None if it has not begun."""
    try:
        return Standing(**json.loads(read_regular(_standing_file(folder, rank))))
    except FileNotFoundError:
        return None


def _write_standing(folder: Path, rank: int, standing: Standing) -> None:
    # Whole or not at all for a reader; after a power cut it is of no use.
    path = _standing_file(folder, rank)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(asdict(standing)))
    os.replace(partial, path)


def _standing_file(folder: Path, rank: int) -> Path:
    return folder / f".rank-{rank}.json"
