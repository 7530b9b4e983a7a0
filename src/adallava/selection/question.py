"""`question`: a small scorer that reads the patches, the budget and the question.

Trained by policy gradient, which needs forward passes through the base only. The scorer's own inputs are
detached from the tower, so that it can never make the tower carry a signal for it.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.selection.base import Method
from adallava.selection.selector_contract import Selection, SelectionInput, TowerShape, keep_highest

SCORE_BOUND = 8.0
"""Scores are squashed into (-8, 8): unbounded ones grow until no exploration noise can change a choice."""

_POSITION_FREQUENCIES = 8
_BUDGET_FREQUENCIES = 8


class QuestionEncoder(nn.Module):
    """Turns a question's token embeddings, [I, T, D], into `num_heads` pooled vectors, [I, H, E].

    A window of three tokens binds neighbors ("red circle") before learned queries pool over the question.
    """

    def __init__(self, llm_width: int, width: int, num_heads: int) -> None:
        """Make fresh weights."""
        super().__init__()
        self.embed_in = nn.Linear(llm_width, width)
        self.window = nn.Linear(3 * width, width)
        self.queries = nn.Parameter(torch.randn(num_heads, width) / math.sqrt(width))

    def forward(self, question_embeds: Tensor, question_mask: Tensor) -> Tensor:
        """Return [I, H, E]; zeros for a question without a token."""
        present = question_mask.unsqueeze(-1)
        normed = F.layer_norm(question_embeds, question_embeds.shape[-1:])
        tokens = F.silu(self.embed_in(normed)) * present
        # Zeros beyond both ends, as at padding: a row's result does not depend on how far it is padded.
        before = F.pad(tokens, (0, 0, 1, 0))[:, :-1]
        after = F.pad(tokens, (0, 0, 0, 1))[:, 1:]
        tokens = F.silu(tokens + self.window(torch.cat([before, tokens, after], dim=-1)))
        attention = (tokens @ self.queries.to(tokens.dtype).T).transpose(1, 2) / math.sqrt(tokens.shape[-1])
        attention = attention.masked_fill(~question_mask.unsqueeze(1), torch.finfo(attention.dtype).min)
        pooled: Tensor = attention.softmax(dim=-1) @ (tokens * present)
        return pooled


class QuestionSelector(Method, nn.Module):
    """Scores each patch by an MLP that the question modulates (FiLM), and keeps the K highest.

    Two rounds: the first scores patches one by one; the second also sees a summary of what the first round
    looked at, so that a patch can be judged against the others. Besides FiLM, each patch is matched against
    `num_heads` queries pooled from the question, so that "red" in it can point at red patches directly.

    Args:
        shape: C and D are what the weights are made for; N and the grid may be any at run time.
        width: W, of the MLP's hidden layers.
        question_width: E, of the question's encoding.
        film_width: of the layer between the question's encoding and FiLM's scales and shifts.
        match_width: M, of the space in which patches and queries are compared.
        num_heads: H, queries pooled from the question.
    """

    name: ClassVar[str] = "question"
    learned: ClassVar[bool] = True

    def __init__(
        self,
        shape: TowerShape,
        *,
        width: int = 160,
        question_width: int = 96,
        film_width: int = 128,
        match_width: int = 48,
        num_heads: int = 8,
    ) -> None:
        """Make fresh weights; all scores start near 0, that is, the choice starts near random."""
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "question_width": question_width,
            "film_width": film_width,
            "match_width": match_width,
            "num_heads": num_heads,
        }
        self.question = QuestionEncoder(shape.llm_width, question_width, num_heads)
        self.film_in = nn.Linear(num_heads * question_width, film_width)
        self.film_out = nn.Linear(film_width, 4 * width)
        self.match_queries = nn.Linear(question_width, match_width)
        self.match_keys = nn.Linear(shape.vision_width, match_width)
        self.from_patch = nn.Linear(shape.vision_width, width)
        self.from_position = nn.Linear(4 * _POSITION_FREQUENCIES, width, bias=False)
        self.from_budget = nn.Linear(2 * _BUDGET_FREQUENCIES, width, bias=False)
        self.from_match = nn.Linear(num_heads, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.first_score = nn.Linear(width, 1)
        self.from_first = nn.Linear(width, width)
        self.from_summary = nn.Linear(width, width, bias=False)
        self.second_score = nn.Linear(width, 1)
        for start_small in (self.film_out, self.first_score, self.second_score):
            nn.init.normal_(start_small.weight, std=0.02)
            nn.init.zeros_(start_small.bias)

    def scores(self, inputs: SelectionInput) -> Tensor:
        """Return the patches' scores, [I, N] float32, centered and within (-8, 8)."""
        dtype = self.from_patch.weight.dtype
        features = inputs.features.detach().to(dtype)
        features = F.layer_norm(features, features.shape[-1:])
        pooled = self.question(inputs.question_embeds.detach().to(dtype), inputs.question_mask)
        film = self.film_out(F.silu(self.film_in(pooled.flatten(1)))).unsqueeze(1)
        scale_1, shift_1, scale_2, shift_2 = film.chunk(4, dim=-1)

        entered = self._enter(features, pooled, inputs)
        first = F.silu(entered * (1 + scale_1) + shift_1)
        first = F.silu(self.hidden(first) * (1 + scale_2) + shift_2)
        first_scores = self.first_score(first)
        summary = first_scores.float().softmax(dim=1).to(first.dtype).transpose(1, 2) @ first
        second = F.silu(self.from_first(first) + self.from_summary(summary))
        return _bounded((first_scores + self.second_score(second)).squeeze(-1))

    def _enter(self, features: Tensor, pooled: Tensor, inputs: SelectionInput) -> Tensor:
        num_tokens = features.shape[1]
        position = position_features(inputs.grid, features.device).to(features.dtype)
        position = position.expand(len(features), -1, -1)
        budget = budget_features(inputs.budget_ratios * num_tokens).to(features.dtype)
        queries, keys = self.match_queries(pooled), self.match_keys(features)
        match = keys @ queries.transpose(1, 2) / math.sqrt(keys.shape[-1])
        entered: Tensor = (
            self.from_patch(features)
            + self.from_position(position)
            + self.from_budget(budget).unsqueeze(1)
            + self.from_match(match)
        )
        return entered

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        scores = self.scores(inputs)
        return keep_highest(scores, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the matrix products for one image with a question of T tokens."""
        num_patches, num_tokens = shape.num_vision_tokens, num_question_tokens
        width, question_width = self.config["width"], self.config["question_width"]
        match_width, heads = self.config["match_width"], self.config["num_heads"]
        film_width = self.config["film_width"]
        per_question_token = shape.llm_width * question_width + 3 * question_width**2 + 2 * heads * question_width
        per_image = (
            heads * question_width * film_width
            + film_width * 4 * width
            + heads * question_width * match_width
            + 2 * _BUDGET_FREQUENCIES * width
            + width * width
        )
        per_patch = (
            shape.vision_width * (width + match_width)
            + 4 * _POSITION_FREQUENCIES * width
            + heads * (match_width + width)
            + 2 * width * width
            + 3 * width
        )
        return int(2 * (num_tokens * per_question_token + per_image + num_patches * per_patch))


def position_features(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return fixed sines and cosines of each patch's row and column, [N, 32] float32.

    Coordinates are the patch centers in (0, 1); wavelengths run from twice the image down to a 64th of that.
    """
    axes = [(torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size for size in grid]
    rows, columns = torch.meshgrid(axes[0], axes[1], indexing="ij")
    steps = torch.arange(_POSITION_FREQUENCIES, device=device, dtype=torch.float32)
    frequencies = math.pi * 2.0 ** (steps * 6.0 / (_POSITION_FREQUENCIES - 1))
    angles = torch.stack([rows.flatten(), columns.flatten()], dim=-1)[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)


def budget_features(keep_counts: Tensor) -> Tensor:
    """Return sines and cosines of log2 K at eight frequencies, [I, 16] float32.

    Args:
        keep_counts: [I], K as a float; 0 counts as 1.
    """
    steps = torch.arange(_BUDGET_FREQUENCIES, device=keep_counts.device, dtype=torch.float32)
    angles = keep_counts.float().clamp_min(1.0).log2()[:, None] * (math.pi / 16.0 * 2.0 ** (steps / 2.0))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _bounded(raw: Tensor) -> Tensor:
    raw = raw.float()
    centred = raw - raw.mean(dim=1, keepdim=True)
    return SCORE_BOUND * torch.tanh(centred / SCORE_BOUND)
