"""What a stage starts from, and whose output folder it is: settled before anything is learned."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adallava.errors import InputError, UnsupportedModeError
from adallava.families import find_checkpoint, load_family
from adallava.families.contract import Family
from adallava.placement import pick_device
from adallava.processor import AdaLlavaProcessor, folder_or_id_of
from adallava.training.blank import write_blank
from adallava.training.recipe import Recipe

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class Start:
    """A model that a stage starts from.

    Attributes:
        family: the loaded model, float32, on the stage's device.
        processor: its processor.
        folder: where its files are.
        name: as the user calls it: a bundled name, a folder or a hub id.
    """

    family: Family
    processor: Any
    folder: str
    name: str


def load_start(recipe: Recipe, output: Path, start_from: str | None, device: torch.device | None) -> Start:
    """Claim the output folder for this recipe and start, and return the model.

    A model that cannot be loaded claims nothing: the mistake may be put right with the same output. One that the recipe
    makes from nothing is made in a folder that is claimed already.

    Args:
        recipe: of the stage.
        output: its folder; new, or of the same recipe and start.
        start_from: bundled name, folder or hub id; None with a `[blank]` table.
        device: default: CUDA if there is one.

    Raises:
        InputError: nothing to start from, two things to start from, or `output` holds another training, or a damaged
            one.
        CheckpointError: if the model is missing or damaged.
        UnsupportedModeError: for a model whose pictures differ in their number of tokens.
    """
    found = _find_start(recipe, start_from)
    claim = {"recipe": recipe.model_dump(mode="json"), "start_from": start_from}
    _check_unclaimed(output, claim)
    if found is None:
        _claim(output, claim)
        found = _blank(recipe, output)
    family = load_family(str(found), dtype=torch.float32, device=pick_device(device), attn_implementation="sdpa")
    if not family.one_grid:
        raise UnsupportedModeError(
            f"{str(found)!r} is of the family {family.model.config.model_type!r}, whose pictures differ in their "
            "number of tokens: only models that cut every picture to one size, such as LLaVA-1.5, can be trained"
        )
    processor = AdaLlavaProcessor.from_pretrained(str(found))
    _claim(output, claim)
    return Start(family, processor, str(found), start_from or str(found))


def _find_start(recipe: Recipe, start_from: str | None) -> Path | None:
    """Return the folder of the model to start from; None for a recipe that makes one from nothing."""
    if recipe.blank is None:
        if start_from is None:
            raise InputError("this recipe starts from a model: name one with --model")
        return find_checkpoint(folder_or_id_of(start_from))
    if start_from is not None:
        raise InputError(f"this recipe makes a model from nothing ([blank]): leave --model {start_from} out")
    return None


def _check_unclaimed(output: Path, claim: dict[str, Any]) -> None:
    """Refuse a folder whose `recipe.json` is that of another training."""
    path = output / RECIPE_FILE
    if not path.exists():
        return
    try:
        held = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): give another --output") from error
    if held != claim:
        raise InputError(f"{output} holds the training of another recipe or start: give another --output")


def _claim(output: Path, claim: dict[str, Any]) -> None:
    """Write `recipe.json`, if it is not there; of two trainings at once one finds the other's and ends."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        with (output / RECIPE_FILE).open("x") as file:
            file.write(json.dumps(claim, indent=1) + "\n")
    except FileExistsError:
        _check_unclaimed(output, claim)


def _blank(recipe: Recipe, output: Path) -> Path:
    """Return the folder of the recipe's untrained model, made if it is not there."""
    assert recipe.blank is not None
    folder = output / "blank"
    # The processor is written last: a folder without it was cut short.
    if not (folder / "processor_config.json").is_file():
        write_blank(recipe.blank, folder, recipe.seed)
    return folder
