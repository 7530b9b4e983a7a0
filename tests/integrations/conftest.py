"""Everything here needs the real lmms-eval, which has an environment of its own: `make test-lmms`."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

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
    """lmms-eval reads the 1,900 YAML files of its own tasks for every evaluation, which takes longer than most.

    Here it does once, by the parser in C.
    """
    if find_spec("lmms_eval") is None:
        yield
        return
    import yaml
    from lmms_eval import tasks

    class Quick(yaml.CFullLoader):
        pass

    Quick.add_constructor("!function", tasks.utils.ignore_constructor)
    read, own = tasks.TaskManager._get_task_and_group, f"{Path(tasks.__file__).parent}{os.sep}"
    known: dict[str, Any] = {}

    def read_once(self: Any, folder: str) -> Any:
        if folder != own:
            return read(self, folder)
        if not known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(yaml, "full_load", lambda file: yaml.load(file, Loader=Quick))
                known.update(read(self, folder))
        return copy.deepcopy(known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.TaskManager, "_get_task_and_group", read_once)
        yield


@pytest.fixture(scope="session")
def run_lmms_eval(task_folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run lmms-eval's command line in a process of its own, or in several by a launcher, on the CPU."""

    def run(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        module = [sys.executable, "-m", *launcher, *(("-m",) if launcher else ()), "lmms_eval"]
        common = ["--model", "adallava", "--include_path", str(task_folder), "--log_samples"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run(
            [*module, *common, *arguments], capture_output=True, text=True, env=environment, timeout=240
        )

    return run
