"""The question's words, on the host, for methods that read them: some words' embeddings, or the whole as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adallava.families.family_contract import Family, TextTower
from adallava.pipeline.layout import Layout
from adallava.selection.selector_contract import WordsMethod


@dataclass(frozen=True)
class Wording:
    """How questions are written for this model.

    Attributes:
        tokenizer: the LLM's.
        prefix: what a prompt has before its question, images left out.
        suffix: what it has after it.
    """

    tokenizer: Any
    prefix: str = ""
    suffix: str = ""

    def questions(self, layout: Layout) -> tuple[str, ...]:
        """Return each sample's question without the template around it. Reads nothing from the device."""
        return tuple(self._question(prompt.question_ids.tolist()) for prompt in layout.prompts)

    def _question(self, ids: list[int]) -> str:
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
        return text.removeprefix(self.prefix).removesuffix(self.suffix).strip()

    def word_ids(self, words: Sequence[str]) -> list[int]:
        """Return the token ids of single words, without a token for the beginning of a text."""
        if not words:
            return []
        ids = self.tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)["input_ids"]
        return [int(token) for token in ids]


@dataclass(frozen=True)
class Language:
    """What a method that reads the question's words needs of the model.

    Attributes:
        wording: from token ids to the question and to single words.
        text_tower: for methods that compare the question with patches.
    """

    wording: Wording
    text_tower: TextTower | None = None


def embed_words(
    family: Family, selector: WordsMethod, questions: Sequence[str], wording: Wording
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Return the input embeddings of the words a method picks, [B, W, D], a mask, [B, W], W >= 1, and W of each.

    Args:
        family: the model.
        selector: picks them.
        questions: one per sample.
        wording: of this model.
    """
    rows = [wording.word_ids(selector.words(question)) for question in questions]
    width = max(1, *(len(row) for row in rows)) if rows else 1
    ids = torch.tensor([row + [family.pad_token_id] * (width - len(row)) for row in rows], dtype=torch.int64)
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    device = family.device
    embeds = family.embed_text(ids.to(device, non_blocking=True))
    return embeds, mask.to(device, non_blocking=True), tuple(map(len, rows))
