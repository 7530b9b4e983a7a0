"""Who answers for a sweep (this process, those of torchrun, or workers on Ray), and what is said when it ends."""

import argparse
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from adallava.errors import InputError

from .arguments import path_argument, whole_number

if TYPE_CHECKING:
    from adallava.runs.executors.ray_cluster import RayLaunch
    from adallava.runs.ranks import Ranks


def add_where(group: Any) -> None:
    """Add `--executor` and what only Ray reads."""
    group.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help=(
            "local: this process, or those that torchrun started; ray: workers on a Ray cluster, one per GPU, or per "
            "CPU without GPUs; needs pip install 'adallava[ray]' (default: %(default)s)"
        ),
    )
    group.add_argument(
        "--address",
        metavar="auto|HOST[:PORT]",
        help="with --executor ray: the running cluster, as ray.init takes it (default: start one on this machine)",
    )
    group.add_argument(
        "--workers",
        type=whole_number,
        metavar="N",
        help=(
            "with --executor ray: the most workers, and how many to request from an autoscaler (default: as many as "
            "fit)"
        ),
    )
    group.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="SHARE",
        help="with --executor ray: 0.5 puts two models on a GPU, which is faster with small batches (default: 1)",
    )
    group.add_argument(
        "--working-dir",
        type=path_argument,
        metavar="DIR",
        help="with --executor ray: the current folder or a parent, copied to every host, so that relative paths work "
        "without a shared disk (default: every host has these paths)",
    )


def launch_of(args: argparse.Namespace) -> "RayLaunch | None":
    """Return where Ray is, if it is asked for.

    Raises:
        InputError: for what only Ray reads, without it.
    """
    given = {
        name: value
        for name in ("address", "workers", "gpus_per_worker", "working_dir")
        if (value := getattr(args, name)) is not None
    }
    if args.executor == "ray":
        from adallava.runs.executors.ray_cluster import RayLaunch

        return RayLaunch(**given)
    for name in given:
        raise InputError(f"--{name.replace('_', '-')} needs --executor ray")
    return None


def spoken_for(ranks: "Ranks", launch: "RayLaunch | None") -> AbstractContextManager[object]:
    """Have a leader of others say how to go on when a signal ends it, and under a launcher even when it is killed."""
    from adallava.runs.ranks import is_launched

    if launch is None and not is_launched():
        return nullcontext()
    from .last_words import ANY_EXECUTOR, end_at_signals, how_to_go_on, say

    if launch is not None:
        go_on = how_to_go_on(command_of(ranks), ANY_EXECUTOR)
        # At once, without a word of Ray's: workers end with their driver, and so does a cluster of its own.
        end_at_signals(lambda why: say(f"{why}; {go_on}"), terminated="ended by a signal (SIGTERM)")
        return nullcontext()
    from .witness import Witness

    witness = Witness(f"process 0 is gone; {how_to_go_on(command_of(ranks))}")

    def last_words(why: str) -> None:
        """Say how to go on, and let the witness go: it need not say it again."""
        say(f"{why}; {how_to_go_on(command_of(ranks))}")
        witness.dismiss()

    end_at_signals(last_words)
    return witness


def command_of(ranks: "Ranks") -> str:
    """Return the command line that made this process, or those of its launch."""
    by_hand = ["adallava"]
    launched = ["torchrun", "--nproc-per-node", str(ranks.world_size), "-m", "adallava"]
    return shlex.join([*(by_hand if ranks.world_size == 1 else launched), *sys.argv[1:]])
