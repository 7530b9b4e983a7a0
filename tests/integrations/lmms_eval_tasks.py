"""lmms-eval with its own tasks read once, by the parser in C; as a script, its command line.

It reads the 1,900 YAML files of its own tasks for every evaluation, which takes longer than most of them.
"""

import copy
import os
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


@contextmanager
def read_own_tasks_once() -> Iterator[None]:
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
            with patch.object(yaml, "full_load", lambda file: yaml.load(file, Loader=Quick)):
                known.update(read(self, folder))
        return copy.deepcopy(known)

    with patch.object(tasks.TaskManager, "_get_task_and_group", read_once):
        yield


if __name__ == "__main__":
    with read_own_tasks_once():
        runpy.run_module("lmms_eval", run_name="__main__", alter_sys=True)
