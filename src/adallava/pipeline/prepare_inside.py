"""The stages before the LLM for a method inside it: all N tokens are prepared, and a state of the call goes along."""

from dataclasses import dataclass, replace
from typing import Any

from adallava.families.contract import Family
from adallava.pipeline.call import Request
from adallava.pipeline.clock import StageClock
from adallava.pipeline.dropping import LayerDrops
from adallava.pipeline.drops import DropPlan, plan_drops
from adallava.pipeline.layout import Layout
from adallava.pipeline.prepare import InsideCounts, Prepared, prepare
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
    request: Request,
    *,
    clock: StageClock | None = None,
) -> PreparedInside:
    """Run every stage before the LLM.

    Args:
        family: the model.
        selector: the method.
        layout: of what is left behind the last drop, on the host.
        request: on the family's device. Its labels are not laid out here: those of what the last layer reads count.
        clock: marks the parts.
    """
    decoder = family.decoder()
    plan = plan_drops(selector, layout, decoder.num_layers).to(family.device)
    prepared = prepare(family, None, plan.stages[0].layout, replace(request, labels=None), clock=clock)
    drops = LayerDrops(decoder, selector, plan, prepared.batch.inputs_embeds, request.positions)
    return PreparedInside(prepared, plan, drops, selector)
