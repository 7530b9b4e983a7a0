"""The latency token's place in a batch: it is put into the prompt before anything is planned, as a token of text.

    prompt and answer, padded on the left        -  -  t  I  I  t  u  | a  b
    with a free token, after the prompt         -  -  t  I  I  t  u  ?  | a  b
    with one that observes, `u` beforehand       -  -  t  I  I  t  u  u  | a  b
                                       hidden                      ^
    labels                                       -100 …           -100  a  b
    of a sample that runs everything             -  -  t  I  I  t  u  -  | a  b      (a padded column)

So ids, mask, labels, positions and lengths around it are made where those of every other token are made. A token that
observes reads what comes before the prompt's last token, which it copies; no other token reads it, and it shares its
position with that last one. What is answered is what the same layers answer without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.families.family_contract import Family
from adallava.pipeline.call import Request
from adallava.pipeline.layout import Inserted, Layout
from adallava.pipeline.read_prompts import IGNORED_LABEL, check_shapes
from adallava.scheduling.scheduler_contract import Scheduler, TokenScheduler, Units


@dataclass(frozen=True)
class WithLatencyTokens:
    """A batch with one column more, on the host.

    Attributes:
        input_ids: [B, L + 1].
        attention_mask: [B, L + 1].
        labels: [B, L + 1] or None.
        inserted: where the tokens are.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None
    inserted: Inserted


@dataclass(frozen=True)
class LatencyTokens:
    """What the latency tokens of one call say.

    Attributes:
        embeds: [B, D] on the device; of a sample without one, unread.
        alone: True if they replace the embedding there, False if they are added to it.
    """

    embeds: Tensor
    alone: bool

    def put_into(self, layout: Layout, embeds: Tensor) -> Tensor:
        """Return the input embeddings, [B, Lc, D], with what the tokens say at their places."""
        return add_latency(layout, embeds, self.embeds, alone=self.alone)


def has_token(scheduler: Scheduler, unit_count: int, units: Units) -> bool:
    """Return whether the prompt of a sample that runs so many units gets a latency token."""
    return isinstance(scheduler, TokenScheduler) and (scheduler.free_token or unit_count < units.count)


def with_tokens(family: Family, scheduler: Scheduler, request: Request, counts: Sequence[int], units: Units) -> Request:
    """Return the request with a latency token in each prompt that gets one.

    Args:
        family: the model.
        scheduler: of its layers.
        request: as it was made.
        counts: units that each sample runs.
        units: that there are.

    Raises:
        InputError: as `insert_latency_tokens`.
    """
    if not isinstance(scheduler, TokenScheduler):
        return request
    made = insert_latency_tokens(
        request.input_ids,
        request.attention_mask,
        request.labels,
        [has_token(scheduler, count, units) for count in counts],
        observing=not scheduler.free_token,
        image_token_id=family.image_token_id,
        pad_token_id=family.pad_token_id,
    )
    return replace(
        request,
        input_ids=made.input_ids,
        attention_mask=made.attention_mask,
        labels=made.labels,
        inserted=made.inserted,
    )


def latency_tokens(
    scheduler: Scheduler, counts: Sequence[int], units: Units, device: torch.device
) -> LatencyTokens | None:
    """Return what the latency tokens say; None for a scheduler without them. Arguments as for `with_tokens`."""
    if not isinstance(scheduler, TokenScheduler):
        return None
    shares = torch.tensor([units.share(count) for count in counts], dtype=torch.float32)
    return LatencyTokens(scheduler.latency_token(shares.to(device, non_blocking=True)), alone=scheduler.free_token)


def token_places(layout: Layout) -> Tensor | None:
    """Return the column of each sample's latency token in the shortened batch, [B] int64; -1 for one without.

    None for a batch without any. Waits for nothing.
    """
    if layout.inserted is None or all(column is None for column in layout.inserted.columns):
        return None
    columns = torch.tensor([-1 if column is None else column for column in layout.inserted.columns])
    columns = columns.to(layout.mask.device, non_blocking=True)
    is_text = (layout.mask == 1) & (layout.vision_slots < 0)
    there = is_text & (layout.text_columns == columns.unsqueeze(1))
    return torch.where(there.any(dim=1), there.to(torch.int64).argmax(dim=1), -1)


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
            after it.
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
    return WithLatencyTokens(
        new_ids, new_mask, None if labels is None else new_labels, Inserted(tuple(columns), hidden=observing)
    )


def _end_of_prompt(mask: Tensor, labels: Tensor) -> int:
    """Return the column after the last token of the prompt."""
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


def add_latency(layout: Layout, embeds: Tensor, latency_embeds: Tensor, *, alone: bool = False) -> Tensor:
    """Add each sample's encoded latency to the embedding at its latency token, [B, Lc, D].

    Args:
        layout: of the batch.
        embeds: [B, Lc, D].
        latency_embeds: [B, D]; of a sample without latency token, unread.
        alone: put it in place of the embedding there instead.
    """
    places = token_places(layout)
    if places is None:
        return embeds
    columns = torch.arange(embeds.shape[1], device=embeds.device)
    there = columns == places.unsqueeze(1)
    token = latency_embeds.to(embeds.dtype).unsqueeze(1)
    return torch.where(there.unsqueeze(-1), token if alone else embeds + token, embeds)
