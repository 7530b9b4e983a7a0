"""From examples to the tensors of one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from adallava.errors import InputError
from adallava.processors.stock_processor import build_prompt, make_inputs
from adallava.training.examples import LABELS, Example, QuestionTokenizer, pixel_values
from adallava.training.packing import TokenizedQuestion, pack
from adallava.training.pictures import Beside, real_ids
from adallava.training.prompts import stack_behind, stack_prompts

Tokenized = list[list[TokenizedQuestion]]

Questions = Callable[[Sequence[Example], Beside | None], dict[str, Any]]
"""Makes what a stage reads of the questions."""


@dataclass(frozen=True)
class Collator:
    """Builds the images' part of a step's batch: a dictionary, as `transformers.Trainer` wants it.

    Attributes:
        processor: the model's own.
        with_labels: True to add `labels`, `evidence` and `asked_patches` where the examples have them.
        questions: adds the questions under a key; None for stages that read none.
        pixels_alone: True for a model that reads images of one size by their pixels alone: only the image
            settings are used then. Otherwise each image goes through the processor in a prompt, and what that gives
            besides the pixels is under the key `beside`.
    """

    processor: Any
    with_labels: bool = False
    questions: Questions | None = None
    pixels_alone: bool = True

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return `pixel_values`, and what else was asked for."""
        batch: dict[str, Any] = {}
        if self.pixels_alone:
            batch["pixel_values"] = self._pixels([example.image for example in examples])
        else:
            batch["pixel_values"], batch["beside"] = self._prompted(examples)
        if self.with_labels and examples[0].labels:
            batch["labels"] = {
                name: torch.from_numpy(np.stack([example.labels[name] for example in examples])) for name in LABELS
            }
            seen = [example.evidence for example in examples if example.evidence is not None]
            batch["evidence"] = torch.from_numpy(np.stack(seen))
            asked = [example.asked_patches for example in examples if example.asked_patches is not None]
            batch["asked_patches"] = torch.from_numpy(np.concatenate(asked))
        if self.questions is not None:
            batch |= self.questions(examples, batch.get("beside"))
        return batch

    def _prompted(self, examples: Sequence[Example]) -> tuple[torch.Tensor, Beside]:
        """Return what the processor makes of each image with its first question."""
        images = [Image.fromarray(example.image) for example in examples]
        made = make_inputs(
            self.processor, images, [build_prompt(self.processor, each.questions[0]) for each in examples]
        )
        return made.pop("pixel_values"), Beside(made)

    def _pixels(self, images: Sequence[Any]) -> torch.Tensor:
        settings = self.processor.image_processor
        cut = getattr(settings, "crop_size", None) or {}
        side = (cut.get("height"), cut.get("width"))
        if all(image.shape[:2] == side for image in images):
            # What the processor computes for an image of the right size, many times faster.
            return pixel_values(images, settings.image_mean, settings.image_std)
        processed = settings([Image.fromarray(image) for image in images], return_tensors="pt")
        pixels: torch.Tensor = processed["pixel_values"]
        return pixels


def packed_questions(processor: Any) -> Questions:
    """Return a function that packs each image's questions into one row (`packed`) and finds their nouns."""
    tokenize = QuestionTokenizer(processor)

    def collate(examples: Sequence[Example], beside: Beside | None = None) -> dict[str, Any]:
        """Return the questions packed into rows, and where their reference patches are."""
        rows = _tokenized(tokenize, examples)
        batch: dict[str, Any] = {"packed": pack(rows, processor.tokenizer.pad_token_id)}
        found = _reference_places(tokenize, examples, rows)
        if found:
            batch["reference_rows"] = torch.tensor([place for place, _ in found])
            batch["reference_patches"] = torch.from_numpy(np.stack([patches for _, patches in found]))
        return batch

    return collate


def _reference_places(
    tokenize: QuestionTokenizer, examples: Sequence[Example], rows: Tokenized
) -> list[tuple[tuple[int, int], Any]]:
    """Return, for each taught noun, (image, column of the packed text) and the patches that show it."""
    found = []
    for picture, (example, questions) in enumerate(zip(examples, rows, strict=True)):
        start = 0
        for question, references in zip(questions, example.references, strict=False):
            for reference in references:
                found.append(((picture, start + tokenize.place_of(question, reference)), reference.patches))
            start += len(question.suffix_ids) + len(question.answer_ids) - 1
    return found


def separate_prompts(processor: Any, num_vision_tokens: int, image_token_id: int) -> Questions:
    """Return a function that gives each question a row of its own, under the key `prompts`."""
    tokenize = QuestionTokenizer(processor)
    pad_token_id = processor.tokenizer.pad_token_id or 0

    def collate(examples: Sequence[Example], beside: Beside | None = None) -> dict[str, Any]:
        """Return a prompt for each example; with `beside`, it starts with the ids of the picture's own prompt."""
        rows = _tokenized(tokenize, examples)
        if beside is None:
            return {"prompts": stack_prompts(rows, num_vision_tokens, image_token_id, pad_token_id)}
        heads = [_head(ids, questions) for ids, questions in zip(real_ids(beside), rows, strict=True)]
        return {"prompts": stack_behind(heads, rows, pad_token_id)}

    return collate


def both_ways(packed: Questions, prompts: Questions) -> Questions:
    """Return a function that gives questions packed and each in a row of its own."""
    return lambda examples, beside: packed(examples, beside) | prompts(examples, beside)


def _head(input_ids: list[int], questions: Sequence[TokenizedQuestion]) -> list[int]:
    """Return what comes before the question in an image's prompt, which its first question ends.

    Raises:
        InputError: if another question cannot take its place.
    """
    first = list(questions[0].suffix_ids)
    if first and input_ids[-len(first) :] == first:
        return input_ids[: -len(first)]
    raise InputError(
        "this model's processor joins the text after an image with what it puts around it, so that no other question "
        "can take its place"
    )


def _tokenized(tokenize: QuestionTokenizer, examples: Sequence[Example]) -> Tokenized:
    return [[tokenize(*pair) for pair in zip(example.questions, example.answers, strict=True)] for example in examples]
