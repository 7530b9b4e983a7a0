"""Reads prompts on the host: which tokens are real, where placeholders are, what may be read as the question."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adallava.errors import InputError

IGNORED_LABEL = -100
"""PyTorch's cross-entropy skips it."""

Columns = NDArray[np.int64]


@dataclass(frozen=True)
class FoundImages:
    """A prompt's real columns, and its images.

    Attributes:
        columns: [L] the columns of the padded prompt that hold a real token.
        places: [N] of each image, the position in `columns` of the placeholder of each of its tokens.
        images: their numbers in the batch.
        sizes: N of each.
    """

    columns: Columns
    places: tuple[Columns, ...]
    images: range
    sizes: tuple[int, ...]


def find_images(
    ids: Columns,
    real: NDArray[np.bool_],
    image_token_id: int,
    tokens_per_image: Sequence[int],
    orders: Sequence[Tensor | None] | None,
) -> tuple[FoundImages, ...]:
    """Return the images of each prompt, [B, L]; other arguments as for `layout.plan_layout`.

    Raises:
        InputError: if placeholders and images do not fit together, or a prompt is empty.
    """
    prompts: list[FoundImages] = []
    first = 0
    for sample, row in enumerate(ids):
        rest = tokens_per_image[first:]
        columns, found = _of_prompt(sample, row, real[sample], image_token_id, rest, one_run=orders is None)
        images = range(first, first + len(found))
        places = _in_order(found, None if orders is None else orders[images.start : images.stop])
        prompts.append(FoundImages(columns, places, images, tuple(rest[: len(found)])))
        first = images.stop
    if first != len(tokens_per_image):
        raise InputError(
            f"the prompts have placeholders for {first} images, but {len(tokens_per_image)} are given: "
            "give the images of the prompts, in their order, and no more"
        )
    return tuple(prompts)


def question_tokens(
    ids: Columns,
    real: NDArray[np.bool_],
    image_token_id: int,
    labels: Tensor | None,
    foreign: Sequence[int | None],
) -> NDArray[np.bool_]:
    """Return True for the text tokens that a method may read, [B, L]."""
    is_question: NDArray[np.bool_] = (ids != image_token_id) & real & ~_answers(labels, ids.shape)
    for sample, column in enumerate(foreign):
        if column is not None:
            is_question[sample, column] = False
    return is_question


def check_shapes(input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None) -> None:
    """Refuse ids that are not a batch, and a mask or labels of another shape.

    Raises:
        InputError: naming the shapes.
    """
    if input_ids.ndim != 2:
        raise InputError(f"input_ids must have shape [B, L], not {tuple(input_ids.shape)}")
    for name, tensor in (("attention_mask has", attention_mask), ("labels have", labels)):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise InputError(
                f"{name} shape {tuple(tensor.shape)}, input_ids {tuple(input_ids.shape)}: they must be equal"
            )


def on_host(input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Columns, NDArray[np.bool_]]:
    """Return ids and which of them are real, [B, L] each; without a mask all are."""
    ids = input_ids.cpu().numpy()
    if attention_mask is None:
        return ids, np.ones(ids.shape, dtype=bool)
    return ids, attention_mask.cpu().numpy().astype(bool)


def _answers(labels: Tensor | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return True at each sample's first label and after it."""
    if labels is None:
        return np.zeros(shape, dtype=bool)
    begun: NDArray[np.bool_] = np.logical_or.accumulate(labels.cpu().numpy() != IGNORED_LABEL, axis=1)
    return begun


def _of_prompt(
    sample: int,
    ids: Columns,
    real: NDArray[np.bool_],
    image_token_id: int,
    tokens_per_image: Sequence[int],
    *,
    one_run: bool,
) -> tuple[Columns, tuple[Columns, ...]]:
    """Return a prompt's real columns, and the positions among them of each image's placeholders.

    Args:
        sample: its number, for errors.
        ids: [L].
        real: [L].
        image_token_id: the placeholder's id.
        tokens_per_image: N of the images that no sample before it took; it takes as many as fill its placeholders.
        one_run: refuse an image whose placeholders have something between them.
    """
    columns = np.flatnonzero(real)
    if len(columns) == 0:
        raise InputError(f"sample {sample} has no token: its attention_mask is all zero")
    if np.any((ids == image_token_id) & ~real):
        raise InputError(f"sample {sample} has image placeholders that its attention_mask hides")
    places = np.flatnonzero(ids[columns] == image_token_id)
    found: list[Columns] = []
    done = 0
    for image, count in enumerate(tokens_per_image):
        if done >= len(places):
            break
        own = places[done : done + count]
        if one_run and len(own) == count and own[-1] - own[0] != count - 1:
            raise InputError(f"sample {sample}, image {image}: its {count} placeholders are not in one run")
        found.append(own)
        done += count
    if done != len(places):
        sizes = ", ".join(str(count) for count in tokens_per_image[: len(found)]) or "no image"
        raise InputError(
            f"sample {sample} has {len(places)} image placeholders, which its images do not fill (vision tokens of "
            f"each: {sizes}): let the processor expand the prompt, do not truncate it, and give the images that it "
            "was expanded for"
        )
    return columns, tuple(found)


def _in_order(found: Sequence[Columns], orders: Sequence[Tensor | None] | None) -> tuple[Columns, ...]:
    """Return the placeholders of each image in the order of its tokens."""
    if orders is None:
        return tuple(found)
    return tuple(
        places if order is None else places[order.numpy()] for places, order in zip(found, orders, strict=True)
    )
