"""A Ray cluster of this machine, and a method that makes trouble in the workers alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

METHOD = """
import os, signal
from pathlib import Path
import torch
from adallava.selection.uniform import UniformSelector


class UneasySelector(UniformSelector):
    name = "uneasy"

    def select(self, inputs):
        num_rows = len(inputs.keep_counts)
        if num_rows > 2:
            raise torch.OutOfMemoryError(f"{num_rows} rows do not fit")
        here = Path(__file__).parent
        for order in here.glob("end-*"):
            if "driver" not in os.environ.get("ADALLAVA_TEST_ROLE", "driver"):
                order.unlink(missing_ok=True)
                os.kill(os.getpid(), signal.SIGKILL)
        if (here / "never").exists() and "driver" not in os.environ.get("ADALLAVA_TEST_ROLE", "driver"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().select(inputs)
"""


def install_method(folder: Path) -> None:
    """Write an installed package with the method `uneasy`: out of memory above two rows, and it dies on demand.

    It ends a worker's process once for every file `end-*` in the folder, and always while there is a file `never`.
    """
    info = folder / "uneasy-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "uneasy.py").write_text(METHOD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: uneasy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[adallava.selectors]\nuneasy = uneasy:UneasySelector\n")


@contextmanager
def two_nodes(method_folder: Path) -> Iterator["Cluster"]:
    """Start a head and another node of one CPU each; all of it ends with the context."""
    from ray.cluster_utils import Cluster  # Half a second, which no other test of a session should wait for.

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "ADALLAVA_TEST_ROLE", "RAY_USAGE_STATS_ENABLED")}
    path = os.pathsep.join([str(method_folder), *(before["PYTHONPATH"] or "").split(os.pathsep)])
    # What the nodes inherit.
    os.environ |= {"PYTHONPATH": path, "ADALLAVA_TEST_ROLE": "worker", "RAY_USAGE_STATS_ENABLED": "0"}
    sys.path.insert(0, str(method_folder))
    memory = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    try:
        cluster.add_node(num_cpus=1, **memory)
        os.environ["ADALLAVA_TEST_ROLE"] = "driver"
        yield cluster
    finally:
        cluster.shutdown()
        sys.path.remove(str(method_folder))
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
