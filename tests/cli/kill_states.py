"""Run folders to kill a sweep in: fresh, begun by one process or several, torn, to be extended, with failed samples."""

import json
import random
import shutil
from pathlib import Path

STATES = ("fresh", "resumed", "shares left over", "torn", "extended", "failed to retry")


def prepare(state: str, folder: Path, finished: Path, shorter: Path, draw: random.Random) -> None:
    """Bring a run folder, which does not exist yet, into a state.

    Args:
        state: one of `STATES`.
        folder: to be made.
        finished: folder of the same run.
        shorter: that of a smaller `--limit`.
        draw: what is left to chance.
    """
    if state == "fresh":
        return
    if state == "extended":
        shutil.copytree(shorter, folder)
        return
    folder.mkdir()
    shutil.copy(finished / "run.json", folder)
    lines = (finished / "samples.jsonl").read_bytes().splitlines(keepends=True)
    num_kept = draw.randrange(1, len(lines))
    kept, following = lines[:num_kept], lines[num_kept]
    if state == "failed to retry":
        kept = [_failed(line) if draw.random() < 0.5 else line for line in kept]
    torn = following[: draw.randrange(1, len(following))] if state == "torn" else b""
    num_shares = 0 if state in ("resumed", "failed to retry") else draw.randrange(1, 3)
    files = {rank: [line for place, line in enumerate(kept) if place % (num_shares + 1) == rank] for rank in range(3)}
    torn_file = draw.randrange(num_shares + 1)
    for rank in range(num_shares + 1):
        name = f"samples-{rank}.jsonl" if rank else "samples.jsonl"
        (folder / name).write_bytes(b"".join(files[rank]) + (torn if rank == torn_file else b""))


def whole_lines(folder: Path) -> list[bytes]:
    """Return what is on disk of answers that did not fail, in every file of answers, but for torn last lines."""
    lines = [line for path in folder.glob("samples*.jsonl") for line in path.read_bytes().splitlines(keepends=True)]
    return [line for line in lines if line.endswith(b"\n") and json.loads(line)["score"] is not None]


def key_of(line: bytes) -> tuple[str, str, int]:
    """Return which answer a line holds."""
    record = json.loads(line)
    return record["cell"], record["sample_id"], record["draw"]


def _failed(line: bytes) -> bytes:
    return json.dumps(json.loads(line) | {"score": None, "response": "", "error": "OSError: gone"}).encode() + b"\n"
