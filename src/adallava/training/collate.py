"""From examples to the tensors of one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from adallava.training.examples import LABELS, Example, QuestionTokenizer, pixel_values
from adallava.training.packing import TokenizedQuestion, pack
from adallava.training.prompts import stack_prompts

Tokenized = list[list[TokenizedQuestion]]


@dataclass(frozen=True)
class Collator:
    """Builds the pictures' part of a step's batch: a dictionary, as `transformers.Trainer` wants it.

    Attributes:
        processor: the model's own, for its picture settings.
        with_labels: True to add `labels`, `evidence` and `asked_patches` where the examples have them.
        questions: adds the questions under a key; None for stages that read none.
    """

    processor: Any
    with_labels: bool = False
    questions: Callable[[Sequence[Example]], dict[str, Any]] | None = None

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """Return `pixel_values`, and what else was asked for."""
        batch: dict[str, Any] = {"pixel_values": self._pixels([example.image for example in examples])}
        if self.with_labels and examples[0].labels:
            batch["labels"] = {
                name: torch.from_numpy(np.stack([example.labels[name] for example in examples])) for name in LABELS
            }
            seen = [example.evidence for example in examples if example.evidence is not None]
            batch["evidence"] = torch.from_numpy(np.stack(seen))
            asked = [example.asked_patches for example in examples if example.asked_patches is not None]
            batch["asked_patches"] = torch.from_numpy(np.concatenate(asked))
        if self.questions is not None:
            batch |= self.questions(examples)
        return batch

    def _pixels(self, images: Sequence[Any]) -> torch.Tensor:
        settings = self.processor.image_processor
        side = (settings.crop_size["height"], settings.crop_size["width"])
        if all(image.shape[:2] == side for image in images):
            # What the processor computes for a picture of the right size, many times faster.
            return pixel_values(images, settings.image_mean, settings.image_std)
        processed = settings([Image.fromarray(image) for image in images], return_tensors="pt")
        pixels: torch.Tensor = processed["pixel_values"]
        return pixels


def packed_questions(processor: Any) -> Callable[[Sequence[Example]], dict[str, Any]]:
    """Return a function that packs each picture's questions into one row (`packed`) and finds their nouns."""
    tokenize = QuestionTokenizer(processor)

    def collate(examples: Sequence[Example]) -> dict[str, Any]:
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
    """Return, for each taught noun, (picture, column of the packed text) and the patches that show it."""
    found = []
    for picture, (example, questions) in enumerate(zip(examples, rows, strict=True)):
        start = 0
        for question, references in zip(questions, example.references, strict=False):
            for reference in references:
                found.append(((picture, start + tokenize.place_of(question, reference)), reference.patches))
            start += len(question.suffix_ids) + len(question.answer_ids) - 1
    return found


def separate_prompts(
    processor: Any, num_vision_tokens: int, image_token_id: int
) -> Callable[[Sequence[Example]], dict[str, Any]]:
    """Return a function that gives each question a row of its own, under the key `prompts`."""
    tokenize = QuestionTokenizer(processor)
    pad_token_id = processor.tokenizer.pad_token_id
    return lambda examples: {
        "prompts": stack_prompts(_tokenized(tokenize, examples), num_vision_tokens, image_token_id, pad_token_id)
    }


def _tokenized(tokenize: QuestionTokenizer, examples: Sequence[Example]) -> Tokenized:
    return [[tokenize(*pair) for pair in zip(example.questions, example.answers, strict=True)] for example in examples]
