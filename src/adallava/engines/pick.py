"""Which engine runs a call."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import torch

from adallava.engines.captured import CapturedEngine
from adallava.engines.engine_contract import Engine
from adallava.engines.room import Level, Room
from adallava.engines.stock import StockEngine
from adallava.errors import InputError, UnsupportedModeError
from adallava.pipeline.clock import StageClock
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import Generated
from adallava.pipeline.stage_runner import PLAIN, Stages
from adallava.records.names import EngineName

REPAYING_PASSES = 50_000
"""Decoded passes that repay compiling: a minute or two over all lengths, for 2 to 3 ms a pass (7B shapes, one H200)."""


def check_engine(name: str, device: torch.device) -> None:
    """Refuse an engine for a model on a device.

    Raises:
        InputError: for another name than `EngineName` has, or graphs without CUDA.
    """
    if name not in get_args(EngineName):
        raise InputError(f"engine {name!r} is not one of {', '.join(get_args(EngineName))}")
    if name in ("graphs", "compiled") and device.type != "cuda":
        raise InputError(
            f"engine {name!r} needs a CUDA device, and the model is on {device}: leave the choice to 'auto' "
            "(--engine auto, in Python engine='auto')"
        )


class Engines:
    """The engines of one model, in the order of preference; shared by all that drive it."""

    def __init__(self, model: Any, name: str = "auto") -> None:
        """Hold engines that have captured nothing yet.

        Args:
            model: the stock model.
            name: of `EngineName`.

        Raises:
            InputError: for another name, or graphs without CUDA.
        """
        device = next(model.parameters()).device
        check_engine(name, device)
        self._model, self._name = model, name
        level: Level = "eager" if name == "eager" else "compiled" if name == "compiled" else "graphs"
        self._room = None if name == "stock" else Room(model, level)
        self._stock: Engine = StockEngine()
        self._captured = None if self._room is None else CapturedEngine(self._room)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied or pickled, begin again with the model's copy: graphs and locks belong to one model in one process."""
        return type(self), (self._model, self._name)

    def _order(self) -> tuple[Engine, ...]:
        """Return the engines in the order of preference, for the device that the model is on now."""
        room = self._room
        if room is None or self._captured is None:
            return (self._stock,)
        on_cuda = next(self._model.parameters()).device.type == "cuda"
        return (self._captured, self._stock) if on_cuda or not room.captures else (self._stock,)

    @property
    def preferred(self) -> str:
        """The engine that runs what it can: what `auto` comes to on this device."""
        return self._order()[0].name

    def compile(self) -> None:
        """Run compiled layers from now on.

        Raises:
            UnsupportedModeError: if graphs cannot run here.
        """
        if self._room is None or len(self._order()) < 2 or not self._room.captures:
            raise UnsupportedModeError(
                f"engine {self.preferred!r} runs no graphs here, so that there is nothing to compile"
            )
        self._room.raise_to("compiled")
        if self._room.level != "compiled":
            raise UnsupportedModeError("this LLM's layers are built in a way that cannot be compiled here")

    def compile_if_repaid(self, passes: int) -> bool:
        """Run compiled layers from now on if the engine may choose, and so many passes repay it; return whether.

        Args:
            passes: about to be decoded, as far as is known.
        """
        if self._name != "auto" or passes < REPAYING_PASSES or len(self._order()) < 2:
            return False
        try:
            self.compile()
        except UnsupportedModeError:
            return False
        return True

    def release(self) -> None:
        """Give back the memory of graphs and caches."""
        if self._room is not None:
            self._room.release()

    def stages(self) -> Stages:
        """Return what runs the stages before the LLM of the call that begins now."""
        room = self._room
        if room is None or len(self._order()) < 2:
            return PLAIN
        room.look_at_tower()
        device = next(self._model.parameters()).device
        plain = not room.captures or room.hindrance is not None or torch.is_autocast_enabled(device.type)
        return PLAIN if plain else room.stages

    def generate(self, run: LLMRun, plan: GenerationPlan, clock: StageClock | None) -> Generated:
        """Answer a batch by the first engine that can; see `Engine.generate`."""
        order = self._order()
        if self._room is not None and len(order) > 1:
            self._room.look_at_llm()
        engine, passed_over = pick_engine(run, plan, order)
        return replace(engine.generate(run, plan, clock), passed_over=passed_over)


def pick_engine(run: LLMRun, plan: GenerationPlan, engines: Sequence[Engine]) -> tuple[Engine, str]:
    """Return the first engine that can do a call, and what those before it say.

    Raises:
        UnsupportedModeError: if none can.
    """
    reasons: list[str] = []
    for engine in engines:
        reason = engine.refusal(run, plan)
        if reason is None:
            return engine, "; ".join(reasons)
        reasons.append(f"{engine.name}: {reason}")
    raise UnsupportedModeError(f"no engine can run this call ({'; '.join(reasons)})")
