"""A sweep as one process of a launch: rank 0 leads and speaks, the others answer their share in silence."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from transformers.utils import logging

from adallava.errors import AdallavaError
from adallava.evaluation.ranks import Ranks, device_of_rank
from adallava.evaluation.request import SweepRequest
from adallava.evaluation.shares import ProcessEndedError, Share, tell_as_leader
from adallava.evaluation.sweep import SweepOutcome, join_sweep, run_sweep

from .loading import check_device, quiet_loading
from .sweep_progress import ProgressDisplay

_EXIT_BAD_INPUT = 2
_EXIT_INTERRUPTED = 130
_EXIT_TERMINATED = 128 + signal.SIGTERM


def lead(request: SweepRequest, ranks: Ranks) -> SweepOutcome:
    """Run the sweep as rank 0, or alone.

    Raises:
        AdallavaError: as `run_sweep` does; where another process is to blame, with the command that goes on.
    """
    quiet_loading(request.model)
    if ranks.world_size > 1:
        _at_sigterm(lambda: _tell_as_leader(request))
    try:
        with ProgressDisplay() as display:
            return run_sweep(_placed(request, ranks), display, ranks)
    except ProcessEndedError as error:
        raise ProcessEndedError(f"{error}; {_how_to_go_on(request)}") from error


def join(make_request: Callable[[], SweepRequest], output: Path, ranks: Ranks) -> int:
    """Answer this rank's share, and return the exit code. Rank 0 says what is wrong, unless it is gone."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    share, code = Share(output, ranks), 0
    try:
        with share:
            request = make_request()
            _at_sigterm(lambda: _tell_if_alone(share, request))
            join_sweep(_placed(request, ranks), share, ranks)
    except (AdallavaError, OSError):
        code = _EXIT_BAD_INPUT
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    if share.tells:
        _say(_leader_gone(request))
    return code


def _placed(request: SweepRequest, ranks: Ranks) -> SweepRequest:
    """Return the request with the device of this process.

    Raises:
        InputError: for a device that is not here.
    """
    check_device(request.device)
    device = device_of_rank(request.device, ranks, torch.cuda.device_count())
    if device is not None and device.startswith("cuda:"):
        # The clock's events are those of the current device.
        torch.cuda.set_device(device)
    return replace(request, device=device)


def _at_sigterm(last_words: Callable[[], object]) -> None:
    """End at once when the launcher says so, as it does when another process is gone; the run folder can take it.

    No exception is raised for it: one that meets a destructor is swallowed, and the process would stay.
    """

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            last_words()
        os._exit(_EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, end)


def _tell_as_leader(request: SweepRequest) -> None:
    _say(f"ended by its launcher, as when another process is gone; {_how_to_go_on(request)}")
    tell_as_leader(request.output)


def _tell_if_alone(share: Share, request: SweepRequest) -> None:
    if share.is_to_tell():
        _say(_leader_gone(request))


def _leader_gone(request: SweepRequest) -> str:
    return f"process 0 is gone; {_how_to_go_on(request)}"


def _how_to_go_on(request: SweepRequest) -> str:
    return f"every answer so far is kept; to go on, with any number of processes: {request.command}"


def _say(message: str) -> None:
    # Not by print, whose buffer a signal may find in use. A bar hides the cursor of a terminal.
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(sys.stderr.fileno(), f"{shown}adallava sweep: {message}\n".encode())
