"""Where a model lies when lmms-eval runs it: one device a process, every process with a whole model."""

import torch

from adallava.errors import InputError, UnsupportedModeError
from adallava.runs.ranks import Ranks

_SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words of transformers that have it choose devices."""


def choose_device(device: str | None, device_map: object, ranks: Ranks, num_cuda_devices: int) -> torch.device:
    """Return the one device that this process's model lies on.

    Args:
        device: as asked for; None for CUDA where there is one, else the CPU. Of several processes, each gets the CUDA
            device of its local rank.
        device_map: transformers' word for a placement; it may name one device, and then means the same as `device`.
            A word that spreads a model, such as "auto", means the only device there is.
        ranks: of this process.
        num_cuda_devices: on this host.

    Raises:
        UnsupportedModeError: for a `device_map` that spreads a model over several devices.
        InputError: for a device that torch does not know, that is not here, or that several processes would share.
    """
    only_device = num_cuda_devices <= 1 and device_map in _SPREADING
    asked = _one_request(device, None if only_device else device_map)
    if asked is None:
        asked = torch.device("cuda" if num_cuda_devices else "cpu")
    if asked.type != "cuda":
        return asked
    if ranks.world_size > 1:
        if asked.index is not None:
            raise InputError(
                f"device {asked} would hold the models of all {ranks.world_size} processes: leave the device out, and "
                "each process takes that of its local rank"
            )
        asked = torch.device("cuda", ranks.local_rank)
    if (asked.index or 0) >= num_cuda_devices:
        raise InputError(
            f"device {asked} (local rank {ranks.local_rank} of {ranks.world_size} processes) is not here: this host "
            f"has {num_cuda_devices} CUDA devices; start as many processes, or pass device=cpu"
        )
    return asked


def _one_request(device: str | None, device_map: object) -> torch.device | None:
    named = None if device is None else _parse(device, f"device={device!r}")
    if device_map in (None, ""):
        return named
    mapped = _parse_map(device_map)
    if named is not None and named != mapped:
        raise InputError(f"device={device!r} and device_map={device_map!r} are two devices: give one of them")
    return mapped


def _parse_map(device_map: object) -> torch.device:
    if isinstance(device_map, dict) or device_map in _SPREADING:
        raise UnsupportedModeError(
            f"device_map={device_map!r} spreads one model over devices, and here all of its parts lie on one: leave it "
            "out, name one device (device=cuda:0), or start several processes (torchrun), each with a whole model"
        )
    text = f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map)
    return _parse(text, f"device_map={device_map!r}")


def _parse(text: str, option: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError:
        raise InputError(f"{option} is not the name of a device: give cpu, cuda or cuda:0") from None
