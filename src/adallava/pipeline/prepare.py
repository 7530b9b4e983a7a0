"""The stages before the LLM, in their order: plan, choose rows, pack; for every kind of method."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from adallava.errors import BudgetError, InputError
from adallava.families.capabilities.of_llms import decoder_of, reads_ahead
from adallava.families.capabilities.of_pictures import tower_runs, whole_images
from adallava.families.capabilities.of_tokens import companions_of, placeholder_orders
from adallava.families.family_contract import Family, VisionFeatures
from adallava.pipeline.allocate import method_counts
from adallava.pipeline.call import Request
from adallava.pipeline.choose_rows import ChosenRows, choose_rows, read_own_counts
from adallava.pipeline.companions import arranged
from adallava.pipeline.dropping import LayerDrops
from adallava.pipeline.drops import DropPlan, plan_drops
from adallava.pipeline.encode import encode_stock, reads_stock_tower
from adallava.pipeline.layout import Layout, plan_layout, with_own_counts
from adallava.pipeline.pack import CompactBatch, assemble, compact_positions
from adallava.pipeline.skips import SampleLayers
from adallava.pipeline.stage_runner import PLAIN, StageContext, Stages
from adallava.pipeline.wording import Language
from adallava.records import FULL_METHOD
from adallava.selection.layer_contract import AnySelector, LayerSelector
from adallava.selection.selector_contract import OwnCountMethod, Selection, Selector


@dataclass(frozen=True)
class InsideCounts:
    """Of one sample, for a method inside the LLM.

    Attributes:
        tokens_by_layer: vision tokens that each LLM layer reads.
        text_behind_images: text tokens after each image: those that may judge it.
    """

    tokens_by_layer: tuple[int, ...]
    text_behind_images: tuple[int, ...]


@dataclass(frozen=True)
class Prepared:
    """What the LLM is about to read, and the choice that led to it.

    Attributes:
        batch: the shortened batch.
        layout: where its tokens come from.
        selection: None if no vision token was looked at: no images, or a method that keeps none.
        selector: that chose; None keeps every token.
        grids: (rows, columns) of each image's tokens.
        tower_runs: pictures that the tower would run on for each image.
        whole_images: of each picture, the image that shows all of it.
        inside: what a method inside the LLM does with each sample; None for other methods.
        layers: what ran of the LLM for each sample, once it ran; None if all layers did for all samples.
        added: what is added to the vision tokens' states after layers of the LLM, [I, Kmax, D] by layer.
    """

    batch: CompactBatch
    layout: Layout
    selection: Selection | None
    selector: AnySelector | None
    grids: tuple[tuple[int, int], ...]
    tower_runs: tuple[int, ...]
    whole_images: tuple[int, ...] = ()
    inside: tuple[InsideCounts, ...] | None = None
    layers: tuple[SampleLayers, ...] | None = None
    added: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedInside:
    """What the LLM is about to read, and what will happen to it inside.

    Attributes:
        prepared: all N tokens of each image.
        plan: where they become fewer.
        drops: the state of the call.
        selector: the method.
    """

    prepared: Prepared
    plan: DropPlan
    drops: LayerDrops
    selector: LayerSelector

    def settled(self) -> Prepared:
        """Return, after the model ran, what entered it and what was left at the end."""
        return replace(
            self.prepared,
            selection=self.drops.selection(),
            selector=self.selector,
            inside=tuple(map(InsideCounts, self.plan.tokens_by_layer, self.plan.text_counts)),
        )


def prepare_request(
    family: Family,
    selector: AnySelector | None,
    request: Request,
    context: StageContext,
) -> Prepared | PreparedInside:
    """Plan on the host, run every stage before the LLM, and return what the LLM is about to read.

    A method that finds its own counts runs the tower first, and is waited for once; every other method is planned
    before anything runs.

    Raises:
        BudgetError: for a budget that the method "full" cannot give.
        InputError: if prompts, images, labels and seeds do not fit together.
    """
    # What is planned is read before the device has anything to do, and the tower runs while the host plans.
    on_host, request = request.on_host(), request.to(family.device)
    if context.vision is None:
        context = replace(context, vision=tower_output(family, selector, request, context.stages))
    if context.vision is not None:
        context.mark("vision")
    layout = _plan(family, selector, on_host)
    if isinstance(selector, LayerSelector):
        return prepare_inside(family, selector, layout, request, context)
    if isinstance(selector, OwnCountMethod) and request.pictures is not None:
        planned = layout.to(family.device)
        vision, own_counts = read_own_counts(family, selector, planned, request, context)
        context = replace(context, vision=vision)
        layout = with_own_counts(layout, own_counts)
    planned = layout.to(family.device)
    return prepare(family, selector, planned, request, context)


def tower_output(
    family: Family, selector: AnySelector | None, request: Request, stages: Stages = PLAIN
) -> VisionFeatures | None:
    """Run the tower if what it does depends on no plan, and something will be kept of what it sees."""
    if request.pictures is None or not reads_stock_tower(selector):
        return None
    keeps_none = selector is not None and selector.ignores_budget and not isinstance(selector, OwnCountMethod)
    if keeps_none:
        return None
    family.grids(request.pictures)  # Refuses what the tower cannot read.
    return encode_stock(family, None if isinstance(selector, LayerSelector) else selector, request.pictures, stages)


def _plan(family: Family, selector: AnySelector | None, request: Request) -> Layout:
    """Lay the batch out on the host; for a method that finds its own counts, as if every token stayed."""
    grids = () if request.pictures is None else family.grids(request.pictures)
    layout = plan_layout(
        request.input_ids,
        request.attention_mask,
        tokens_per_image=[rows * columns for rows, columns in grids],
        image_token_id=family.image_token_id,
        budgets=request.budgets,
        side=request.side,
        method=method_counts(selector, grids),
        labels=request.labels,
        inserted=request.inserted,
        companions=partial(companions_of, family, request.input_ids, request.attention_mask, request.pictures),
        orders=None if request.pictures is None else placeholder_orders(family, request.pictures),
    )
    if selector is None:
        _check_full(layout)
    return layout


def _check_full(layout: Layout) -> None:
    """Refuse a budget that leaves tokens out where no method says which.

    Raises:
        BudgetError: naming the budget and what it asks for.
    """
    for prompt in layout.prompts:
        if prompt.tokens_asked != prompt.num_vision_tokens:
            raise BudgetError(
                f"token budget {prompt.budget} asks for {prompt.tokens_asked} of "
                f"{prompt.num_vision_tokens} vision tokens, but the method {FULL_METHOD!r} keeps them all: "
                "choose a method (see adallava.registry.selector_names()) or a budget of 1.0"
            )


def prepare(
    family: Family,
    selector: Selector | None,
    layout: Layout,
    request: Request,
    context: StageContext,
) -> Prepared:
    """Run every stage before the LLM, with a method that chooses there or none.

    Args:
        family: the model.
        selector: the method; None keeps every token.
        layout: planned for this batch, on the family's device.
        request: on the family's device.
        context: of the call.
    """
    input_ids, pictures = request.input_ids, request.pictures
    grids = () if pictures is None else family.grids(pictures)
    runs = () if pictures is None else tower_runs(family, pictures)
    wholes = () if pictures is None else whole_images(family, pictures)
    if pictures is None or sum(layout.keep_counts) == 0:
        for part in ("vision", "selector", "projector"):
            context.mark(part)
        batch = assemble(family, layout, input_ids, None, None, request.positions, request.labels, request.pad_token_id)
        return Prepared(batch, layout, None, selector, grids, runs, wholes)
    chosen = choose_rows(family, selector, layout, request, pictures, context)
    layout = arranged(layout, chosen.selection.indices)
    batch = context.stages.run(
        family.model,
        "assemble",
        partial(assemble, family),
        replace(layout, prompts=()),  # Host's alone: all that is gathered from lies in the tables.
        input_ids,
        chosen.embeds,
        chosen.selection.indices,
        request.positions,
        request.labels,
        request.pad_token_id,
    )
    return Prepared(batch, layout, chosen.selection, selector, grids, runs, wholes, added=chosen.added)


def choose_from_pictures(
    family: Family, selector: Selector, request: Request, *, language: Language | None = None
) -> ChosenRows:
    """Plan a batch and return what is kept of its pictures, for an LLM that runs elsewhere.

    Raises:
        InputError: for a request without pictures, or whose prompts and pictures do not fit together.
    """
    if request.pictures is None:
        raise InputError("there is nothing to choose from without images")
    layout = _plan(family, selector, request.on_host()).to(family.device)
    request = request.to(family.device)
    assert request.pictures is not None
    return choose_rows(family, selector, layout, request, request.pictures, StageContext(language))


def prepare_inside(
    family: Family,
    selector: LayerSelector,
    layout: Layout,
    request: Request,
    context: StageContext,
) -> PreparedInside:
    """Run every stage before the LLM with all tokens, and plan where a method inside it drops them.

    Args:
        family: the model.
        selector: the method.
        layout: of what is left after the last drop, on the host.
        request: on the family's device. Its labels are not laid out here: those of what the last layer reads count.
        context: of the call.
    """
    decoder = decoder_of(family)
    plan = plan_drops(selector, layout, decoder.num_layers).to(family.device)
    prepared = prepare(family, None, plan.layouts[0], replace(request, labels=None), context)
    recount = partial(compact_positions, family) if request.positions == "compact" else None
    drops = LayerDrops(decoder, selector, plan, prepared.batch.inputs_embeds, recount, reads_ahead=reads_ahead(family))
    return PreparedInside(prepared, plan, drops, selector)
