"""A family as far as `assemble` asks."""

from torch import Tensor


class TextOnly:
    pad_token_id = 0

    def embed_text(self, input_ids: Tensor) -> Tensor:
        return input_ids.unsqueeze(-1).float()
