"""What a request asks for, settled on the host before anything runs: K of each image, and what the choice depends on.

    {"token_budget": 64}                two images of 576 tokens: 32 of each
    {"token_budget": 1.0}, or nothing   no choice: stock vLLM

The fields of a `Choice` enter vLLM's hash of an image, so that what is cached for one budget, question or seed is
never taken for another's.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adallava.budget import MAX_SEED, TokenBudget
from adallava.errors import BudgetError, InputError, UnsupportedModeError
from adallava.pipeline.allocate import allocate_tokens, method_counts
from adallava.pipeline.selector_inputs import wrap_seed
from adallava.records import FULL_METHOD
from adallava.registry import load_selector_class
from adallava.selection import build_selector
from adallava.selection.selector_contract import Selector, TowerShape, draws_at_random, reads_question
from adallava.serving.serving_settings import OTHERS_VARIABLE, ServingSettings

BUDGET_KEY = "token_budget"
"""Of `mm_processor_kwargs`: a share or a number of the request's vision tokens."""

SEED_KEY = "selection_seed"
"""Of `mm_processor_kwargs`: of a method that draws."""

CHOICE_KEY = "adallava_choice"
"""Where a `Choice` travels among a request's `mm_processor_kwargs` within the server; a client's is taken out."""

_MOST_NAMED = 5

_NO_SHAPE = TowerShape(num_vision_tokens=1, vision_width=1, llm_width=1, grid=(1, 1))
"""For methods that are not learned, which read no shape."""


@dataclass(frozen=True)
class Choice:
    """Of the images of one request.

    Attributes:
        keep_counts: K of each.
        token_counts: N of each.
        seeds: of each; 0 for a method that does not draw.
        question: ids of the prompt's text; empty for a method that does not read it.
        method: names the method with its options and weights.
    """

    keep_counts: tuple[int, ...]
    token_counts: tuple[int, ...]
    seeds: tuple[int, ...]
    question: tuple[int, ...]
    method: str

    def of(self, images: Sequence[int]) -> "Choice":
        """Return the choice of some of the images."""
        return replace(
            self,
            keep_counts=tuple(self.keep_counts[image] for image in images),
            token_counts=tuple(self.token_counts[image] for image in images),
            seeds=tuple(self.seeds[image] for image in images),
        )

    def keeps_all(self, image: int) -> bool:
        """Return whether an image is stock vLLM's."""
        return self.keep_counts[image] == self.token_counts[image]

    def hash_factors(self, image: int) -> dict[str, Any]:
        """Return all that one image's rows depend on besides the image."""
        return {
            "keep_count": self.keep_counts[image],
            "seed": self.seeds[image],
            "question": list(self.question),
            "method": self.method,
        }


@dataclass(frozen=True)
class Chooses:
    """What planning needs of a method, without its weights.

    Attributes:
        settings: of the server.
        selector: an instance without weights; None for a learned method, or none at all.
        draws: whether the seed matters.
        reads_question: whether the question does.
        identity: see `Choice.method`.
    """

    settings: ServingSettings
    selector: Selector | None
    draws: bool
    reads_question: bool
    identity: str

    @classmethod
    def by(cls, settings: ServingSettings) -> "Chooses":
        """Read a method's class; refuse what vLLM cannot do.

        Raises:
            UnknownNameError: for an unknown method.
            UnsupportedModeError: for a method inside the LLM, or one that sets its own K.
            AdallavaError: for options that the method does not take.
        """
        said = [settings.method, settings.method_options, settings.adapter]
        identity = f"{settings.method} {hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]}"
        if settings.method == FULL_METHOD:
            return cls(settings, None, draws=False, reads_question=False, identity=identity)
        method: Any = load_selector_class(settings.method)
        if hasattr(method, "raters"):
            raise UnsupportedModeError(
                f"method {settings.method!r} drops tokens between layers of the LLM, and vLLM holds keys and values of "
                "one length for all layers of a request: serve a method that chooses before the LLM, such as "
                "'visionzip'"
            )
        if method.ignores_budget:
            raise UnsupportedModeError(
                f"method {settings.method!r} sets its own number of tokens, and vLLM lays a prompt out before the "
                "tower has seen the image: serve a method that takes a budget"
            )
        selector = None if method.learned else build_selector(settings.method, _NO_SHAPE, **settings.method_options)
        return cls(
            settings,
            selector,  # type: ignore[arg-type]
            draws=draws_at_random(method),
            reads_question=reads_question(method),
            identity=identity,
        )

    def plan(
        self,
        asked: Mapping[str, object],
        grids: Sequence[tuple[int, int]],
        prompt: Sequence[int],
        image_token_id: int,
    ) -> Choice | None:
        """Return the choice that a request asks for; None where every token stays.

        Args:
            asked: the request's `mm_processor_kwargs`.
            grids: (rows, columns) of each image's tokens.
            prompt: its ids, with one placeholder for each image.
            image_token_id: the placeholder's.

        Raises:
            BudgetError: for a budget that means nothing, or that the method "full" cannot give.
            InputError: for a seed that is none.
        """
        budget = TokenBudget.parse(asked[BUDGET_KEY]) if BUDGET_KEY in asked else self.settings.default_budget
        seed = _seed(asked.get(SEED_KEY, 0))
        sizes = tuple(rows * columns for rows, columns in grids)
        if not sizes:
            return None
        counts = allocate_tokens(budget, sizes, method_counts(self.selector, grids))
        # A share always means something, so that no default of a server refuses an image of a few tokens.
        kept = counts.kept if budget.ratio is None else tuple(max(1, count) for count in counts.kept)
        if kept == sizes:
            return None
        if self.settings.method == FULL_METHOD:
            raise BudgetError(
                f"token budget {budget} asks for {counts.asked} of {sum(sizes)} vision tokens, and this server's "
                f"method {FULL_METHOD!r} keeps them all: start it with another method, or ask for 1.0"
            )
        if 0 in kept:
            raise BudgetError(
                f"token budget {budget} leaves an image without a token ({len(sizes)} images): ask for at least "
                f"{len(sizes)} tokens"
            )
        question = tuple(token for token in prompt if token != image_token_id) if self.reads_question else ()
        seeds = tuple(wrap_seed(seed + image) if self.draws else 0 for image in range(len(sizes)))
        return Choice(kept, sizes, seeds, question, self.identity)


def refuse_others(asked: Mapping[str, object], settings: ServingSettings) -> None:
    """Let nobody but the server's owner decide how images are read: what memory they take, and what fits the tower.

    Args:
        asked: a request's `mm_processor_kwargs`.
        settings: of the server.

    Raises:
        InputError: naming what is not ours.
    """
    others = sorted(map(str, set(asked) - {BUDGET_KEY, SEED_KEY}))
    if others and not settings.allow_other_mm_kwargs:
        named = ", ".join(map(reprlib.repr, others[:_MOST_NAMED]))
        raise InputError(
            f"this server takes {BUDGET_KEY} and {SEED_KEY} in mm_processor_kwargs, and not {named}: leave it out, or "
            f"let its owner set {OTHERS_VARIABLE}"
        )


def without_own(asked: Mapping[str, object]) -> dict[str, object]:
    """Return the request's `mm_processor_kwargs` that are not ours."""
    return {key: value for key, value in asked.items() if key not in (BUDGET_KEY, SEED_KEY, CHOICE_KEY)}


def _seed(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
        raise InputError(f"{SEED_KEY} = {reprlib.repr(value)} is not a seed: give a whole number from 0 to {MAX_SEED}")
    return value
