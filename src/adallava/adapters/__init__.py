"""Learned parts, saved beside an untouched base; and the bundled models."""

from adallava.adapters.store import (
    AdapterConfig,
    LoadedAdapter,
    load_adapter,
    read_adapter_config,
    save_adapter,
    weights_sha256,
)

__all__ = [
    "AdapterConfig",
    "LoadedAdapter",
    "load_adapter",
    "read_adapter_config",
    "save_adapter",
    "weights_sha256",
]
