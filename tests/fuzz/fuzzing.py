"""Tries a check on random inputs for a time, counts what came of them, and holds every one to the same rules.

Settings, all from the environment:
    ADALLAVA_FUZZ_SECONDS: for all fuzzers together, 300 if not given.
    ADALLAVA_FUZZ_SEED: of the first round, by the clock if not given.
    ADALLAVA_FUZZ_RESULTS: a file to which each fuzzer adds a line of JSON with its counts.
"""

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy

from adallava.errors import AdallavaError

NUM_FUZZERS = 8
SECONDS_EACH = float(os.environ.get("ADALLAVA_FUZZ_SECONDS", "300")) / NUM_FUZZERS

_MAX_SECONDS = 20.0
"""For one input. What is small takes milliseconds; a busy machine may take some time over a model."""
_MAX_GROWTH_BYTES = 2 * 2**30
_MAX_ADDRESS_BYTES = 8 * 2**30
"""Over what the process has: an absurd allocation ends as MemoryError, not as the end of the machine."""
_MAX_MESSAGE = 4000

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_allowed: list[Path] = []
_outside: list[str] = []
_hooked = False


@dataclass
class Tally:
    """What came of a fuzzer's inputs."""

    fuzzer: str
    findings: int
    tried: int = 0
    answered: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    reasons: set[str] = field(default_factory=set)

    def write(self) -> None:
        """Add the counts to the file of results, if one is named."""
        if name := os.environ.get("ADALLAVA_FUZZ_RESULTS"):
            row = {**vars(self), "reasons": len(self.reasons)}
            with open(name, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def judge(check: Callable[[Any], None], value: Any, folder: Path) -> str | None:
    """Return the words in which an input was refused, None if it was answered.

    Args:
        check: takes the input; raises an `AdallavaError` to refuse it. Whatever else it raises is a finding.
        value: the input.
        folder: the only one that may be written to.
    """
    started, before = time.monotonic(), _peak_bytes()
    reason = None
    try:
        with _watched(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning is no refusal
            check(value)
    except AdallavaError as error:
        reason = str(error)
        assert has_words(reason), f"refused without words: {reason!r}"
    took_s, growth = time.monotonic() - started, _peak_bytes() - before
    assert took_s < _MAX_SECONDS, f"took {took_s:.1f} s"
    assert growth < _MAX_GROWTH_BYTES, f"took {growth} bytes of memory"
    assert not _outside, f"written outside of {folder}: {_outside}"
    return reason


def has_words(reason: str) -> bool:
    """Return whether a refusal says something to its end, and not without end."""
    return bool(reason.strip()) and not reason.rstrip().endswith((":", ": None", "()")) and len(reason) <= _MAX_MESSAGE


def fuzz(
    name: str,
    inputs: SearchStrategy[Any],
    check: Callable[[Any], None],
    folder: Path,
    *,
    findings: int,
    seconds: float = SECONDS_EACH,
    at_once: int = 100,
) -> Tally:
    """Try random inputs for a time, each round by a seed of its own; the first that breaks a rule is shrunk and raised.

    Args:
        name: of the fuzzer.
        inputs: to draw from.
        check: see `judge`.
        folder: see `judge`.
        findings: how many inputs failed so far, which the tests hold since.
        seconds: to go on for.
        at_once: inputs a round.
    """
    tally = Tally(name, findings)
    started = time.monotonic()
    number = int(os.environ.get("ADALLAVA_FUZZ_SEED", time.time_ns() % 10**9))
    failed = False

    def run(value: Any) -> None:
        nonlocal failed
        if time.monotonic() > started + seconds and not failed:
            return
        tally.tried += 1
        began = time.monotonic()
        try:
            reason = judge(check, value, folder)
        except BaseException:
            failed = True
            raise
        tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)
        tally.answered += reason is None
        tally.refused += reason is not None
        if reason is not None:
            tally.reasons.add("".join(sign for sign in reason[-60:] if sign.isalpha() or sign == " "))

    with _bounded_memory():
        while time.monotonic() < started + seconds:
            _one_round(run, inputs, number, at_once)
            number += 1
    tally.seconds = time.monotonic() - started
    tally.write()
    return tally


def _one_round(run: Callable[[Any], None], inputs: SearchStrategy[Any], number: int, at_once: int) -> None:
    options = settings(
        max_examples=at_once,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HypothesisWarning)  # of a long failing input
        seed(number)(options(given(inputs)(run)))()


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Note what is written outside of a folder; Python's own hook tells of every file that it opens."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    _outside.clear()
    _allowed.append(folder.resolve())
    try:
        yield
    finally:
        _allowed.pop()


def _note(event: str, args: tuple[Any, ...]) -> None:
    if not _allowed:
        return
    if event == "open":
        path, mode, flags = args
        if not isinstance(path, str | bytes | os.PathLike) or not (
            set(mode or "") & set("wax+") or (mode is None and flags & _WRITING)
        ):
            return
    elif event in _CHANGES:
        path = args[1] if event in ("os.link", "os.symlink") else args[0]
        within = event in ("os.remove", "os.rmdir") and args[1] >= 0  # of an open folder, as rmtree goes
        if within or not isinstance(path, str | bytes | os.PathLike):
            return
    else:
        return
    named = os.path.abspath(os.fsdecode(path))
    # What opens a link writes to its target; what renames or removes one changes the link.
    place = os.path.realpath(named)
    if event != "open":
        place = os.path.join(os.path.realpath(os.path.dirname(named)), os.path.basename(named))
    harmless = place == os.devnull or "__pycache__" in place or place.startswith(f"/proc/{os.getpid()}/")
    if not harmless and not Path(place).is_relative_to(_allowed[-1]):
        _outside.append(f"{event} {place}")


@contextmanager
def _bounded_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        most = pages * resource.getpagesize() + _MAX_ADDRESS_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
