"""Adapters: the weights of a learned method, a learned scheduler, or both, saved next to an untouched base.

A folder with `adapter_config.json` (what it is, and the base it was trained on) and
`adapter_model.safetensors`, in which a scheduler's weights have names that begin with `scheduler.`. A scheduler that
was found by search has no weights: its options in the config are all there is.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import adallava
from adallava.checkpoints.json_files import check_regular
from adallava.checkpoints.schemas import MAX_VOCABULARY, MAX_WIDTH, describe
from adallava.checkpoints.weights_hash import sha256_of
from adallava.errors import AdallavaError, CheckpointError, UnsupportedModeError
from adallava.registry import load_scheduler_class
from adallava.scheduling import build_scheduler
from adallava.scheduling.scheduler_contract import DecoderShape, Scheduler, SearchedScheduler
from adallava.selection import build_selector
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import TowerShape

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_SCHEDULER_PREFIX = "scheduler."
_MAX_CONFIG_BYTES = 2**20

_log = logging.getLogger(__name__)

_PartT = TypeVar("_PartT", AnySelector, Scheduler)

_Count = Annotated[int, Field(ge=1, le=MAX_VOCABULARY)]
_Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
_Name = Annotated[str, Field(max_length=256)]
_Digest = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,128}$")]
_Option = (
    bool
    | Annotated[int, Field(ge=-MAX_WIDTH, le=MAX_WIDTH)]
    | Annotated[float, Field(ge=-MAX_WIDTH, le=MAX_WIDTH)]
    | Annotated[str, Field(max_length=2**16)]
    | list[int]
    | list[float]
    | list[str]
    | None
)


class AdapterConfig(BaseModel):
    """`adapter_config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    method: _Name | None = None
    selector_config: dict[_Name, _Option] = Field(default_factory=dict)
    """Constructor arguments of the method's class."""
    scheduler: _Name | None = None
    scheduler_config: dict[_Name, _Option] = Field(default_factory=dict)
    """Constructor arguments of the scheduler's class."""
    base_model_name_or_path: Annotated[str, Field(max_length=4096)]
    base_weights_sha256: _Digest
    trained_on_sha256: _Digest | None = None
    """Of the base's weights that it was trained on, where the base learned on afterwards without it."""
    num_vision_tokens: _Count
    vision_width: _Width
    llm_width: _Width
    grid: tuple[_Count, _Count]
    adallava_version: _Name

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

    `sha256` is that of its weights file; of one found by search, that of the config; with options, of both.
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
        check_regular(path)
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes: no adapter's config has so many")
        return AdapterConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"no adapter in {str(folder)!r}: {CONFIG_FILE} is missing") from error
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {describe(error)}") from error


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
    selector = _filled(
        lambda: build_selector(method, shape, **config.selector_config),
        _read_weights(folder, of_scheduler=False),
        folder,
    )
    return LoadedAdapter(selector, config, sha256_of(_weights(folder)))


def load_scheduler(
    folder: str | Path,
    *,
    name: str,
    shape: DecoderShape,
    base_weights_sha256: str,
    allow_other_base: bool = False,
    options: Mapping[str, Any] | None = None,
) -> LoadedScheduler:
    """Load the scheduler of an adapter and check that it belongs to this base.

    Args:
        folder: with `adapter_config.json` and, for a learned one, `adapter_model.safetensors`.
        name: the scheduler that was asked for; the adapter must hold it.
        shape: of the base's LLM.
        base_weights_sha256: of the base.
        allow_other_base: accept a base with other weights (for experiments). Shapes must fit all the same.
        options: of this call, in addition to those that the adapter holds.

    Raises:
        AdallavaError: for an option that means nothing.
        CheckpointError: if files are missing or damaged, or it was trained for another scheduler, shape or base.
    """
    config = read_adapter_config(folder)
    if config.scheduler != name:
        held = "no scheduler" if config.scheduler is None else f"the scheduler {config.scheduler!r}"
        raise CheckpointError(f"the adapter in {str(folder)!r} holds {held}, not {name!r}")
    _check_base(folder, config, base_weights_sha256, allow_other_base)
    if getattr(load_scheduler_class(name), "searched", False):
        found = _built(lambda: build_scheduler(name, shape, **config.scheduler_config), folder)
        return LoadedScheduler(found, config, sha256_of(Path(folder) / CONFIG_FILE))
    scheduler = _filled(
        lambda: build_scheduler(name, shape, **config.scheduler_config),
        _read_weights(folder, of_scheduler=True),
        folder,
    )
    sha256 = sha256_of(_weights(folder))
    if options:
        held_to: Scheduler = build_scheduler(name, shape, **{**config.scheduler_config, **options})
        assert isinstance(held_to, nn.Module)
        assert isinstance(scheduler, nn.Module)
        held_to.load_state_dict(scheduler.state_dict())
        # What the adapter holds besides weights decides its choices then.
        sha256 = hashlib.sha256((sha256 + sha256_of(Path(folder) / CONFIG_FILE)).encode()).hexdigest()
        scheduler = held_to.eval()
    return LoadedScheduler(scheduler, config, sha256)


def _check_base(folder: str | Path, config: AdapterConfig, base_weights_sha256: str, allow_other_base: bool) -> None:
    if config.base_weights_sha256 != base_weights_sha256 and not allow_other_base:
        raise CheckpointError(
            f"the adapter in {str(folder)!r} was trained on {config.base_model_name_or_path!r} with weights "
            f"{config.base_weights_sha256[:12]}…, this base has {base_weights_sha256[:12]}…: use that base, or "
            "pass allow_other_base=True if you know why"
        )
    trained_on = config.trained_on_sha256 or config.base_weights_sha256
    if trained_on != base_weights_sha256:
        _say_once(
            f"the adapter in {str(folder)!r} was trained on other weights ({trained_on[:12]}…) than this base has "
            f"({base_weights_sha256[:12]}…): what it chooses may fit this base less well"
        )


@cache
def _say_once(message: str) -> None:
    """Warn, once a process: a sweep loads an adapter for each of its cells."""
    _log.warning(message)


def _weights(folder: str | Path) -> Path:
    return Path(folder) / WEIGHTS_FILE


def _config_of(module: nn.Module | SearchedScheduler | None) -> dict[str, Any]:
    return {} if module is None else dict(cast(dict[str, Any], module.config))


def _read_weights(folder: str | Path, *, of_scheduler: bool) -> dict[str, Tensor]:
    """Return the weights of a folder's selector or scheduler, by their names in it.

    Raises:
        CheckpointError: if the file is missing or damaged, or a weight is not of a floating-point type or not finite.
    """
    path = _weights(folder)
    try:
        check_regular(path)
        weights = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"no adapter in {str(folder)!r}: {WEIGHTS_FILE} is missing") from error
    except SafetensorError as error:
        raise CheckpointError(f"the weights in {str(path)!r} are damaged: {error}") from error
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"the weights in {str(path)!r} are damaged: {name!r} is of the type {tensor.dtype}, not a "
                "floating-point one"
            )
        if not bool(torch.isfinite(tensor.float() if tensor.element_size() < 2 else tensor).all()):
            raise CheckpointError(f"the weights in {str(path)!r} are damaged: {name!r} holds NaN or infinite numbers")
    return {
        name.removeprefix(_SCHEDULER_PREFIX if of_scheduler else ""): tensor
        for name, tensor in weights.items()
        if name.startswith(_SCHEDULER_PREFIX) == of_scheduler
    }


def _filled(build: Callable[[], _PartT], weights: dict[str, Tensor], folder: str | Path) -> _PartT:
    """Return a fresh selector or scheduler with these weights, in eval mode."""
    # Without memory first: a config may ask for any size, the weights' file says which one there is.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outline = _built(build, folder)
    if not isinstance(outline, nn.Module):
        raise CheckpointError(f"{outline.name!r} has no weights, but {str(folder)!r} is an adapter of it")
    _load(outline, {name: tensor.to("meta") for name, tensor in weights.items()}, folder)
    module = _built(build, folder)
    assert isinstance(module, nn.Module)
    _load(module, weights, folder)
    module.eval()
    return module


def _built(build: Callable[[], _PartT], folder: str | Path) -> _PartT:
    try:
        return build()
    except (UnsupportedModeError, CheckpointError):
        raise
    except (
        AdallavaError,
        RuntimeError,
        ValueError,
        ArithmeticError,
    ) as error:  # what impossible options make torch raise
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE} is damaged: {error}") from error


def _load(module: nn.Module, weights: dict[str, Tensor], folder: str | Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        # A state dict's error is a list of many lines: the first two say enough.
        reason = " ".join(str(error).split("\n\t")[:2])
        raise CheckpointError(f"the weights in {str(_weights(folder))!r} are damaged: {reason}") from error
