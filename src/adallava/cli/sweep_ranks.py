"""A sweep as one process of a launch: rank 0 leads and speaks, the others answer their share in silence."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from adallava.cli.before_loading import check_device, leave_cudnn_attention, quiet_loading
from adallava.errors import AdallavaError
from adallava.families.transformers_internals import hide_progress_bars, log_errors_alone
from adallava.report.page import write_report
from adallava.runs.executors.shares import ProcessEndedError, Share
from adallava.runs.ranks import Ranks, device_of_rank
from adallava.runs.request import SweepRequest
from adallava.runs.run_sweep import SweepOutcome, join_sweep, run_sweep
from adallava.tasks.task import pictures_of

from .last_words import how_to_go_on, ignore_signals
from .sweep_progress import ProgressDisplay

_EXIT_BAD_INPUT = 2


def lead(request: SweepRequest, ranks: Ranks) -> tuple[SweepOutcome, Path | None]:
    """Run the sweep as rank 0, or alone, and write its page, if one is asked for.

    Raises:
        AdallavaError: as `run_sweep` does; where another process is to blame, with the command that goes on.
    """
    quiet_loading(request.config.model)
    leave_cudnn_attention()
    try:
        with ProgressDisplay() as display, run_sweep(_placed(request, ranks), display, ranks) as outcome:
            if not request.report:
                return outcome, None
            return outcome, write_report(request.output, pictures_of(outcome.task), roofline=request.roofline)
    except (AdallavaError, OSError) as error:
        if ranks.world_size > 1:
            # The launcher ends this process, too, when another one is gone: perhaps before its line is out.
            ignore_signals()
        if isinstance(error, ProcessEndedError):
            raise ProcessEndedError(f"{error}; {how_to_go_on(request.command)}") from error
        raise


def join(make_request: Callable[[], SweepRequest], output: Path, ranks: Ranks) -> int:
    """Answer this rank's share, and return the exit code. Rank 0 says what is wrong, or its witness if it is gone.

    Args:
        make_request: may raise, as for mistakes on the command line.
        output: the run folder.
        ranks: of this process.
    """
    warnings.simplefilter("ignore")
    log_errors_alone()
    hide_progress_bars()
    try:
        with Share(output, ranks) as share:
            join_sweep(_placed(make_request(), ranks), share, ranks)
    except Exception:  # whatever it is, the share has told rank 0
        return _EXIT_BAD_INPUT
    return 0


def _placed(request: SweepRequest, ranks: Ranks) -> SweepRequest:
    """Return the request with the device of this process.

    Raises:
        InputError: for a device that is not here.
    """
    check_device(request.config.device)
    device = device_of_rank(request.config.device, ranks, torch.cuda.device_count())
    if device is not None and device.startswith("cuda:"):
        # The clock's events are those of the current device.
        torch.cuda.set_device(device)
    return replace(request, config=request.config.model_copy(update={"device": device}))
