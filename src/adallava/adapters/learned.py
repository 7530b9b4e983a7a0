"""Where a base's files are, and those of what is learned for it: a method or a scheduler by its name."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from adallava.adapters import load_adapter, load_scheduler
from adallava.checkpoints.hub import PROCESSOR_FILES
from adallava.checkpoints.weights_hash import sha256_of, weights_sha256
from adallava.errors import CheckpointError
from adallava.families import weights_folder
from adallava.families.given_model import added_sha256
from adallava.processors.stock_processor import folder_or_id_of
from adallava.registry import load_scheduler_class, load_selector_class
from adallava.scheduling import build_scheduler
from adallava.scheduling.scheduler_contract import DecoderShape, Scheduler
from adallava.selection import build_selector
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import TowerShape


@dataclass(frozen=True)
class BaseFiles:
    """The files of a base model.

    Attributes:
        name_or_path: a bundled name, a folder or a hub id; "" for a model made in memory.
        model: that was made from them; None if it is nothing but them.
    """

    name_or_path: str
    model: Any = field(default=None, compare=False, repr=False)

    @property
    def folder(self) -> Path:
        """The folder that holds them.

        Raises:
            CheckpointError: if a hub id has no local copy, or the model was not made from files.
        """
        if not self.name_or_path:
            raise CheckpointError("this model was made in memory: pass name_or_path to say where its files are")
        return weights_folder(folder_or_id_of(self.name_or_path))

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the safetensors files. Reads them all, once.

        With weights that `peft` has added to the model's own, it is that of both digests: what is learned for the
        bare base belongs to another model then.

        Raises:
            CheckpointError: if the model was not made from files.
        """
        of_files = weights_sha256(self.folder)
        added = None if self.model is None else added_sha256(self.model)
        return of_files if added is None else hashlib.sha256((of_files + added).encode()).hexdigest()

    @cached_property
    def settings_sha256(self) -> dict[str, str]:
        """SHA-256 by name of the other files that decide an answer: configuration, tokenizer, templates.

        Not of `generation_config.json`: what a sweep takes from it is part of its own configuration.

        Raises:
            CheckpointError: if the model was not made from files.
        """
        found = {path for pattern in PROCESSOR_FILES for path in self.folder.glob(pattern)}
        return {path.name: sha256_of(path) for path in sorted(found) if not _decides_no_answer(path.name)}


def _decides_no_answer(name: str) -> bool:
    return name == "generation_config.json" or name.endswith(".index.json")


@dataclass(frozen=True)
class Asked:
    """A method or a scheduler as a caller asks for it.

    Attributes:
        name: its id.
        adapter: folder of its weights, if it is learned, or of its plans, if they were found by search; None for
            `<base's folder>/adapters/<name>`.
        allow_other_base: accept weights that were trained on another base of the same shapes.
        options: constructor arguments; of a learned one, its class's `call_options` alone.
    """

    name: str
    adapter: str | Path | None
    allow_other_base: bool
    options: dict[str, Any]


def make_selector(asked: Asked, files: BaseFiles, shape: TowerShape) -> tuple[AnySelector, str | None]:
    """Return the method, and the SHA-256 of its weights file if it is learned.

    Raises:
        CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
        UnknownNameError: for an unknown method.
    """
    folder = _folder_of_adapter("method", load_selector_class(asked.name), asked, files)
    if folder is None:
        return build_selector(asked.name, shape, **asked.options), None
    loaded = load_adapter(
        folder,
        method=asked.name,
        shape=shape,
        base_weights_sha256=files.weights_sha256,
        allow_other_base=asked.allow_other_base,
    )
    return loaded.selector, loaded.sha256


def make_scheduler(asked: Asked, files: BaseFiles, shape: DecoderShape) -> tuple[Scheduler, str | None]:
    """Return the scheduler, and the SHA-256 of its adapter's file if it came from one.

    Raises:
        CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
        UnknownNameError: for an unknown scheduler.
        UnsupportedModeError: for an LLM that cannot be split as the scheduler wants.
    """
    folder = _folder_of_adapter("scheduler", load_scheduler_class(asked.name), asked, files)
    if folder is None:
        return build_scheduler(asked.name, shape, **asked.options), None
    loaded = load_scheduler(
        folder,
        name=asked.name,
        shape=shape,
        base_weights_sha256=files.weights_sha256,
        allow_other_base=asked.allow_other_base,
        options=asked.options,
    )
    return loaded.scheduler, loaded.sha256


def _folder_of_adapter(kind: str, cls: type[Any], asked: Asked, files: BaseFiles) -> str | Path | None:
    """Return the adapter's folder; None for a method or scheduler that is neither learned nor found by search."""
    name, adapter, options = asked.name, asked.adapter, asked.options
    searched = getattr(cls, "searched", False)
    if not cls.learned and not searched:
        if adapter is not None:
            raise CheckpointError(f"{kind} {name!r} is not learned: it takes no adapter ({str(adapter)!r})")
        return None
    refused = sorted(set(options) - getattr(cls, "call_options", frozenset()))
    if refused and (cls.learned or adapter is not None):
        raise CheckpointError(
            f"{kind} {name!r} takes its options from its adapter, not from the call: {', '.join(refused)}"
        )
    if adapter is not None:
        return adapter
    if searched and (options or not files.name_or_path):
        return None
    folder = files.folder / "adapters" / name
    if searched:
        return folder if folder.is_dir() else None
    if not folder.is_dir():
        without = "'uniform' or 'full'" if kind == "method" else "'first' or 'spaced'"
        raise CheckpointError(
            f"{files.name_or_path!r} has no adapter for the learned {kind} {name!r} (looked for {folder}): "
            f"train one, pass adapter=…, or choose a {kind} that needs none, such as {without}"
        )
    return folder
