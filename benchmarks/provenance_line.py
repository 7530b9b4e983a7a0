"""Says of published figures what measured them, when and on what; the whole command is in the file, one click away."""

import os
import re
from pathlib import Path
from typing import Any

_COMMAND = re.compile(r"(?:^|; )(?:[A-Z_]+=\S+ )*(?:python3? )?(?:-m )?(adallava \w+|pytest|benchmarks/\w+\.py)")


def provenance_line(published: dict[str, Any], file: str) -> str:
    """Return one sentence, and the notes of whoever measured.

    Args:
        published: what is in the file.
        file: its path, as a link on the page where the sentence is shown.
    """
    hardware, versions = published["hardware"], published["versions"]
    ran = " and ".join(f"`{name}`" for name in dict.fromkeys(_COMMAND.findall(published["command"])))
    commit = f", commit {published['git_commit'][:7]}" if published["git_commit"] else ""
    later = " with later changes" if commit and published["git_dirty"] else ""
    line = (
        f"[Measured]({file}) by {ran} on {published['date']}: {_device(hardware)}, torch {versions.get('torch')}, "
        f"transformers {versions.get('transformers')}{commit}{later}."
    )
    if "config" in published:  # a sweep
        line += " Accuracy in %, 95 % intervals."
    return " ".join([line, *published.get("notes", [])])


def link_from(page: str, file: str) -> str:
    """Return the relative path of a file from a page; both from the repository's root."""
    return Path(os.path.relpath(file, Path(page).parent)).as_posix()


def _device(hardware: dict[str, Any]) -> str:
    gpus = hardware.get("cuda_devices") or []
    if gpus:
        return gpus[0] if len(gpus) == 1 else f"{len(gpus)} × {gpus[0]}"
    count = hardware.get("torch_threads", 1)
    return f"{hardware.get('cpu', 'CPU')}, {'one thread' if count == 1 else f'{count} threads'}"
