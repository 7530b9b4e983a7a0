"""A sweep on a Ray cluster gives what one process gives, whoever dies; each test starts real nodes on this machine."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from rank_server import wait_until
from ray_cases import install_method, two_nodes
from sweep_inputs import assert_same_answers, deterministic_samples, local_questions

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.records import RunConfig
from adallava.runs.executors.on_ray import RayExecutor
from adallava.runs.executors.ray_cluster import RayLaunch
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.run_sweep import run_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def method_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install_method(folder)
    return folder


@pytest.fixture
def request_for(tiny_folder, tmp_path):
    """Four cells of which one draws twice, six pictures of which two are unreadable, batches of four and of two."""
    config = RunConfig(
        model=str(tiny_folder), task=str(local_questions(tmp_path / "task")), methods=("uneasy", "random"), draws=2,
        token_budgets=(TokenBudget(count=3), TokenBudget(ratio=0.5)), limit=None, batch_size=4, max_new_tokens=3,
        device="cpu", 
    )  # fmt: skip
    return lambda name: SweepRequest(config, tmp_path / name, report=False)


class Watcher(SweepObserver):
    """Does something when so many answers are there, and keeps what is said."""

    def __init__(self, **at):
        self.at, self.answers, self.notes = dict(at), 0, []

    def note(self, message):
        self.notes.append(message)

    def answered(self, num_answers, num_failed):
        self.answers += num_answers
        for name, (number, act) in list(self.at.items()):
            if self.answers >= number:
                del self.at[name]
                act()


def on_ray(cluster, request, observer=None):
    launch = RayLaunch(address=cluster.address)
    with run_sweep(request, observer, partial(RayExecutor, launch=launch)):
        pass


def assert_same(folder, alone):
    assert_same_answers(folder, alone)
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.long
def test_a_node_is_killed_then_a_worker_and_batches_do_not_fit(request_for, method_folder, tmp_path):
    with two_nodes(method_folder) as cluster:
        with run_sweep(request_for("alone")):
            pass
        going = next(iter(cluster.worker_nodes))
        (method_folder / "end-once").touch()
        watcher = Watcher(goes=(2, lambda: cluster.remove_node(going, allow_graceful=False)))
        on_ray(cluster, request_for("run"), watcher)
        assert not watcher.at, "all of it happened"
        assert not (method_folder / "end-once").exists(), "and a worker did end itself"
    assert sum("is gone" in note for note in watcher.notes) >= 1
    assert_same(tmp_path / "run", tmp_path / "alone")
    uneasy = [s for s in deterministic_samples(tmp_path / "run") if s["cell"].startswith("uneasy") and not s["error"]]
    assert {sample["batch_size"] for sample in uneasy} == {2}, "four rows do not fit, two do"


@pytest.mark.long
def test_a_killed_driver_runs_again_and_a_new_node_gets_work(request_for, method_folder, tmp_path):
    request = request_for("run")
    with two_nodes(method_folder) as cluster:
        with run_sweep(request_for("alone")):
            pass
        config = request.config
        command = [
            sys.executable, "-m", "adallava", "sweep", "--executor", "ray", "--address", cluster.address, "--model",
            config.model, "--task", config.task, "--method", "uneasy,random", "--draws", "2", "--token-budget", "3,0.5",
            "--limit", "all", "--batch-size", "4", "--max-new-tokens", "3", "--device", "cpu", "--no-report",
            "--output", str(request.output),
        ]  # fmt: skip
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        journal = request.output / "samples.jsonl"
        assert wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 4, 180.0)
        driver.kill()
        driver.wait()
        kept = journal.read_bytes().count(b"\n")
        watcher = Watcher(comes=(2, lambda: cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)))
        on_ray(cluster, request, watcher)
        assert not watcher.at
        assert watcher.answers == 42 - kept
    assert_same(tmp_path / "run", tmp_path / "alone")


@pytest.mark.long
def test_what_no_worker_can_load_is_a_mistake_told_once(request_for, method_folder, tmp_path):
    with two_nodes(method_folder) as cluster:
        request = request_for("run")
        wrong = replace(request, config=request.config.model_copy(update={"model": str(tmp_path / "nothing")}))
        with pytest.raises(InputError, match="nothing"):
            on_ray(cluster, wrong)
        with pytest.raises(InputError, match=r"no Ray cluster can be used at --address 127\.0\.0\.1:9"):
            on_ray(SimpleNamespace(address="127.0.0.1:9"), request)
