"""`mmtok`: the K tokens that cover both the question's words and the image."""

import re
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.greedy import choose_greedily
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape

_WORD = re.compile(r"\b\w+\b")

_SUFFIXES = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
)
"""What LLaVA's benchmarks append; the code takes them out."""

_NOT_VISUAL_LINE = (
    "a an and answer are at be been being but by did do does for from had has have he how i if into is it onto or "
    "question she so the then they to upon was we were what when where which who why with you"
)
_NOT_VISUAL = frozenset(_NOT_VISUAL_LINE.split(" "))
"""Words that name nothing in an image, as the code lists them."""


class MMTokSelector(Method):
    """Greedy maximum coverage: each pick adds most to how well the kept tokens cover words and image.

    MMTok (Dong et al., section 3, arXiv 2508.18264; code Ironieser/MMTok, `SemanticTokenSelector`). Coverage of a word
    is its softmaxed cosine with the best kept token after the projector; of a patch, the same before the projector;
    the image counts `alpha`. As in the code, words are the LLM's own input embeddings, without those
    that name nothing visible: no text tower is needed.

    Differs from the code: no patches are excluded as padding (stock processors crop and do not pad); a question
    without words covers the image alone; ascending indices (so the code).

    Cost: K steps of about five kernels over [I, W + N, N]: at N = 576 the reads are 1.4 MB an image and step.

    Args:
        alpha: weight of covering the image.
        word_temperature: of the softmax between words and tokens.
        patch_temperature: of the softmax between tokens.

    Raises:
        InputError: for a temperature that is not above 0, or a negative weight.
    """

    name: ClassVar[str] = "mmtok"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.PROJECTED, Need.WORDS})

    def __init__(self, *, alpha: float = 0.5, word_temperature: float = 0.02, patch_temperature: float = 0.2) -> None:
        """Hold the weights; the defaults are the code's."""
        if min(word_temperature, patch_temperature) <= 0:
            raise InputError(f"mmtok: temperatures {word_temperature} and {patch_temperature} must be above 0")
        if alpha < 0:
            raise InputError(f"mmtok: alpha is {alpha}; as a weight it must be at least 0")
        self._alpha, self._word_temperature, self._patch_temperature = alpha, word_temperature, patch_temperature

    def words(self, question: str) -> list[str]:
        """Return the question's words without those that name nothing visible; all of them if none is left."""
        for suffix in _SUFFIXES:
            question = question.replace(suffix, "")
        visual = [word for word in _WORD.findall(question) if word.lower() not in _NOT_VISUAL]
        return visual or question.split()

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        return choose_greedily(self, inputs)

    def order(self, table: Tensor, steps: int) -> Tensor:
        """Return the first picks, [I, steps] int64."""
        return cover_order(table, steps)

    def table(self, inputs: SelectionInput) -> tuple[Tensor, None]:
        """Return how well each token covers each word and patch, [I, N, W + N]."""
        assert inputs.projected is not None
        assert inputs.word_embeds is not None
        assert inputs.word_mask is not None
        words = F.normalize(inputs.word_embeds.float(), dim=-1)
        projected = F.normalize(inputs.projected.float(), dim=-1)
        patches = F.normalize(inputs.features.float(), dim=-1)
        of_words = (words @ projected.transpose(1, 2) / self._word_temperature).softmax(dim=-1)
        counts = inputs.word_mask.sum(dim=1).clamp_min(1)[:, None, None]
        of_words = of_words * inputs.word_mask.unsqueeze(-1) / counts
        of_patches = (patches @ patches.transpose(1, 2) / self._patch_temperature).softmax(dim=-1)
        covers = torch.cat([of_words, of_patches * (self._alpha / patches.shape[1])], dim=1)
        return covers.transpose(1, 2).contiguous(), None

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of words with tokens and of tokens with each other.

        The projector over N tokens counts as projector.
        """
        num_tokens = shape.num_vision_tokens
        if keep_count in (0, num_tokens):
            return 0
        return 2 * num_tokens * (num_question_tokens * shape.llm_width + num_tokens * shape.vision_width)


def cover_order(coverage: Tensor, steps: int) -> Tensor:
    """Return the first picks of greedy maximum coverage, [I, steps] int64.

    Args:
        coverage: [I, N, M] >= 0, how well each of N tokens covers each of M things.
        steps: how many picks.
    """
    covered = torch.zeros_like(coverage[:, :1])
    blocked = torch.zeros_like(coverage[..., 0])
    picks: list[Tensor] = []
    for _ in range(steps):
        gains = (coverage - covered).clamp_min_(0).sum(dim=-1) + blocked
        pick = gains.argmax(dim=1, keepdim=True)
        picks.append(pick)
        blocked = blocked.scatter(1, pick, -float("inf"))
        own = coverage.gather(1, pick.unsqueeze(2).expand(-1, 1, coverage.shape[2]))
        covered = torch.maximum(covered, own)
    return torch.cat(picks, dim=1)
