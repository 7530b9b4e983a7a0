"""The latency token's place in a batch: it is put into the prompt before anything is planned, as a token of text.

    prompt and answer, padded on the left        -  -  t  I  I  t  u  | a  b
    with a free token, behind the prompt         -  -  t  I  I  t  u  ?  | a  b
    with one that observes, `u` beforehand       -  -  t  I  I  t  u  u  | a  b
                                       hidden                      ^
    labels                                       -100 …           -100  a  b
    of a sample that runs everything             -  -  t  I  I  t  u  -  | a  b      (a padded column)

So ids, mask, labels, positions and lengths around it are made where those of every other token are made. A token that
observes reads what stands before the prompt's last token, which it copies; no other token reads it, and it shares its
position with that last one. What is answered is what the same layers answer without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.pipeline.layout import IGNORED_LABEL, Layout, check_shapes


@dataclass(frozen=True)
class WithLatencyTokens:
    """A batch with one column more, on the host.

    Attributes:
        input_ids: [B, L + 1].
        attention_mask: [B, L + 1].
        labels: [B, L + 1] or None.
        columns: of each sample, the column of its latency token; None without.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None
    columns: tuple[int | None, ...]


def insert_latency_tokens(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    wanted: Sequence[bool],
    *,
    observing: bool,
    image_token_id: int,
    pad_token_id: int,
) -> WithLatencyTokens:
    """Put a token at the end of the prompt, before the first label.

    Its id is that of the prompt's last text token, or the padding's if there is none.

    Args:
        input_ids: [B, L].
        attention_mask: [B, L] or None.
        labels: [B, L] or None.
        wanted: for each sample, whether it gets a token.
        observing: put it before the prompt's last token (before its last images, if it ends with them) instead of
            behind it.
        image_token_id: of the placeholders.
        pad_token_id: for a prompt without text.

    Raises:
        InputError: for shapes that do not fit, or a wanted token without any prompt.
    """
    check_shapes(input_ids, attention_mask, labels)
    ids = input_ids.cpu()
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask.cpu().to(torch.int64)
    targets = torch.full_like(ids, IGNORED_LABEL) if labels is None else labels.cpu()
    rows, columns = [], []
    for sample, is_wanted in enumerate(wanted):
        end = _end_of_prompt(mask[sample], targets[sample])
        if is_wanted and not mask[sample, :end].any():
            raise InputError(
                f"sample {sample} has no prompt before its first label, and a latency token must have something to "
                "read: set the labels of the prompt to -100"
            )
        text = ids[sample, :end][mask[sample, :end].bool() & (ids[sample, :end] != image_token_id)]
        place = _before_the_last(ids[sample, :end], mask[sample, :end], image_token_id) if observing else end
        token = int(text[-1]) if is_wanted and len(text) else pad_token_id
        rows.append(
            (
                _inserted(ids[sample], place, token),
                _inserted(mask[sample], place, int(is_wanted)),
                _inserted(targets[sample], place, IGNORED_LABEL),
            )
        )
        columns.append(place if is_wanted else None)
    new_ids, new_mask, new_labels = (torch.stack(tensors) for tensors in zip(*rows, strict=True))
    return WithLatencyTokens(new_ids, new_mask, None if labels is None else new_labels, tuple(columns))


def _end_of_prompt(mask: Tensor, labels: Tensor) -> int:
    """Return the column behind the last token of the prompt."""
    learned = (labels != IGNORED_LABEL).nonzero()
    if len(learned):
        return int(learned[0])
    real = mask.nonzero()
    return int(real[-1]) + 1 if len(real) else len(mask)


def _before_the_last(ids: Tensor, mask: Tensor, image_token_id: int) -> int:
    """Return the column of a prompt's last token, or of the first of the placeholders that it ends with."""
    real = mask.nonzero().flatten()
    if len(real) == 0:
        return len(ids)
    texts = (ids[real] != image_token_id).nonzero().flatten()
    last = (
        len(real) - 1 if len(texts) and int(texts[-1]) == len(real) - 1 else (int(texts[-1]) + 1 if len(texts) else 0)
    )
    return int(real[last])


def _inserted(row: Tensor, place: int, value: int) -> Tensor:
    return torch.cat([row[:place], row.new_tensor([value]), row[place:]])


def add_latency(layout: Layout, embeds: Tensor, latency_embeds: Tensor | None, *, alone: bool = False) -> Tensor:
    """Add each sample's encoded latency to the embedding at its latency token, [B, Lc, D].

    Args:
        layout: of the batch.
        embeds: [B, Lc, D].
        latency_embeds: [B, D]; of a sample without latency token, unread. None for a batch without any.
        alone: put it in place of the embedding there instead.
    """
    if latency_embeds is None or layout.latency_places is None:
        return embeds
    columns = torch.arange(embeds.shape[1], device=embeds.device)
    there = columns == layout.latency_places.unsqueeze(1)
    token = latency_embeds.to(embeds.dtype).unsqueeze(1)
    return torch.where(there.unsqueeze(-1), token if alone else embeds + token, embeds)
