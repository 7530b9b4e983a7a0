"""Several questions about one image in one sequence, so that the image's tokens are computed once.

    prefix | kept vision tokens | question 1 answer 1 </s> | question 2 answer 2 </s> | padding

Every question sees the prefix, the image and itself, at the positions it would have alone. So the loss of a
packed question is the loss of that question alone; a test says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.families.capabilities.of_tokens import HasPositionRows
from adallava.families.family_contract import Family
from adallava.families.picture_inputs import PictureInputs

IGNORE = -100


@dataclass(frozen=True)
class TokenizedQuestion:
    """One question with its answer, cut at the image: ids before it, ids after it, ids of the answer with EOS."""

    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """Questions of B images, packed. T is the longest row.

    Attributes:
        prefix_ids: [B, P] ids before the image; every question of a batch has the same number of them.
        text_ids: [B, T] questions and answers one after another.
        segment: [B, T] number of the question within its picture, -1 for padding.
        offset: [B, T] place within the question.
        targets: [B, T] the id that must follow, IGNORE where that is not part of an answer.
        asks: [B, T] bool, True at the last token of each question, which the answer follows.
    """

    prefix_ids: Tensor
    text_ids: Tensor
    segment: Tensor
    offset: Tensor
    targets: Tensor
    asks: Tensor

    def to(self, device: torch.device) -> "Packed":
        """Return the same questions with their tensors on `device`."""
        return Packed(*(tensor.to(device) for tensor in vars(self).values()))


def pack(pictures: Sequence[Sequence[TokenizedQuestion]], pad_token_id: int) -> Packed:
    """Pack the questions of each image into one row.

    Raises:
        ValueError: if prompts differ in how much text comes before the image.
    """
    prefixes = {len(question.prefix_ids) for questions in pictures for question in questions}
    if len(prefixes) != 1:
        raise ValueError(f"prompts with {sorted(prefixes)} tokens before the image cannot share a batch")
    rows = [_pack_row(questions) for questions in pictures]
    width = max(len(row[0]) for row in rows)
    fills = (pad_token_id, -1, 0, IGNORE, False)
    columns = [torch.tensor([row[i] + [fill] * (width - len(row[i])) for row in rows]) for i, fill in enumerate(fills)]
    prefix = torch.tensor([questions[0].prefix_ids for questions in pictures], dtype=torch.int64)
    return Packed(prefix.reshape(len(rows), -1), *columns)


def _pack_row(questions: Sequence[TokenizedQuestion]) -> tuple[list[int], ...]:
    ids: list[int] = []
    segment: list[int] = []
    offset: list[int] = []
    targets: list[int] = []
    asks: list[int] = []
    for number, question in enumerate(questions):
        # The last answer token (EOS) need not be read, only predicted.
        read = [*question.suffix_ids, *question.answer_ids[:-1]]
        ids += read
        segment += [number] * len(read)
        offset += range(len(read))
        targets += [IGNORE] * (len(question.suffix_ids) - 1) + list(question.answer_ids)
        asks += [place == len(question.suffix_ids) - 1 for place in range(len(read))]
    return ids, segment, offset, targets, asks


def packed_mask(packed: Packed, num_kept: int) -> Tensor:
    """Return who may see whom, [B, 1, S, S] bool with S = P + num_kept + T.

    Padding sees itself alone, so that no row of the softmax is empty.
    """
    batch, prefix = packed.prefix_ids.shape
    shared = prefix + num_kept
    length = shared + packed.text_ids.shape[1]
    segment = torch.cat([packed.segment.new_full((batch, shared), -2), packed.segment], dim=1)
    place = torch.arange(length, device=segment.device)
    causal = place[:, None] >= place[None, :]
    same = segment[:, :, None] == segment[:, None, :]
    to_shared = (segment == -2)[:, None, :] & (segment != -1)[:, :, None]
    itself = place[:, None] == place[None, :]
    real = (segment != -1)[:, :, None]
    return ((causal & real & (same | to_shared)) | itself)[:, None]


def shared_positions(family: Family, packed: Packed, pictures: PictureInputs) -> Tensor:
    """Return the positions of what all questions of an image share, [R, B, P + N + 1], on the device.

    The last is that of the first token after the image.

    Args:
        family: the model, which puts each image's placeholders in one run.
        packed: the questions.
        pictures: of B prompts, all of as many tokens.
    """
    batch, prefix = packed.prefix_ids.shape
    rows, columns = family.grids(pictures)[0]
    num_tokens = rows * columns
    count = torch.arange(prefix + num_tokens + 1).expand(1, batch, -1)
    if not isinstance(family, HasPositionRows):
        return count.to(family.device)
    images = torch.full((batch, num_tokens), family.image_token_id)
    # Any token of text will do for what comes after.
    ids = torch.cat([packed.prefix_ids.cpu(), images, torch.full((batch, 1), family.pad_token_id)], dim=1)
    companions = family.companions(ids, torch.ones_like(ids), pictures)
    return companions.get("position_ids", count).to(family.device)


def packed_positions(packed: Packed, vision_positions: Tensor, shared: Tensor) -> Tensor:
    """Return position ids [B, S], or [R, B, S] for R > 1 rows: those of the unpruned prompt ("original").

    Args:
        packed: the questions.
        vision_positions: [B, K] patch index of each kept token.
        shared: [R, B, P + N + 1], see `shared_positions`.
    """
    prefix = packed.prefix_ids.shape[1]
    before, behind = shared[..., :prefix], shared[..., -1:]
    vision = shared[..., prefix:-1].gather(-1, vision_positions.expand(len(shared), -1, -1))
    positions = torch.cat([before, vision, behind + packed.offset], dim=-1)
    return positions[0] if len(positions) == 1 else positions
