"""One question about one or several images: made ready once, and answered at any budget."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from adallava.errors import AdallavaError, UnsupportedModeError
from adallava.families.capabilities.of_pictures import shown_patches, take_pictures
from adallava.model import AdaLlava, build_prompt
from adallava.pipeline.clock import StageClock
from adallava.pipeline.decoding import values_of_checkpoint
from adallava.pipeline.prompt_limit import (
    check_prompt_text,
    check_prompt_tokens,
    device_memory_bytes,
    max_prompt_tokens,
)
from adallava.pipeline.stock_arguments import GENERATE_REFUSED
from adallava.processors.picture_cuts import find_frames
from adallava.processors.stock_processor import prepare_picture, sound_inputs
from adallava.records.cells import CellPlan
from adallava.records.picture_frames import Frame
from adallava.runs.batches import describe_error
from adallava.runs.budget_result import BudgetResult, of_answer


@dataclass(frozen=True)
class OneQuestion:
    """A question, ready for the model.

    Attributes:
        question: as it was asked.
        images: RGB, as the processor took them.
        frames: of each picture, which part of it the model sees; None where that is not known.
        inputs: the processor's tensors, on the host.
    """

    question: str
    images: tuple[Image.Image, ...]
    frames: tuple[Frame | None, ...]
    inputs: dict[str, Any]

    @property
    def whole(self) -> list[tuple[Image.Image, Frame | None]]:
        """Each image, uncut, and which part of it the model sees."""
        return list(zip(self.images, self.frames, strict=True))

    @property
    def num_bytes(self) -> int:
        """Memory that images and tensors take."""
        pixels = sum(3 * image.width * image.height for image in self.images)
        return pixels + sum(int(tensor.nbytes) for tensor in self.inputs.values())


def prepare_question(
    model: AdaLlava, opened: Sequence[Image.Image], question: str, *, max_new_tokens: int
) -> OneQuestion:
    """Run the processor on a question and its images.

    Args:
        model: that will answer.
        opened: RGB.
        question: about them.
        max_new_tokens: that an answer may have.

    Raises:
        InputError: for a prompt that is longer than the LLM reads, or images that the processor cannot take.
        CheckpointError: for a processor whose files make it fail.
    """
    processor = model.processor
    limit = max_prompt_tokens(
        model.base.config,
        max_new_tokens,
        rows=model.base.generation_config.num_beams or 1,
        memory_bytes=device_memory_bytes(model.device),
    )
    images = [prepare_picture(processor, image) for image in opened]
    known = find_frames(processor, [image.size for image in images])
    frames = [None] * len(images) if known is None else known
    prompt = build_prompt(processor, question, len(images))
    if limit is not None:
        check_prompt_text(processor.tokenizer, prompt, limit)
    inputs = sound_inputs(processor, images, [prompt])
    check_prompt_tokens(inputs["input_ids"].shape[1], limit)
    return OneQuestion(question, tuple(images), tuple(frames), inputs)


def drawn_pixels(model: AdaLlava, asked: OneQuestion) -> tuple[Any, ...]:
    """Return what each image's tokens look at, [3, H, W] as the processor made them; see `seen_pictures`."""
    given, _ = take_pictures(model.family, asked.inputs)
    assert given is not None
    return shown_patches(model.family, given)


def plain_decoding(model: AdaLlava) -> dict[str, Any]:
    """Return what replaces the checkpoint's own configuration of generation: greedy search."""
    own = values_of_checkpoint(model.base.generation_config)
    return {"do_sample": False, "use_cache": True, **dict.fromkeys(GENERATE_REFUSED.keys() & own.keys())}


def answer_question(
    model: AdaLlava,
    asked: OneQuestion,
    plan: CellPlan,
    *,
    seed: int,
    max_new_tokens: int,
    decoding: Mapping[str, Any],
) -> BudgetResult:
    """Answer at one budget, and measure it by part.

    Args:
        model: with the method, and the scheduler, of the plan.
        asked: made ready for it.
        plan: budget, latency and positions.
        seed: of methods and schedulers that draw.
        max_new_tokens: of the answer at most.
        decoding: of `plain_decoding`.

    Raises:
        AdallavaError: for a budget or a mode that cannot be given.
    """
    start = time.perf_counter()
    try:
        output = model.generate(
            **asked.inputs,
            **plan.call(),
            seed=seed,
            clock=StageClock(model.device),
            max_new_tokens=max_new_tokens,
            **decoding,
        )
    except AdallavaError:
        raise
    except Exception as error:  # of a checkpoint's own configuration, inside of transformers: as a sweep says it
        raise UnsupportedModeError(f"{plan.cell} cannot be answered: {describe_error(error)}") from error
    return of_answer(model, output, (time.perf_counter() - start) * 1000.0)
