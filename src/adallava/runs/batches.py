"""The fixed batches of a task, prepared once for all cells as far as memory allows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from PIL import Image

from adallava.errors import InputError
from adallava.model import build_prompt
from adallava.pipeline.prompt_limit import PromptLimit, check_prompt_text, check_prompt_tokens
from adallava.processors.picture_cuts import find_frames
from adallava.processors.stock_processor import check_pixels, make_inputs, prepare_picture
from adallava.records.picture_frames import Frame
from adallava.records.sample import PICTURES_JOINED
from adallava.tasks import TaskSample

STORE_BYTES = 512 * 2**20
"""Host memory that prepared batches may take, about 850 images of 224x224 px."""


@dataclass(frozen=True)
class PreparedBatch:
    """Samples ready for the model.

    Attributes:
        samples: those whose image could be read; B of them.
        failures: the others, each with `<error type>: <message>`.
        inputs: the processor's tensors for `samples`, on the host; empty if there are none.
        picture_sha256: of each of `samples`, see `SampleRecord.picture_sha256`.
        frames: by sample id, which part of each of its images the model sees; none where the processor's steps are
            not known.
    """

    samples: tuple[TaskSample, ...]
    failures: tuple[tuple[TaskSample, str], ...]
    inputs: dict[str, torch.Tensor]
    picture_sha256: tuple[str, ...] = ()
    frames: Mapping[str, list[Frame]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Memory that `inputs` take."""
        return sum(tensor.nbytes for tensor in self.inputs.values())


def prepare_batch(
    processor: Any, samples: Sequence[TaskSample], question_suffix: str = "", limit: PromptLimit | None = None
) -> PreparedBatch:
    """Decode the images and run the processor. What cannot be read, or does not fit, is a failure, not an error.

    Args:
        processor: the model's.
        samples: of the batch.
        question_suffix: after every question.
        limit: of `max_prompt_tokens`; a longer prompt is a failure too.
    """
    pictures, digests, readable, prompts, failures = [], [], [], [], []
    for sample in samples:
        try:
            if limit is not None:  # Before images are read.
                check_prompt_text(processor.tokenizer, sample.question + question_suffix, limit)
            images = sample.load_images()
            prompt = build_prompt(processor, sample.question + question_suffix, len(images))
            if limit is not None:
                check_prompt_text(processor.tokenizer, prompt, limit)
            shown = [prepare_picture(processor, image) for image in images]
        except Exception as error:  # whatever a file does to a decoder, it is one failed sample
            failures.append((sample, describe_error(error)))
        else:
            pictures.append(shown)
            digests.append(pictures_sha256(images))
            readable.append(sample)
            prompts.append(prompt)
    if not readable:
        return PreparedBatch((), tuple(failures), {})
    inputs = make_inputs(processor, list(chain(*pictures)), prompts)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    sound = bool(inputs["pixel_values"].isfinite().all())
    for sample, length, shown, prompt in zip(readable, lengths, pictures, prompts, strict=True):
        try:
            check_prompt_tokens(length, limit)
            if not sound:  # Whose pixels they are, only the processor knows.
                check_pixels(make_inputs(processor, shown, [prompt])["pixel_values"])
        except InputError as error:
            failures.append((sample, describe_error(error)))
    if len(readable) + len(failures) > len(samples):
        failed = {sample.id for sample, _ in failures}
        kept = prepare_batch(processor, [s for s in readable if s.id not in failed], question_suffix, limit)
        return replace(kept, failures=(*failures, *kept.failures))
    frames = {}
    for sample, shown in zip(readable, pictures, strict=True):
        own = find_frames(processor, [image.size for image in shown])
        if own is not None:
            frames[sample.id] = own
    return PreparedBatch(tuple(readable), tuple(failures), inputs, tuple(digests), frames)


def pictures_sha256(images: Sequence[Image.Image]) -> str:
    """Return what tells the images of a sample apart, joined; see `SampleRecord.picture_sha256`."""
    return PICTURES_JOINED.join(map(picture_sha256, images))


def picture_sha256(image: Image.Image) -> str:
    """Return what tells images apart, however their files are named or encoded without loss."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def describe_error(error: Exception) -> str:
    """Return `<error type>: <message>` on one line, in characters that any file can hold."""
    message = " ".join(str(error).split())[:500] or "without a message"
    return f"{type(error).__name__}: {message}".encode(errors="backslashreplace").decode()


class BatchStore:
    """Batches, prepared; those that fit under the limit are prepared once and kept.

    Every cell goes through all batches in the same order, or has its own. Under that pattern a cache that evicts what
    was used longest ago never has what comes next, so this one keeps the first batches and prepares the rest
    each time.

    Attributes:
        batches: the samples of each batch.
        prepare: prepares any samples, without keeping them.
    """

    def __init__(
        self,
        samples: Sequence[TaskSample],
        batch_size: int,
        prepare: Callable[[Sequence[TaskSample]], PreparedBatch],
        limit_bytes: int = STORE_BYTES,
    ) -> None:
        """Cut `samples` into batches of `batch_size`, the last one possibly smaller; prepare none yet."""
        self.batches = tuple(samples[i : i + batch_size] for i in range(0, len(samples), batch_size))
        self.prepare = prepare
        self._free_bytes = limit_bytes
        self._kept: dict[tuple[str, ...], PreparedBatch] = {}

    def prepared(self, samples: Sequence[TaskSample]) -> PreparedBatch:
        """Return these samples of the task, prepared as one batch."""
        ids = tuple(sample.id for sample in samples)
        if ids in self._kept:
            return self._kept[ids]
        batch = self.prepare(samples)
        if batch.num_bytes <= self._free_bytes:
            self._free_bytes -= batch.num_bytes
            self._kept[ids] = batch
        return batch
