"""Whole prompts with their answers after them, one row a question: what a selector and any base can read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.training.packing import TokenizedQuestion


@dataclass(frozen=True)
class PromptBatch:
    """R prompts with their answers after them, padded on the right; prompt r belongs to image `picture[r]`.

    Attributes:
        input_ids: [R, L] with N placeholders each.
        attention_mask: [R, L].
        labels: [R, L], -100 but at the answer.
        picture: [R] int64.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    picture: Tensor

    def to(self, device: torch.device) -> "PromptBatch":
        """Return the same prompts with their tensors on `device`."""
        return PromptBatch(*(tensor.to(device) for tensor in vars(self).values()))

    def repeat(self, times: int) -> "PromptBatch":
        """Return each prompt `times` times in a row."""
        return PromptBatch(*(tensor.repeat_interleave(times, dim=0) for tensor in vars(self).values()))


def stack_prompts(
    pictures: Sequence[Sequence[TokenizedQuestion]],
    num_vision_tokens: int,
    image_token_id: int,
    pad_token_id: int,
) -> PromptBatch:
    """Make one row of each question of each picture, with N placeholders for its image."""
    heads = [[*questions[0].prefix_ids, *[image_token_id] * num_vision_tokens] for questions in pictures]
    return stack_behind(heads, pictures, pad_token_id)


def stack_behind(
    heads: Sequence[Sequence[int]], pictures: Sequence[Sequence[TokenizedQuestion]], pad_token_id: int
) -> PromptBatch:
    """Make one row of each question of each image, after the prompt that all of them share.

    Args:
        heads: of each image, the prompt's ids up to the text after the image, its placeholders among them.
        pictures: the questions of each.
        pad_token_id: for the ends of rows.
    """
    rows = [
        (picture, [*heads[picture], *question.suffix_ids], question)
        for picture, questions in enumerate(pictures)
        for question in questions
    ]
    width = max(len(prompt) + len(question.answer_ids) for _, prompt, question in rows)
    ids = torch.full((len(rows), width), pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORED_LABEL)
    for row, (_, prompt, question) in enumerate(rows):
        whole = torch.tensor([*prompt, *question.answer_ids])
        ids[row, : len(whole)] = whole
        mask[row, : len(whole)] = 1
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return PromptBatch(ids, mask, labels, torch.tensor([picture for picture, _, _ in rows]))
