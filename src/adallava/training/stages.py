"""One stage from a recipe: what it starts from, what learns, what it leaves."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from adallava.adapters import read_adapter_config, save_adapter, weights_sha256
from adallava.adapters.store import CONFIG_FILE
from adallava.errors import InputError
from adallava.families.capabilities.of_towers import aligning
from adallava.families.family_contract import Family
from adallava.scheduling.fixed import FixedScheduler
from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.selection.budget_token import BudgetTokenSelector
from adallava.selection.question import QuestionSelector
from adallava.training.align import match_scales
from adallava.training.claim import check_recipe, claim, make_claim, refuse_several_processes
from adallava.training.codebook_stage import write_codebook
from adallava.training.collate import Collator, separate_prompts
from adallava.training.examples import SceneExamples
from adallava.training.fit import fit, trained_state
from adallava.training.fixed_plan import find_plans, open_search
from adallava.training.joint import JointObjective
from adallava.training.lora import add_lora, check_peft, save_and_merge
from adallava.training.objectives import BUILDERS, own_scheduler, scorer_for
from adallava.training.own_data import OwnExamples, TaskExamples, text_check
from adallava.training.pictures import picture_inputs
from adallava.training.policy import PolicyObjective
from adallava.training.recipe import Recipe
from adallava.training.scheduler import SchedulerObjective, SchedulerWithBaseObjective
from adallava.training.start import Start, load_start
from adallava.training.straight_through import StraightThroughObjective

_TYPICAL_PICTURES = 8
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
            "this recipe learns from labeled patches, which only the bundled scenes have: leave --data out, or use a "
            "stage other than 'align' with keep.evidence, ground_weight and evidence_weight at 0"
        )
    if recipe.lora is not None:
        check_peft()


def _prepare_search(recipe: Recipe, start: Start, examples: Examples, output: Path) -> Callable[[], Path]:
    """Check that there are plans to search for; return what searches."""
    scorer = scorer_for(recipe, start.family)
    if recipe.stage == "codebook":
        own = Path(start.folder) / "adapters" / recipe.scheduler
        objective = SchedulerObjective(
            start.family,
            own_scheduler(recipe, start.family, own).to(start.family.device),
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
    objective, collate = BUILDERS[recipe.stage](recipe, family, start.processor)
    collate = replace(collate, pixels_alone=start.form.alone)
    if not trained_state(objective):
        raise InputError("nothing learns by this recipe: name parts of the base in trained")

    def run() -> Path:
        """Train, write, and return the folder."""
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
    """Refuse a controller that would have nothing to choose; of a user's own images of any size, nothing is known.

    Raises:
        InputError: naming the counts and N.
    """
    num_tokens = start.form.num_tokens if isinstance(examples, SceneExamples) else start.family.shape.num_vision_tokens
    known = isinstance(examples, SceneExamples) or start.family.one_grid
    if known and min(recipe.keep.keep_counts) >= num_tokens:
        raise InputError(
            f"keep.keep_counts = {list(recipe.keep.keep_counts)}: {start.name!r} has {num_tokens} vision tokens per "
            "image, so that nothing would be left to choose: give a smaller one"
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
    """Copy what else the start model had learned next to the new base, with the weights that it learned on named.

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
