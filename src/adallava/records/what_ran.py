"""What ran for one answer: made in one place by the pipeline, and held wherever an answer is kept or shown."""

from fractions import Fraction
from typing import Any

from pydantic import Field

from adallava.records.estimates import Record
from adallava.records.names import FULL_LATENCY, FinishReason, PositionsName


class WhatRan(Record):
    """What was asked of one answer, what was kept and run for it, and how long prompt and answer were."""

    method: str
    """The method that chose; `full` for none."""
    budget_asked: str
    """In the form `TokenBudget` prints; `none` for a method that ignores it."""
    positions: PositionsName
    """Position ids of the kept tokens."""
    num_vision_tokens: int
    """N, over all images of the sample."""
    tokens_asked: int
    """K the budget resolves to."""
    tokens_planned: int
    """K that the method says it will keep: less for a `RoundingMethod`."""
    tokens_kept: int
    """Vision tokens that entered the LLM's first layer: all N, for a method inside the LLM."""
    tokens_kept_by_layer: tuple[int, ...] | None = None
    """Vision tokens that each LLM layer read, for a method inside the LLM; None where every layer reads
    `tokens_kept`."""
    kept_indices: tuple[tuple[int, ...], ...]
    """Per image, the patches kept at the end, ascending; for a merging method, those that hold the merged tokens."""
    grids: tuple[tuple[int, int], ...]
    """(rows, columns) of each image's tokens, N together. The model may take an image apart, whole and in tiles. Empty
    where a file does not say; all images then have equally many tokens."""
    whole_images: tuple[int, ...] = (0,)
    """For each image of the prompt, which of its parts shows all of it (with tiles, the whole)."""
    scheduler: str | None = None
    """The model's; `groups_run` says whether it left anything out."""
    latency_asked: str = FULL_LATENCY
    """In the form `Latency` prints."""
    groups_run: tuple[tuple[int, ...], ...] | None = None
    """For each LLM layer, the groups of heads that ran: `(0,)` or `()` where a layer is one group. None = all."""
    groups_per_layer: int = 1
    """Groups that each layer is split into."""
    latency_tokens: int = 0
    """Latency tokens in the prompt, where a learned scheduler chose; `prompt_length` counts them."""
    merged: bool
    """True for a method that combines patches: what `kept_indices` leaves out is not lost."""
    chosen_per_sample: bool
    """True for a method whose choice depends on the sample; False for a fixed grid."""
    prompt_length: int
    """Tokens of the prompt that entered the LLM, vision tokens included, padding excluded."""
    answer_length: int
    """New tokens, EOS included, padding excluded."""
    finish_reason: FinishReason | None
    """None if nothing was generated."""

    window_tokens: int | None = None
    """The LLM's narrowest sliding window, which counts the tokens that were kept; see `window_reaches_further`. None
    for an LLM without one, and in older files."""
    engine: str | None = None
    """Engine that ran the LLM; None where a file does not say, or nothing ran."""

    # Of the call alone: no file of a run folder holds them.
    score_range: tuple[float, float] | None = Field(default=None, exclude=True)
    """Lowest and highest score over the sample's images, for methods that score."""
    tower_runs: tuple[int, ...] = Field(default=(), exclude=True)
    """How often the tower runs for each image: 1, or once per tile."""
    passed_over: str = Field(default="", exclude=True)
    """Why no engine before it in the order of preference ran; empty if there was none."""
    text_behind_images: tuple[int, ...] = Field(default=(), exclude=True)
    """Text tokens that may judge each image, for a method inside the LLM."""

    @classmethod
    def nothing(cls, **asked: Any) -> "WhatRan":
        """Return the record of an answer that failed: what was asked, and all counts 0."""
        return cls(
            **asked,
            num_vision_tokens=0,
            tokens_asked=0,
            tokens_planned=0,
            tokens_kept=0,
            kept_indices=(),
            grids=(),
            merged=False,
            chosen_per_sample=False,
            prompt_length=0,
            answer_length=0,
            finish_reason="error",
        )

    @property
    def tokens_per_image(self) -> list[int]:
        """N of each image."""
        if self.grids:
            return [rows * columns for rows, columns in self.grids]
        images = max(1, len(self.kept_indices))
        return [self.num_vision_tokens // images] * images

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer read: what the budget's K counts."""
        return self.tokens_kept_by_layer[-1] if self.tokens_kept_by_layer else self.tokens_kept

    @property
    def window_reaches_further(self) -> bool:
        """Whether some token saw further back than in the full prompt with the dropped tokens masked."""
        dropped = self.num_vision_tokens - self.tokens_at_end
        full_length = self.prompt_length + self.answer_length + self.num_vision_tokens - self.tokens_kept
        return self.window_tokens is not None and dropped > 0 and full_length > self.window_tokens

    @property
    def tokens_kept_layer_average(self) -> float:
        """Vision tokens that a layer read, on average over the LLM's layers."""
        by_layer = self.tokens_kept_by_layer
        return sum(by_layer) / len(by_layer) if by_layer else float(self.tokens_kept)

    @property
    def layer_shares(self) -> tuple[Fraction, ...] | None:
        """The share of each LLM layer that ran; None where all ran."""
        run = self.groups_run
        return None if run is None else tuple(Fraction(len(groups), self.groups_per_layer) for groups in run)

    @property
    def layer_share(self) -> float:
        """Share of the LLM's layers that ran, groups of heads counted as parts of a layer."""
        run = self.groups_run
        return 1.0 if run is None else sum(map(len, run)) / (len(run) * self.groups_per_layer)
