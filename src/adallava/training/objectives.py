"""What learns in each stage, by its recipe, from what the model has learned already."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adallava.adapters import load_adapter, load_scheduler, weights_sha256
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.capabilities.of_towers import aligning
from adallava.families.family_contract import Family
from adallava.scheduling import build_scheduler
from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.scheduling.scheduler_contract import Scheduler
from adallava.selection import build_selector
from adallava.selection.budget_token import BudgetTokenSelector
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Need
from adallava.training.align import AlignmentLoss, AlignObjective
from adallava.training.base_stage import BaseObjective
from adallava.training.collate import Collator, both_ways, packed_questions, separate_prompts
from adallava.training.joint import JointObjective
from adallava.training.policy import PolicyObjective
from adallava.training.recipe import Recipe, StageName
from adallava.training.scheduler import SchedulerObjective, SchedulerWithBaseObjective
from adallava.training.straight_through import StraightThroughObjective

_NOTHING_TO_GO_ON_FROM = (
    "this recipe continues from adapters/{name}, which the model's folder does not have: train it first"
)

Built = tuple[nn.Module, Collator]


def _train_only(base: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let these parts of the base learn, by prefix of the parameter's name, and low-rank weights next to it.

    Raises:
        InputError: for a prefix that no parameter has.
    """
    # Tied weights have two names, and learn if either is meant.
    named = [(n.removeprefix("model."), p) for n, p in base.named_parameters(remove_duplicate=False)]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name, _ in named):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in named))
            raise InputError(f"trained: no parameter of the base begins with {prefix!r}; its parts are {parts}")
    chosen = {id(p) for name, p in named if (prefixes and name.startswith(prefixes)) or ".lora_" in name}
    for _, parameter in named:
        parameter.requires_grad_(id(parameter) in chosen)


def _build_align(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, recipe.trained)
    alignment = AlignmentLoss(processor.tokenizer, family.shape.llm_width)
    return AlignObjective(aligning(family), alignment), Collator(processor, with_labels=True)


def _build_base(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, recipe.trained)
    questions = packed_questions(processor)
    return _base_objective(recipe, family), Collator(processor, with_labels=True, questions=questions)


def _build_question(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, ())
    torch.manual_seed(recipe.seed)
    selector = _first_scorer(recipe, family).train().requires_grad_(True)
    objective = _policy_objective(recipe, family, selector, recipe.keep.keep_counts)
    prompts = separate_prompts(processor, family.shape.num_vision_tokens, family.image_token_id)
    return objective, Collator(processor, with_labels=True, questions=prompts)


def _build_joint(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, recipe.trained)
    torch.manual_seed(recipe.seed)
    scorer = _own_scorer(family) or _fresh_scorer(recipe, family)
    scorer.train().requires_grad_(True)
    policy = _policy_objective(recipe, family, scorer, recipe.selection_keep_counts)
    packed = packed_questions(processor)
    prompts = separate_prompts(processor, family.shape.num_vision_tokens, family.image_token_id)
    return (
        JointObjective(_base_objective(recipe, family), policy, recipe.others_share),
        Collator(processor, with_labels=True, questions=both_ways(packed, prompts)),
    )


def _base_objective(recipe: Recipe, family: Family, prefix_layers: int | None = None) -> BaseObjective:
    return BaseObjective(
        family,
        recipe.keep.model_copy(update={"question": 0.0}),
        ground_weight=recipe.ground_weight,
        ground_layer=recipe.ground_layer,
        missing_layers_share=recipe.missing_layers_share,
        prefix_layers=recipe.prefix_layers or prefix_layers,
        lowest_latency=recipe.lowest_latency,
    )


def _policy_objective(
    recipe: Recipe, family: Family, selector: QuestionSelector, keep_counts: Sequence[int]
) -> PolicyObjective:
    return PolicyObjective(
        family,
        selector,
        keep_counts=keep_counts,
        num_samples=recipe.samples_per_question,
        evidence_weight=recipe.evidence_weight,
        spread_weight=recipe.spread_weight,
    )


def _own_scorer(family: Family) -> QuestionSelector | None:
    """Return the scorer that the model has learned already, frozen, or None."""
    folder = Path(family.model.config.name_or_path) / "adapters" / QuestionSelector.name
    if not folder.is_dir():
        return None
    loaded = load_adapter(
        folder,
        method=QuestionSelector.name,
        shape=family.shape,
        base_weights_sha256=weights_sha256(folder.parents[1]),
    )
    assert isinstance(loaded.selector, QuestionSelector)
    return loaded.selector.requires_grad_(False)


def _fresh_scorer(recipe: Recipe, family: Family) -> QuestionSelector:
    scorer = build_selector(QuestionSelector.name, family.shape, **recipe.selector)
    assert isinstance(scorer, QuestionSelector)
    return scorer


def _first_scorer(recipe: Recipe, family: Family) -> QuestionSelector:
    """Return what stage `question` starts from: the model's own scorer if it goes on, or a fresh one."""
    if not recipe.goes_on:
        return _fresh_scorer(recipe, family)
    scorer = _own_scorer(family)
    if scorer is None:
        raise InputError(_NOTHING_TO_GO_ON_FROM.format(name=QuestionSelector.name))
    return scorer


def _first_scheduler(recipe: Recipe, family: Family) -> LatencyTokenScheduler:
    """Return what stage `scheduler` starts from: the model's own scheduler if it goes on, or a fresh one."""
    shape = decoder_of(family).shape
    folder = Path(family.model.config.name_or_path) / "adapters" / recipe.scheduler
    scheduler: Scheduler = build_scheduler(recipe.scheduler, shape, **recipe.scheduler_options)
    if recipe.goes_on and not folder.is_dir():
        raise InputError(_NOTHING_TO_GO_ON_FROM.format(name=recipe.scheduler))
    if recipe.goes_on:
        sha256 = weights_sha256(folder.parents[1])
        loaded = load_scheduler(folder, name=recipe.scheduler, shape=shape, base_weights_sha256=sha256)
        scheduler, held = loaded.scheduler, loaded.config.scheduler_config
        if any(held.get(option) != value for option, value in recipe.scheduler_options.items()):
            raise InputError(
                f"the recipe continues from a scheduler with {held}, and asks for {recipe.scheduler_options}: "
                "leave scheduler_options out, or start again (goes_on = false)"
            )
    assert isinstance(scheduler, LatencyTokenScheduler)
    return scheduler.train().requires_grad_(True)


def own_scheduler(recipe: Recipe, family: Family, folder: Path) -> LatencyTokenScheduler:
    """Return the scheduler that the model has learned already, frozen."""
    if not folder.is_dir():
        raise InputError(f"a codebook is made of a scheduler's plans, and the model's folder has no {folder}: train it")
    loaded = load_scheduler(
        folder,
        name=recipe.scheduler,
        shape=decoder_of(family).shape,
        base_weights_sha256=weights_sha256(folder.parents[1]),
    )
    assert isinstance(loaded.scheduler, LatencyTokenScheduler)
    return loaded.scheduler.requires_grad_(False)


def scorer_for(recipe: Recipe, family: Family) -> QuestionSelector | None:
    """Return the model's scorer on the model's device, if the recipe's mix asks for it and there is one."""
    scorer = _own_scorer(family) if recipe.keep.question else None
    return None if scorer is None else scorer.to(family.device)


def _build_budget_token(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, ())
    torch.manual_seed(recipe.seed)
    if Need.BUDGET_TOKEN not in family.provides:
        raise UnsupportedModeError(
            f"stage 'budget-token' sends a token through the tower, which this {family.name!r} model's does not take: "
            "only stage 'question' trains a controller on it"
        )
    selector = build_selector(BudgetTokenSelector.name, family.shape, **recipe.selector)
    assert isinstance(selector, BudgetTokenSelector)
    objective = StraightThroughObjective(family, selector, budget_range=recipe.budget_range, tau=5.0)
    return objective, Collator(processor, questions=packed_questions(processor))


def _build_scheduler(recipe: Recipe, family: Family, processor: Any) -> Built:
    _train_only(family.model, recipe.trained)
    torch.manual_seed(recipe.seed)
    scheduler = _first_scheduler(recipe, family)
    choice = SchedulerObjective(
        family,
        scheduler,
        learning=recipe.learn_by,
        keep=recipe.keep,
        num_samples=recipe.samples_per_question,
        spread_weight=recipe.spread_weight,
        lowest_latency=recipe.lowest_latency,
        scorer=scorer_for(recipe, family),
    )
    prompts = separate_prompts(processor, family.shape.num_vision_tokens, family.image_token_id)
    if not recipe.base_learns:
        return choice, Collator(processor, with_labels=True, questions=prompts)
    packed = packed_questions(processor)
    others = _base_objective(recipe, family, choice.units.prefix_layers)
    return (
        SchedulerWithBaseObjective(others, choice, recipe.others_share, recipe.policy_weight),
        Collator(processor, with_labels=True, questions=both_ways(packed, prompts)),
    )


BUILDERS: Mapping[StageName, Callable[[Recipe, Family, Any], Built]] = {
    "align": _build_align,
    "base": _build_base,
    "question": _build_question,
    "budget-token": _build_budget_token,
    "joint": _build_joint,
    "scheduler": _build_scheduler,
}
"""What learns in each stage, and what makes its batches, of recipe, model and processor."""
