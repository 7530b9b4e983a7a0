"""What is captured of one model, in one place, and thrown away when the model changes."""

import threading
from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from adallava.engines.captured_stages import CapturedStages
from adallava.engines.fused_layers import FusedStack
from adallava.engines.graph_store import GraphStore
from adallava.engines.watch import ModelWatch
from adallava.errors import UnsupportedModeError
from adallava.families.layer_stack import LayerStack, first_obstacle, layer_stack

Level = Literal["eager", "graphs", "compiled"]
"""How passes run: as they are, in graphs of stock kernels, or compiled and in graphs."""

Forget = Callable[[], None]


class Room:
    """A model, and the graphs that were captured of it. One call at a time: others wait.

    Attributes:
        lock: held by whoever captures or replays.
        model: the stock model.
        store: of graphs.
        stages: of the stages before the LLM.
        level: of `Level`.
        stack: the LLM; None if `obstacle` says why it cannot be called layer by layer.
        obstacle: in words.
    """

    def __init__(self, model: Any, level: Level) -> None:
        """Look at a model; nothing is captured yet."""
        self.lock = threading.RLock()
        self.model, self.level = model, level
        self.stack: LayerStack | FusedStack | None = None
        self._forgetful: list[Forget] = []
        self._enter()

    @property
    def captures(self) -> bool:
        """Whether passes are captured."""
        return self.level != "eager"

    def raise_to(self, level: Level) -> None:
        """Run at another level from now on; what was captured is thrown away."""
        with self.lock:
            if self.level != level:
                self.level = level
                self._start_anew()

    def when_forgotten(self, forget: Forget) -> None:
        """Have `forget` called when everything captured is thrown away."""
        self._forgetful.append(forget)

    def look(self) -> None:
        """Throw away what was captured of a model that is not what it was: call it before each batch."""
        with self.lock:
            if not self._watch.unchanged():
                self._start_anew()

    def _start_anew(self) -> None:
        self.store.clear()
        for forget in self._forgetful:
            forget()
        self._enter()

    def _enter(self) -> None:
        modules: list[nn.Module] = list(self.model.modules())
        self.store = GraphStore(next(self.model.parameters()).device, captures=self.captures)
        self.stages = CapturedStages(self.store, self.model)
        self.stack, self.obstacle = None, first_obstacle(modules)
        if self.obstacle is None:
            try:
                stack = layer_stack(self.model)
                self.stack = FusedStack(stack) if self.level == "compiled" else stack
            except UnsupportedModeError as error:
                self.obstacle = str(error)
        # Behind the joining of weights, which moves them.
        self._watch = ModelWatch(modules)
