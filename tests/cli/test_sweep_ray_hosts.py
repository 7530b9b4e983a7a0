"""Two hosts, each a network namespace of its own, and without a shared disk for what the sweep reads and writes."""

import os
import shutil
import subprocess
import uuid

import pytest
from rank_server import wait_until
from sweep_inputs import deterministic_samples, local_questions

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(900)]

HEAD, OTHER = "10.77.0.1", "10.77.0.2"


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def hosts():
    """Names of two namespaces with a cable between them."""
    names = [f"adl{os.getpid()}{end}" for end in "ab"]
    if shutil.which("ip") is None or ip("netns", "add", names[0]).returncode:
        pytest.skip("no network namespace can be made here: it takes ip, and root")
    ip("netns", "add", names[1])
    ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
    for name, address in zip(names, (HEAD, OTHER), strict=True):
        ip("link", "set", name, "netns", name)
        for words in (
            ["addr", "add", f"{address}/24", "dev", name],
            ["link", "set", name, "up"],
            ["link", "set", "lo", "up"],
        ):
            ip("-n", name, *words)
    yield names
    for name in names:
        ip("netns", "del", name)


def test_a_host_that_sees_neither_task_nor_run_folder_answers_all(hosts, ray_environment, tiny_folder, tmp_path):
    pytest.importorskip("ray")
    local_questions(tmp_path / "here")
    environment = {**ray_environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    sweep = [
        "adallava", "sweep", "--model", str(tiny_folder), "--task", "questions.jsonl", "--limit", "all",
        "--batch-size", "2", "--max-new-tokens", "3", "--method", "uniform", "--token-budget", "3", "--no-report",
        "--device", "cpu",
    ]  # fmt: skip
    here = {"cwd": tmp_path / "here", "env": environment, "capture_output": True, "text": True, "check": False}
    alone = subprocess.run([*sweep, "--output", str(tmp_path / "here" / "alone")], **here)
    assert alone.returncode == 1, "two pictures cannot be read"

    def on(host, *command):
        return ["ip", "netns", "exec", host, *command]

    head = ["ray", "start", "--head", f"--node-ip-address={HEAD}", "--num-cpus=0", "--block"]
    # The other host sees an empty folder where the task is.
    joins = (
        f"mount -t tmpfs none {tmp_path / 'here'} && exec ray start --address={HEAD}:6379 --node-ip-address={OTHER} "
    )
    other = ["unshare", "--mount", "bash", "-c", f"{joins} --num-cpus=1 --block"]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    started = [subprocess.Popen(on(hosts[0], *head), **quiet)]
    try:
        is_up = on(hosts[0], "bash", "-c", f"exec 3<>/dev/tcp/{HEAD}/6379")
        assert wait_until(lambda: subprocess.run(is_up, **quiet, check=False).returncode == 0, 120.0)
        started.append(subprocess.Popen(on(hosts[1], *other), **quiet))
        run = tmp_path / "here" / "run"
        led = ["--executor", "ray", "--address", HEAD, "--working-dir", ".", "--output", str(run)]
        done = subprocess.run(on(hosts[0], *sweep, *led), **here)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert done.returncode == 1, done.stderr
    assert "2 of 6 samples failed" in done.stdout

    def in_order(folder):
        return sorted(deterministic_samples(folder), key=lambda s: (s["cell"], s["sample_id"]))

    assert in_order(run) == in_order(tmp_path / "here" / "alone")
