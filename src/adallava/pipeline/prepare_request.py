"""A request planned and prepared: the order of the stages before the LLM, for every kind of method."""

from collections.abc import Sequence

from adallava.errors import BudgetError
from adallava.families.contract import Family
from adallava.pipeline.call import Request
from adallava.pipeline.clock import StageClock
from adallava.pipeline.layout import Layout, plan_layout, with_own_counts
from adallava.pipeline.prepare import Prepared, prepare, read_own_counts
from adallava.pipeline.prepare_inside import PreparedInside, prepare_inside
from adallava.pipeline.wording import Language
from adallava.records import FULL_METHOD
from adallava.selection.contract import OwnCountMethod, RoundingMethod
from adallava.selection.layer_contract import AnySelector, LayerSelector


def prepare_request(
    family: Family,
    selector: AnySelector | None,
    request: Request,
    *,
    language: Language | None = None,
    clock: StageClock | None = None,
) -> Prepared | PreparedInside:
    """Plan on the host, run every stage before the LLM, and return what the LLM is about to read.

    A method that finds its own counts runs the tower first, and is waited for once; every other method is planned
    before anything runs.

    Raises:
        BudgetError: for a budget that the method "full" cannot give.
        InputError: if prompts, images, labels and seeds do not fit together.
    """
    family = family.for_sizes(request.image_sizes)
    layout = _plan(family, selector, request)
    request = request.to(family.device)
    if isinstance(selector, LayerSelector):
        return prepare_inside(family, selector, layout, request, clock=clock)
    vision = None
    if isinstance(selector, OwnCountMethod) and request.pixel_values is not None:
        planned = layout.to(family.device)
        vision, own_counts = read_own_counts(family, selector, planned, request, language=language, clock=clock)
        layout = with_own_counts(layout, own_counts)
    planned = layout.to(family.device)
    return prepare(family, selector, planned, request, language=language, vision=vision, clock=clock)


def _plan(family: Family, selector: AnySelector | None, request: Request) -> Layout:
    """Lay the batch out on the host; for a method that finds its own counts, as if every token stayed."""
    grids = () if request.pixel_values is None else family.grids(request.pixel_values)
    tokens_per_image = [rows * columns for rows, columns in grids]
    own_counts: Sequence[int] | None = None
    if selector is not None and selector.ignores_budget:
        own_counts = tokens_per_image if isinstance(selector, OwnCountMethod) else (0,) * len(tokens_per_image)
    layout = plan_layout(
        request.input_ids,
        request.attention_mask,
        tokens_per_image=tokens_per_image,
        image_token_id=family.image_token_id,
        budgets=request.budgets,
        side=request.side,
        keep_count=(lambda asked, image: selector.keep_count(asked, grids[image]))
        if isinstance(selector, RoundingMethod)
        else None,
        own_counts=own_counts,
        labels=request.labels,
        latency_columns=request.latency_columns,
        latency_hidden=request.latency_hidden,
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
