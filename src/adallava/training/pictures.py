"""A step's pictures on their way to the family, and how a model's processor puts them into prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from adallava.errors import InputError
from adallava.families.capabilities.of_llms import adds_rows
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.families.capabilities.of_tokens import placeholder_orders
from adallava.families.family_contract import Family
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.stock_processor import build_prompt, make_inputs
from adallava.tasks.scenes import IMAGE_PX
from adallava.training.examples import QuestionTokenizer

_QUESTION = "What is it?"


@dataclass(frozen=True)
class Beside:
    """What a processor gave of a batch besides pixels; it stays on the host, where it is read to plan.

    Attributes:
        given: by the processor's names, `input_ids` of one prompt a picture among them.
    """

    given: Mapping[str, Tensor]


def picture_inputs(family: Family, pixel_values: Tensor, beside: Beside | None) -> PictureInputs:
    """Return a batch's pictures as the family takes them; without `beside`, of one whose pictures are pixels alone."""
    if beside is None:
        return PictureInputs(pixel_values)
    pictures, _ = take_pictures(family, {**beside.given, family.picture_inputs[0]: pixel_values})
    assert pictures is not None
    return pictures


def one_grid_of(family: Family, pictures: PictureInputs) -> tuple[int, int]:
    """Return the grid of a batch's pictures, which all have the same.

    Raises:
        InputError: if they differ, as pictures of a user's own do for a model that sees each at its own size.
    """
    grids = set(family.grids(pictures))
    if len(grids) != 1:
        told = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(grids))
        raise InputError(
            f"this stage packs questions after images of one size, and those of a step have {told} tokens: give "
            "images of one size, or train only a controller (stage 'question')"
        )
    return grids.pop()


@dataclass(frozen=True)
class PictureForm:
    """The tokens of a picture in a prompt, seen on one of the scenes' size.

    Attributes:
        in_one_run: N placeholders for one image, with nothing around them but the template's own words, and nothing
            that enters the LLM with them.
        alone: besides, a model that reads pixels alone, all pictures of one size.
        num_images: that it is.
        num_tokens: N of them all.
    """

    in_one_run: bool
    alone: bool
    num_images: int
    num_tokens: int


def picture_form(family: Family, processor: Any) -> PictureForm:
    """Return how the processor puts a picture of the scenes' size into a prompt.

    Raises:
        CheckpointError: if it cannot.
    """
    made = make_inputs(processor, [Image.new("RGB", (IMAGE_PX, IMAGE_PX))], [build_prompt(processor, _QUESTION)])
    pictures, beside = take_pictures(family, made)
    assert pictures is not None
    grids = family.grids(pictures)
    counts = [rows * columns for rows, columns in grids]
    question = QuestionTokenizer(processor)(_QUESTION, "")
    expected = [*question.prefix_ids, *[family.image_token_id] * counts[0], *question.suffix_ids]
    in_order = placeholder_orders(family, pictures) in (None, (None,) * len(grids))
    in_one_run = len(grids) == 1 and in_order and made["input_ids"][0].tolist() == expected and not adds_rows(family)
    alone = in_one_run and family.one_grid and not pictures.beside and set(beside) <= {"attention_mask"}
    return PictureForm(in_one_run, alone, len(grids), sum(counts))


def real_ids(beside: Beside) -> list[list[int]]:
    """Return the ids of each picture's prompt, without padding."""
    ids = beside.given["input_ids"]
    mask = beside.given.get("attention_mask", torch.ones_like(ids)).bool()
    return [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
