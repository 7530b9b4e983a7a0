"""The cluster: how it is reached, and which workers its nodes have room for."""

import importlib
import logging
import math
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adallava.errors import InputError

DEFAULT_PORT = 6379
"""Of `ray start --head`."""

_ADDRESS = re.compile(r"(ray://)?[^\s:/]+(:\d{1,5})?|\[[\da-fA-F:]+\](:\d{1,5})?")

LEAST_SHARE = 0.0001
"""Of a GPU, as Ray counts them: it refuses a number with more places."""

KNOCK_S = 10.0

LOCAL = "local"
"""The address of a cluster that is started on this machine, for this sweep alone."""


@dataclass(frozen=True)
class RayLaunch:
    """Where a sweep answers, which decides no answer.

    Attributes:
        address: of a running cluster: `auto`, a host, or `host:port`; `local` to start one here.
        workers: how many at most, and how many an autoscaler is asked for; None for as many as there is room for.
        gpus_per_worker: share of a GPU that each takes; on a cluster without GPUs, or with `--device cpu`, it is a CPU.
        working_dir: the current folder or one above it, which Ray copies to every host: relative paths are then found
            there; None for paths that every host has.
    """

    address: str = LOCAL
    workers: int | None = None
    gpus_per_worker: float = 1.0
    working_dir: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what can hold no worker, or is not an address.

        Raises:
            InputError: naming the option and its value.
        """
        if not _ADDRESS.fullmatch(self.address):
            raise InputError(f"--address is {self.address!r}: give auto, HOST or HOST:PORT, such as 10.0.0.1:6379")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers is {self.workers}: give at least 1")
        if not self.gpus_per_worker >= LEAST_SHARE or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise InputError(
                f"--gpus-per-worker is {self.gpus_per_worker}: give a whole number, or a share from {LEAST_SHARE} to 1"
            )
        if self.working_dir is not None and not self.working_dir.is_dir():
            raise InputError(f"--working-dir {self.working_dir} is no folder")
        if self.working_dir is not None and not Path.cwd().is_relative_to(self.working_dir.resolve()):
            raise InputError(
                f"--working-dir {self.working_dir} does not hold the current folder, from which paths are meant: give "
                ". or a folder above"
            )

    @property
    def folder(self) -> str:
        """The current folder as a worker finds it: by its own path, or within the copy that it starts in."""
        here = Path.cwd()
        return str(here if self.working_dir is None else here.relative_to(self.working_dir.resolve()))

    def runtime_env(self, output: Path) -> dict[str, Any] | None:
        """Return what Ray is to bring to every host; the run folder stays here."""
        if self.working_dir is None:
            return None
        root, run = self.working_dir.resolve(), output.resolve()
        left_out = [f"/{run.relative_to(root).as_posix()}"] if run.is_relative_to(root) and run != root else []
        return {"working_dir": str(root), "excludes": left_out}


@dataclass(frozen=True)
class Node:
    """A host of the cluster, as long as it lives.

    Attributes:
        id: Ray's.
        slots: workers that it has room for.
    """

    id: str
    slots: int


def import_ray() -> Any:
    """Return the module.

    Raises:
        InputError: if it is not installed.
    """
    # No word of a sweep to Ray's makers, unless the user says otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(f"--executor ray needs Ray ({error}): pip install 'adallava[ray]'") from error


@contextmanager
def connected(launch: RayLaunch, output: Path) -> Iterator[Any]:
    """Connect to the cluster, and give Ray's module; a connection that was there stays.

    Args:
        launch: where it is.
        output: the run folder.

    Raises:
        InputError: if there is no Ray, or no cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        _knock(launch.address)
        with warnings.catch_warnings(), _own_end():
            warnings.simplefilter("ignore")
            ray.init(
                address=_full_address(launch.address),
                runtime_env=launch.runtime_env(output),
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if launch.address == LOCAL else None,
            )
    except Exception as error:  # Ray has bare ones, as where a node does not come up in time
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if launch.address == LOCAL:
            raise InputError(
                f"no Ray cluster can be started on this machine ({why}): try again when it is less busy, or start "
                "one by `ray start --head` and give --address auto"
            ) from error
        fix = "start one by `ray start --head` on its first host, and run this on one of its hosts"
        if "ersion mismatch" in why:
            fix = "every host, and this one, takes the same versions of Ray and Python"
        raise InputError(f"no Ray cluster can be used at --address {launch.address} ({why}): {fix}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def describe_cluster(ray: Any, launch: RayLaunch, device: str | None) -> str:
    """Return where the cluster is, and how many workers it has room for."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    room = sum(node.slots for node in nodes_of(ray, launch, device))
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in nodes))
    workers = room if launch.workers is None else min(room, launch.workers)
    told = f"{ray.get_runtime_context().gcs_address}, {len(nodes)} host{'s' * (len(nodes) != 1)}, {gpus} GPUs"
    if workers:
        return f"{told}, room for {workers} workers"
    needs = resources_of(launch, uses_gpus(device, [node["Resources"] for node in nodes]))
    return f"{told}, and room for none yet: a worker takes {needs['num_cpus']} CPU and {needs['num_gpus']:g} GPUs"


def nodes_of(ray: Any, launch: RayLaunch, device: str | None) -> list[Node]:
    """Return the nodes that are alive, and for how many workers each has room."""
    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    on_gpus = uses_gpus(device, [resources for _, resources in alive])
    return [Node(id_, _slots(resources, launch, on_gpus)) for id_, resources in alive]


def uses_gpus(device: str | None, resources: list[dict[str, float]]) -> bool:
    """Return whether workers take GPUs: not if the CPU is asked for, or no node has one."""
    return device != "cpu" and any(one.get("GPU", 0) for one in resources)


def resources_of(launch: RayLaunch, on_gpus: bool) -> dict[str, float]:
    """Return what a worker asks of its node."""
    return {"num_cpus": 1, "num_gpus": _share(launch) if on_gpus else 0}


def _share(launch: RayLaunch) -> float:
    """Return what a worker takes of the GPUs, rounded down to what Ray counts: of a third, three fit."""
    asked = launch.gpus_per_worker
    return asked if asked >= 1 else round(math.floor(asked * 10_000 + 1e-6) / 10_000, 4)


def _slots(resources: dict[str, float], launch: RayLaunch, on_gpus: bool) -> int:
    cpus = int(resources.get("CPU", 0))
    if not on_gpus:
        return cpus
    # A share fits into one GPU a whole number of times, and never across two.
    gpus, share = int(resources.get("GPU", 0)), launch.gpus_per_worker
    return min(cpus, gpus * int(1 / share + 1e-9) if share <= 1 else gpus // int(share))


@contextmanager
def _own_end() -> Iterator[None]:
    """Keep what this process does at SIGTERM: connecting, Ray puts in its place an end without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """See whether anybody is at an address: Ray itself goes on asking for minutes.

    Raises:
        OSError: if nobody is.
    """
    host, colon, port = _full_address(address).rpartition(":")
    if colon and "://" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


def _full_address(address: str) -> str:
    plain = address in ("auto", LOCAL) or ":" in address
    return address if plain else f"{address}:{DEFAULT_PORT}"
