"""Training examples: one image with its questions; the bundled scenes, made as they are asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from adallava.model import build_prompt
from adallava.tasks.scenes import GRID, KINDS, PATCH_COUNT, Question, Scene, make_questions, make_scene, patch_labels
from adallava.tasks.scenes.masks import covered_patches
from adallava.tasks.scenes.scene_questions import EVIDENCE_COVER_PERCENT
from adallava.training.packing import TokenizedQuestion

PLACES = 4
"""Digits of the longest number: the place of a digit in its number is a label of its own."""

LABELS = ("shape", "color", "size", "digit", "column", "row", "place", "background")


@dataclass(frozen=True)
class Reference:
    """A noun of a question and what it refers to.

    Attributes:
        word: the noun.
        from_end: True if it is the word's last occurrence in the question, False if its first.
        patches: bool [N], patches that show the object.
    """

    word: str
    from_end: bool
    patches: NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """One image with its questions.

    Attributes:
        image: uint8 [H, W, 3].
        questions: texts.
        answers: one answer per question.
        labels: int64 [N] per name in `LABELS`, -1 = none; empty for data without labeled patches.
        evidence: bool [N], patches that show any object or digit; None where nobody knows.
        asked_patches: bool [Q, N], patches that show what each question is about; None where nobody knows.
        references: for each question, those of its nouns whose objects are taught apart; or nothing at all.
    """

    image: NDArray[np.uint8]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    labels: Mapping[str, NDArray[np.int64]]
    evidence: NDArray[np.bool_] | None
    asked_patches: NDArray[np.bool_] | None
    references: tuple[tuple[Reference, ...], ...] = ()


def scene_labels(scene: Scene) -> dict[str, NDArray[np.int64]]:
    """Return what each patch shows, and for digits their place in the number (0 = first)."""
    labels = patch_labels(scene)
    place = np.full(PATCH_COUNT, -1, dtype=np.int64)
    for number in scene.numbers:
        first = number.row * GRID + number.col
        place[first : first + len(number.text)] = np.arange(len(number.text))
    # Only objects are asked to be located; a digit's cell would compete with its value for the same words.
    not_digit = place < 0
    return {
        **labels,
        "place": place,
        "column": np.where(not_digit, labels["column"], -1),
        "row": np.where(not_digit, labels["row"], -1),
    }


def _asked_patches(questions: Sequence[Question]) -> NDArray[np.bool_]:
    asked = np.zeros((len(questions), PATCH_COUNT), dtype=bool)
    for row, question in enumerate(questions):
        asked[row, list(question.patches)] = True
    return asked


def _references(scene: Scene, question: Question) -> tuple[Reference, ...]:
    """Return both nouns of a relation: its answer needs two objects at once, and what is asked about is their union."""
    if question.kind != "relation":
        return ()
    words = question.text.removesuffix("?").split()
    references = []
    for place, (color, shape) in enumerate((words[2:4], words[-2:])):
        (item,) = (item for item in scene.objects if (item.color, item.shape) == (color, shape))
        patches = np.zeros(PATCH_COUNT, dtype=bool)
        patches[list(covered_patches(item, EVIDENCE_COVER_PERCENT))] = True
        references.append(Reference(shape, place == 1, patches))
    return tuple(references)


class SceneExamples(Dataset[Example]):
    """Training images `first` to `first + count - 1`, each with questions of the given kinds in turn."""

    def __init__(self, first: int, count: int, questions_per_image: int, kinds: Sequence[str] = KINDS) -> None:
        """Make nothing yet: an image is drawn when it is asked for."""
        self.first, self.count, self.questions_per_image, self.kinds = first, count, questions_per_image, tuple(kinds)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __getitem__(self, index: int) -> Example:
        """Draw one image and ask its questions."""
        scene = make_scene("train", self.first + index)
        kinds = [self.kinds[(index + i) % len(self.kinds)] for i in range(self.questions_per_image)]
        questions = make_questions(scene, kinds)
        labels = scene_labels(scene)
        return Example(
            image=scene.image,
            questions=tuple(question.text for question in questions),
            answers=tuple(question.answer for question in questions),
            labels=labels,
            evidence=labels["background"] == 0,
            asked_patches=_asked_patches(questions),
            references=tuple(_references(scene, question) for question in questions),
        )


def pixel_values(images: Sequence[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return float32 [B, 3, H, W] from images that already have the tower's size: rescaled and normalized."""
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    shape = (1, 3, 1, 1)
    return (stacked / 255.0 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


class QuestionTokenizer:
    """Turns a question and its answer into ids, with the prompt that inference uses."""

    def __init__(self, processor: Any) -> None:
        """Keep the processor's tokenizer and chat template."""
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self._cache: dict[tuple[str, str], TokenizedQuestion] = {}

    def __call__(self, question: str, answer: str) -> TokenizedQuestion:
        """Return the ids around the image; repeated questions are remembered."""
        key = (question, answer)
        if key not in self._cache:
            if len(self._cache) > 200_000:
                self._cache.clear()
            self._cache[key] = self._tokenize(question, answer)
        return self._cache[key]

    def place_of(self, question: TokenizedQuestion, reference: Reference) -> int:
        """Return the place of a noun in the question's suffix, counted in tokens."""
        ids = self.tokenizer(f" {reference.word}", add_special_tokens=False)["input_ids"]
        places = [place for place, token in enumerate(question.suffix_ids) if token == ids[-1]]
        return places[-1 if reference.from_end else 0]

    def _tokenize(self, question: str, answer: str) -> TokenizedQuestion:
        before, after = build_prompt(self.processor, question).split(self.processor.image_token)
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (after, answer)]
        # Special tokens such as BOS, which the tokenizer adds in front of a whole prompt, belong to the prefix.
        prefix = self.tokenizer(before)["input_ids"]
        return TokenizedQuestion(tuple(prefix), tuple(ids[0]), (*ids[1], self.tokenizer.eos_token_id))
