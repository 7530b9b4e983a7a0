"""What happens around an LLM's layers in one call: one program, and whatever runs the layers takes it.

    drops        tokens become fewer, before or after a layer
    masks        layers read masks of their own, where kinds of layers differ and some are left out
    additions    rows are added to tokens' states after a layer, in the first pass
    skips        some rows of the batch leave a layer out, whole or in part

Each step is around those below it: what is added belongs to the tokens that are left, also where the layer is left out.
What can be planned on the host lies in the steps before the LLM runs; the rest is their state of the call.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.pipeline.dropping import LayerDrops
from adallava.pipeline.own_masks import OwnMasks
from adallava.pipeline.skips import ScheduledLayers


class LayerStep(Protocol):
    """One thing that happens around layers."""

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer. See `AroundLayer`."""
        ...


class AddedRows:
    """Adds rows to the states of vision tokens after some layers, in the first pass; each layer's once a call.

    Beams and several returns repeat a sample's rows.
    """

    def __init__(
        self, rows: Mapping[int, Tensor], slots: Tensor, columns: Tensor, num_columns: int, left: Callable[[], Tensor]
    ) -> None:
        """Start a call.

        Args:
            rows: by layer, [I, Kmax, D], of the vision tokens that enter the LLM.
            slots: [B, S] int64, the row of the flattened [I * Kmax] of each token that enters; -1 for others.
            columns: [B, S] int64, of the full prompts, which the tokens that enter come from; L for padding.
            num_columns: L, of the full prompts.
            left: gives, at any time, the columns of the tokens that are left then, [B, S'].
        """
        self._rows = {layer: of_layer.flatten(0, 1) for layer, of_layer in rows.items()}
        nowhere = slots.new_full((len(slots), num_columns + 1), -1)
        self._slot_of_column = nowhere.scatter(1, columns, slots)
        self._left = left

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer, and add what comes after it. See `AroundLayer`."""
        hidden = layer(hidden, inputs)
        rows = self._rows.pop(index, None)
        if rows is None or len(rows) == 0:
            return hidden
        slots = self._slot_of_column.gather(1, self._left())
        added = rows[slots.clamp_min(0)].to(hidden.dtype).masked_fill((slots < 0).unsqueeze(-1), 0)
        return hidden + added.repeat_interleave(len(hidden) // len(added), dim=0)


@dataclass(frozen=True)
class LayerProgram:
    """The steps of one call, the outermost first.

    Attributes:
        drops: of a method inside the LLM.
        masks: of a schedule, where layers are of several kinds.
        additions: of a family that adds rows after layers.
        skips: of a schedule.
    """

    drops: LayerDrops | None = None
    masks: OwnMasks | None = None
    additions: AddedRows | None = None
    skips: ScheduledLayers | None = None

    @property
    def steps(self) -> tuple[LayerStep, ...]:
        """Those that there are; none where the stock model runs as it is."""
        steps = (self.drops, self.masks, self.additions, self.skips)
        return tuple(step for step in steps if step is not None)

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer in all steps. See `AroundLayer`."""
        for step in reversed(self.steps):
            layer = partial(step.around, index, layer)
        return layer(hidden, inputs)

    def view(self, family: Family) -> Any:
        """Return the model to run: the stock one, or a view of it, good for one call."""
        if not self.steps:
            return family.model
        return decoder_of(family).view(self.around, None if self.skips is None else self.skips.reorder_cache)

    def view_until_chosen(self, family: Family) -> Any:
        """Return a model that runs no layer after the last drop: enough to learn what is kept."""
        assert self.drops is not None
        drops = self.drops

        def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
            """Run a layer, and from the last drop on none: only what that drop reads."""
            if index < drops.last_layer:
                return self.around(index, layer, hidden, inputs)
            return drops.enter(index, hidden, inputs)

        return decoder_of(family).view(around)

    def view_until_decided(self, family: Family) -> Any:
        """Return a model that runs no layer after the prefix: enough to learn which layers are to run."""
        assert self.skips is not None
        skips = self.skips

        def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
            """Run the prefix, and decide at its end."""
            if index < skips.prefix_layers:
                return self.around(index, layer, hidden, inputs)
            if index == skips.prefix_layers:
                skips.decide_at(hidden)
            return hidden

        return decoder_of(family).view(around)
