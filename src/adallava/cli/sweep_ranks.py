"""A sweep as one process of a launch: rank 0 leads and speaks, the others answer their share in silence."""

import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from transformers.utils import logging

from adallava.errors import AdallavaError
from adallava.evaluation.ranks import Ranks, device_of_rank
from adallava.evaluation.request import SweepRequest
from adallava.evaluation.shares import ProcessEndedError, Share, Terminated
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
        SystemExit: if the launcher ends this process, after a word about it.
    """
    quiet_loading(request.model)
    try:
        if ranks.world_size > 1:
            signal.signal(signal.SIGTERM, _terminate)
        with ProgressDisplay() as display:
            return run_sweep(_placed(request, ranks), display, ranks)
    except ProcessEndedError as error:
        raise ProcessEndedError(f"{error}; {_how_to_go_on(request)}") from error
    except Terminated:
        _say(f"ended by its launcher, as when another process is gone; {_how_to_go_on(request)}")
        raise SystemExit(_EXIT_TERMINATED) from None


def join(make_request: Callable[[], SweepRequest], output: Path, ranks: Ranks) -> int:
    """Answer this rank's share, and return the exit code. Rank 0 says what is wrong, unless it is gone."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    request, code = None, 0
    share = Share(output, ranks.rank)
    try:
        signal.signal(signal.SIGTERM, _terminate)
        with share:
            request = make_request()
            join_sweep(_placed(request, ranks), share, ranks)
    except (AdallavaError, OSError):
        code = _EXIT_BAD_INPUT
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    except Terminated:
        code = _EXIT_TERMINATED
    if share.tells and request is not None:
        _say(f"process 0 is gone; {_how_to_go_on(request)}")
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


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows is not to be cut short
    raise Terminated


def _how_to_go_on(request: SweepRequest) -> str:
    return f"every answer so far is kept; to go on, with any number of processes: {request.command}"


def _say(message: str) -> None:
    print(f"adallava sweep: {message}", file=sys.stderr)
