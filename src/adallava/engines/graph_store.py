"""Captured CUDA graphs, by what they hold: made when a thing comes a second time, and bounded in number."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from adallava.errors import AdallavaError

MOST_GRAPHS = 512
"""Of one model. The one that was used longest ago is thrown away first."""


class GraphStore:
    """Runs work on a device, by replaying it where it was captured.

    The first time, work runs as it is: that warms up what it calls, and a shape that never comes again costs no
    capture. The second time it is captured; from then on it is replayed. All graphs share one pool of memory, since
    one runs at a time and nothing that lies in the pool is read after its own graph.
    """

    def __init__(self, *, captures: bool, most_graphs: int = MOST_GRAPHS) -> None:
        """Hold nothing yet.

        Args:
            captures: False to run everything as it is.
            most_graphs: held at a time.
        """
        self._captures, self._most = captures, most_graphs
        self._seen: OrderedDict[tuple[Hashable, ...], None] = OrderedDict()
        self._graphs: OrderedDict[tuple[Hashable, ...], Any] = OrderedDict()
        self._refused: set[tuple[Hashable, ...]] = set()
        self._pool: Any = None

    def __len__(self) -> int:
        """Graphs that are held."""
        return len(self._graphs)

    def run(self, key: tuple[Hashable, ...], work: Callable[[], None]) -> None:
        """Run work that reads and writes memory of fixed places alone.

        Args:
            key: equal for equal work on equal memory; its first part names the memory, see `forget`.
            work: nothing that waits for the device, or depends on the host beyond its key.
        """
        if key not in self._graphs and self._captures and key in self._seen and key not in self._refused:
            try:
                self.capture(key, work)
            except AdallavaError:
                self._refused.add(key)
        if key in self._graphs:
            self.replay(key)
            return
        self._note(key)
        with chosen_kernels():
            work()

    def capture(self, key: tuple[Hashable, ...], work: Callable[[], None]) -> None:
        """Capture work without running it.

        Raises:
            AdallavaError: if it cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream()
        try:
            # Another thread may allocate meanwhile: that is not an error of this one.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"), chosen_kernels():
                work()
        except BaseException as error:
            # A capture that broke leaves its stream current, and its pool in use.
            torch.cuda.set_stream(stream)
            self._pool = None
            if isinstance(error, RuntimeError) and not isinstance(error, torch.cuda.OutOfMemoryError):
                raise AdallavaError(f"this work cannot be captured in a CUDA graph: {error}") from error
            raise
        self._graphs[key] = graph
        while len(self._graphs) > self._most:
            self._graphs.popitem(last=False)

    def holds(self, key: tuple[Hashable, ...]) -> bool:
        """Return whether a graph is held."""
        return key in self._graphs

    def replay(self, key: tuple[Hashable, ...]) -> None:
        """Run what was captured."""
        self._graphs.move_to_end(key)
        self._graphs[key].replay()

    def drop(self, key: tuple[Hashable, ...]) -> None:
        """Forget one graph, if it is held."""
        if key in self._graphs:
            torch.cuda.synchronize()
            del self._graphs[key]

    def forget(self, place: Hashable) -> None:
        """Forget what was captured on memory that is given up: every key that begins with `place`."""
        if self._graphs:
            torch.cuda.synchronize()
        for held in (self._graphs, self._seen):
            for key in [key for key in held if key[0] == place]:
                del held[key]
        self._refused = {key for key in self._refused if key[0] != place}

    def clear(self) -> None:
        """Forget everything; the memory goes back once nothing runs any more."""
        if self._graphs:
            torch.cuda.synchronize()
        self._graphs.clear()
        self._seen.clear()
        self._refused.clear()
        self._pool = None

    def _note(self, key: tuple[Hashable, ...]) -> None:
        self._seen[key] = None
        self._seen.move_to_end(key)
        while len(self._seen) > 4 * self._most:
            forgotten, _ = self._seen.popitem(last=False)
            self._refused.discard(forgotten)


@contextmanager
def kept_state(device: torch.device) -> Iterator[None]:
    """Run what makes or writes memory that outlives a call.

    On the model's own device, whichever is current: a capture is of the current one. And outside of a caller's
    inference mode: what is made in it cannot be written outside of it.
    """
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with current, torch.inference_mode(False), torch.no_grad():
        yield


def chosen_kernels() -> Any:
    """Return a context without cuDNN's attention, which plans again for each new length (about 80 ms on an H200)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
