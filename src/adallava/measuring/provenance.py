"""What a run ran on: versions, source state, hashes, hardware."""

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import adallava
from adallava.records import Provenance

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "pyarrow", "scipy")
_OPTIONAL_PACKAGES = ("lmms-eval", "datasets", "torchao")
_GIT_TIMEOUT_S = 10


def collect_provenance(
    *,
    weights_sha256: str,
    adapter_sha256: Mapping[str, str],
    scheduler_sha256: Mapping[str, str],
    weight_counts: Mapping[str, int],
    task_sha256: str | None,
    command: str,
    model_files_sha256: Mapping[str, str] | None = None,
) -> Provenance:
    """Describe this process, this machine and the given hashes."""
    commit, dirty = git_state(Path(adallava.__file__).parent)
    return Provenance(
        adallava_version=adallava.__version__,
        versions={"python": platform.python_version(), **_package_versions()},
        git_commit=commit,
        git_dirty=dirty,
        weights_sha256=weights_sha256,
        adapter_sha256=dict(adapter_sha256),
        scheduler_sha256=dict(scheduler_sha256),
        weight_counts=dict(weight_counts),
        task_sha256=task_sha256,
        model_files_sha256=None if model_files_sha256 is None else dict(model_files_sha256),
        hardware=describe_hardware(),
        command=command,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """Return (commit, dirty) of the checkout that tracks `package`; (None, None) if none does.

    A package installed into an environment that merely lies inside somebody's repository is not tracked by
    it, and that repository's commit would say nothing.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return commit, None if changes is None else bool(changes)


def describe_hardware() -> dict[str, Any]:
    """Return the processor, its cores, torch's threads, memory, and the CUDA devices."""
    return {
        "cpu": _cpu_model(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": platform.platform(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook these variables would point every command at another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            env=environment,
            text=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    for package in _OPTIONAL_PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.processor() or platform.machine()
