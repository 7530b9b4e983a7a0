"""What tokens read of those after them, such as those of their own image, in the masks of prompts that have lost some.

entered       plain         more than     columns 0, 2, 3 are left
t 1 0 0 0     t 1 0 0 0     t 0 0 0 0     t 1 0 0
v 1 1 1 0     v 1 1 0 0     v 0 0 1 0     v 1 1 0
v 1 1 1 0     v 1 1 1 0     v 0 0 0 0     t 1 1 1
t 1 1 1 1     t 1 1 1 1     t 0 0 0 0
"""

import torch
from torch import Tensor


def keep_reading_ahead(own: Tensor, entered: Tensor, plain: Tensor, columns: Tensor, real: Tensor) -> Tensor:
    """Return the mask of the tokens that are left, which still read what they did beyond plain causal attention.

    Masks are bool, or what is added to scores: 0 where a token is read.

    Args:
        own: [B, 1, S', T] with T at least S', the plain mask of the S' tokens that are left.
        entered: [B or 1, 1, S, T0], the stock model's of the S tokens that entered the LLM.
        plain: [B or 1, 1, S, T0], theirs by plain causal attention.
        columns: [B, S'] int64, which of them are left; of padding any.
        real: [B, S'] bool, which are not padding.
    """
    more = _is_read(entered) & ~_is_read(plain)
    rows, left = columns.shape
    more = more.expand(rows, -1, -1, -1).squeeze(1)
    more = more.gather(1, columns.unsqueeze(2).expand(-1, -1, more.shape[2]))
    more = more.gather(2, columns.unsqueeze(1).expand(-1, left, -1))
    more = more & real.unsqueeze(1) & real.unsqueeze(2)
    more = torch.nn.functional.pad(more, (0, own.shape[-1] - left)).unsqueeze(1)
    return own | more if own.dtype == torch.bool else own.masked_fill(more, 0.0)


def _is_read(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask == 0
