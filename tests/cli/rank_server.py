"""Launches of several ranks without the seconds that each would need to import torch.

A server imports it, loads and counts a model once, and forks every rank; each is a process of its own, and really
killed. Like torchrun it sets the ranks' variables and, if asked to, ends all ranks once one has failed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kill_points import KillPoint

_SERVER = """
import json, os, signal, sys
import torch, adallava.runs.run_sweep, adallava.cli.sweep_ranks, adallava.cli.sweep_table
import transformers.models.auto.processing_auto
import transformers.models.clip.image_processing_pil_clip
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.llava.modeling_llava
import transformers.models.llava.processing_llava
from adallava import AdaLlava
from adallava.costs.counted import count_costs
import adallava.cli.witness, adallava.families.decoder, adallava.families.text_tower, adallava.families.tower_parts
import adallava.tasks.jsonl_rows
from PIL import Image
Image.init()
from adallava.cli.main import main
from kill_points import watch
torch.set_num_threads(1)
count_costs(AdaLlava.from_pretrained(sys.argv[1], method="full", device="cpu").base.config)

def rank_of_launch(rank, asked):
    size = str(asked["world_size"])
    if asked["launched"]:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{asked['log']}/{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ["adallava", *asked["arguments"]]
    if asked["watched"] is not None:
        watch(asked["watched"], rank, f"{asked['log']}/phase-{rank}", asked["point"])
    try:
        return main()
    except SystemExit as end:
        return end.code
    finally:
        sys.stdout.flush()

for line in sys.stdin:
    asked = json.loads(line)
    pids = []
    for rank in range(asked["world_size"]):
        child = os.fork()
        if child == 0:
            os._exit(rank_of_launch(rank, asked))
        pids.append(child)
    print(json.dumps(pids), flush=True)
    codes = {}
    while len(codes) < len(pids):
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid] and asked["supervised"]:
            for other in pids:
                if other not in codes:
                    os.kill(other, signal.SIGTERM)
    print(json.dumps([codes[pid] for pid in pids]), flush=True)
"""


class RankServer:
    """Runs one launch after the other."""

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"},
        )
        self.pids: list[int] = []
        self.log = Path()

    def start(
        self,
        arguments: list[str],
        world_size: int,
        log: Path,
        *,
        supervised: bool = True,
        launched: bool = True,
        watched: Path | None = None,
        point: KillPoint | None = None,
    ) -> list[int]:
        """Start the command in so many ranks, and return their process ids.

        Args:
            arguments: of the command.
            world_size: how many ranks.
            log: folder for what they write.
            supervised: end all of them once one has failed.
            launched: set the variables of a launcher.
            watched: run folder by whose files the ranks note their phases.
            point: where one of them ends itself.
        """
        log.mkdir(parents=True, exist_ok=True)
        self.log = log
        asked = {"arguments": arguments, "world_size": world_size, "log": str(log), "supervised": supervised}
        asked |= {"launched": launched, "watched": watched and str(watched), "point": point and point.to_json()}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self.pids = json.loads(self._process.stdout.readline())
        return self.pids

    def wait(self) -> list[int]:
        """Return the exit codes by rank; negative: the signal that ended it."""
        codes: list[int] = json.loads(self._process.stdout.readline())
        self.pids = []
        return codes

    def run(self, arguments: list[str], world_size: int, log: Path) -> list[int]:
        """Run the command in so many ranks, and return their exit codes."""
        self.start(arguments, world_size, log)
        return self.wait()

    def written(self, name: str) -> list[str]:
        """Return what each rank of the last launch wrote to `stdout` or `stderr`."""
        return [path.read_text() for path in sorted(self.log.glob(f"{name}-*"))]

    def phase(self, rank: int) -> str:
        """Return where a watched rank of the last launch is, or was when it ended."""
        path = self.log / f"phase-{rank}"
        return path.read_text().strip() if path.exists() else ""

    def close(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def wait_until(is_true: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Return True once it is, False if it is not within that time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def answers_of(folder: Path, rank: int) -> int:
    """Return how many whole lines a rank other than 0 has written."""
    path = folder / f"samples-{rank}.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
