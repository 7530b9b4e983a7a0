"""The stages before the LLM in CUDA graphs: the tower, a method's choice, the projector."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from adallava.engines.graph_store import GraphStore, chosen_kernels, kept_state
from adallava.engines.host_constants import collect, supply
from adallava.engines.structure import UnknownPartError, shape_of, tensors_in, with_tensors
from adallava.errors import AdallavaError
from adallava.families.family_contract import Family
from adallava.families.tower_kernels import HasTowerKernels, TowerKernels

T = TypeVar("T")

MOST_STAGES = 128
"""Captured at a time: a method's choice is one for each number of tokens and length of question."""


@dataclass(frozen=True)
class _Captured:
    """A stage's fixed memory.

    Attributes:
        owner: held, so that its name in the key stays its own.
        inputs: what is read.
        constants: what it once brought from the host.
        output: what is written, and copied before anything else runs.
    """

    owner: object
    inputs: list[Tensor]
    constants: list[Tensor]
    output: list[Any]


class CapturedStages:
    """Replays a stage where it came before; what cannot be captured, such as work that waits for the device, runs as it
    is for ever.
    """

    def __init__(self, store: GraphStore, model: Any, lock: AbstractContextManager[Any], kernels: TowerKernels) -> None:
        """Capture into `store`.

        Args:
            store: of graphs.
            model: that stages belong to; whoever clears the store watches its weights.
            lock: held while a stage's memory is in use.
            kernels: of towers whose small steps may run in another way.
        """
        self._store, self._model, self._lock, self._kernels = store, model, lock, kernels
        self._stages: OrderedDict[tuple[Hashable, ...], _Captured] = OrderedDict()
        self._refused: OrderedDict[Hashable, None] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def tower_of(self, family: Family) -> Family:
        """Return the family with the kernels of this level, if it takes any."""
        return family.with_tower_kernels(self._kernels) if isinstance(family, HasTowerKernels) else family

    def run(self, owner: object, name: str, work: Callable[..., T], *args: object) -> T:
        """Return `work(*args)`, in memory of its own; see `Stages.run`."""
        try:
            state = () if owner is self._model else _state_of(owner)
            key = ("stage", id(owner), name, state, shape_of(args))
        except UnknownPartError:
            return work(*args)
        with self._lock:
            return self._run(key, owner, work, args)

    def _run(self, key: tuple[Hashable, ...], owner: object, work: Callable[..., T], args: tuple[object, ...]) -> T:
        if key in self._refused or not self._came_before(key):
            with chosen_kernels():
                return work(*args)
        with kept_state(next(self._model.parameters()).device):
            captured = self._stages.get(key) if self._store.holds(key) else None
            captured = captured or self._capture(key, owner, work, args)
            if captured is None:
                return work(*args)
            self._stages.move_to_end(key)
            for place, tensor in zip(captured.inputs, tensors_in(args), strict=True):
                place.copy_(tensor)
            self._store.replay(key)
            (output,) = captured.output
            copied: T = with_tensors(output, iter([tensor.clone() for tensor in tensors_in(output)]))
        return copied

    def clear(self) -> None:
        """Forget everything; the store forgets the graphs."""
        self._stages.clear()
        self._refused.clear()
        self._seen.clear()

    def _came_before(self, key: Hashable) -> bool:
        """Return whether this stage ran already: the first time warms up what it calls."""
        if key in self._seen:
            return True
        self._seen[key] = None
        while len(self._seen) > 8 * MOST_STAGES:
            self._seen.popitem(last=False)
        return False

    def _capture(
        self, key: tuple[Hashable, ...], owner: object, work: Callable[..., Any], args: tuple[object, ...]
    ) -> _Captured | None:
        inputs = [tensor.clone() for tensor in tensors_in(args)]
        read = with_tensors(args, iter(inputs))
        output: list[Any] = []
        constants = collect(lambda: work(*read))
        try:
            self._store.capture(key, lambda: supply(lambda: output.append(work(*read)), constants))
        except AdallavaError:
            self._refused[key] = None
            while len(self._refused) > 8 * MOST_STAGES:
                self._refused.popitem(last=False)
            return None
        self._stages[key] = _Captured(owner, inputs, constants, output)
        while len(self._stages) > MOST_STAGES:
            oldest, _ = self._stages.popitem(last=False)
            self._store.drop(oldest)
        return self._stages[key]


def _state_of(owner: object) -> Hashable:
    """Return what an owner's work depends on: where its weights are, and its options.

    Raises:
        UnknownPartError: if it holds something that cannot be compared.
    """
    try:
        options = tuple((name, _comparable(value)) for name, value in vars(owner).items() if name not in _OF_MODULES)
    except TypeError as error:
        raise UnknownPartError(f"the options of a {type(owner).__name__} cannot be compared") from error
    if not isinstance(owner, nn.Module):
        return options
    tensors = (*owner.parameters(), *owner.buffers())
    return (owner.training, options, tuple(tensor.data_ptr() for tensor in tensors))


_OF_MODULES = {"_parameters", "_buffers", "_modules"}
"""Looked at through the module."""


def _comparable(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, list | dict | set):
        return repr(value)
    hash(value)
    made: Hashable = value
    return made
