"""Reaching a Ray cluster, and what a user is told of it; without Ray: a stand-in answers as it would."""

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adallava.errors import InputError
from adallava.records.answer_places import AnswerPlaces
from adallava.records.cells import plan_cells
from adallava.records.journal import AnswerLine
from adallava.runs.executors import ray_cluster
from adallava.runs.executors.leases import LeaseBook
from adallava.runs.executors.on_ray import RayExecutor
from adallava.runs.executors.ray_cluster import RayLaunch, connected, describe_cluster, nodes_of, resources_of
from adallava.runs.executors.ray_crew import Heard, Member
from adallava.runs.observer import SweepObserver


def node(**resources: float) -> dict[str, Any]:
    return {"NodeID": f"node of {resources}", "Alive": True, "Resources": resources}


def stand_in(*nodes: dict[str, Any], init: Callable[..., object] = lambda **_: None) -> Any:
    context = SimpleNamespace(gcs_address="10.0.0.1:6379")
    return SimpleNamespace(
        init=init,
        nodes=lambda: list(nodes),
        is_initialized=lambda: False,
        shutdown=lambda: None,
        get_runtime_context=lambda: context,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0}, {"workers": -1}, {"gpus_per_worker": 0.0}, {"gpus_per_worker": -1.0},
        {"gpus_per_worker": 1.5}, {"gpus_per_worker": float("nan")}, {"gpus_per_worker": float("inf")},
        {"gpus_per_worker": 0.00001}, {"address": ""}, {"address": "two words"}, {"address": "host:port"},
        {"address": ":6379"}, {"address": "http://host:6379"},
    ],
)  # fmt: skip
def test_what_can_be_no_launch_is_refused_by_its_option(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is "):
        RayLaunch(**wrong)


@pytest.mark.parametrize("address", ["auto", "local", "head", "10.0.0.1:6379", "[::1]:6379", "ray://head:10001"])
def test_addresses_are_taken(address: str) -> None:
    assert RayLaunch(address=address).address == address


@pytest.mark.parametrize(("share", "asked", "room"), [(1 / 3, 0.3333, 6), (0.7, 0.7, 2), (1.0, 1.0, 2), (2.0, 2.0, 1)])
def test_a_share_of_a_gpu_has_the_four_places_that_ray_takes(share: float, asked: float, room: int) -> None:
    launch = RayLaunch(gpus_per_worker=share)
    assert resources_of(launch, on_gpus=True) == {"num_cpus": 1, "num_gpus": asked}
    assert [one.slots for one in nodes_of(stand_in(node(CPU=9.0, GPU=2.0)), launch, None)] == [room]


def test_a_cluster_is_said_with_its_room_and_one_without_any_with_what_a_worker_takes() -> None:
    ray = stand_in(node(CPU=4.0, GPU=1.0), node(CPU=4.0, GPU=1.0))
    assert describe_cluster(ray, RayLaunch(), None) == "10.0.0.1:6379, 2 hosts, 2 GPUs, room for 2 workers"
    assert describe_cluster(ray, RayLaunch(workers=1000), "cpu").endswith("room for 8 workers")
    assert describe_cluster(ray, RayLaunch(gpus_per_worker=2.0), None) == (
        "10.0.0.1:6379, 2 hosts, 2 GPUs, and room for none yet: a worker takes 1 CPU and 2 GPUs"
    )


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        (
            "local",
            Exception("The current node timed out\nduring startup."),
            r"can be started .*timed out during startup",
        ),
        (
            "auto",
            RuntimeError("Version mismatch: Python: 3.11"),
            r"at --address auto .*same versions of Ray and Python",
        ),
        ("auto", ConnectionError("Could not find any running Ray instance"), r"auto .*running Ray.*`ray start --head`"),
    ],
)
def test_whatever_ray_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str, error: Exception, told: str
) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray_cluster, "import_ray", lambda: stand_in(init=init))
    with pytest.raises(InputError, match=told), connected(RayLaunch(address=address), Path("run")):
        pass


def test_connecting_leaves_what_a_signal_does_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)

    monkeypatch.setattr(ray_cluster, "import_ray", lambda: stand_in(init=init))
    before = signal.getsignal(signal.SIGTERM)
    with connected(RayLaunch(), Path("run")):
        assert signal.getsignal(signal.SIGTERM) is before


class Notes(SweepObserver):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


def test_a_sample_that_one_host_fails_at_is_answered_on_another_before_it_counts() -> None:
    plans, ids = plan_cells(["uniform"], []), ["a", "b"]
    hosts = {"one": "left", "two": "right"}
    members = [Member(None, name, None, arrival=SimpleNamespace(host=host)) for name, host in hosts.items()]  # type: ignore[arg-type]
    executor = RayExecutor.__new__(RayExecutor)
    executor._reported = set()
    executor._crew = SimpleNamespace(  # type: ignore[assignment]
        has_others_than=lambda node_id: any(member.node_id != node_id for member in members), host_of=hosts.get
    )
    book, told = LeaseBook(plans, ids, 2, AnswerPlaces()), Notes()

    def believed(member: Member, *failed: bool) -> list[tuple[str, bool]]:
        lease = book.take(member, member.node_id)
        assert lease is not None
        given = zip(sorted(lease.missing), failed, strict=True)
        lines = tuple(AnswerLine(("full@1.0", id_, 0), fails, b"") for id_, fails in given)
        back = executor._believed(Heard(member, lease=lease, lines=lines), book, told)
        book.settle(lease)
        return [(line.key[1], line.failed) for line in back]

    assert believed(members[0], False, True) == [("a", False)], "b is not believed yet"
    assert believed(members[1], True) == [("b", True)], "it failed on both: no host is to blame"
    assert told.lines == []
    assert book.over


def test_a_host_that_fails_where_another_answers_is_named() -> None:
    executor, told = RayExecutor.__new__(RayExecutor), Notes()
    executor._reported = set()
    executor._crew = SimpleNamespace(has_others_than=lambda _: True, host_of=lambda _: "left")  # type: ignore[assignment]
    book = LeaseBook(plan_cells(["uniform"], []), ["a"], 2, AnswerPlaces())
    book.doubt(book.take("worker", "one"), frozenset({"a"}), "one")  # type: ignore[arg-type]
    lease = book.take("other", "two")
    member = Member(None, "two", None, arrival=SimpleNamespace(host="right"))  # type: ignore[arg-type]
    answered = (AnswerLine(("full@1.0", "a", 0), False, b""),)
    assert executor._believed(Heard(member, lease=lease, lines=answered), book, told) == answered
    assert told.lines == ["right answered samples that failed on left: does that one lack images?"]
