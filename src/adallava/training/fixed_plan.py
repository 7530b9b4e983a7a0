"""Stage `fixed-plan`: for each number of layers, the plan that gives the right answers of training data most chance.

It is the baseline that a learned scheduler has to beat: the same layers for every sample. Nothing learns. Questions are
read as inference reads them for the scheduler `fixed`, without latency token; the prefix is run once for all plans.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from adallava.errors import InputError, TrainingError
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family
from adallava.pipeline.pack import CompactBatch
from adallava.scheduling.fixed import FixedScheduler
from adallava.scheduling.scheduler_contract import Schedule, Units
from adallava.selection.question import QuestionSelector
from adallava.training.collate import Collator, separate_prompts
from adallava.training.examples import SceneExamples
from adallava.training.kept_prompts import KeptPrompts
from adallava.training.own_data import OwnExamples
from adallava.training.plan_search import Plan, best_plans, count_plans, score_all, score_beam
from adallava.training.plans import run_behind, run_prefix
from adallava.training.policy import answer_chances
from adallava.training.recipe import Recipe

PLANS_FILE = "plans.json"


@dataclass(frozen=True)
class PlanScore:
    """What a plan is worth on the questions of the search.

    Attributes:
        layers_run: of the LLM, the prefix included.
        layers: after the prefix that run.
        log_probability: of the right answers, the mean.
        standard_error: of that mean.
        right: answers whose every token is the most probable one.
        questions: asked.
        accuracy: `right / questions`.
        accuracy_interval: 95 %, Wilson's.
    """

    layers_run: int
    layers: tuple[int, ...]
    log_probability: float
    standard_error: float
    right: int
    questions: int
    accuracy: float
    accuracy_interval: tuple[float, float]


@dataclass(frozen=True)
class _Entered:
    """Questions as they enter layer P."""

    states: Tensor
    batch: CompactBatch


class PlanScorer:
    """Runs plans on the same questions, from the prefix on."""

    def __init__(self, family: Family, units: Units, entered: Sequence[_Entered]) -> None:
        """Hold the questions, and what is known of each plan."""
        self.family, self.units, self.entered = family, units, entered
        self.known: dict[Plan, PlanScore] = {}

    @torch.no_grad()
    def __call__(self, plans: Sequence[Plan]) -> dict[Plan, float]:
        """Return the mean log-probability of the right answers under each plan."""
        for plan in plans:
            if plan not in self.known:
                self.known[plan] = self._score(plan)
        return {plan: self.known[plan].log_probability for plan in plans}

    def _score(self, plan: Plan) -> PlanScore:
        answered = [self._answer(plan, entered) for entered in self.entered]
        chances = torch.cat([chances for chances, _ in answered]).double()
        right, total = int(torch.cat([right for _, right in answered]).sum()), len(chances)
        interval = binomtest(right, total).proportion_ci(method="wilson")
        return PlanScore(
            layers_run=self.units.prefix_layers + len(plan),
            layers=tuple(self.units.prefix_layers + unit for unit in plan),
            log_probability=float(chances.mean()),
            standard_error=float(chances.std() / total**0.5),
            right=right,
            questions=total,
            accuracy=right / total,
            accuracy_interval=(float(interval.low), float(interval.high)),
        )

    def _answer(self, plan: Plan, entered: _Entered) -> tuple[Tensor, Tensor]:
        active = torch.zeros(len(entered.states), self.units.count, dtype=torch.bool)
        active[:, list(plan)] = True
        hidden = run_behind(self.family, self.units, entered.states, entered.batch, Schedule(active))
        assert entered.batch.labels is not None
        return answer_chances(self.family, hidden, entered.batch.labels)


@dataclass(frozen=True)
class PlanSearch:
    """A search that can begin: what it asks, and which plans there are.

    Attributes:
        recipe: of stage `fixed-plan`.
        family: the model.
        units: layers after the prefix.
        lengths: numbers of units that plans are looked for.
        examples: training scenes or the user's own data, one question an image.
        keep: which vision tokens are left.
        collate: makes their batches.
    """

    recipe: Recipe
    family: Family
    units: Units
    lengths: list[int]
    examples: SceneExamples | OwnExamples
    keep: KeptPrompts
    collate: Collator


def open_search(
    recipe: Recipe,
    family: Family,
    processor: Any,
    scorer: QuestionSelector | None,
    examples: SceneExamples | OwnExamples,
) -> PlanSearch:
    """Check that there is something to search for.

    Args:
        recipe: of stage `fixed-plan`.
        family: the model.
        processor: its processor.
        scorer: the model's own, for `keep.question`.
        examples: one question an image.

    Raises:
        InputError: for fewer than two questions, a mix that needs a scorer where there is none, or a lowest latency
            that leaves nothing to choose.
    """
    units = FixedScheduler(prefix_layers=recipe.prefix_layers).units(decoder_of(family).shape)
    lengths = [n for n in range(1, units.count) if units.share(n) >= recipe.lowest_latency]
    if not lengths:
        raise InputError(
            f"{units.count} layer(s) after the prefix and a lowest latency of {recipe.lowest_latency} leave nothing "
            "to choose: use a shorter prefix or a lower latency"
        )
    if len(examples) < 2:
        raise InputError(f"a search needs at least 2 questions with images that can be read, not {len(examples)}")
    tokenized = separate_prompts(processor, family.shape.num_vision_tokens, family.image_token_id)
    collate = Collator(processor, with_labels=True, questions=tokenized)
    keep = KeptPrompts(family, recipe.keep, scorer)
    return PlanSearch(recipe, family, units, lengths, examples, keep, collate)


def find_plans(search: PlanSearch, output: Path) -> FixedScheduler:
    """Search for plans, write `output/plans.json`, and return the scheduler that runs them.

    Raises:
        TrainingError: if the model's log-probabilities are not numbers.
    """
    recipe, units, lengths = search.recipe, search.units, search.lengths
    torch.manual_seed(recipe.seed)
    score = PlanScorer(search.family, units, list(_questions(search)))
    everything: Plan = tuple(range(units.count))
    if math.isnan(score([everything])[everything]):
        raise TrainingError("the whole model's log-probability of the right answers is nan: its weights are damaged")
    exhaustive = count_plans(units.count, lengths) <= recipe.search.most_plans
    scored = (
        score_all(units.count, lengths, score)
        if exhaustive
        else score_beam(units.count, lengths, score, recipe.search.beam_width)
    )
    found = [score.known[plan] for plan in best_plans(scored).values()]
    written = {
        "search": "exhaustive" if exhaustive else f"beam of {recipe.search.beam_width}",
        "num_layers": units.num_layers,
        "prefix_layers": units.prefix_layers,
        "found": [asdict(plan) for plan in found],
        "every_layer": asdict(score.known[everything]),
        "scored": [asdict(score.known[plan]) for plan in sorted(scored, key=lambda plan: (len(plan), plan))],
    }
    (output / PLANS_FILE).write_text(json.dumps(written, indent=1) + "\n")
    plans = "/".join("+".join(map(str, plan.layers)) for plan in found)
    return FixedScheduler(plans=plans, prefix_layers=units.prefix_layers)


@torch.no_grad()
def _questions(search: PlanSearch) -> Iterator[_Entered]:
    """Yield the questions in batches, one an image, each batch with a way and a K of its own."""
    family, examples, batch_size = search.family, search.examples, search.recipe.search.batch_size
    for first in range(0, len(examples), batch_size):
        chosen = range(first, min(first + batch_size, len(examples)))
        made = search.collate([examples[index] for index in chosen])
        pixels, evidence = made["pixel_values"].to(family.device), made.get("evidence")
        evidence = None if evidence is None else evidence.to(family.device)
        _, batch = search.keep(pixels, made["prompts"], evidence, latency_tokens=False)
        yield _Entered(run_prefix(family, search.units, batch.inputs_embeds, batch), batch)
