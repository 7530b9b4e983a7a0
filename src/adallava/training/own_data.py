"""A user's own questions: checked before a stage begins, shuffled by the recipe's seed, known by their content."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from adallava.errors import InputError
from adallava.families.family_contract import Family
from adallava.tasks import TaskSample
from adallava.tasks.images import with_clear_axes
from adallava.tasks.local import local_task
from adallava.training.examples import Example, QuestionTokenizer

_log = logging.getLogger(__name__)

CheckText = Callable[[TaskSample], str | None]
"""Says why a sample's texts cannot be trained on; None if they can."""


class OwnExamples(Dataset[Example]):
    """A user's questions in the order in which a stage reads them, one an image.

    Attributes:
        num_rows: of the user's data.
        left_out: id of a sample that cannot be used -> why.
        sha256: of questions, answers and decoded images, in the order of the data: how a file spells them, or what
            the images are called, is not part of it. Images that the stage does not reach are not read.
    """

    def __init__(self, samples: Sequence[TaskSample], left_out: Mapping[str, str], num_rows: int, sha256: str) -> None:
        """Hold the samples in their order."""
        self.samples, self.left_out = samples, dict(left_out)
        self.num_rows, self.sha256 = num_rows, sha256

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        """Decode one image.

        Raises:
            InputError: if it cannot be read, though it could when the stage began.
        """
        sample = self.samples[index]
        try:
            image = _decode(sample)
        except (InputError, OSError) as error:
            raise InputError(
                f"the image of sample {sample.id} could be read when training began, and now cannot ({error}): "
                "put it back, and the same command continues"
            ) from error
        return Example(image, (sample.question,), (_answer(sample),), {}, None, None)


@dataclass(frozen=True)
class TaskExamples:
    """A user's own samples, as read from a file."""

    samples: Sequence[TaskSample]

    @classmethod
    def from_file(cls, path: Path, columns: Mapping[str, str]) -> "TaskExamples":
        """Read a `.jsonl` or `.parquet` file.

        Raises:
            InputError: for a file that cannot be read or lacks a column.
        """
        # An image goes into no page here, so that it may lie anywhere.
        return cls(local_task(path, columns=columns, allow_outside=True).samples)

    def shuffled(self, num_examples: int, seed: int, check_text: CheckText) -> OwnExamples:
        """Return examples for so many turns: each epoch has every usable sample once, in an order of its own.

        Raises:
            InputError: if no sample can be used.
        """
        return self._ordered(num_examples, seed, check_text, epochs=None)

    def sample(self, most: int, seed: int, check_text: CheckText) -> OwnExamples:
        """Return at most so many examples, drawn by the seed, each once.

        Raises:
            InputError: if no sample can be used.
        """
        return self._ordered(most, seed, check_text, epochs=1)

    def _ordered(self, num_examples: int, seed: int, check_text: CheckText, epochs: int | None) -> OwnExamples:
        check = _Check(self.samples, check_text)
        check.read_ahead(next(_epochs(len(self.samples), seed))[:num_examples])
        order: list[int] = []
        for indices in islice(_epochs(len(self.samples), seed), epochs):
            order += islice((index for index in indices if check(index)), num_examples - len(order))
            if not order:
                raise InputError(f"no sample of --data can be used: {told_left_out(check.left_out, len(self.samples))}")
            if len(order) == num_examples:
                break
        if check.left_out:
            _log.warning("training leaves out %s", told_left_out(check.left_out, len(self.samples)))
        samples = [self.samples[index] for index in order]
        return OwnExamples(samples, check.left_out, len(self.samples), check.sha256())


def told_left_out(left_out: Mapping[str, str], num_rows: int) -> str:
    """Return in words how many samples were left out, with the first reasons."""
    reasons = "; ".join(f"{name}: {why}" for name, why in islice(left_out.items(), 3)) or "there are none"
    return f"{len(left_out)} of {num_rows} samples ({reasons}{'; …' if len(left_out) > 3 else ''})"


def text_check(family: Family, processor: Any) -> CheckText:
    """Return what tells texts that this model cannot be trained on: it answers with the reason, or None."""
    tokenize = QuestionTokenizer(processor)
    most_tokens = getattr(family.model.config.get_text_config(), "max_position_embeddings", None)

    def check(sample: TaskSample) -> str | None:
        """Return why a sample's text cannot be learned; None if it can."""
        question, answer = sample.question, _answer(sample)
        if processor.image_token in question:
            return f"the question holds {processor.image_token}, which marks the place of the image"
        try:
            f"{question}{answer}".encode()
        except UnicodeEncodeError as error:
            return f"question or answer is not valid text ({error.reason})"
        ids = tokenize(question, answer)
        # Of a model that sees an image at its own size, or in tiles, its size alone would say how many it has.
        of_picture = family.shape.num_vision_tokens if family.one_grid else 1
        num_tokens = len(ids.prefix_ids) + of_picture + len(ids.suffix_ids) + len(ids.answer_ids)
        if most_tokens is not None and num_tokens > most_tokens:
            return f"image, question and answer are {num_tokens} tokens, and the model reads {most_tokens} at most"
        return None

    return check


class _Check:
    """Tells which samples can be used, reading each image once."""

    def __init__(self, samples: Sequence[TaskSample], check_text: CheckText) -> None:
        self.samples, self._check_text = samples, check_text
        self.left_out: dict[str, str] = {}
        self._pictures: dict[int, str] = {}

    def read_ahead(self, indices: Sequence[int]) -> None:
        """Decode images in the order of the file, in which a parquet's are cheap to read."""
        for index in sorted(indices):
            self._note(index, *self._read(index))

    def __call__(self, index: int) -> bool:
        """Return whether a sample can be used."""
        if index not in self._pictures:
            self._note(index, *self._read(index))
        return self.samples[index].id not in self.left_out

    def sha256(self) -> str:
        """Return what identifies the samples: all texts, and the images read so far."""
        digest = hashlib.sha256()
        for index, sample in enumerate(self.samples):
            for text in (sample.question, _answer(sample), self._pictures.get(index, "not read")):
                encoded = text.encode(errors="surrogatepass")
                digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return digest.hexdigest()

    def _read(self, index: int) -> tuple[str, str | None]:
        try:
            image = _decode(self.samples[index])
        except (InputError, OSError) as error:
            return "unreadable", str(error)
        return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(), None

    def _note(self, index: int, digest: str, why: str | None) -> None:
        self._pictures[index] = digest
        why = why or self._check_text(self.samples[index])
        if why is not None:
            self.left_out[self.samples[index].id] = why


def _epochs(num_samples: int, seed: int) -> Iterator[list[int]]:
    """Yield the order of each epoch, without end: a function of seed and epoch alone."""
    for epoch in count():
        yield np.random.default_rng([seed, epoch]).permutation(num_samples).tolist()


def _decode(sample: TaskSample) -> NDArray[np.uint8]:
    images = sample.load_images()
    if len(images) != 1:
        raise InputError(f"{len(images)} images: training takes one a question")
    return np.asarray(with_clear_axes(images[0]))


def _answer(sample: TaskSample) -> str:
    """Return the first answer that is not blank: one of several people may have said nothing."""
    return next((answer for answer in sample.answers if answer.strip()), sample.answers[0])
