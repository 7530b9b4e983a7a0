"""The stages before the LLM for a method inside it: all N tokens are prepared, and a state of the call goes along."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from adallava.families.contract import Family
from adallava.generation.clock import StageClock
from adallava.generation.compact import Positions
from adallava.generation.drops import DropPlan, plan_drops
from adallava.generation.inside import LayerDrops
from adallava.generation.layout import Layout
from adallava.generation.prepare import InsideCounts, Prepared, prepare
from adallava.selection.layer_contract import LayerSelector


@dataclass(frozen=True)
class PreparedInside:
    """What the LLM is about to read, and what will happen to it inside.

    Attributes:
        prepared: all N tokens of each image.
        plan: where they become fewer.
        drops: the state of the call: `drops.view()` is the model to run.
        selector: the method.
    """

    prepared: Prepared
    plan: DropPlan
    drops: LayerDrops
    selector: LayerSelector

    def view(self) -> Any:
        """Return the model to run on `prepared.batch`."""
        return self.drops.view()

    def settled(self) -> Prepared:
        """Return, after the model ran, what entered it and what was left at the end."""
        return replace(
            self.prepared,
            selection=self.drops.selection(),
            selector=self.selector,
            inside=tuple(map(InsideCounts, self.plan.tokens_by_layer, self.plan.text_counts)),
        )


def prepare_inside(
    family: Family,
    selector: LayerSelector,
    layout: Layout,
    *,
    input_ids: Tensor,
    pixel_values: Tensor | None,
    seeds: Sequence[int],
    positions: Positions = "original",
    clock: StageClock | None = None,
) -> PreparedInside:
    """Run every stage before the LLM. Arguments as for `prepare`, and:

    Args:
        family: the model.
        selector: the method.
        layout: of what is left behind the last drop, on the host.
        input_ids: [B, L].
        pixel_values: [I, 3, H, W], or None without images.
        seeds: one per sample.
        positions: see `LayerDrops`.
        clock: marks the parts.
    """
    decoder = family.decoder()
    plan = plan_drops(selector, layout, decoder.num_layers).to(family.device)
    prepared = prepare(
        family,
        None,
        plan.stages[0].layout,
        input_ids=input_ids,
        pixel_values=pixel_values,
        seeds=seeds,
        positions=positions,
        clock=clock,
    )
    drops = LayerDrops(decoder, selector, plan, prepared.batch.inputs_embeds, positions)
    return PreparedInside(prepared, plan, drops, selector)
