"""What the live doctor asks a model: a few bundled images with questions, alone and together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adallava.budget import TokenBudget
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.families.picture_inputs import PictureInputs
from adallava.model import AdaLlava, build_prompt
from adallava.pipeline.allocate import MethodCounts, allocate_tokens, method_counts
from adallava.pipeline.decoding import decoding_of, generate_arguments
from adallava.pipeline.result import AdaLlavaOutput
from adallava.processors.stock_processor import make_inputs
from adallava.records import FULL_METHOD, WhatRan
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import OwnCountMethod
from adallava.tasks.scenes import scene_sample

FULL_BUDGET = TokenBudget(ratio=1.0)

Inputs = dict[str, Any]
"""A processor's tensors by name: keyword arguments of the model."""


@dataclass(frozen=True)
class AloneAnswer:
    """One sample's answer without a batch, and how many tokens its prompt was seen to have in the LLM.

    Attributes:
        output: the answer.
        entered_tokens: that the LLM was called with.
        tokens_at_end: that its last layer was called with.
    """

    output: AdaLlavaOutput
    entered_tokens: int
    tokens_at_end: int


@dataclass(frozen=True)
class Probe:
    """A model with one method, and what to ask it. Results are computed once and shared by the checks.

    Attributes:
        model: under examination, on stock `generate`: answers are held to the stock model's bits, and some checks watch
            layers run.
        driven: the same on the engine that it is used with.
        budgets: below and at the full budget.
        singles: one input per sample, without padding.
        together: the same samples as one padded batch.
        max_new_tokens: of every answer.
    """

    model: AdaLlava
    driven: AdaLlava
    budgets: tuple[TokenBudget, ...]
    singles: tuple[Inputs, ...]
    together: Inputs
    max_new_tokens: int

    @property
    def ignores_budget(self) -> bool:
        """True for a method with one result whatever the budget."""
        return self.model.selector is not None and self.model.selector.ignores_budget

    def planned(self, budget: TokenBudget, ran: WhatRan) -> int:
        """Return the K that a sample of one image must keep; what a method with its own K says it keeps is taken."""
        if isinstance(self.model.selector, OwnCountMethod):
            return ran.tokens_planned
        sizes = [rows * columns for rows, columns in ran.grids]
        return sum(allocate_tokens(budget, sizes, method_counts(self.model.selector, ran.grids)).kept)

    @cached_property
    def token_counts(self) -> tuple[int, ...]:
        """N of each sample's picture, over the images that the model makes of it."""
        return tuple(sum(rows * columns for rows, columns in self._grids(inputs)) for inputs in self.singles)

    @property
    def inside_llm(self) -> bool:
        """True for a method that drops tokens inside the LLM: all of them enter it."""
        return isinstance(self.model.selector, LayerSelector)

    @cached_property
    @torch.no_grad()
    def reads_same_bits(self) -> bool:
        """True if what a method chooses by has the same bits alone and in a batch: then no choice may differ.

        A method before the LLM reads the tower's features, and is asked about one image at a time. The states inside
        the LLM depend on padding and on the size of the batch.
        """
        if self.inside_llm:
            return False
        together = self._features(self.together)
        images = len(together) // len(self.singles)
        for row, single in enumerate(self.singles):
            alone = self._features(single)
            in_batch = together[row * images : (row + 1) * images, : alone.shape[1]]
            real = [rows * columns for rows, columns in self._grids(single)]
            if any(not torch.equal(alone[i, :n], in_batch[i, :n]) for i, n in enumerate(real)):
                return False
        return True

    def _features(self, inputs: Inputs) -> Tensor:
        return self.model.family.encode(_pictures(self.model, inputs).to(self.model.dtype)).features

    def _grids(self, inputs: Inputs) -> tuple[tuple[int, int], ...]:
        return self.model.family.grids(_pictures(self.model, inputs))

    @property
    def pruning_budgets(self) -> tuple[TokenBudget, ...]:
        """The budgets that drop tokens of one image."""
        if self.model.method == FULL_METHOD:
            return ()
        fewest = min(self.token_counts)
        pruning = tuple(
            budget for budget in self.budgets if allocate_tokens(budget, (fewest,), MethodCounts()).asked < fewest
        )
        return pruning[:1] if self.ignores_budget else pruning

    def generate(
        self, inputs: Inputs, budgets: TokenBudget | Sequence[TokenBudget], seed: int | Sequence[int]
    ) -> AdaLlavaOutput:
        """Answer as a sweep does by default."""
        return self.model.generate(**inputs, token_budget=budgets, seed=seed, **self.decoding)

    @cached_property
    def decoding(self) -> dict[str, Any]:
        """Arguments of `generate`: greedy, with nothing of the checkpoint's but token ids."""
        stated = generate_arguments(decoding_of(self.model.base.generation_config))
        return stated | {"max_new_tokens": self.max_new_tokens}

    @cached_property
    def alone(self) -> dict[TokenBudget, tuple[AloneAnswer, ...]]:
        """Every sample answered alone, at the full budget and at every smaller one."""
        return {
            budget: tuple(self._answer_alone(sample, budget) for sample in range(len(self.singles)))
            for budget in (FULL_BUDGET, *self.pruning_budgets)
        }

    def _answer_alone(self, sample: int, budget: TokenBudget) -> AloneAnswer:
        llm = self.model.base.get_decoder()
        with watched_lengths(llm) as entered, watched_lengths(llm.layers[-1]) as at_end:
            output = self.generate(self.singles[sample], budget, sample)
        return AloneAnswer(output, entered[0], at_end[0])

    @cached_property
    def selections(self) -> dict[TokenBudget, tuple[WhatRan, ...]]:
        """What every sample keeps when it is alone, at the budgets that drop tokens."""
        return {
            budget: tuple(
                self.model.select(**inputs, token_budget=budget, seed=seed)[0]
                for seed, inputs in enumerate(self.singles)
            )
            for budget in self.pruning_budgets
        }


def make_probe(
    model: AdaLlava, budgets: Sequence[TokenBudget], *, num_samples: int = 6, max_new_tokens: int = 8
) -> Probe:
    """Draw images with questions from the bundled task and prepare them for the model.

    Args:
        model: with a method.
        budgets: to examine besides the full one.
        num_samples: images, each with one question.
        max_new_tokens: of every answer.
    """
    scenes = [scene_sample("validation", index) for index in range(num_samples)]
    images = [Image.fromarray(scene.image) for scene, _ in scenes]
    prompts = [build_prompt(model.processor, question.text) for _, question in scenes]

    def prepared(first: int, last: int) -> Inputs:
        """Return the prompts `first` to `last - 1` as one batch."""
        batch = make_inputs(model.processor, images[first:last], prompts[first:last])
        return {name: tensor.to(model.device) for name, tensor in batch.items()}

    return Probe(
        model=model.with_engine("stock"),
        driven=model,
        budgets=tuple(dict.fromkeys(budgets)),
        singles=tuple(prepared(index, index + 1) for index in range(num_samples)),
        together=prepared(0, num_samples),
        max_new_tokens=max_new_tokens,
    )


@contextmanager
def watched_lengths(module: Any) -> Iterator[list[int]]:
    """Record how many tokens really enter a module at each of its calls, whatever anybody claims.

    Args:
        module: an LLM or one of its layers.
    """
    lengths: list[int] = []

    def watch(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the columns of what the module is about to read."""
        for value in (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), *args):
            if isinstance(value, Tensor):
                lengths.append(value.shape[1])
                return

    handle = module.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        yield lengths
    finally:
        handle.remove()


def padded_on_the_right(inputs: Inputs) -> Inputs:
    """Return a batch with its padding moved after each prompt, where `forward` counts positions from 0."""
    mask = inputs["attention_mask"]
    order = (1 - mask).argsort(dim=1, stable=True)
    of_tokens = {name: values for name, values in inputs.items() if values.shape == mask.shape}
    return inputs | {name: values.gather(1, order) for name, values in of_tokens.items()}


@torch.no_grad()
def logits_at(model: AdaLlava, inputs: Inputs, budget: TokenBudget, seed: int | Sequence[int]) -> Tensor:
    """Return the logits of the prompts' tokens, [B, L, V]."""
    logits: Tensor = model.forward(**inputs, token_budget=budget, seed=seed).logits
    return logits


def _pictures(model: AdaLlava, inputs: Inputs) -> PictureInputs:
    pictures, _ = take_pictures(model.family, inputs)
    assert pictures is not None
    return pictures
