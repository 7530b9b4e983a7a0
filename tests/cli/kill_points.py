"""Where a sweep is, told by the files it touches, and its end at one of them: for processes that a test forks."""

import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LEADER_PHASES = ("loading", "answering", "summing up", "results.json", "report.html", "ending")
"""Of rank 0, in order: each begins with a file that is opened, moved or dropped."""

OTHERS_PHASES = LEADER_PHASES[:2]
"""Of every other rank."""


@dataclass(frozen=True)
class KillPoint:
    """A process sends itself a signal right before it touches a file of the run folder.

    Attributes:
        rank: of the process.
        phase: in which.
        touch: at which one of the phase, from 0.
        number: of the signal.
    """

    rank: int
    phase: str
    touch: int
    number: int

    def to_json(self) -> dict[str, Any]:
        """Return what `watch` takes."""
        return asdict(self)


def watch(folder: str, rank: int, note: str, point: dict[str, Any] | None) -> None:
    """Note the phases of this process in a file, and send it its signal where `point` says. There is no way back.

    Args:
        folder: of the run.
        rank: of this process.
        note: file that holds the name of the phase.
        point: a `KillPoint`, None for none.
    """
    wanted = KillPoint(**point) if point is not None and point["rank"] == rank else None
    _Watch(Path(folder), rank, os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), wanted).begin()


class _Watch:
    def __init__(self, folder: Path, rank: int, note: int, point: KillPoint | None) -> None:
        self._folder, self._rank, self._note, self._point = str(folder), rank, note, point
        self._touches = 0
        self._phase = self._next = "loading"

    def begin(self) -> None:
        self._enter("loading")
        fsync = os.fsync

        def watched(file: int) -> None:
            self._touch()  # written, and perhaps not on the disk
            fsync(file)

        os.fsync = watched
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.truncate") or not isinstance(arguments[0], str | Path):
            return
        path = str(arguments[0])
        if not path.startswith(self._folder):
            return
        name = path.rpartition("/")[2]
        following = self._following(event, name)
        if self._next != self._phase:
            self._enter(self._next)
        if following is not None:
            # What ends a phase belongs to it; what begins one, to that one.
            self._next = following
            if event == "open":
                self._enter(following)
        self._touch()

    def _following(self, event: str, name: str) -> str | None:
        if self._rank > 0:
            return "answering" if (event, name) == ("open", f"samples-{self._rank}.jsonl") else None
        if (event, name) == ("os.remove", ".begun") and self._phase != "answering":
            return None  # of a former launch
        return {
            ("open", ".begun"): "answering",
            ("os.remove", ".begun"): "summing up",
            ("open", "results.json.partial"): "results.json",
            ("os.rename", "results.json.partial"): "report.html",
            ("os.rename", "report.html.partial"): "ending",
        }.get((event, name))

    def _enter(self, phase: str) -> None:
        self._phase, self._touches = phase, 0
        os.pwrite(self._note, phase.ljust(20).encode(), 0)

    def _touch(self) -> None:
        point = self._point
        if point is not None and self._phase == point.phase:
            if self._touches == point.touch:
                os.kill(os.getpid(), signal.Signals(point.number))
            self._touches += 1
