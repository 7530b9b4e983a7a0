"""The LLM in our own loop over stock layers, each pass replayed from CUDA graphs: no launch, and no wait, is paid for.

    prepared batch ─▶ a seat's fixed places ─▶ prefill ─▶ first token ─▶ decode ─▶ … ─▶ answers
                      (padded on the right                     ▲            │
                       to a bucket)                            └────────────┘

A prompt is padded after its last token, where causal attention reads nothing. Greedy tokens are chosen on the device.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from adallava.engines.buckets import bucket, capacity
from adallava.engines.decode_mode import DecodeMode, read_decode_mode
from adallava.engines.draw_token import draw, shapers
from adallava.engines.fused_layers import Stack
from adallava.engines.graph_store import kept_state
from adallava.engines.inside_pass import decode_inside, prefill_inside, refusal_inside, stages_of
from adallava.engines.layer_pass import LayerStep, Pick, Segment, decode, prefill, take_token
from adallava.engines.placing import place_added, place_plan, place_prompts
from adallava.engines.program_of_layers import Pieces, cut
from adallava.engines.room import Room
from adallava.engines.seat import Seat, cache_numel, make_seat
from adallava.errors import UnsupportedModeError
from adallava.families.transformers_internals import generated
from adallava.pipeline.clock import StageClock
from adallava.pipeline.latency_token import token_places
from adallava.pipeline.modes import GenerationPlan
from adallava.pipeline.prepare import PreparedInside
from adallava.pipeline.program import LLMRun
from adallava.pipeline.result import Generated

MOST_SEATS = 6
"""Pairs of batch size and capacity whose buffers are held."""

MEMORY_SHARE = 0.5
"""Of the memory that is free when it is asked for, what a cache may take; above it, stock `generate` grows its own."""


class CapturedEngine:
    """Greedy and sampled decoding of a `LayerStack`. One call at a time: others wait."""

    def __init__(self, room: Room) -> None:
        """Hold nothing yet."""
        self._room = room
        self._arena: Tensor | None = None
        self._seats: OrderedDict[tuple[int, int], Seat] = OrderedDict()
        self._pieces = Pieces()
        room.when_forgotten(self._forget)

    @property
    def name(self) -> str:
        """The level that it runs at."""
        return self._room.level

    def refusal(self, run: LLMRun, plan: GenerationPlan) -> str | None:
        """Return what of this call it cannot do, in words; None if it can do all of it."""
        mode = read_decode_mode(plan)
        if isinstance(mode, str):
            return mode
        if run.family.model is not self._room.model:
            return "it was made for another model"
        refused = _refused_steps(run)
        if refused is not None:
            return refused
        device = run.family.device
        if self._room.captures and device.type != "cuda":
            return f"CUDA graphs need a CUDA device, and the model is on {device}"
        if torch.is_autocast_enabled(device.type):
            return "autocast is on"
        stack = self._room.stack
        if stack is None:
            return self._room.obstacle
        return self._short_of_memory(stack, run, mode)

    def generate(self, run: LLMRun, plan: GenerationPlan, clock: StageClock | None) -> Generated:
        """Answer the batch; see `Engine.generate`."""
        mode = read_decode_mode(plan)
        if isinstance(mode, str):
            raise UnsupportedModeError(f"engine {self.name!r} cannot decode with {mode}")
        with self._room.lock, kept_state(run.family.device):
            stack, seat, length = self._settle(run, mode)
            call = _Call(self, stack, seat, length, mode)
            decode_once = call.prefill(run)
            if clock is not None:
                clock.mark("prefill")
            steps = call.decode(decode_once)
            if clock is not None:
                clock.mark("decode")
            ids = run.prepared.batch.input_ids
            sequences = torch.cat([ids, seat.answers[:, :steps]], dim=1)
        return Generated(generated(sequences), steps, self.name)

    def _forget(self) -> None:
        self._arena = None
        self._seats.clear()
        self._pieces = Pieces()

    def _short_of_memory(self, stack: Stack, run: LLMRun, mode: DecodeMode) -> str | None:
        needed = 2 * cache_numel(stack, *_sizes(run, mode)) * stack.weight.element_size()
        held = 0 if self._arena is None else self._arena.numel() * stack.weight.element_size()
        if needed <= held or stack.weight.device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(stack.weight.device)
        if needed - held <= MEMORY_SHARE * free:
            return None
        return f"its cache for max_new_tokens={mode.max_new_tokens} would take {needed / 1e9:.1f} GB of memory"

    def _settle(self, run: LLMRun, mode: DecodeMode) -> tuple[Stack, Seat, int]:
        """Return the model's layers, a seat for this call, and the bucket of its prompts."""
        stack = self._room.stack
        if stack is None:
            raise UnsupportedModeError(f"engine {self.name!r} cannot run this model: {self._room.obstacle}")
        sizes = _sizes(run, mode)
        numel = cache_numel(stack, *sizes)
        if self._arena is None or self._arena.shape[1] < numel:
            # Graphs and seats hold addresses in the old one.
            for place in self._seats:
                self._room.store.forget(place)
            self._seats.clear()
            self._arena = None
            self._arena = torch.zeros((2, numel), dtype=stack.weight.dtype, device=stack.weight.device)
        seat = self._seats.get(sizes)
        if seat is None:
            while len(self._seats) >= MOST_SEATS:
                self._room.store.forget(next(iter(self._seats)))
                self._seats.popitem(last=False)
            seat = self._seats[sizes] = make_seat(stack, *sizes, self._arena)
        self._seats.move_to_end(sizes)
        return stack, seat, bucket(max(run.prepared.layout.lengths))


class _Call:
    """One batch on its way through the LLM."""

    def __init__(self, engine: CapturedEngine, stack: Stack, seat: Seat, length: int, mode: DecodeMode) -> None:
        self._store, self._pieces = engine._room.store, engine._pieces
        self._stack, self._seat, self._length, self._mode = stack, seat, length, mode
        self._hides = self._adds = False
        self._pick: Pick = "greedy" if mode.sampling is None else "later"
        self._shapers = [] if mode.sampling is None else shapers(mode.sampling, seat.token.device)

    def prefill(self, run: LLMRun) -> Callable[[], None]:
        """Run the prompts, choose the first token, and return what runs every further pass."""
        decode_once = self._prefill_plain(run) if run.inside is None else self._prefill_inside(run, run.inside)
        if self._pick == "later":
            self._draw()
        return decode_once

    def decode(self, decode_once: Callable[[], None]) -> int:
        """Decode until every answer ended, and return how many tokens the longest has."""
        step = 1
        while step < self._mode.max_new_tokens and not self._all_ended():
            decode_once()
            if self._pick == "later":
                self._draw()
            step += 1
        return step

    def _prefill_inside(self, run: LLMRun, inside: PreparedInside) -> Callable[[], None]:
        steps = prefill_inside(self._stack, self._seat, self._store, run, self._mode, self._pick)
        stages = stages_of(inside, compact=run.request.positions == "compact")
        in_one = self._pieces.in_one(steps, num_layers=len(self._stack.layers))
        segments = cut(steps, enter=True, in_one=in_one)

        def decode_once() -> None:
            """Decode one token of each row, part by part."""
            for segment in segments:
                work = partial(decode_inside, self._stack, self._seat, stages, segment, pick=self._pick)
                self._store.run((self._place, "decode", stages, segment, self._pick), work)

        return decode_once

    def _prefill_plain(self, run: LLMRun) -> Callable[[], None]:
        self._hides = place_prompts(self._seat, run.prepared, self._length, self._mode)
        self._adds = run.program.additions is not None
        if self._adds:
            place_added(self._seat, run.prepared, self._length)
        layers, first = run.layers, 0
        if layers is not None and not layers.is_decided:
            first = layers.prefix_layers
            self._prefill([Segment(tuple(map(LayerStep, range(first))), enter=True)])
            layers.decide_from(self._at_latency_tokens(run))
        steps = tuple(map(LayerStep, range(len(self._stack.layers))))
        if layers is not None:
            steps = place_plan(self._seat, layers)
        in_one = self._pieces.in_one(steps, num_layers=len(self._stack.layers))
        self._prefill(cut(steps[first:], enter=first == 0, in_one=in_one))
        segments = cut(steps, enter=True, in_one=in_one)
        return lambda: self._decode(segments)

    def _decode(self, segments: list[Segment]) -> None:
        for segment in segments:
            work = partial(decode, self._stack, self._seat, segment, pick=self._pick)
            self._store.run((self._place, "decode", segment, self._pick), work)

    @property
    def _place(self) -> tuple[int, int]:
        return self._seat.batch_size, self._seat.capacity

    def _prefill(self, segments: list[Segment]) -> None:
        for segment in segments:
            hides, adds, pick = self._hides, self._adds, self._pick
            work = partial(prefill, self._stack, self._seat, self._length, segment, hides=hides, adds=adds, pick=pick)
            self._store.run((self._place, "prefill", self._length, segment, hides, adds, pick), work)

    def _at_latency_tokens(self, run: LLMRun) -> Tensor:
        """Return the states at the latency tokens, [B, D]; a prompt begins at column 0 here."""
        places = token_places(run.prepared.layout)
        assert places is not None
        padding = run.prepared.batch.input_ids.shape[1] - (self._seat.last + 1)
        rows = torch.arange(len(places), device=places.device)
        return self._seat.states_of(self._length)[rows, (places - padding).clamp_min(0)]

    def _draw(self) -> None:
        take_token(self._seat, draw(self._seat.logits, self._seat.answers, self._shapers))

    def _all_ended(self) -> bool:
        return bool(self._mode.ends) and bool(self._seat.finished.all())


def _sizes(run: LLMRun, mode: DecodeMode) -> tuple[int, int]:
    lengths = run.prepared.layout.lengths
    return len(lengths), capacity(bucket(max(lengths)) + mode.max_new_tokens)


def _refused_steps(run: LLMRun) -> str | None:
    """Return what happens around this call's layers that is not run here, in words; None if all of it is."""
    batch, program = run.prepared.batch, run.program
    if batch.others:
        return f"its tokens carry {', '.join(batch.others)}"
    refused = None if run.inside is None else refusal_inside(run.inside)
    if refused is not None:
        return refused
    if run.layers is not None and max(run.prepared.added, default=-1) >= run.layers.prefix_layers:
        return "rows are added after layers that its scheduler may leave out"
    return None if program.masks is None else "its layers attend in several ways, and a scheduler leaves some out"
