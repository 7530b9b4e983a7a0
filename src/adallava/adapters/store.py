"""Adapters: the weights of a learned method, a learned scheduler, or both, saved beside an untouched base.

A folder with `adapter_config.json` (what it is, and the base it was trained on) and
`adapter_model.safetensors`, in which a scheduler's weights have names that begin with `scheduler.`. A scheduler that
was found by search has no weights: its options in the config are all there is.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import adallava
from adallava.errors import CheckpointError
from adallava.families.checkpoint_files import weight_files
from adallava.scheduling import build_scheduler
from adallava.scheduling.contract import DecoderShape, Scheduler, SearchedScheduler
from adallava.selection import build_selector
from adallava.selection.contract import TowerShape
from adallava.selection.layer_contract import AnySelector

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_SCHEDULER_PREFIX = "scheduler."
_MAX_FILES_AT_ONCE = 8

_PartT = TypeVar("_PartT", AnySelector, Scheduler)


class AdapterConfig(BaseModel):
    """`adapter_config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str | None = None
    selector_config: dict[str, Any] = Field(default_factory=dict)
    """Constructor arguments of the method's class."""
    scheduler: str | None = None
    scheduler_config: dict[str, Any] = Field(default_factory=dict)
    """Constructor arguments of the scheduler's class."""
    base_model_name_or_path: str
    base_weights_sha256: str
    trained_on_sha256: str | None = None
    """Of the base's weights that it was trained on, where the base learned on afterwards without it."""
    num_vision_tokens: int
    vision_width: int
    llm_width: int
    grid: tuple[int, int]
    adallava_version: str

    @property
    def shape(self) -> TowerShape:
        """The shapes that the weights were made for."""
        return TowerShape(self.num_vision_tokens, self.vision_width, self.llm_width, self.grid)


@dataclass(frozen=True)
class LoadedAdapter:
    """A selector with its weights, in eval mode on the CPU, and where it came from."""

    selector: AnySelector
    config: AdapterConfig
    sha256: str


@dataclass(frozen=True)
class LoadedScheduler:
    """A scheduler with its weights, in eval mode on the CPU, and where it came from.

    `sha256` is that of its weights file; of one found by search, that of the config.
    """

    scheduler: Scheduler
    config: AdapterConfig
    sha256: str


def save_adapter(
    folder: str | Path,
    selector: AnySelector | None,
    *,
    scheduler: Scheduler | None = None,
    shape: TowerShape,
    base_model_name_or_path: str,
    base_weights_sha256: str,
) -> None:
    """Write what is learned or found of a selector and a scheduler, and what it belongs to.

    Replaces the folder's files.

    Args:
        folder: to write.
        selector: or None.
        scheduler: or None.
        shape: of the base.
        base_model_name_or_path: where the base comes from.
        base_weights_sha256: of the base that it is for.

    Raises:
        CheckpointError: if neither is learned or found by search.
    """
    learned_selector = selector if isinstance(selector, nn.Module) else None
    learned_scheduler = scheduler if isinstance(scheduler, nn.Module | SearchedScheduler) else None
    if learned_selector is None and learned_scheduler is None:
        names = [repr(part.name) for part in (selector, scheduler) if part is not None]
        raise CheckpointError(f"{' and '.join(names) or repr('full')} has no weights to save")
    config = AdapterConfig(
        method=None if learned_selector is None or selector is None else selector.name,
        selector_config=_config_of(learned_selector),
        scheduler=None if learned_scheduler is None or scheduler is None else scheduler.name,
        scheduler_config=_config_of(learned_scheduler),
        base_model_name_or_path=base_model_name_or_path,
        base_weights_sha256=base_weights_sha256,
        num_vision_tokens=shape.num_vision_tokens,
        vision_width=shape.vision_width,
        llm_width=shape.llm_width,
        grid=shape.grid,
        adallava_version=adallava.__version__,
    )
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Tensor] = {} if learned_selector is None else dict(learned_selector.state_dict())
    if isinstance(learned_scheduler, nn.Module):
        weights |= {_SCHEDULER_PREFIX + name: tensor for name, tensor in learned_scheduler.state_dict().items()}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if weights:
        save_file(weights, path / WEIGHTS_FILE, metadata={"format": "pt"})
    else:
        (path / WEIGHTS_FILE).unlink(missing_ok=True)
    (path / CONFIG_FILE).write_text(json.dumps(config.model_dump(), indent=2) + "\n", encoding="utf-8")


def read_adapter_config(folder: str | Path) -> AdapterConfig:
    """Read an adapter's config without its weights.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = Path(folder) / CONFIG_FILE
    try:
        return AdapterConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"no adapter in {str(folder)!r}: {CONFIG_FILE} is missing") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise CheckpointError(f"{path} is damaged: {where}: {first['msg']}") from error


def load_adapter(
    folder: str | Path,
    *,
    method: str,
    shape: TowerShape,
    base_weights_sha256: str,
    allow_other_base: bool = False,
) -> LoadedAdapter:
    """Load an adapter and check that it belongs to this base.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`.
        method: the method that was asked for; the adapter must be one of it.
        shape: of the base.
        base_weights_sha256: of the base.
        allow_other_base: accept a base with other weights (for experiments). Shapes must fit all the same.

    Raises:
        CheckpointError: if files are missing or damaged, or it was trained for another method, shape or base.
    """
    config = read_adapter_config(folder)
    if config.method != method:
        raise CheckpointError(f"the adapter in {str(folder)!r} is for {config.method!r}, not for {method!r}")
    if config.shape != shape:
        raise CheckpointError(f"the adapter in {str(folder)!r} was made for {config.shape}, the base has {shape}")
    _check_base(folder, config, base_weights_sha256, allow_other_base)
    selector = _filled(build_selector(method, shape, **config.selector_config), folder, of_scheduler=False)
    return LoadedAdapter(selector, config, sha256_of(_weights(folder)))


def load_scheduler(
    folder: str | Path,
    *,
    name: str,
    shape: DecoderShape,
    base_weights_sha256: str,
    allow_other_base: bool = False,
) -> LoadedScheduler:
    """Load the scheduler of an adapter and check that it belongs to this base.

    Args:
        folder: with `adapter_config.json` and, for a learned one, `adapter_model.safetensors`.
        name: the scheduler that was asked for; the adapter must hold it.
        shape: of the base's LLM.
        base_weights_sha256: of the base.
        allow_other_base: accept a base with other weights (for experiments). Shapes must fit all the same.

    Raises:
        CheckpointError: if files are missing or damaged, or it was trained for another scheduler, shape or base.
    """
    config = read_adapter_config(folder)
    if config.scheduler != name:
        held = "no scheduler" if config.scheduler is None else f"the scheduler {config.scheduler!r}"
        raise CheckpointError(f"the adapter in {str(folder)!r} holds {held}, not {name!r}")
    _check_base(folder, config, base_weights_sha256, allow_other_base)
    scheduler = build_scheduler(name, shape, **config.scheduler_config)
    if isinstance(scheduler, SearchedScheduler):
        return LoadedScheduler(scheduler, config, sha256_of(Path(folder) / CONFIG_FILE))
    return LoadedScheduler(_filled(scheduler, folder, of_scheduler=True), config, sha256_of(_weights(folder)))


def _check_base(folder: str | Path, config: AdapterConfig, base_weights_sha256: str, allow_other_base: bool) -> None:
    if config.base_weights_sha256 != base_weights_sha256 and not allow_other_base:
        raise CheckpointError(
            f"the adapter in {str(folder)!r} was trained on {config.base_model_name_or_path!r} with weights "
            f"{config.base_weights_sha256[:12]}…, this base has {base_weights_sha256[:12]}…: use that base, or "
            "pass allow_other_base=True if you know why"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(folder: str | Path) -> str:
    """Return what identifies the weights of a model folder: the SHA-256 of its safetensors file.

    Of several files, it is the SHA-256 of their digests (the digits, in order of the names), so that they can be read
    side by side: one after the other takes longer than loading the model.

    Raises:
        CheckpointError: if there are none.
    """
    files = weight_files(Path(folder))
    with ThreadPoolExecutor(max_workers=min(len(files), _MAX_FILES_AT_ONCE)) as pool:
        digests = list(pool.map(sha256_of, files))
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _weights(folder: str | Path) -> Path:
    return Path(folder) / WEIGHTS_FILE


def _config_of(module: nn.Module | SearchedScheduler | None) -> dict[str, Any]:
    return {} if module is None else dict(cast(dict[str, Any], module.config))


def _filled(module: _PartT, folder: str | Path, *, of_scheduler: bool) -> _PartT:
    """Return a fresh selector or scheduler with its part of the folder's weights, in eval mode."""
    if not isinstance(module, nn.Module):
        raise CheckpointError(f"{module.name!r} has no weights, but {str(folder)!r} is an adapter of it")
    try:
        weights = load_file(_weights(folder))
        own = {
            name.removeprefix(_SCHEDULER_PREFIX if of_scheduler else ""): tensor
            for name, tensor in weights.items()
            if name.startswith(_SCHEDULER_PREFIX) == of_scheduler
        }
        module.load_state_dict(own)
    except FileNotFoundError as error:
        raise CheckpointError(f"no adapter in {str(folder)!r}: {WEIGHTS_FILE} is missing") from error
    except (SafetensorError, RuntimeError) as error:
        # A state dict's error is a list of many lines: the first two say enough.
        reason = " ".join(str(error).split("\n\t")[:2])
        raise CheckpointError(f"the weights in {str(_weights(folder))!r} are damaged: {reason}") from error
    module.eval()
    return module
