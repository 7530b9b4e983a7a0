"""Learned parts, saved next to an untouched base; and the bundled models."""

from adallava.adapters.store import (
    AdapterConfig,
    LoadedAdapter,
    LoadedScheduler,
    load_adapter,
    load_scheduler,
    read_adapter_config,
    save_adapter,
)
from adallava.checkpoints.weights_hash import weights_sha256

__all__ = [
    "AdapterConfig",
    "LoadedAdapter",
    "LoadedScheduler",
    "load_adapter",
    "load_scheduler",
    "read_adapter_config",
    "save_adapter",
    "weights_sha256",
]
