"""Everything here needs the real lmms-eval, which has an environment of its own: `make test-lmms`."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import lmms_eval_tasks
import pytest
from lmms_eval_tasks import read_own_tasks_once

os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine questions: an odd number, so that batches of four and two processes both have a remainder."""
    from vqav2_files import write_task

    # Of this run alone: a cache of datasets elsewhere could hold an older fixture.
    os.environ["LMMS_EVAL_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))
    return write_task(tmp_path_factory.mktemp("tasks"), 9)


@pytest.fixture(scope="session", autouse=True)
def own_tasks_are_read_once() -> Iterator[None]:
    if find_spec("lmms_eval") is None:
        yield
        return
    with read_own_tasks_once():
        yield


@pytest.fixture(scope="session")
def run_lmms_eval(task_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run lmms-eval's command line in a process of its own, or in several by a launcher, on the CPU.

    By a launcher it is theirs to the letter; alone it reads its own tasks by the parser in C.
    """

    def run(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        module = ["-m", *launcher, "-m", "lmms_eval"] if launcher else [lmms_eval_tasks.__file__]
        common = ["--model", "adallava", "--include_path", str(task_folder), "--log_samples"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [sys.executable, *module, *common, *arguments], capture_output=True, text=True, env=environment, timeout=240
        )

    return run
