"""Stage `codebook`: up to 8 plans of each number of units, of those that a learned scheduler chooses on training data.

Nothing learns. The questions are read as in stage `scheduler`, as far as the scheduler reads them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adallava.adapters import read_adapter_config
from adallava.adapters.store import CONFIG_FILE
from adallava.scheduling.codebook import find_plans
from adallava.training.collate import Collator
from adallava.training.examples import SceneExamples
from adallava.training.fixed_plan import PLANS_FILE
from adallava.training.own_data import OwnExamples
from adallava.training.recipe import Recipe
from adallava.training.scheduler import SchedulerObjective


def write_codebook(
    recipe: Recipe,
    objective: SchedulerObjective,
    examples: SceneExamples | OwnExamples,
    collate: Collator,
    own: Path,
    output: Path,
) -> Path:
    """Write `output/plans.json` and `output/adapter`: the scheduler's own, with the plans next to its weights.

    Args:
        recipe: of stage `codebook`.
        objective: holds the scheduler, and reads questions by it.
        examples: one question an image.
        collate: makes their batches.
        own: folder of the scheduler's adapter.
        output: of the stage.
    """
    torch.manual_seed(recipe.seed)
    counts = [count for count in objective.counts if 0 < count < objective.units.count]
    read = [_logits(objective, batch, counts) for batch in _batches(recipe, objective, examples, collate)]
    logits = {count: torch.cat([of_batch[count] for of_batch in read]) for count in counts}
    found = {count: find_plans(logits[count], count) for count in counts}
    free = {count: torch.unique(logits[count].topk(count, dim=1).indices.sort(dim=1).values, dim=0) for count in counts}
    written = {
        "scheduler": recipe.scheduler,
        "questions": len(logits[counts[0]]),
        "found": [{"units": n, "plans": found[n], "plans_chosen_freely": len(free[n])} for n in counts],
    }
    (output / PLANS_FILE).write_text(json.dumps(written, indent=1) + "\n")
    folder = output / "adapter"
    shutil.copytree(own, folder, dirs_exist_ok=True)
    config = read_adapter_config(own)
    options = {**config.scheduler_config, "codebook_plans": [plan for count in counts for plan in found[count]]}
    text = config.model_copy(update={"scheduler_config": options}).model_dump_json(indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    return folder


def _batches(
    recipe: Recipe, objective: SchedulerObjective, examples: SceneExamples | OwnExamples, collate: Collator
) -> Iterator[dict[str, Any]]:
    for first in range(0, len(examples), recipe.search.batch_size):
        chosen = range(first, min(first + recipe.search.batch_size, len(examples)))
        yield collate([examples[index] for index in chosen])


@torch.no_grad()
def _logits(objective: SchedulerObjective, made: dict[str, Any], counts: list[int]) -> dict[int, Tensor]:
    """Return the logits of a batch's questions by number of units, [R, U] each, on the host."""
    device, evidence = objective.family.device, made.get("evidence")
    evidence = None if evidence is None else evidence.to(device)
    layout, batch = objective.prompts(made["pixel_values"].to(device), made["prompts"], evidence, latency_tokens=True)
    return {
        count: objective.logits(layout, objective.prefix_states(layout, batch, count)).float().cpu() for count in counts
    }
