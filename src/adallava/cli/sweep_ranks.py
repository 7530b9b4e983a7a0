"""A sweep as one process of a launch: rank 0 leads and speaks, the others answer their share in silence."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from adallava.errors import AdallavaError
from adallava.families.transformers_internals import hide_progress_bars, log_errors_alone
from adallava.runs.ranks import Ranks, device_of_rank
from adallava.runs.request import SweepRequest
from adallava.runs.shares import ProcessEndedError, Share, tell_as_leader
from adallava.runs.sweep import SweepOutcome, join_sweep, run_sweep

from .last_words import end_at_signals, how_to_go_on, ignore_signals, say
from .loading import check_device, quiet_loading
from .sweep_progress import ProgressDisplay

_EXIT_BAD_INPUT = 2


def lead(request: SweepRequest, ranks: Ranks) -> SweepOutcome:
    """Run the sweep as rank 0, or alone.

    Raises:
        AdallavaError: as `run_sweep` does; where another process is to blame, with the command that goes on.
    """
    quiet_loading(request.model)
    if ranks.world_size > 1:
        end_at_signals(lambda why: _tell_as_leader(why, request))
    try:
        with ProgressDisplay() as display:
            return run_sweep(_placed(request, ranks), display, ranks)
    except (AdallavaError, OSError) as error:
        if ranks.world_size > 1:
            # The launcher ends this process, too, when another one is gone: perhaps before its line is out.
            ignore_signals()
        if isinstance(error, ProcessEndedError):
            raise ProcessEndedError(f"{error}; {how_to_go_on(request.command)}") from error
        raise


def join(make_request: Callable[[], SweepRequest], output: Path, ranks: Ranks, command: str) -> int:
    """Answer this rank's share, and return the exit code. Rank 0 says what is wrong, unless it is gone.

    Args:
        make_request: may raise, as for mistakes on the command line.
        output: the run folder.
        ranks: of this process.
        command: of the launch.
    """
    warnings.simplefilter("ignore")
    log_errors_alone()
    hide_progress_bars()
    share, code = Share(output, ranks), 0
    try:
        with share:
            end_at_signals(lambda _: _tell_if_alone(share, command))
            join_sweep(_placed(make_request(), ranks), share, ranks)
    except Exception:  # whatever it is, the share has told rank 0
        code = _EXIT_BAD_INPUT
    if share.tells:
        say(_leader_gone(command))
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


def _tell_as_leader(why: str, request: SweepRequest) -> None:
    say(f"{why}; {how_to_go_on(request.command)}")
    tell_as_leader(request.output)


def _tell_if_alone(share: Share, command: str) -> None:
    if share.is_to_tell():
        say(_leader_gone(command))


def _leader_gone(command: str) -> str:
    return f"process 0 is gone; {how_to_go_on(command)}"
