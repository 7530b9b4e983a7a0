"""This process among those of a launch by `torchrun` or `accelerate launch`: where it runs, and what is its share."""

import os
from dataclasses import dataclass, field

from adallava.errors import InputError

_DEFAULTS = {"rank": 0, "local_rank": 0, "world_size": 1}


@dataclass(frozen=True)
class Ranks:
    """This process among those of a launch.

    Attributes:
        rank: among all.
        local_rank: among those of this host.
        world_size: how many there are.
        launcher_pid: of the process that started this one, to be read early: it may end while torch is imported.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    launcher_pid: int = field(default_factory=os.getppid)

    @classmethod
    def from_environment(cls) -> "Ranks":
        """Read the launcher's variables; without a launcher, one process.

        Raises:
            InputError: if one of them is not a number, or the rank is none of the launch.
        """
        ranks = cls(**{name: _read_number(name.upper(), default) for name, default in _DEFAULTS.items()})
        if not 0 <= ranks.rank < ranks.world_size:
            world_size = os.environ.get("WORLD_SIZE", f"not set, which is {ranks.world_size} process")
            raise InputError(
                f"RANK is {ranks.rank} and WORLD_SIZE is {world_size}: ranks go from 0 to WORLD_SIZE - 1; unset RANK "
                "and WORLD_SIZE for one process, or start several with torchrun --nproc-per-node"
            )
        return ranks


def _read_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name} is {text!r}, which is not a whole number: unset it, or let torchrun set it") from None


def ranks_of_one_host() -> Ranks:
    """Return this process's ranks, for work that its launch shares through files.

    Raises:
        InputError: if the launch is not of this host alone, or its variables cannot be right.
    """
    ranks = Ranks.from_environment()
    local_world_size = os.environ.get("LOCAL_WORLD_SIZE")
    if ranks.world_size > 1 and local_world_size != str(ranks.world_size):
        raise InputError(
            f"WORLD_SIZE is {ranks.world_size} and LOCAL_WORLD_SIZE is {local_world_size}: a sweep is shared by the "
            "processes of one host; start them there with torchrun --nproc-per-node, or unset WORLD_SIZE"
        )
    return ranks


def is_launched() -> bool:
    """Return True if a launcher has started this process, be it the only one."""
    return "WORLD_SIZE" in os.environ


def launch_id(ranks: Ranks) -> str:
    """Return what the processes of one launch have in common, and no other launch of a host.

    A plain torchrun has the port, run id and restart count of the one before. New in each, and in each restart, is the
    folder below which every process has one for its error file; without torchrun, the process that started them all.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    launch = os.path.dirname(os.path.dirname(error_file)) if error_file else str(ranks.launcher_pid)
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE")
    return "/".join((*(os.environ.get(name, "") for name in names), launch))


def device_of_rank(asked: str | None, ranks: Ranks, num_cuda_devices: int) -> str | None:
    """Return the device of this process, None for what the model takes by itself.

    Of several processes each gets the CUDA device of its local rank; if there are more processes than devices, they
    share them in turns. A device that was asked for by its number, or the CPU, is everyone's.
    """
    if ranks.world_size == 1 or not num_cuda_devices or asked not in (None, "cuda"):
        return asked
    return f"cuda:{ranks.local_rank % num_cuda_devices}"


def is_own(ranks: Ranks, num_batches: int, batch: int, turn: int) -> bool:
    """Say whether a batch is this process's to answer: in each turn, every batch is exactly one's.

    A process keeps its batches from turn to turn, so that it prepares no others. Only what is left over where the
    processes do not divide the batches goes round, so that over the turns all have as much to do.

    Args:
        ranks: of this process.
        num_batches: of a turn.
        batch: its number.
        turn: number of the cell and draw.
    """
    left_over = num_batches % ranks.world_size
    shift = turn * left_over if batch >= num_batches - left_over else 0
    return (batch + shift) % ranks.world_size == ranks.rank
