"""The files of a benchmark: JSON, and in a folder a page with its plot next to it."""

import json
from pathlib import Path
from typing import Any

from adallava.bench.bench_page import page_of
from adallava.bench.run_bench import KIND
from adallava.errors import InputError
from adallava.records.durable import make_folder, write_atomically

_NAME = "bench.json"
_MOST_BYTES = 2**26


def output_file(asked: Path) -> Path:
    """Return the file of figures for an `--output`, which is that file, or a folder for it and its page.

    Raises:
        InputError: if something else is there already.
        RunFolderError: if its folder cannot be made.
    """
    file = asked if asked.suffix.lower() == ".json" and not asked.is_dir() else asked / _NAME
    make_folder(file.parent)
    if file.exists() and not _is_ours(file):
        raise InputError(f"--output {asked}: {file} exists and was not written by adallava bench: give another name")
    return file


def write_figures(file: Path, document: dict[str, Any]) -> list[Path]:
    """Write the figures, and where they have their own name, in a folder, their page; return the paths.

    Each file is written at once or not at all.
    """
    write_atomically(file, [(json.dumps(document, indent=1) + "\n").encode()])
    if file.name != _NAME:
        return [file]
    page = file.with_suffix(".html")
    write_atomically(page, [page_of(document).encode("utf-8", errors="replace")])
    return [file, page]


def _is_ours(file: Path) -> bool:
    if not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return False
    try:
        held = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(held, dict) and held.get("kind") == KIND
