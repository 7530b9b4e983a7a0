"""A local cache as `huggingface_hub` keeps it: files by their hash, and a snapshot of links to them."""

import hashlib
import os
from pathlib import Path

import pytest


def write_hub_cache(home: Path, hub_id: str, folder: Path) -> Path:
    """Put a folder's files into `<home>/hub` as the newest snapshot of a hub id; return the snapshot's folder."""
    repository = home / "hub" / f"models--{hub_id.replace('/', '--')}"
    commit = hashlib.sha1(hub_id.encode()).hexdigest()
    for name in ("refs", "blobs"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def use_hub_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process look there, as `HF_HOME` in the environment does for a new one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
