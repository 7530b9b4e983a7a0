"""What a selection method is given, and what it gives back. Pure tensors: no host, no I/O, no model.

One row is one image. `keep_counts` is known on the host before the tower runs, so nothing here ever waits for
the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from adallava.errors import AdallavaError


class Need(StrEnum):
    """What a method reads beyond features, question and seed. The family makes it only for methods that ask.

    A model that lacks one is refused when model and method are put together, see `families.needs.check_needs`.
    """

    BUDGET_TOKEN = "budget-token"
    """`budget_features`; the method is a `BudgetTokenMethod`."""
    CLS_TOKEN = "cls-token"
    """A class token in the tower, whose query is then in the `TowerLayer`s."""
    FEATURE_LAYER = "feature-layer"
    """`feature_layer`: keys of the tower layer that puts out the features."""
    ATTENTION_RECEIVED = "attention-received"
    """`attention_received`: what patches get of attention in some layers of any tower; the method is an
    `AttentionMethod`."""
    LAST_LAYER = "last-layer"
    """`last_layer`: keys of the tower's last layer."""
    PROJECTED = "projected"
    """`projected`: the projector runs over all N tokens before the choice, and over none after it."""
    WORDS = "words"
    """`word_embeds`: some words of the question; the method is a `WordsMethod`."""
    TEXT_TOWER = "text-tower"
    """`text_relevance`; the method is a `TextTowerMethod`, and names a checkpoint with a text tower."""
    RESIZED_PICTURE = "resized-picture"
    """A smaller image through the tower; the method is a `ResizingMethod`."""


@dataclass(frozen=True)
class TowerShape:
    """Shapes a selector is built for and counts its cost with.

    Attributes:
        num_vision_tokens: N, patches per image.
        vision_width: C, width of the tower's features.
        llm_width: D, width of the LLM's embeddings.
        grid: (rows, columns) of the patches; rows * columns = N.
        tower_width: width of one tower layer; None = C. They differ where features of several layers are joined.
        tower_heads: attention heads of a tower layer. Weights depend on neither: they take no part in comparisons.
    """

    num_vision_tokens: int
    vision_width: int
    llm_width: int
    grid: tuple[int, int]
    tower_width: int | None = field(default=None, compare=False)
    tower_heads: int = field(default=1, compare=False)

    def of_grid(self, grid: tuple[int, int]) -> "TowerShape":
        """Return the shape for an image of (rows, columns) tokens, where a model's images differ."""
        return replace(self, num_vision_tokens=grid[0] * grid[1], grid=grid)

    @property
    def layer_width(self) -> int:
        """Width of one tower layer."""
        return self.vision_width if self.tower_width is None else self.tower_width

    @property
    def head_width(self) -> int:
        """Width of one attention head of the tower."""
        return self.layer_width // self.tower_heads


@dataclass(frozen=True)
class TowerLayer:
    """What one layer of the tower compares: queries and keys after their projections, heads side by side.

    Attributes:
        keys: [I, S, C] of every token, the class token first if there is one: S = 1 + N, or N.
        cls_query: [I, C] of the class token; None in a tower without one.
        num_heads: that C is split among.
    """

    keys: Tensor
    cls_query: Tensor | None
    num_heads: int

    @property
    def patch_keys(self) -> Tensor:
        """Keys of the patches alone, [I, N, C]."""
        return self.keys if self.cls_query is None else self.keys[:, 1:]

    @property
    def mean_patch_keys(self) -> Tensor:
        """Keys of the patches, averaged over the heads, [I, N, C / heads] float32."""
        keys = self.patch_keys.float()
        return keys.reshape(*keys.shape[:2], self.num_heads, -1).mean(dim=2)

    def of_image(self, image: int, num_tokens: int) -> "TowerLayer":
        """Return the same layer for one image of `num_tokens` tokens, in memory of its own."""
        length = num_tokens if self.cls_query is None else num_tokens + 1
        query = None if self.cls_query is None else self.cls_query[image : image + 1].clone()
        return replace(self, keys=self.keys[image : image + 1, :length].clone(), cls_query=query)

    def cls_attention(self, num_heads: int | None = None) -> Tensor:
        """Return how much the class token looks at each patch, [I, heads, N] float32.

        What is left of the softmax over all S tokens: a row sums to 1 less what the class token gives itself.

        Args:
            num_heads: to split C among; None = the tower's own.
        """
        if self.cls_query is None:
            raise AdallavaError(
                "the method reads the class token's attention, and its `needs` does not name Need.CLS_TOKEN"
            )
        heads = self.num_heads if num_heads is None else num_heads
        num_images, length, width = self.keys.shape
        query = self.cls_query.float().view(num_images, heads, 1, width // heads)
        keys = self.keys.float().view(num_images, length, heads, width // heads).permute(0, 2, 3, 1)
        logits: Tensor = (query @ keys).squeeze(2) * (width // heads) ** -0.5
        return logits.softmax(dim=-1)[..., 1:]


@dataclass(frozen=True)
class AskedAttention:
    """Which attention of the tower a method reads: what each patch receives in one layer, averaged over its heads.

    Attributes:
        depth: share of the tower's layers, above 0; 1 is the layer that puts out the features, 0.5 the layer in the
            middle. Of a tower with windows, the nearest layer that sees the whole image, of two the deeper.
        of_class_token: True for the class token's attention where the tower has one; else, and in every tower
            without one, the mean over all tokens.
    """

    depth: float
    of_class_token: bool = False


@dataclass(frozen=True)
class SelectionInput:
    """What a selector may read. I images, N vision tokens each.

    Attributes:
        features: [I, N, C], the tower's output for the patches, before the projector.
        grid: (rows, columns), rows * columns = N.
        keep_counts: I host integers, K per image, each 0 <= K <= N.
        budget_ratios: [I] float32, K / N: what a budget-aware method conditions on.
        seeds: [I] int64, one per image: what a random method derives its choice from. It belongs to the
            sample, not to its place in a batch.
        question_embeds: [I, T, D] input embeddings of the text tokens of the sample's prompt, right-padded.
        question_mask: [I, T] bool, True where `question_embeds` holds a token.
        question_lengths: T of each image's own question, on the host; None = as long as the table.

    The rest is None unless the method needs it (see `Need`):

    Attributes:
        budget_features: [I, C], the tower's output at the budget token; zeros for an image that keeps everything.
        attention_received: [I, N, A] float32, what each token receives of the A kinds of attention that the method
            asks for, the mean of its patches where a token is several.
        feature_layer: queries and keys of the layer that puts out the features (the last of them, where features
            of several layers are joined).
        last_layer: queries and keys of the tower's last layer.
        projected: [I, N, D], all tokens after the projector.
        word_embeds: [I, W, D] input embeddings of the words that the method picked from the question, right-padded.
        word_mask: [I, W] bool, True where `word_embeds` holds a token.
        word_lengths: W of each image's own words, on the host; None = as long as the table.
        text_relevance: [I, N] float32, cosine of each token with the question in the space that vision and text
            tower share, averaged over the parts of a question too long for the text tower.
    """

    features: Tensor
    grid: tuple[int, int]
    keep_counts: tuple[int, ...]
    budget_ratios: Tensor
    seeds: Tensor
    question_embeds: Tensor
    question_mask: Tensor
    budget_features: Tensor | None = None
    attention_received: Tensor | None = None
    feature_layer: TowerLayer | None = None
    last_layer: TowerLayer | None = None
    projected: Tensor | None = None
    word_embeds: Tensor | None = None
    word_mask: Tensor | None = None
    text_relevance: Tensor | None = None
    question_lengths: tuple[int, ...] | None = None
    word_lengths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Selection:
    """Which tokens each image keeps. Kmax = max(keep_counts).

    Attributes:
        indices: [I, Kmax] int64, ascending in the first K entries of a row; entries past K are 0 and unused.
            For a method that merges, the patch whose position the merged token takes.
        keep_counts: K per image, on the host.
        scores: [I, N] float32 that the choice was made from, or None.
        merge_weights: [I, Kmax, N] float32 on the tower's features, for methods that combine tokens; None = a
            gather. A row sums to 1 where tokens are averaged; some papers add instead, and say so.
        within: [] bool on the device, set by core code alone: whether all indices were in [0, N); None = looked at.
    """

    indices: Tensor
    keep_counts: tuple[int, ...]
    scores: Tensor | None = None
    merge_weights: Tensor | None = None
    within: Tensor | None = None

    def apply(self, features: Tensor) -> Tensor:
        """Return the kept features, [I, Kmax, C]; rows past K are unspecified and never read."""
        if self.merge_weights is not None:
            return torch.bmm(self.merge_weights.to(features.dtype), features)
        return features.gather(1, self.indices.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


@runtime_checkable
class Selector(Protocol):
    """A selection method. Learned methods are `torch.nn.Module`s as well; see docs/how_to/add_a_method.md.

    Attributes:
        name: the registry key, file name, CLI value and label in the report, in one.
        learned: True if it needs an adapter with weights.
        needs: what it reads beyond features, question and seed; may depend on its options.
        merges: True if kept tokens may be combined from several patches: what is not kept is not lost.
        per_sample: True if the kept places depend on the sample (image, question or seed); False for a fixed grid.
        ignores_budget: True if the budget plays no role: the method keeps nothing (`none`), or sets its own counts
            (`OwnCountMethod`). Sweeps run it once.

    Construction: `cls(**options)`, or `cls(shape, **options)` for a learned method, whose `config` attribute
    holds the options, so that `cls(shape, **config)` builds it again.
    """

    name: ClassVar[str]
    learned: ClassVar[bool]
    merges: ClassVar[bool]
    per_sample: ClassVar[bool]
    ignores_budget: ClassVar[bool]

    @property
    def needs(self) -> frozenset[Need]:
        """What it reads beyond features, question and seed."""
        ...

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        ...

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the floating-point operations for one image (one multiply-add = 2), in closed form.

        What the model makes for the method (tower layers, projected tokens, a text tower) is counted where it is made.

        Args:
            shape: of the model.
            num_question_tokens: T; for a `WordsMethod`, the tokens of the words it picks.
            keep_count: K of the image.
        """
        ...


@runtime_checkable
class GreedyMethod(Selector, Protocol):
    """A method that picks one token after the other, each pick by those before it.

    Its tables are made for one image at a time, like every choice; its steps, many and small, are taken for several
    images together. A step must give a row what it gives it alone: it compares, gathers and sums along the last axis.
    """

    def table(self, inputs: SelectionInput) -> tuple[Tensor, Tensor | None]:
        """Return what the picks are made from, [I, …], and the scores to record, [I, N] float32, or None."""
        ...

    def order(self, table: Tensor, steps: int) -> Tensor:
        """Return the first picks of each row, [I, steps] int64."""
        ...


@runtime_checkable
class BudgetTokenMethod(Selector, Protocol):
    """A method that needs `Need.BUDGET_TOKEN`."""

    def budget_token(self, ratios: Tensor) -> Tensor:
        """Return the token to append to the tower's input, [I, C], for budgets K / N, [I]."""
        ...


@runtime_checkable
class AttentionMethod(Selector, Protocol):
    """A method that needs `Need.ATTENTION_RECEIVED`."""

    @property
    def asked_attention(self) -> tuple[AskedAttention, ...]:
        """What `attention_received` has a column of, in this order."""
        ...


@runtime_checkable
class WordsMethod(Selector, Protocol):
    """A method that needs `Need.WORDS`."""

    def words(self, question: str) -> list[str]:
        """Return the words of a question whose input embeddings it wants. On the host."""
        ...


@runtime_checkable
class TextTowerMethod(Selector, Protocol):
    """A method that needs `Need.TEXT_TOWER`."""

    @property
    def text_tower(self) -> str | None:
        """Folder or hub id of the CLIP checkpoint that the vision tower came from; None if none was named."""
        ...


@runtime_checkable
class RoundingMethod(Selector, Protocol):
    """A method that cannot keep every K."""

    def keep_count(self, asked: int, grid: tuple[int, int]) -> int:
        """Return the K it keeps where `asked` was asked for, on the host, before the tower runs.

        At most `asked`; at least 1 for `asked` >= 1; N for N.
        """
        ...


@runtime_checkable
class ResizingMethod(RoundingMethod, Protocol):
    """A method that needs `Need.RESIZED_PICTURE`. Its features are zero except at `places`."""

    def tower_grid(self, keep_count: int, grid: tuple[int, int]) -> tuple[int, int]:
        """Return the (rows, columns) of patches that the tower is to run on, for K that `keep_count` returns."""
        ...

    def places(self, keep_count: int, grid: tuple[int, int]) -> Tensor:
        """Return the patch of the full grid that each patch of the smaller one represents, [K] int64, ascending."""
        ...


@runtime_checkable
class OwnCountMethod(Selector, Protocol):
    """A method that finds its own K for each image; its `ignores_budget` is True."""

    def own_counts(self, inputs: SelectionInput) -> Tensor:
        """Return K of each image, [I] int64, each 1 <= K <= N, whatever `inputs.keep_counts` says.

        Stays on the device; the caller reads it once. `select` is then called with these counts.
        """
        ...


def draws_at_random(selector: object) -> bool:
    """Return whether a method's choice depends on the seed: it says so by a class attribute `draws = True`.

    A sweep repeats such a method with several seeds.
    """
    return bool(getattr(selector, "draws", False))


def reads_question(selector: object) -> bool:
    """Return whether a method's choice may depend on the prompt's text; not if a class attribute says otherwise.

    Where choices are cached, one that does not is found again for another question about the same image.
    """
    return bool(getattr(selector, "reads_question", True))


def top_k_in_order(scores: Tensor, keep_counts: Sequence[int]) -> Tensor:
    """Return the indices of each row's K highest scores in ascending order, [I, Kmax] int64.

    Ties go to the lower index, on every device. Entries past a row's K are 0.

    Args:
        scores: [I, N] float.
        keep_counts: K per row; on the host, so that no device value is waited for.
    """
    num_rows, num_tokens = scores.shape
    k_max = max(keep_counts, default=0)
    if k_max == 0:
        return scores.new_zeros((num_rows, 0), dtype=torch.int64)
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, :k_max]
    counts = torch.tensor(keep_counts, dtype=torch.int64).to(scores.device, non_blocking=True)
    used = torch.arange(k_max, device=scores.device)[None, :] < counts[:, None]
    # Unused entries sort after every real index, then become 0.
    in_order = ranked.masked_fill(~used, num_tokens).sort(dim=1).values
    return in_order.masked_fill(~used, 0)


def keep_highest(scores: Tensor, keep_counts: tuple[int, ...]) -> Selection:
    """Return the choice of each row's K highest scores; see `top_k_in_order`."""
    return Selection(top_k_in_order(scores, keep_counts), keep_counts, scores=scores)
