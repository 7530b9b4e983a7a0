"""Whose an output folder is: `recipe.json` says what is trained there, by content, and another training is refused."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import adallava
from adallava.adapters import weights_sha256
from adallava.checkpoints.weights_hash import sha256_of
from adallava.errors import InputError
from adallava.records.durable import make_folder
from adallava.records.regular_files import read_regular
from adallava.training.own_data import OwnExamples
from adallava.training.recipe import Recipe

CLAIM_FILE = "recipe.json"

_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "pillow", "peft")
"""Whose numbers a training's are."""

_DECIDING_SUFFIXES = (".json", ".jinja", ".model", ".txt")
_NOT_DECIDING = ("generation_config.json", "model.safetensors.index.json")

_NOT_COMPARED = ("start_from", "data.left_out")
"""For a reader: a name is not content, and what is left out follows from the content."""

_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables by which a launcher says how many processes there are, as accelerate reads them."""


def refuse_several_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to be one of several processes: each would train on batches of its own and write the same files.

    Raises:
        InputError: naming the variables.
    """
    found = {name: environment.get(name, "").strip() for name in _WORLD_SIZES}
    several = [f"{name}={value}" for name, value in found.items() if value not in ("", "1")]
    if several:
        raise InputError(
            f"{', '.join(several)}: training is one process on one device; start it without torchrun or accelerate "
            "launch, or unset the variable"
        )


def make_claim(
    recipe: Recipe, start_from: str | None, base: Path, data: OwnExamples | None, device: torch.device
) -> dict[str, Any]:
    """Return what decides a training's numbers, as `recipe.json` holds it.

    Args:
        recipe: of the stage.
        start_from: the start as the user calls it; not compared.
        base: folder of the model to start from.
        data: the user's own examples; None for scenes, which the recipe decides.
        device: that it runs on; its type is compared, since CUDA trains in bfloat16.
    """
    return {
        "recipe": recipe.model_dump(mode="json"),
        "start_from": start_from,
        "base": {"weights": weights_sha256(base), **{name: sha256_of(base / name) for name in _files(recipe, base)}},
        "data": "scenes" if data is None else {"sha256": data.sha256, "rows": data.num_rows, "left_out": data.left_out},
        "device": device.type,
        "versions": {"python": platform.python_version(), "adallava": adallava.__version__, **_versions()},
    }


def check_recipe(output: Path, recipe: Recipe) -> None:
    """Refuse, before anything is loaded, a folder that holds the training of another recipe, or a damaged claim.

    Raises:
        InputError: naming what differs.
    """
    held = read_claim(output)
    if held is not None:
        _refuse_difference(output, {"recipe": held.get("recipe")}, {"recipe": recipe.model_dump(mode="json")})


def claim(output: Path, made: Mapping[str, Any]) -> None:
    """Write `recipe.json`, or find the same in it; of two trainings at once one finds the other's and ends.

    Raises:
        InputError: if the folder holds another training; the message names what differs.
    """
    make_folder(output)
    try:
        with (output / CLAIM_FILE).open("x") as file:
            file.write(json.dumps(made, indent=1) + "\n")
    except FileExistsError:
        _refuse_difference(output, read_claim(output) or {}, json.loads(json.dumps(made)))


def read_claim(output: Path) -> dict[str, Any] | None:
    """Return what the folder's `recipe.json` holds; None without one.

    Raises:
        InputError: if it is damaged.
    """
    path = output / CLAIM_FILE
    if not path.exists():
        return None
    try:
        held = json.loads(read_regular(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): give another --output") from error
    if not isinstance(held, dict):
        raise InputError(f"{path} is damaged (no object): give another --output")
    return held


def _refuse_difference(output: Path, held: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    there, here = dict(_flat(held)), dict(_flat(made))
    differing = [name for name in {**here, **there} if there.get(name, _ABSENT) != here.get(name, _ABSENT)]
    differing = [name for name in differing if not name.startswith(_NOT_COMPARED)]
    if differing:
        told = "; ".join(f"{name}: {_short(there, name)} there, {_short(here, name)} here" for name in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise InputError(
            f"{output} holds the training of another recipe, start, data or version ({told}{more}): give the same, or "
            "another --output"
        )


_ABSENT = object()


def _short(values: Mapping[str, Any], name: str) -> str:
    value = str(values.get(name, "not recorded"))
    return f"{value[:12]}…" if len(value) == 64 else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dictionaries with their dotted names."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _files(recipe: Recipe, base: Path) -> list[str]:
    """Return the names of the base's files besides its weights that decide, or go along with, what is made."""
    files = [path for path in base.iterdir() if path.suffix in _DECIDING_SUFFIXES and path.name not in _NOT_DECIDING]
    if recipe.goes_on or recipe.stage not in ("question", "budget-token"):
        files += (base / "adapters").rglob("adapter_*")
    return sorted(str(path.relative_to(base)) for path in files if path.is_file())


def _versions() -> dict[str, str]:
    return {package: found for package in _PACKAGES if (found := _version(package)) is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
