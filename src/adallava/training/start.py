"""What a stage starts from: a model of the user's, or one that the recipe makes from nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adallava.checkpoints.placement import pick_device
from adallava.errors import InputError, UnsupportedModeError
from adallava.families import find_checkpoint, load_family
from adallava.families.family_contract import Family
from adallava.processors.stock_processor import AdaLlavaProcessor, folder_or_id_of
from adallava.tasks.scenes import PATCH_COUNT
from adallava.training.blank import write_blank
from adallava.training.pictures import PictureForm, picture_form
from adallava.training.recipe import Recipe, StageName

BLANK_FOLDER = "blank"

PACKED_STAGES: tuple[StageName, ...] = ("align", "base", "joint")
"""In which the base learns, from questions packed after one image."""


@dataclass(frozen=True)
class Start:
    """A model that a stage starts from.

    Attributes:
        family: the loaded model, float32, on the stage's device.
        processor: its processor.
        found: folder that it was loaded from.
        folder: where its files are once the output is claimed.
        name: as the user calls it: a bundled name, a folder or a hub id.
        form: how its processor shows images to it.
    """

    family: Family
    processor: Any
    found: Path
    folder: str
    name: str
    form: PictureForm

    def keep_blank(self) -> None:
        """Put a model that was made from nothing into the output folder, whole or not at all."""
        folder = Path(self.folder)
        if self.found != folder:
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.found, part)
            part.rename(folder)


def load_start(
    recipe: Recipe, output: Path, start_from: str | None, device: torch.device | None, scratch: Path
) -> Start:
    """Return the model that a stage starts from; writes nothing into the output folder.

    Args:
        recipe: of the stage.
        output: its folder, which may hold the untrained model already.
        start_from: bundled name, folder or hub id; None with a `[blank]` table.
        device: default: CUDA if there is one.
        scratch: folder in which a model may be made from nothing.

    Raises:
        InputError: nothing to start from, two things to start from, or labeled patches for another grid.
        CheckpointError: if the model is missing or damaged.
        UnsupportedModeError: for a model that the stage cannot train.
    """
    given = _find_start(recipe, start_from)
    found = _blank(recipe, output, scratch) if given is None else given
    family = load_family(str(found), dtype=torch.float32, device=pick_device(device), attn_implementation="sdpa")
    processor = AdaLlavaProcessor.from_pretrained(str(found))
    form = picture_form(family, processor)
    _check_form(recipe.stage, family, str(found), form)
    if recipe.needs_labels and (form.num_images, form.num_tokens) != (1, PATCH_COUNT):
        raise InputError(
            f"this recipe learns from the {PATCH_COUNT} labeled patches of the bundled scenes, and {str(found)!r} has "
            f"{form.num_tokens} vision tokens of each, in {form.num_images} image(s): set keep.evidence, ground_weight "
            "and evidence_weight to 0"
        )
    folder = output / BLANK_FOLDER if given is None else found
    return Start(family, processor, found, str(folder), start_from or str(folder), form)


def _check_form(stage: StageName, family: Family, name: str, form: PictureForm) -> None:
    """Refuse a stage that a family's images do not allow; a controller of stage `question` learns on every family.

    Raises:
        UnsupportedModeError: with the reason.
    """
    told = f"{name!r} is of the family {family.name!r}, "
    if stage in PACKED_STAGES and not form.in_one_run:
        raise UnsupportedModeError(
            f"{told}which reads more of an image than one run of placeholders (tiles, text of its own around them, or "
            f"rows that are added in its layers), and stage {stage!r} packs questions after that: only stage "
            "'question' trains a controller on it"
        )
    if stage not in ("question", *PACKED_STAGES) and not form.alone:
        raise UnsupportedModeError(
            f"{told}which reads more of an image than pixels of one size, and stage {stage!r} is for models that read "
            "only these: only stage 'question' trains a controller on it"
        )


def _find_start(recipe: Recipe, start_from: str | None) -> Path | None:
    """Return the folder of the model to start from; None for a recipe that makes one from nothing."""
    if recipe.blank is None:
        if start_from is None:
            raise InputError("this recipe starts from a model: name one with --model")
        return find_checkpoint(folder_or_id_of(start_from))
    if start_from is not None:
        raise InputError(f"this recipe makes a model from nothing ([blank]): leave --model {start_from} out")
    return None


def _blank(recipe: Recipe, output: Path, scratch: Path) -> Path:
    """Return the folder of the recipe's untrained model: the output's, or one made in `scratch`."""
    assert recipe.blank is not None
    kept = output / BLANK_FOLDER
    # The processor is written last: a folder without it was cut short.
    if (kept / "processor_config.json").is_file():
        return kept
    write_blank(recipe.blank, scratch / BLANK_FOLDER, recipe.seed)
    return scratch / BLANK_FOLDER
