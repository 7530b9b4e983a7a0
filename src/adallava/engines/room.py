"""What is captured of one model, in one place, and thrown away when the model changes."""

import threading
from collections.abc import Callable
from typing import Any

from torch import nn

from adallava.engines.captured_stages import CapturedStages
from adallava.engines.graph_store import GraphStore
from adallava.engines.watch import ModelWatch
from adallava.errors import UnsupportedModeError
from adallava.families.layer_stack import LayerStack, first_obstacle, layer_stack

Forget = Callable[[], None]


class Room:
    """A model, and the graphs that were captured of it. One call at a time: others wait.

    Attributes:
        lock: held by whoever captures or replays.
        model: the stock model.
        captures: False to run the same passes without graphs.
        store: of graphs.
        stages: of the stages before the LLM.
        stack: the LLM; None if `obstacle` says why it cannot be called layer by layer.
        obstacle: in words.
    """

    def __init__(self, model: Any, *, captures: bool) -> None:
        """Look at a model; nothing is captured yet."""
        self.lock = threading.RLock()
        self.model, self.captures = model, captures
        self.stack: LayerStack | None = None
        self._forgetful: list[Forget] = []
        self._enter()

    def when_forgotten(self, forget: Forget) -> None:
        """Have `forget` called when everything captured is thrown away."""
        self._forgetful.append(forget)

    def look(self) -> None:
        """Throw away what was captured of a model that is not what it was: call it before each batch."""
        with self.lock:
            if self._watch.unchanged():
                return
            self.store.clear()
            for forget in self._forgetful:
                forget()
            self._enter()

    def _enter(self) -> None:
        modules: list[nn.Module] = list(self.model.modules())
        self._watch = ModelWatch(modules)
        self.store = GraphStore(next(self.model.parameters()).device, captures=self.captures)
        self.stages = CapturedStages(self.store, self.model)
        self.stack, self.obstacle = None, first_obstacle(modules)
        if self.obstacle is None:
            try:
                self.stack = layer_stack(self.model)
            except UnsupportedModeError as error:
                self.obstacle = str(error)
