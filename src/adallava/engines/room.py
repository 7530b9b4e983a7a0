"""What is captured of one model, in one place, and thrown away when the model changes."""

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal

from torch import nn

from adallava.engines.captured_stages import CapturedStages
from adallava.engines.fused_layers import FusedStack, Stack
from adallava.engines.graph_store import GraphStore
from adallava.engines.watch import ModelWatch
from adallava.errors import UnsupportedModeError
from adallava.families.layer_stack import LayerStack, first_obstacle, layer_stack, llm_of
from adallava.families.tower_kernels import TowerKernels, lay_out
from adallava.families.transformers_internals import attention_of

Level = Literal["eager", "graphs", "compiled"]
"""How passes run: as they are, in graphs of stock kernels, or compiled and in graphs."""

Forget = Callable[[], None]


class Room:
    """A model, and the graphs that were captured of it. One call at a time: others wait.

    Attributes:
        lock: held by whoever captures or replays.
        model: the stock model.
        level: of `Level`.
        store: of graphs.
        stages: of the stages before the LLM.
        stack: the LLM; None if `obstacle` says why it cannot be called layer by layer.
        obstacle: in words.
        hindrance: why none of the model may be captured, in words; None if there is nothing.
    """

    def __init__(self, model: Any, level: Level) -> None:
        """Look at nothing yet: a model may still go elsewhere, or be driven by stock `generate` alone."""
        self.lock = threading.RLock()
        self.model, self.level = model, level
        self.store = GraphStore(captures=self.captures)
        self.stages = self._made_stages()
        self.stack: Stack | None = None
        self.hindrance: str | None = None
        self.obstacle: str | None = None
        self._facts: tuple[object, ...] = ()
        self._watches: tuple[ModelWatch, ModelWatch] | None = None
        self._forgetful: list[Forget] = []

    @property
    def captures(self) -> bool:
        """Whether passes are captured."""
        return self.level != "eager"

    def when_forgotten(self, forget: Forget) -> None:
        """Have `forget` called when everything captured is thrown away."""
        self._forgetful.append(forget)

    def raise_to(self, level: Level) -> None:
        """Run at another level from now on; what was captured is thrown away."""
        with self.lock:
            if self.level != level:
                self.level = level
                self.store = GraphStore(captures=self.captures)
                self.stages = self._made_stages()
                self.start_anew()

    def release(self) -> None:
        """Give back what is held; the next call begins again."""
        with self.lock:
            self.store.clear()
            self.stages.clear()
            for forget in self._forgetful:
                forget()
            self._watches = None

    def look_at_tower(self) -> None:
        """Throw away what was captured of a tower that is not what it was: before each batch."""
        with self.lock:
            if self._watches is None or self._look_around() != self._facts or not self._watches[0].unchanged():
                self.start_anew()

    def look_at_llm(self) -> None:
        """The same of the LLM: before it runs, while the device is busy with the tower."""
        with self.lock:
            if self._watches is None or not self._watches[1].unchanged():
                self.start_anew()

    def start_anew(self) -> None:
        """Throw everything away, and look at the model as it is."""
        self.store.clear()
        self.stages.clear()
        for forget in self._forgetful:
            forget()
        modules: list[nn.Module] = list(self.model.modules())
        self.hindrance = "it is in training mode" if self.model.training else first_obstacle(modules)
        self.stack, self.obstacle = None, self.hindrance
        if self.obstacle is None:
            try:
                stack = layer_stack(self.model)
                self.stack = stack if self.level != "compiled" else self._fused(stack)
            except UnsupportedModeError as error:
                self.obstacle = str(error)
        # After the joining of weights, which moves them. What stages read is looked at before them. An LLM's
        # weights lie as they are, or as they were joined.
        llm = {id(module) for module in llm_of(self.model).modules()}
        llm -= {id(module) for module in self.model.get_input_embeddings().modules()}
        if self.captures and self.hindrance is None:
            lay_out(module for module in modules if id(module) not in llm)
        self._facts = self._look_around()
        self._watches = (
            ModelWatch([module for module in modules if id(module) not in llm]),
            ModelWatch([module for module in modules if id(module) in llm]),
        )

    def _made_stages(self) -> CapturedStages:
        return CapturedStages(self.store, self.model, self.lock, self._tower_kernels())

    def _tower_kernels(self) -> TowerKernels:
        on_cuda = next(self.model.parameters()).device.type == "cuda"
        if self.level != "compiled" or not on_cuda or find_spec("triton") is None:
            return TowerKernels()
        from adallava.engines.patch_kernels import PATCH_KERNELS

        return PATCH_KERNELS

    def _fused(self, stack: LayerStack) -> Stack:
        """Return the stack compiled; as it is, from now on, if its layers are built in another way."""
        try:
            return FusedStack(stack)
        except UnsupportedModeError:
            self.level = "graphs"
            return stack

    def _look_around(self) -> tuple[object, ...]:
        config = llm_of(self.model).config
        asks = [getattr(config, name, False) for name in ("output_hidden_states", "output_attentions")]
        return (self.model.training, attention_of(config), *asks)
