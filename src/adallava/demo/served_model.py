"""The model as the page asks it: what a budget keeps, and what it answers. Of the page it knows nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock

from PIL import Image

from adallava.budget import Latency, TokenBudget
from adallava.costs.counted import count_costs
from adallava.costs.parts import ModelCosts
from adallava.demo.bounded_store import BoundedStore
from adallava.demo.uploads import open_uploads
from adallava.errors import InputError, UnknownNameError
from adallava.model import AdaLlava
from adallava.pipeline.picture_features import PictureFeatures
from adallava.records import WhatRan
from adallava.records.cells import CellPlan
from adallava.registry import scheduler_names, selector_names
from adallava.report.drawn_choice import draw_choice, seen_pictures
from adallava.runs.answer_flops import count_flops
from adallava.runs.availability import why_left_out, why_no_scheduler
from adallava.runs.budget_result import BudgetResult
from adallava.runs.loading import prefix_lengths
from adallava.runs.one_question import (
    OneQuestion,
    answer_question,
    drawn_pixels,
    plain_decoding,
    prepare_question,
)

_QUESTIONS_BYTES = 512 * 2**20
_FEATURES_BYTES = 512 * 2**20

_DRAWN_PX = 1024

_FIRST_METHODS = ("question", "visionzip", "divprune", "uniform", "random")
"""Before the others, in this order, where the model can run them."""


@dataclass(frozen=True)
class Choice:
    """What one budget keeps.

    Attributes:
        ran: the counts and the indices.
        drawings: of each image that the model saw.
    """

    ran: WhatRan
    drawings: list[Image.Image]


@dataclass(frozen=True)
class Answer:
    """What one budget answers.

    Attributes:
        result: the answer, and what was measured.
        flops: by part; nothing for a model whose parts are not counted.
        layer_shares: the share of each LLM layer that ran.
        drawings: of each image that the model saw.
    """

    result: BudgetResult
    flops: Mapping[str, int]
    layer_shares: tuple[float, ...]
    drawings: list[Image.Image]


@dataclass(frozen=True)
class Ready:
    """A question, and what the model sees of its images.

    Attributes:
        asked: for the model; its images are as small as they are drawn.
        seen: to be drawn on.
    """

    asked: OneQuestion
    seen: list[Image.Image]

    @property
    def num_bytes(self) -> int:
        """Memory that both take."""
        return self.asked.num_bytes + sum(3 * image.width * image.height for image in self.seen)


class ServedModel:
    """One base with every method and scheduler that it can run. Calls from several threads take turns.

    Attributes:
        methods: by name, those to offer first in front.
        schedulers: by name.
        max_new_tokens: of an answer.
    """

    def __init__(self, full: AdaLlava, adapters: Mapping[str, Path] | None = None, *, max_new_tokens: int) -> None:
        """Serve a model.

        Args:
            full: with neither method nor scheduler. Those that it has are loaded when they are first asked for.
            adapters: of learned ones by name, where they are not in the model's folder; loaded now.
            max_new_tokens: of an answer at most.

        Raises:
            AdallavaError: for an adapter that cannot be loaded, or a model that no method runs on.
        """
        adapters = adapters or {}
        self._full = full
        self._made: dict[str, AdaLlava] = {}
        self._scheduled: dict[str, AdaLlava] = {}
        for name, folder in adapters.items():
            if name in selector_names():
                self._made[name] = full.with_method(name, folder)
            elif name in scheduler_names():
                self._scheduled[name] = full.with_scheduler(name, folder)
            else:
                raise UnknownNameError(f"--adapter names {name!r}, which is neither a method nor a scheduler")
        runs = [name for name in selector_names() if name in adapters or why_left_out(full, name, {}) is None]
        if not runs:
            raise InputError(f"no method can choose among the patches of {full.name_or_path!r}: nothing to show")
        first = [name for name in _FIRST_METHODS if name in runs]
        self.methods = (*first, *(name for name in runs if name not in first))
        self.schedulers = tuple(n for n in scheduler_names() if n in adapters or why_no_scheduler(full, n) is None)
        self.max_new_tokens = max_new_tokens
        self._turn = Lock()
        self._questions: BoundedStore[Ready] = BoundedStore(_QUESTIONS_BYTES)
        self._features: BoundedStore[PictureFeatures] = BoundedStore(_FEATURES_BYTES)

    @property
    def name(self) -> str:
        """Of the base, as it was asked for."""
        return self._full.name_or_path

    @property
    def place(self) -> str:
        """Device and type of the weights."""
        return f"{self._full.device}, {str(self._full.dtype).removeprefix('torch.')}"

    def least_latency(self, scheduler: str) -> float:
        """Return the smallest share of the LLM's layers that a scheduler can give."""
        with self._turn:
            prefix = prefix_lengths({scheduler: self._with_scheduler(self._full, scheduler)})[scheduler]
        return max(1, prefix) / self._full.family.num_llm_layers

    def choose(self, paths: Sequence[str], question: str, method: str, budget: TokenBudget) -> Choice:
        """Return what a method keeps. The tower runs once for an image and a method, and the LLM not at all.

        Args:
            paths: of the images, whose contents never change.
            question: about them.
            method: one of `methods`.
            budget: of vision tokens.

        Raises:
            AdallavaError: for images, a question or a budget that the model cannot take.
        """
        with self._turn:
            model = self._with_method(method)
            ready = self._ready(paths, question)
            inputs = ready.asked.inputs
            features = self._features.get((tuple(paths), method), lambda: model.encode_pictures(**inputs))
            (ran,) = model.select(**inputs, token_budget=budget, features=features)
            return Choice(ran, draw_choice(ready.seen, ran, ready.asked.whole))

    def answer(
        self,
        paths: Sequence[str],
        question: str,
        method: str,
        budget: TokenBudget,
        scheduler: str | None = None,
        latency: Latency | None = None,
    ) -> Answer:
        """Return the answer at a budget, measured from the tower on. Arguments as for `choose`, and:

        Args:
            scheduler: one of `schedulers`; None runs every layer.
            latency: how much of the LLM runs.

        Raises:
            AdallavaError: as `choose`, and for a latency that the scheduler cannot give.
        """
        plan = CellPlan(method, budget, scheduler=scheduler, latency=latency)
        with self._turn:
            model = self._with_scheduler(self._with_method(method), scheduler)
            ready = self._ready(paths, question)
            result = answer_question(
                model,
                ready.asked,
                plan,
                seed=0,
                max_new_tokens=self.max_new_tokens,
                decoding=plain_decoding(model),
            )
        ran = result.ran
        shares = ran.layer_shares or (1.0,) * model.family.num_llm_layers
        flops = count_flops(model, self._costs, ran, question, ran.answer_length)
        drawings = draw_choice(ready.seen, ran, ready.asked.whole)
        return Answer(result, flops, tuple(map(float, shares)), drawings)

    def _with_method(self, name: str) -> AdaLlava:
        if name not in self.methods:
            raise UnknownNameError(f"there is no method {name!r} here: choose one of {', '.join(self.methods)}")
        if name not in self._made:
            self._made[name] = self._full.with_method(name)
        return self._made[name]

    def _with_scheduler(self, model: AdaLlava, name: str | None) -> AdaLlava:
        if name is None:
            return model
        if name not in self.schedulers:
            raise UnknownNameError(f"there is no scheduler {name!r} here: choose one of {', '.join(self.schedulers)}")
        if name not in self._scheduled:
            self._scheduled[name] = self._full.with_scheduler(name)
        return model.with_scheduler(self._scheduled[name].scheduler)

    def _ready(self, paths: Sequence[str], question: str) -> Ready:
        def make() -> Ready:
            """Open the pictures and run the processor."""
            opened = open_uploads(paths)
            asked = prepare_question(self._full, opened, question, max_new_tokens=self.max_new_tokens)
            asked = replace(asked, images=tuple(map(_shrunk, asked.images)))
            return Ready(asked, seen_pictures(drawn_pixels(self._full, asked), self._full.processor.image_processor))

        return self._questions.get((tuple(paths), question), make)

    @cached_property
    def _costs(self) -> ModelCosts | None:
        try:
            return count_costs(self._full.base.config)
        except InputError:
            return None


def _shrunk(image: Image.Image) -> Image.Image:
    """Return an image as large as it is drawn: where it is cut, every drawing reads all of it."""
    smaller = image.copy()
    smaller.thumbnail((_DRAWN_PX, _DRAWN_PX))
    return smaller
