"""Where a model shall lie, and in which type: what a caller asks for, checked before anything is read."""

import torch

from adallava.errors import InputError, UnsupportedModeError

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
_DTYPES["float64"] = torch.float64

_NOT_TAKEN = {
    "device_map": "a model and all that belongs to it are on one device: name it with device=",
    "torch_dtype": "name the type with dtype=",
    "trust_remote_code": "no code of a checkpoint is ever run",
    "load_in_8bit": "quantize weights with quantization='int8'",
    "load_in_4bit": "only floating-point weights are supported",
    "quantization_config": "name the kind with quantization=",
    "revision": "give the folder of that revision's snapshot",
    "cache_dir": "set HF_HOME or HF_HUB_CACHE",
}
"""Arguments of transformers' own `from_pretrained`, and what is meant here."""


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the one device that a model shall lie on; for None CUDA if there is one, else the CPU.

    Raises:
        InputError: for a name that torch does not know, or a device that is not here, with those that are.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError):
        asked = torch.device("meta")
    if asked.type == "meta":
        raise InputError(f"device {device!r} is not the name of a device; here are: {here}")
    if not _is_here(asked):
        raise InputError(f"device {str(device)!r} is not on this machine; here are: {here}")
    return asked


def _is_here(device: torch.device) -> bool:
    try:
        module = torch.get_device_module(device.type)
    except RuntimeError:  # a name that torch reserves for other packages
        return False
    return bool(module.is_available()) and (device.index or 0) < int(module.device_count())


def pick_dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    """Return the type that weights shall have; for None "auto", the one that the checkpoint names.

    Raises:
        InputError: for what is not a floating-point type, with those that are.
    """
    if dtype is None or dtype == "auto":
        return "auto"
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise InputError(f"dtype {str(dtype)!r} is not supported: give auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def check_taken(arguments: dict[str, object]) -> None:
    """Refuse arguments of transformers' `from_pretrained` that mean something else here, or nothing.

    Raises:
        UnsupportedModeError: naming what to say instead.
    """
    for name in arguments:
        if name in _NOT_TAKEN:
            raise UnsupportedModeError(f"{name} is not an argument here: {_NOT_TAKEN[name]}")
