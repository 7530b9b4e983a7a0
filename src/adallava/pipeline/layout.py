"""Plans, on the host and before the tower runs, where every token of a shortened batch comes from.

    a prompt (N = 4), one image          t t I I I I t t
    its column                           0 1 2 3 4 5 6 7
    kept: K = 2                          t t v v t t
    `image_columns`                      2 3 4 5        (of each of its tokens, in the order of its grid)
    `text_columns`                       0 1 2 2 6 7    (of a vision slot: its image's first column)
    `vision_slots`                       - - 0 1 - -    (row of the flattened [I * Kmax] kept tokens)

Which two patches fill the slots is the selector's choice, on the device; how many slots there are is known here. If
there is text between an image's placeholders, the choice also decides where that text ends up: `arranged`, in
`pipeline/companions.py`, puts such a prompt in order once the choice is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adallava.budget import TokenBudget
from adallava.errors import BudgetError, InputError
from adallava.pipeline.allocate import MethodCounts, allocate_tokens
from adallava.pipeline.read_prompts import Columns, FoundImages, check_shapes, find_images, on_host, question_tokens

Side = Literal["left", "right"]

_AS_ASKED = MethodCounts()


@dataclass(frozen=True)
class Inserted:
    """Tokens that are none of the prompts' own: no method reads them.

    Attributes:
        columns: of each sample, its column in the original batch; None without one.
        hidden: True if no other token reads them, and they take no position of their own.
    """

    columns: tuple[int | None, ...]
    hidden: bool = False


@dataclass(frozen=True)
class PromptPlan:
    """One sample's prompt: its real columns, its images and how many of their tokens stay.

    Attributes:
        columns: [L] the columns of the padded prompt that hold a real token.
        image_places: [N] of each image, the position in `columns` of the placeholder of each of its tokens.
        keep_counts: K of each image.
        budget: as asked.
        tokens_asked: K of the sample that the budget resolves to; for a method that ignores it, what is kept.
        tokens_per_image: N of each image.
        question_ids: [T] ids of the text tokens that a method may read: the prompt up to its first label, without
            inserted tokens.
        hidden_place: position in `columns` of an inserted token that is hidden; None without one.
    """

    columns: Columns
    image_places: tuple[Columns, ...]
    keep_counts: tuple[int, ...]
    budget: TokenBudget
    tokens_asked: int
    tokens_per_image: tuple[int, ...]
    question_ids: Columns
    hidden_place: int | None = None

    @property
    def num_images(self) -> int:
        """Images of the sample."""
        return len(self.image_places)

    @property
    def num_vision_tokens(self) -> int:
        """N over all images of the sample."""
        return sum(self.tokens_per_image)

    @property
    def length(self) -> int:
        """Tokens left after shortening."""
        return len(self.columns) - self.num_vision_tokens + sum(self.keep_counts)


@dataclass(frozen=True)
class Layout:
    """Where each token of the shortened batch comes from; B samples, Lc = the longest shortened prompt.

    Attributes:
        prompts: the plan of each sample.
        text_columns: [B, Lc] int64, the column of the original batch; of a vision slot, its image's first.
        vision_slots: [B, Lc] int64, the row of the flattened [I * Kmax] kept vision tokens; -1 for text and
            padding.
        image_columns: [I, N of the largest] int64, the column of the original batch of each image's tokens.
        companions: what travels with the tokens of the full prompts, [B, L] or [R, B, L], by the names of the LLM's
            arguments: always `position_ids`, [R, B, L].
        mask: [B, Lc] int64, 1 for a real token.
        attention_mask: [B, Lc] int64, 1 for a token that others may read: real, and not hidden.
        question_columns: [B, T] int64, the columns of each prompt's text tokens, right-padded.
        question_mask: [B, T] bool.
        side: on which side the shortened batch is padded.
        inserted: tokens that are none of the prompts' own, if there are any.
        scattered: True if there is text between the placeholders of an image, or they are not in the grid's order.
    """

    prompts: tuple[PromptPlan, ...]
    text_columns: Tensor
    vision_slots: Tensor
    image_columns: Tensor
    companions: Mapping[str, Tensor]
    mask: Tensor
    attention_mask: Tensor
    question_columns: Tensor
    question_mask: Tensor
    side: Side
    inserted: Inserted | None = None
    scattered: bool = False

    @property
    def keep_counts(self) -> tuple[int, ...]:
        """K of every image of the batch, in the order of the images."""
        return tuple(count for prompt in self.prompts for count in prompt.keep_counts)

    @property
    def tokens_per_image(self) -> tuple[int, ...]:
        """N of every image of the batch, in the order of the images."""
        return tuple(count for prompt in self.prompts for count in prompt.tokens_per_image)

    @property
    def sample_of_image(self) -> tuple[int, ...]:
        """The sample that each image of the batch belongs to."""
        return tuple(sample for sample, prompt in enumerate(self.prompts) for _ in range(prompt.num_images))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Real tokens of each shortened prompt."""
        return tuple(prompt.length for prompt in self.prompts)

    @property
    def padding_mask(self) -> Tensor | None:
        """Which tokens others may read, [B, Lc], if not all may: a prompt is shorter, or holds a hidden token."""
        hides = any(prompt.hidden_place is not None for prompt in self.prompts)
        return self.attention_mask if hides or len(set(self.lengths)) > 1 else None

    def to(self, device: torch.device) -> "Layout":
        """Return the same layout with its tensors on `device`."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        moved["companions"] = {name: of.to(device, non_blocking=True) for name, of in self.companions.items()}
        return replace(self, **moved)


def plan_layout(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    *,
    tokens_per_image: Sequence[int],
    image_token_id: int,
    budgets: Sequence[TokenBudget],
    side: Side,
    method: MethodCounts = _AS_ASKED,
    labels: Tensor | None = None,
    inserted: Inserted | None = None,
    companions: Callable[[], Mapping[str, Tensor]] | None = None,
    orders: Sequence[Tensor | None] | None = None,
) -> Layout:
    """Plan the shortened batch. Tensors on a device are copied to the host: the one wait there is.

    Args:
        input_ids: [B, L] with N placeholders for each image.
        attention_mask: [B, L], 1 for a real token; None = all are.
        tokens_per_image: N of each of the I images, in the order of the prompts.
        image_token_id: the placeholder's id.
        budgets: one per sample, shared over its images in proportion to their N.
        side: "left" for generation, "right" for training.
        method: what the method makes of them; by default it keeps what is asked.
        labels: [B, L], -100 where no token is learned. A question ends before the first label that is not: a
            selector must never read the answer.
        inserted: tokens that are none of the prompts' own, if there are any.
        companions: gives those of `Layout`, on the host, once prompts and images fit; by default one row of
            positions, counted over real tokens.
        orders: of each image, [N] int64 which of its placeholders, in the order of the prompt, belongs to each of its
            tokens, or None where they are in order; None if the placeholders of each image are in one run.

    Raises:
        InputError: if placeholders and images do not fit together, or a sample is empty.
        BudgetError: if the number of budgets is not the number of samples.
    """
    check_shapes(input_ids, attention_mask, labels)
    ids, real = on_host(input_ids, attention_mask)
    if len(budgets) != len(ids):
        raise BudgetError(f"{len(budgets)} token budgets for a batch of {len(ids)} samples: give one, or one each")
    foreign = (None,) * len(ids) if inserted is None else inserted.columns
    is_question = question_tokens(ids, real, image_token_id, labels, foreign)
    found = find_images(ids, real, image_token_id, tokens_per_image, orders)
    for sample, one in enumerate(found):
        _check_beside_images(sample, foreign[sample], one)
    prompts = tuple(
        _plan(one, budgets[sample], method, ids[sample][is_question[sample]], _hidden(inserted, sample))
        for sample, one in enumerate(found)
    )
    travelling = {"position_ids": _counted(prompts, ids.shape[1]), **(companions() if companions else {})}
    travelling["position_ids"] = travelling["position_ids"] - _behind_hidden(prompts, ids.shape[1])
    questions = _pad_right([np.flatnonzero(row) for row in is_question])
    return _lay_out(prompts, travelling, *questions, side, inserted)


def _hidden(inserted: Inserted | None, sample: int) -> int | None:
    """Return the column of a sample's token that no other reads; None without one."""
    return inserted.columns[sample] if inserted is not None and inserted.hidden else None


def _plan(
    found: FoundImages, budget: TokenBudget, method: MethodCounts, question: Columns, hidden: int | None
) -> PromptPlan:
    """Return what is kept of one prompt, given the ids of its question and the column of a hidden token."""
    counts = allocate_tokens(budget, found.sizes, method, found.images)
    place = None if hidden is None else int(np.searchsorted(found.columns, hidden))
    return PromptPlan(found.columns, found.places, counts.kept, budget, counts.asked, found.sizes, question, place)


def _check_beside_images(sample: int, column: int | None, found: FoundImages) -> None:
    """Refuse an inserted token among the placeholders of one image: what it reads would be a part of that.

    Raises:
        InputError: naming the sample and the image.
    """
    for image, places in enumerate(found.places):
        if column is not None and found.columns[places.min()] < column < found.columns[places.max()]:
            raise InputError(
                f"sample {sample} ends, or has its first label, among the placeholders of image {image}, where a "
                "latency token cannot be placed: set the labels of the prompt to -100, and do not truncate it"
            )


def _counted(prompts: Sequence[PromptPlan], width: int) -> Tensor:
    """Return each token's position in its unpadded prompt, [1, B, L]."""
    positions = np.zeros((1, len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        positions[0, row, prompt.columns] = np.arange(len(prompt.columns))
    return torch.from_numpy(positions)


def _behind_hidden(prompts: Sequence[PromptPlan], width: int) -> Tensor:
    """Return 1 at each token after one that takes no position of its own, [B, L]."""
    behind = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        if prompt.hidden_place is not None:
            behind[row, prompt.columns[prompt.hidden_place + 1 :]] = 1
    return torch.from_numpy(behind)


def with_keep_counts(layout: Layout, keep_counts: Sequence[int]) -> Layout:
    """Return the layout of the same prompts with other numbers of tokens kept. On the host; see `Layout.to`.

    Args:
        layout: of the batch, on the host.
        keep_counts: K of each image of the batch.
    """
    rest = iter(keep_counts)
    prompts = tuple(
        replace(prompt, keep_counts=tuple(next(rest) for _ in range(prompt.num_images))) for prompt in layout.prompts
    )
    questions = layout.question_columns, layout.question_mask
    return _lay_out(prompts, layout.companions, *questions, layout.side, layout.inserted)


def with_own_counts(layout: Layout, own_counts: Sequence[int]) -> Layout:
    """Return `with_keep_counts` for a method that set them itself: nothing else was asked for."""
    kept = with_keep_counts(layout, own_counts)
    prompts = tuple(replace(prompt, tokens_asked=sum(prompt.keep_counts)) for prompt in kept.prompts)
    return replace(kept, prompts=prompts)


def repeated(layout: Layout, times: int) -> Layout:
    """Return the layout of each prompt so many times in a row; a repeat's images are together, and are its own.

    Args:
        layout: on any device, without inserted tokens.
        times: at least 1.
    """
    if times == 1:
        return layout
    device, k_max = layout.vision_slots.device, max((*layout.keep_counts, 1))
    images, moved, first = [], [], 0
    for prompt in layout.prompts:
        own = list(range(first, first + prompt.num_images))
        images += own * times
        # Image g of the batch begins at number g + (times - 1) * first among the repeats'.
        moved += [((times - 1) * first + turn * len(own)) * k_max for turn in range(times)]
        first += len(own)
    rows = {
        name: getattr(layout, name).repeat_interleave(times, dim=0)
        for name in ("text_columns", "vision_slots", "mask", "attention_mask", "question_columns", "question_mask")
    }
    slots = rows["vision_slots"]
    rows["vision_slots"] = (slots + torch.tensor(moved).to(device).unsqueeze(1)).where(slots >= 0, slots)
    return replace(
        layout,
        prompts=tuple(prompt for prompt in layout.prompts for _ in range(times)),
        image_columns=layout.image_columns[torch.tensor(images, dtype=torch.int64).to(device)],
        companions={name: of.repeat_interleave(times, dim=-2) for name, of in layout.companions.items()},
        **rows,
    )


def _lay_out(
    prompts: tuple[PromptPlan, ...],
    companions: Mapping[str, Tensor],
    question_columns: Tensor,
    question_mask: Tensor,
    side: Side,
    inserted: Inserted | None,
) -> Layout:
    shape = (len(prompts), max(prompt.length for prompt in prompts))
    text_columns, mask, readable = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    vision_slots = np.full(shape, -1, dtype=np.int64)
    k_max = max((count for prompt in prompts for count in prompt.keep_counts), default=0)
    first_image = 0
    for row, prompt in enumerate(prompts):
        sources, slots = _trace(prompt, first_image, k_max)
        place = slice(shape[1] - prompt.length, None) if side == "left" else slice(0, prompt.length)
        text_columns[row, place] = prompt.columns[sources]
        vision_slots[row, place] = slots
        mask[row, place] = readable[row, place] = 1
        if prompt.hidden_place is not None:
            readable[row, place] -= (sources == prompt.hidden_place) & (slots < 0)
        first_image += prompt.num_images
    return Layout(
        prompts,
        torch.from_numpy(text_columns),
        torch.from_numpy(vision_slots),
        _image_columns(prompts),
        companions,
        torch.from_numpy(mask),
        torch.from_numpy(readable),
        question_columns,
        question_mask,
        side,
        inserted,
        scattered=any(np.any(np.diff(places) != 1) for prompt in prompts for places in prompt.image_places),
    )


def _image_columns(prompts: Sequence[PromptPlan]) -> Tensor:
    """Return the original column of each image's tokens, [I, N of the largest], zeros after them."""
    rows = [prompt.columns[places] for prompt in prompts for places in prompt.image_places]
    return _pad_right(rows)[0] if rows else torch.zeros((0, 0), dtype=torch.int64)


def _trace(prompt: PromptPlan, first_image: int, k_max: int) -> tuple[Columns, Columns]:
    """Return, for each token of one shortened prompt, its place in the unpadded prompt and its vision slot."""
    is_text = np.ones(len(prompt.columns), dtype=bool)
    sources, slots = [], []
    for image, (places, count) in enumerate(zip(prompt.image_places, prompt.keep_counts, strict=True)):
        is_text[places] = False
        sources.append(np.full(count, places.min()))
        slots.append((first_image + image) * k_max + np.arange(count))
    text = np.flatnonzero(is_text)
    traced = np.concatenate([text, *sources]).astype(np.int64)
    order = np.argsort(traced, kind="stable")
    return traced[order], np.concatenate([np.full(len(text), -1), *slots]).astype(np.int64)[order]


def _pad_right(rows: Sequence[Columns]) -> tuple[Tensor, Tensor]:
    """Return the rows as one tensor, and where it holds their values."""
    width = max(len(row) for row in rows)
    padded = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
        mask[index, : len(row)] = True
    return torch.from_numpy(padded), torch.from_numpy(mask)
