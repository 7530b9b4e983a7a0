"""How the LLM runs in one call: what it reads, and the program of its layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from adallava.budget import Latency
from adallava.errors import BudgetError, UnsupportedModeError
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family
from adallava.pipeline.allocate import allocate_units, run_everything
from adallava.pipeline.call import Request
from adallava.pipeline.companions import kept_columns
from adallava.pipeline.dropping import LayerDrops
from adallava.pipeline.latency_token import LatencyTokens, latency_tokens, token_places, with_tokens
from adallava.pipeline.layer_program import AddedRows, LayerProgram
from adallava.pipeline.layout import Layout
from adallava.pipeline.own_masks import OwnMasks
from adallava.pipeline.prepare import Prepared, PreparedInside, prepare_request
from adallava.pipeline.selector_inputs import wrap_seed
from adallava.pipeline.skips import SampleLayers, ScheduledLayers
from adallava.pipeline.stage_runner import StageContext
from adallava.scheduling.scheduler_contract import Scheduler, Units, has_free_token
from adallava.selection.layer_contract import AnySelector


@dataclass(frozen=True)
class LLMRun:
    """One call's LLM, ready to run.

    Attributes:
        family: the model.
        request: as it was planned: with the latency tokens, if there are any.
        prepared: what enters the LLM.
        program: what happens around its layers.
        inside: what was planned for a method inside the LLM; None for other methods.
        latency: what the latency tokens say; None without any.
    """

    family: Family
    request: Request
    prepared: Prepared
    program: LayerProgram = field(default_factory=LayerProgram)
    inside: PreparedInside | None = None
    latency: LatencyTokens | None = None

    def model(self) -> Any:
        """Return the model to run on `prepared.batch`: the stock one, or a view of it, good for one call."""
        return self.program.view(self.family)

    @property
    def layers(self) -> ScheduledLayers | None:
        """A schedule of the layers, in this call; None if all run."""
        return self.program.skips

    def decide(self) -> tuple[SampleLayers, ...] | None:
        """Run the LLM as far as its scheduler reads it, and return what is to run for each sample; None for all."""
        if self.layers is not None and not self.layers.is_decided:
            view = self.program.view_until_decided(self.family)
            view.model(**self.prepared.batch.llm_inputs(), use_cache=False)
        return self._ran()

    def settled(self) -> Prepared:
        """Return, after the model ran, what entered it, what was left at its end, and which layers ran."""
        settled = self.prepared if self.inside is None else self.inside.settled()
        return replace(settled, layers=self._ran())

    def _ran(self) -> tuple[SampleLayers, ...] | None:
        latencies = [str(latency) for latency in self.request.latencies]
        return None if self.layers is None else self.layers.ran(latencies)


def prepare_run(
    family: Family,
    selector: AnySelector | None,
    scheduler: Scheduler | None,
    request: Request,
    context: StageContext,
) -> LLMRun:
    """Plan on the host, run every stage before the LLM, and say how the LLM is to run.

    Raises:
        BudgetError: for a latency below the prefix, or below 1.0 without a scheduler; for a budget that the method
            "full" cannot give.
        InputError: if prompts, images, labels, latencies and seeds do not fit together.
        UnsupportedModeError: for a method inside the LLM that drops tokens after the scheduler's prefix.
    """
    before = partial(prepare_request, family, selector, context=context)
    units, unit_counts = _count_units(family, scheduler, request.latencies)
    if units is None or scheduler is None:
        return _run_of(family, request, before(request))
    request = with_tokens(family, scheduler, request, unit_counts, units)
    run = _run_of(family, request, before(request))
    entering = _layout_at(run, units)
    decoder = decoder_of(family)
    layers = ScheduledLayers(
        decoder,
        scheduler,
        units,
        unit_counts,
        torch.tensor([wrap_seed(seed) for seed in request.seeds], dtype=torch.int64),
        token_places(entering),
    )
    own = run.inside is None and decoder.is_mixed
    masks = OwnMasks(decoder, run.prepared.layout.padding_mask) if own else None
    run = replace(run, program=replace(run.program, masks=masks, skips=layers))
    latency = latency_tokens(scheduler, unit_counts, units, family.device)
    return run if latency is None else _with_latency(run, latency)


def _count_units(
    family: Family, scheduler: Scheduler | None, latencies: Sequence[Latency]
) -> tuple[Units | None, tuple[int, ...]]:
    """Return how the LLM is split, and how many units of it each sample runs; no split where all run everything.

    A free latency token is read also where everything runs: then there is a split.
    """
    always = has_free_token(scheduler)
    num_layers = family.num_llm_layers
    if not always and run_everything(latencies, num_layers):
        return None, ()
    if scheduler is None:
        asked = next(latency for latency in latencies if not latency.is_all_of(num_layers))
        raise BudgetError(
            f"latency {asked} leaves layers of the LLM out, and no scheduler says which: choose one (see "
            "adallava.registry.scheduler_names()), or a latency of 1.0"
        )
    units = scheduler.units(decoder_of(family).shape)
    counts = allocate_units(latencies, units)
    return (units, counts) if always or any(count < units.count for count in counts) else (None, ())


def _run_of(family: Family, request: Request, prepared: Prepared | PreparedInside) -> LLMRun:
    if isinstance(prepared, PreparedInside):
        program = LayerProgram(prepared.drops, additions=_additions(prepared.prepared, prepared.drops))
        return LLMRun(family, request, prepared.prepared, program, prepared)
    return LLMRun(family, request, prepared, program_of(prepared))


def program_of(prepared: Prepared) -> LayerProgram:
    """Return the program of layers over what a method before the LLM left, without a schedule."""
    return LayerProgram(additions=_additions(prepared))


def _additions(prepared: Prepared, drops: LayerDrops | None = None) -> AddedRows | None:
    """Return what is added after layers to the tokens that are left there; None for nothing."""
    if not prepared.added:
        return None
    layout = prepared.layout
    num_columns = layout.companions["position_ids"].shape[-1]
    kept = None if prepared.selection is None else prepared.selection.indices
    columns = kept_columns(layout, kept).masked_fill(layout.mask == 0, num_columns)
    left = (lambda: columns) if drops is None else (lambda: drops.columns)
    return AddedRows(prepared.added, layout.vision_slots, columns, num_columns, left)


def _layout_at(run: LLMRun, units: Units) -> Layout:
    """Return the layout of what layer P reads.

    Raises:
        UnsupportedModeError: if tokens are dropped there or after it.
    """
    if run.inside is None:
        return run.prepared.layout
    late = [drop.layer for drop in run.inside.plan.drops if drop.layer >= units.prefix_layers]
    if late:
        raise UnsupportedModeError(
            f"method {run.inside.selector.name!r} drops tokens before layer {late[0]}, which a scheduler may leave "
            f"out: with a method inside the LLM, all drops must come before layer {units.prefix_layers}, the first "
            "after the prefix. Choose another method, or a scheduler with more prefix_layers"
        )
    return run.inside.plan.layouts[-1]


def _with_latency(run: LLMRun, latency: LatencyTokens) -> LLMRun:
    batch = run.prepared.batch
    embeds = latency.put_into(run.prepared.layout, batch.inputs_embeds)
    prepared = replace(run.prepared, batch=replace(batch, inputs_embeds=embeds))
    inside = None if run.inside is None else replace(run.inside, prepared=prepared)
    return replace(run, prepared=prepared, inside=inside, latency=latency)
