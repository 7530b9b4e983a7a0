"""One stage from a recipe: what it starts from, what learns, what it leaves behind."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adallava.adapters import load_adapter, load_scheduler, read_adapter_config, save_adapter, weights_sha256
from adallava.adapters.store import CONFIG_FILE
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities import aligning, decoder_of
from adallava.families.family_contract import Family
from adallava.scheduling import build_scheduler
from adallava.scheduling.fixed import FixedScheduler
from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.scheduling.scheduler_contract import Scheduler
from adallava.selection import build_selector
from adallava.selection.budget_token import BudgetTokenSelector
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Need
from adallava.training.align import AlignmentLoss, AlignObjective, match_scales
from adallava.training.base_stage import BaseObjective
from adallava.training.claim import check_recipe, claim, make_claim, refuse_several_processes
from adallava.training.codebook_stage import write_codebook
from adallava.training.collate import Collator, both_ways, packed_questions, separate_prompts
from adallava.training.examples import SceneExamples
from adallava.training.fit import fit, trained_state
from adallava.training.fixed_plan import find_plans, open_search
from adallava.training.joint import JointObjective
from adallava.training.lora import add_lora, check_peft, save_and_merge
from adallava.training.own_data import OwnExamples, TaskExamples, text_check
from adallava.training.pictures import picture_inputs
from adallava.training.policy import PolicyObjective
from adallava.training.recipe import Recipe, StageName
from adallava.training.scheduler import SchedulerObjective, SchedulerWithBaseObjective
from adallava.training.start import Start, load_start
from adallava.training.straight_through import StraightThroughObjective

_TYPICAL_PICTURES = 8
_NOTHING_TO_GO_ON_FROM = (
    "this recipe goes on from adapters/{name}, which the model's folder does not have: train it first"
)

Built = tuple[nn.Module, Collator]
Examples = SceneExamples | OwnExamples


def train_stage(
    recipe: Recipe,
    output: Path,
    *,
    start_from: str | None = None,
    data: TaskExamples | None = None,
    device: torch.device | None = None,
) -> Path:
    """Run one stage and return the folder of what it made: a stock checkpoint, or an adapter.

    Args:
        recipe: what to learn.
        output: folder for checkpoints, `curve.json` (of a search: `plans.json`), `recipe.json` and the result,
            `output/model` or `output/adapter`, and `output/lora` if the recipe has that table. It is claimed once
            everything is checked; if it holds checkpoints of the same training, the stage resumes.
        start_from: model to start from: bundled name, folder or hub id; not with a `[blank]` table.
        data: the user's own examples; default: training scenes.
        device: default: CUDA if there is one.

    Raises:
        InputError: nothing to start from, two things to start from, nothing that learns, data that cannot be used or
            are fewer than a batch, `output` holds another training, one of several processes, the recipe has a [lora]
            table and `peft` is not installed, or a GPU other than the first is asked for.
        TrainingError: if the loss or the weights are no longer finite.
        CheckpointError: if the model to start from is missing or damaged.
        UnsupportedModeError: for a model that the stage cannot train.
    """
    refuse_several_processes()
    _check_call(recipe, data, device)
    check_recipe(output, recipe)
    with tempfile.TemporaryDirectory(prefix="adallava-") as scratch:
        start = load_start(recipe, output, start_from, device, Path(scratch))
        examples = _examples(recipe, start, data)
        run = (_prepare_search if recipe.optimisation is None else _prepare_training)(recipe, start, examples, output)
        own = examples if isinstance(examples, OwnExamples) else None
        claim(output, make_claim(recipe, start_from, start.found, own, start.family.device))
        start.keep_blank()
    return run()


def _check_call(recipe: Recipe, data: TaskExamples | None, device: torch.device | None) -> None:
    """Refuse what cannot be trained, whatever the model."""
    if device is not None and device.type == "cuda" and device.index:
        raise InputError(
            f"--device {device}: transformers' Trainer uses the first GPU that it sees; set CUDA_VISIBLE_DEVICES="
            f"{device.index} and leave --device out"
        )
    if data is not None and recipe.needs_labels:
        raise InputError(
            "this recipe learns from labelled patches, which only the bundled scenes have: leave --data out, or use a "
            "stage other than 'align' with keep.evidence, ground_weight and evidence_weight at 0"
        )
    if recipe.lora is not None:
        check_peft()


def _prepare_search(recipe: Recipe, start: Start, examples: Examples, output: Path) -> Callable[[], Path]:
    """Check that there are plans to search for; return what searches."""
    scorer = _scorer_for(recipe, start.family)
    if recipe.stage == "codebook":
        own = Path(start.folder) / "adapters" / recipe.scheduler
        objective = SchedulerObjective(
            start.family,
            _own_scheduler(recipe, start.family, own).to(start.family.device),
            learning="policy",
            keep=recipe.keep,
            num_samples=2,
            lowest_latency=recipe.lowest_latency,
            scorer=scorer,
        )
        prompts = separate_prompts(start.processor, start.family.shape.num_vision_tokens, start.family.image_token_id)
        collate = Collator(start.processor, with_labels=True, questions=prompts)
        return lambda: write_codebook(recipe, objective, examples, collate, own, output)
    search = open_search(recipe, start.family, start.processor, scorer, examples)
    return lambda: _save_adapter(find_plans(search, output), start.name, start.folder, start.family, output / "adapter")


def _prepare_training(recipe: Recipe, start: Start, examples: Examples, output: Path) -> Callable[[], Path]:
    """Build what learns; return what trains and saves it.

    Raises:
        InputError: if nothing learns.
    """
    family = start.family
    if recipe.stage == "question":
        _check_counts(recipe, start, examples)
    adapted = None if recipe.lora is None else add_lora(family, recipe.lora, recipe.seed)
    objective, collate = _BUILDERS[recipe.stage](recipe, family, start.processor)
    collate = replace(collate, pixels_alone=start.form.alone)
    if not trained_state(objective):
        raise InputError("nothing learns by this recipe: name parts of the base in trained")

    def run() -> Path:
        fit(objective.to(family.device), recipe, examples, collate, output)
        if recipe.stage == "align":
            typical = collate([examples[index] for index in range(_TYPICAL_PICTURES)])
            pictures = picture_inputs(family, typical["pixel_values"], typical.get("beside"))
            match_scales(aligning(family), pictures.to(family.device))
        if adapted is not None:
            save_and_merge(adapted, output / "lora")
        return _save(objective, start, output)

    return run


def _check_counts(recipe: Recipe, start: Start, examples: Examples) -> None:
    """Refuse a controller that would have nothing to choose; of a user's own pictures of any size, nothing is known.

    Raises:
        InputError: naming the counts and N.
    """
    num_tokens = start.form.num_tokens if isinstance(examples, SceneExamples) else start.family.shape.num_vision_tokens
    known = isinstance(examples, SceneExamples) or start.family.one_grid
    if known and min(recipe.keep.keep_counts) >= num_tokens:
        raise InputError(
            f"keep.keep_counts = {list(recipe.keep.keep_counts)}: {start.name!r} has {num_tokens} vision tokens a "
            "picture, so that nothing would be left to choose: give a smaller one"
        )


def _examples(recipe: Recipe, start: Start, data: TaskExamples | None) -> Examples:
    """Return what the stage reads: scenes, or the user's own data, shuffled by the recipe's seed.

    Raises:
        InputError: if none of the data can be used, or a batch is larger than all that can be.
    """
    settings = recipe.optimisation
    count = recipe.search.questions if settings is None else settings.steps * settings.batch_size
    if data is None:
        questions = 1 if settings is None else recipe.questions_per_image
        return SceneExamples(recipe.first_scene, count, questions, recipe.kinds)
    check = text_check(start.family, start.processor)
    if settings is None:
        return data.sample(count, recipe.seed, check)
    examples = data.shuffled(count, recipe.seed, check)
    usable = len({sample.id for sample in examples.samples})
    if usable < settings.batch_size:
        raise InputError(
            f"--data has {usable} samples that can be used, and optimisation.batch_size is {settings.batch_size}: give "
            "more data, or a recipe with a smaller batch"
        )
    return examples


def _save(objective: nn.Module, start: Start, output: Path) -> Path:
    """Write what has learned: an adapter for a frozen base, or a model."""
    part: QuestionSelector | BudgetTokenSelector | LatencyTokenScheduler
    if isinstance(objective, PolicyObjective | StraightThroughObjective):
        part = objective.selector
    elif isinstance(objective, SchedulerObjective):
        part = objective.scheduler
    else:
        return _save_model(objective, start, output / "model")
    return _save_adapter(part, start.name, start.folder, start.family, output / "adapter")


def _save_model(objective: nn.Module, start: Start, folder: Path) -> Path:
    """Write the base that has learned, what learned with it, and what the start had learned; return the folder."""
    start.family.model.save_pretrained(folder)
    start.processor.save_pretrained(folder)
    part: QuestionSelector | LatencyTokenScheduler | None = None
    if isinstance(objective, JointObjective):
        part = objective.policy.selector
    if isinstance(objective, SchedulerWithBaseObjective):
        part = objective.choice.scheduler
    if part is not None:
        _save_adapter(part, str(folder), str(folder), start.family, folder / "adapters" / part.name)
    carry_over_adapters(Path(start.folder), folder)
    return folder


def carry_over_adapters(start: Path, folder: Path) -> None:
    """Copy what else the start model had learned beside the new base, with the weights that it learned on named.

    Args:
        start: folder of the model that the base started from.
        folder: of the new base; adapters that it has already stay.
    """
    if not (start / "adapters").is_dir():
        return
    now, before = weights_sha256(folder), weights_sha256(start)
    for own in sorted((start / "adapters").iterdir()):
        target = folder / "adapters" / own.name
        if target.exists():
            continue
        shutil.copytree(own, target)
        config = read_adapter_config(own)
        update = {
            "base_model_name_or_path": str(folder),
            "base_weights_sha256": now,
            "trained_on_sha256": config.trained_on_sha256 or before,
        }
        (target / CONFIG_FILE).write_text(config.model_copy(update=update).model_dump_json(indent=2) + "\n")


def _save_adapter(
    part: QuestionSelector | BudgetTokenSelector | LatencyTokenScheduler | FixedScheduler,
    base_name: str,
    base_folder: str,
    family: Family,
    folder: Path,
) -> Path:
    save_adapter(
        folder,
        None if isinstance(part, LatencyTokenScheduler | FixedScheduler) else part,
        scheduler=part if isinstance(part, LatencyTokenScheduler | FixedScheduler) else None,
        shape=family.shape,
        base_model_name_or_path=base_name,
        base_weights_sha256=weights_sha256(base_folder),
    )
    return folder


def _train_only(base: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let these parts of the base learn, by prefix of the parameter's name, and low-rank weights beside it.

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
                f"the recipe goes on from a scheduler with {held}, and asks for {recipe.scheduler_options}: "
                "leave scheduler_options out, or start anew (goes_on = false)"
            )
    assert isinstance(scheduler, LatencyTokenScheduler)
    return scheduler.train().requires_grad_(True)


def _own_scheduler(recipe: Recipe, family: Family, folder: Path) -> LatencyTokenScheduler:
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


def _scorer_for(recipe: Recipe, family: Family) -> QuestionSelector | None:
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
        scorer=_scorer_for(recipe, family),
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


_BUILDERS: dict[StageName, Callable[[Recipe, Family, Any], Built]] = {
    "align": _build_align,
    "base": _build_base,
    "question": _build_question,
    "budget-token": _build_budget_token,
    "joint": _build_joint,
    "scheduler": _build_scheduler,
}
