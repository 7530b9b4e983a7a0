"""A batch as the caller asked for it, planned and prepared: the order of the stages for every kind of method."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.families.contract import Family
from adallava.generation.clock import StageClock
from adallava.generation.compact import Positions
from adallava.generation.layout import Layout, Side, plan_layout, with_own_counts
from adallava.generation.prepare import Prepared, prepare, read_own_counts
from adallava.generation.prepare_inside import PreparedInside, prepare_inside
from adallava.generation.wording import Language
from adallava.records import FULL_METHOD
from adallava.selection.contract import OwnCountMethod, RoundingMethod
from adallava.selection.layer_contract import AnySelector, LayerSelector


@dataclass(frozen=True)
class Request:
    """What was asked for. B samples, I images.

    Attributes:
        input_ids: [B, L].
        attention_mask: [B, L] or None.
        pixel_values: [I, 3, H, W] or None.
        budgets: one per sample.
        seeds: one per sample.
        positions: "original" or "compact".
        side: that the shortened batch is padded on.
        latencies: one per sample.
        labels: [B, L] or None.
        latency_columns: of each sample, the column of its latency token; None for a batch without any.
    """

    input_ids: Tensor
    attention_mask: Tensor | None
    pixel_values: Tensor | None
    budgets: Sequence[TokenBudget]
    seeds: Sequence[int]
    positions: Positions
    side: Side
    latencies: Sequence[Latency]
    labels: Tensor | None = None
    latency_columns: tuple[int | None, ...] | None = None

    @property
    def skips_layers(self) -> bool:
        """True if some sample asks for less than the whole LLM."""
        return not all(latency.is_full for latency in self.latencies)

    def __post_init__(self) -> None:
        """Refuse positions that mean nothing, and a wrong number of latencies.

        Raises:
            InputError: naming the value.
            BudgetError: naming both numbers.
        """
        if len(self.latencies) != len(self.input_ids):
            raise BudgetError(
                f"{len(self.latencies)} latencies for a batch of {len(self.input_ids)} samples: give one, or one each"
            )
        if self.positions not in ("original", "compact"):
            raise InputError(f"positions={self.positions!r} is neither 'original' nor 'compact'")


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
    layout = _plan(family, selector, request)
    ids = request.input_ids.to(family.device)
    pixel_values = None if request.pixel_values is None else request.pixel_values.to(family.device)
    if isinstance(selector, LayerSelector):
        return prepare_inside(
            family,
            selector,
            layout,
            input_ids=ids,
            pixel_values=pixel_values,
            seeds=request.seeds,
            positions=request.positions,
            clock=clock,
        )
    vision = None
    if isinstance(selector, OwnCountMethod) and pixel_values is not None:
        vision, own_counts = read_own_counts(
            family,
            selector,
            layout.to(family.device),
            input_ids=ids,
            pixel_values=pixel_values,
            seeds=request.seeds,
            language=language,
            clock=clock,
        )
        layout = with_own_counts(layout, own_counts)
    return prepare(
        family,
        selector,
        layout.to(family.device),
        input_ids=ids,
        pixel_values=pixel_values,
        seeds=request.seeds,
        positions=request.positions,
        labels=None if request.labels is None else request.labels.to(family.device),
        language=language,
        vision=vision,
        clock=clock,
    )


def _plan(family: Family, selector: AnySelector | None, request: Request) -> Layout:
    """Lay the batch out on the host; for a method that finds its own counts, as if every token stayed."""
    grid = family.shape.grid
    tokens_per_image = () if request.pixel_values is None else family.tokens_per_image(request.pixel_values)
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
        keep_count=(lambda asked: selector.keep_count(asked, grid)) if isinstance(selector, RoundingMethod) else None,
        own_counts=own_counts,
        labels=request.labels,
        latency_columns=request.latency_columns,
    )
    if selector is None:
        for prompt in layout.prompts:
            if prompt.tokens_asked != prompt.num_vision_tokens:
                raise BudgetError(
                    f"token budget {prompt.budget} asks for {prompt.tokens_asked} of "
                    f"{prompt.num_vision_tokens} vision tokens, but the method {FULL_METHOD!r} keeps them all: "
                    "choose a method (see adallava.registry.selector_names()) or a budget of 1.0"
                )
    return layout


def one_each(value: Any, num_samples: int) -> list[Any]:
    """Repeat a single value for each sample; leave a sequence as it is, whatever its length."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value] * num_samples
    return list(value)
