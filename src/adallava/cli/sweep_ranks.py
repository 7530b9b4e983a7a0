"""A sweep as one process of a launch: rank 0 leads and speaks, the others answer their share in silence."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from adallava.cli.before_loading import check_device, leave_cudnn_attention, quiet_loading
from adallava.errors import AdallavaError
from adallava.families.transformers_internals import hide_progress_bars, log_errors_alone
from adallava.report.page import write_report
from adallava.runs.executors.executor_contract import MakeExecutor, ProcessEndedError
from adallava.runs.executors.in_process import LocalExecutor
from adallava.runs.executors.on_ray import RayExecutor
from adallava.runs.executors.processes import ProcessesExecutor, join_sweep
from adallava.runs.executors.ray_cluster import RayLaunch
from adallava.runs.executors.shares import Share
from adallava.runs.ranks import Ranks, device_of_rank
from adallava.runs.request import SweepRequest
from adallava.runs.run_sweep import SweepOutcome, run_sweep
from adallava.tasks.task import pictures_of

from .last_words import ANY_EXECUTOR, ANY_NUMBER, how_to_go_on, ignore_signals
from .sweep_progress import ProgressDisplay

_EXIT_BAD_INPUT = 2


def lead(request: SweepRequest, ranks: Ranks, launch: RayLaunch | None = None) -> tuple[SweepOutcome, Path | None]:
    """Run the sweep as rank 0, alone, or as the driver of workers on Ray, and write its page, if one is asked for.

    Raises:
        AdallavaError: as `run_sweep` does; where another process is to blame, with the command that goes on.
    """
    quiet_loading(request.config.model)
    leave_cudnn_attention()
    placed = request if launch is not None else _placed(request, ranks)
    try:
        with ProgressDisplay() as display, run_sweep(placed, display, _executor(ranks, launch)) as outcome:
            if not request.report:
                return outcome, None
            return outcome, write_report(request.output, pictures_of(outcome.task), roofline=request.roofline)
    except (AdallavaError, OSError) as error:
        if ranks.world_size > 1:
            # The launcher ends this process, too, when another one is gone: perhaps before its line is out.
            ignore_signals()
        if isinstance(error, ProcessEndedError):
            free = ANY_NUMBER if launch is None else ANY_EXECUTOR
            raise ProcessEndedError(f"{error}; {how_to_go_on(request.command, free)}") from error
        raise


def join(make_request: Callable[[], SweepRequest], output: Path, ranks: Ranks) -> int:
    """Answer this rank's share, and return the exit code. Rank 0 says what is wrong, or its witness if it is gone.

    Args:
        make_request: may raise, as for mistakes on the command line.
        output: the run folder.
        ranks: of this process.
    """
    prepare_silent_process()
    try:
        with Share(output, ranks) as share:
            join_sweep(_placed(make_request(), ranks), share, ranks)
    except Exception:  # whatever it is, the share has told rank 0
        return _EXIT_BAD_INPUT
    return 0


def prepare_silent_process() -> None:
    """What a process that answers for another one does first; importable by name, for workers elsewhere."""
    warnings.simplefilter("ignore")
    log_errors_alone()
    hide_progress_bars()
    leave_cudnn_attention()


def _executor(ranks: Ranks, launch: RayLaunch | None) -> MakeExecutor:
    if launch is not None:
        return partial(RayExecutor, launch=launch, prepare_process=prepare_silent_process)
    return LocalExecutor if ranks.world_size == 1 else partial(ProcessesExecutor, ranks=ranks)


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
