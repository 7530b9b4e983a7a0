"""Reads the tensors of a checkpoint file by file, pickled or not; nothing in a file is ever executed."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adallava.checkpoints.files import indexed_files
from adallava.checkpoints.json_files import check_pointer, check_regular, read_json
from adallava.checkpoints.own_code import check_no_code
from adallava.checkpoints.weights_header import check_safetensors
from adallava.errors import CheckpointError, in_short

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""Of the files' names, the safe kind first: a folder with both is read from the safe ones."""

_GLOBAL = re.compile(r"GLOBAL (\S+) was not")
"""What a pickle would have called, in a message of torch that goes on to say how to run it all the same."""


_MOST_READ_ANEW = 2
"""Times the bytes of a file that its tensors may take: tied weights are one tensor under two names."""

_ADVICE = re.compile(r"\n|\(Could this| In PyTorch 2.6")
"""Where such a message stops to say what is wrong."""


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Return a JSON file of a folder.

    Raises:
        CheckpointError: if the folder or the file is missing, or the file damaged; or the folder asks for code of its
            own.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {str(folder)!r}: conversion reads only local folders; `hf download` fetches one from "
            "the hub"
        )
    check_no_code(folder)
    return read_json(folder / name)


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a checkpoint's weights.

    Raises:
        CheckpointError: if there are none, or a shard that the index names is missing.
    """
    for stem, ending in _STEMS:
        index = folder / f"{stem}.{ending}.index.json"
        if index.is_file():
            return indexed_files(index)
        check_regular(folder / f"{stem}.{ending}")
        if (folder / f"{stem}.{ending}").is_file():
            return [folder / f"{stem}.{ending}"]
    raise CheckpointError(
        f"folder {str(folder)!r} has no weights: neither model.safetensors nor pytorch_model.bin, nor their shards"
    )


def read_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Give a file's tensors one by one, memory-mapped.

    Raises:
        CheckpointError: if it is damaged, or a pickle that holds more than tensors: that is refused, not run.
    """
    if path.suffix == ".safetensors":
        check_safetensors(path)
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a dictionary
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        return
    yield from _read_pickled(path).items()


def _read_pickled(path: Path) -> dict[str, Tensor]:
    check_pointer(path)
    _check_not_packed(path)
    try:
        with warnings.catch_warnings():
            # Of a pickle's protocol: what cannot be read is an error anyway.
            warnings.simplefilter("ignore", UserWarning)
            # Before torch 1.6 files were no zip archives, and cannot be mapped.
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        called = _GLOBAL.search(str(error))
        if called is None:
            raise CheckpointError(f"{path} is damaged, or no file of tensors: torch cannot read it") from error
        raise CheckpointError(
            f"{path} is refused: it is a pickle that holds more than tensors ({called.group(1)}), and running what is "
            "in it is never safe"
        ) from error
    except Exception as error:  # whatever damaged bytes make the unpickler raise
        reason = _ADVICE.split(str(error))[0].strip() or type(error).__name__
        raise CheckpointError(f"{path} is damaged, or no file of tensors: {reason}") from error
    if not isinstance(held, dict) or not all(map(_is_weight, held, held.values())):
        raise CheckpointError(f"{path} is refused: it holds something other than named tensors")
    num_bytes, size = sum(weight.numel() * weight.element_size() for weight in held.values()), path.stat().st_size
    if num_bytes > _MOST_READ_ANEW * size:
        raise CheckpointError(f"{path} is refused: it has {size} bytes, and its tensors would take {num_bytes}")
    return held


def _check_not_packed(path: Path) -> None:
    """Refuse a zip archive with compressed entries, which torch writes none of: a few of its bytes may fill the memory.

    Raises:
        CheckpointError: naming the file.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged, or no file of tensors: {in_short(error)}") from error
    if packed:
        raise CheckpointError(f"{path} is refused: {packed[0]!r} in it is compressed, as no file of torch's is")


def _is_weight(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    # A tensor on "meta" has a shape and no values, and stays there whatever it is mapped to.
    return value.layout is torch.strided and not value.is_quantized and not value.is_meta
