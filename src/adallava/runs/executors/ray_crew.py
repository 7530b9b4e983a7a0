"""The workers on a Ray cluster: begun where there is room, asked, heard, and begun again where they die."""

import re
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from adallava.records.journal import AnswerLine
from adallava.runs.batches import describe_error
from adallava.runs.executors.leases import Lease
from adallava.runs.executors.ray_cluster import RayLaunch, nodes_of, resources_of, uses_gpus
from adallava.runs.executors.ray_worker import Arrival, RayWorker
from adallava.runs.request import SweepRequest

MOST_FAILED_STARTS = 3
"""Workers of a node that died while they loaded, one after the other, before it is left alone."""

MOST_DEATHS = 12
"""Workers of a node that died with no answer between: more than one sample that kills them takes (`leases`)."""


@dataclass(eq=False)
class Member:
    """A worker, by its actor.

    Attributes:
        actor: Ray's handle.
        node_id: where it was begun.
        arrival: what it said when it had loaded; None before.
        asked: what it has not answered yet, in order: Ray's references, each with its lease.
    """

    actor: Any
    node_id: str
    loading: Any
    arrival: Arrival | None = None
    asked: deque[tuple[Any, Lease]] = field(default_factory=deque)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.arrival is not None

    @property
    def host(self) -> str:
        """Its host's name."""
        return self.node_id[:8] if self.arrival is None else self.arrival.host


@dataclass(frozen=True)
class Heard:
    """What has come back from a member.

    Attributes:
        member: that it is about.
        arrival: it has loaded, or was refused.
        lease: that it has answered, or failed at.
        lines: the answers.
        gone: why it is no longer there; empty if it is.
        failed: why it failed at the lease, being still there.
    """

    member: Member
    arrival: Arrival | None = None
    lease: Lease | None = None
    lines: tuple[AnswerLine, ...] = ()
    gone: str = ""
    failed: str = ""


class Crew:
    """All workers of a sweep."""

    def __init__(self, ray: Any, launch: RayLaunch, request: SweepRequest, prepare: Callable[[], None]) -> None:
        """Begin none yet; `prepare` is called in each worker's process before it loads."""
        self._ray, self._launch, self._request = ray, launch, request
        self._arguments = (request, launch.folder, prepare)
        self._failed_starts: Counter[str] = Counter()
        self._deaths: Counter[str] = Counter()
        self._left_alone: set[str] = set()
        self._hosts: dict[str, str] = {}
        self.members: list[Member] = []
        if launch.workers is not None:
            self._ask_autoscaler(launch.workers)

    def grow(self) -> None:
        """Begin a worker wherever there is room for one more."""
        nodes = nodes_of(self._ray, self._launch, self._request.config.device)
        taken = Counter(member.node_id for member in self.members)
        most = self._launch.workers
        # Round by round, so that few workers spread over many nodes.
        for place in range(max((node.slots for node in nodes), default=0)):
            for node in nodes:
                free = taken[node.id] <= place < node.slots and node.id not in self._left_alone
                if free and (most is None or len(self.members) < most):
                    self._begin(node.id)
                    taken[node.id] += 1

    @property
    def stuck(self) -> bool:
        """Whether there is no worker, and every node that has room for one is left alone."""
        nodes = {node.id for node in nodes_of(self._ray, self._launch, self._request.config.device) if node.slots}
        return not self.members and bool(nodes) and nodes <= self._left_alone

    def has_others_than(self, node_id: str) -> bool:
        """Return whether somebody answers on another node, or is about to."""
        return any(member.node_id != node_id for member in self.members)

    def host_of(self, node_id: Hashable) -> str:
        """Return the name of a node's host, or Ray's of a node that nobody has answered on."""
        return self._hosts.get(str(node_id), str(node_id)[:8])

    def ask(self, member: Member, lease: Lease) -> None:
        """Give a lease to a member."""
        member.asked.append((member.actor.answer.remote(lease), lease))

    def hear(self, timeout_s: float) -> Iterator[Heard]:
        """Yield all that has come back, waiting at most so long for the first of it."""
        by_ref = {ref: (member, lease) for member in self.members for ref, lease in member.asked}
        by_ref |= {member.loading: (member, None) for member in self.members if not member.ready}
        if not by_ref:
            return
        ready, rest = self._ray.wait(list(by_ref), num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for ref in ready:
            member, lease = by_ref[ref]
            if member in self.members:
                yield self._heard(ref, member, lease)

    def time(self, batch_size: int) -> Any:
        """Return what the one member that `dismiss_all_but_one` has left measures."""
        (member,) = self.members
        return self._ray.get(member.actor.time.remote(batch_size))

    def dismiss_all_but_one(self) -> None:
        """End all but one that answers: it alone is on its device then."""
        kept = next((member for member in self.members if member.ready), None)
        for member in [other for other in self.members if other is not kept]:
            self.dismiss(member)

    def dismiss(self, member: Member, *, node_too: bool = False) -> None:
        """End a member; and begin no other on its node."""
        self.members.remove(member)
        if node_too:
            self._left_alone.add(member.node_id)
        self._ray.kill(member.actor)

    def _heard(self, ref: Any, member: Member, lease: Lease | None) -> Heard:
        member.asked = deque(one for one in member.asked if one[0] != ref)
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if lease is not None:
                return Heard(member, lease=lease, failed=describe_error(error.cause))
            return self._gone(member, describe_error(error.cause))
        except self._ray.exceptions.ObjectLostError as error:
            return Heard(member, lease=lease, failed=describe_error(error))
        except self._ray.exceptions.RayError as error:
            return self._gone(member, _why(error))
        if lease is not None:
            self._deaths[member.node_id] = 0
            return Heard(member, lease=lease, lines=tuple(value))
        if value.described is not None:
            member.arrival = value
            self._hosts[member.node_id] = value.host
            self._failed_starts[member.node_id] = 0
        return Heard(member, arrival=value)

    def _gone(self, member: Member, why: str) -> Heard:
        node = member.node_id
        (self._deaths if member.ready else self._failed_starts)[node] += 1
        often = self._failed_starts[node] >= MOST_FAILED_STARTS or self._deaths[node] >= MOST_DEATHS
        self.dismiss(member, node_too=often)
        return Heard(member, gone=why)

    def _begin(self, node_id: str) -> None:
        scheduling = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_gpus = uses_gpus(self._request.config.device, resources)
        # A worker is not restarted by Ray but begun again: what it was at is another's by then.
        options = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": scheduling}
        kind = self._ray.remote(**options, **resources_of(self._launch, on_gpus))(RayWorker)
        actor = kind.remote(*self._arguments)
        self.members.append(Member(actor, node_id, actor.load.remote()))

    def _ask_autoscaler(self, workers: int) -> None:
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        on_gpus = uses_gpus(self._request.config.device, resources)
        needs = resources_of(self._launch, on_gpus)
        bundle = {"CPU": needs["num_cpus"], **({"GPU": needs["num_gpus"]} if on_gpus else {})}
        self._ray.autoscaler.sdk.request_resources(bundles=[bundle] * workers)


def _why(error: Exception) -> str:
    """Return the line of Ray's many that says what happened: the first, or the last of a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # Escape sequences color what Ray quotes of another process.
    said = re.sub(r"\x1b\[[0-9;]*m", "", lines[-1] if any("Traceback" in line for line in lines) else lines[0])
    return said[:300]
