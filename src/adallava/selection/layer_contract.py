"""What a method inside the LLM is given, and what it gives back. Pure tensors: no host, no I/O, no model.

All N tokens enter the first layer; a budget's K is the number that the layers after the last drop read.

    layer                 0    1    2    3    4    5 …
    schedule              Drop(layer=2, scored_by=1, …)  Drop(layer=4, scored_by=4, …)
    tokens it reads       N    N    K1   K1   K    K
    attention looked at        1              4

One row is one image, as in `contract.py`. How many tokens each image keeps at each drop is known on the host before
the LLM runs; which ones, on the device.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from adallava.selection.selector_contract import Need, Selection, Selector, TowerShape


@dataclass(frozen=True)
class Drop:
    """One place at which an image's vision tokens become fewer.

    Attributes:
        layer: the first layer (from 0) that reads the fewer tokens.
        scored_by: the layer whose attention the choice is made from: `layer - 1`, by what entered it and dropping
            from what leaves it, or `layer` itself, before it runs.
        keep_count: tokens of the image that are left.
    """

    layer: int
    scored_by: int
    keep_count: int


@dataclass(frozen=True)
class PromptInput:
    """The LLM's input embeddings, before its first layer. I images, N = the most vision tokens one has, T text tokens.

    Attributes:
        vision_embeds: [I, N, D].
        text_embeds: [I, T, D], the question's tokens after the image, right-padded.
        text_mask: [I, T] bool, at least one token an image.
        token_counts: vision tokens of each image, on the host; entries past them are unspecified.
    """

    vision_embeds: Tensor
    text_embeds: Tensor
    text_mask: Tensor
    token_counts: tuple[int, ...]


@dataclass(frozen=True)
class Raters:
    """The text tokens whose attention judges an image's tokens.

    Attributes:
        rows: [I, R] int64, which of the T text tokens.
        weights: [I, R] float32, what each counts for, summing to 1; 0 for an unused entry.
    """

    rows: Tensor
    weights: Tensor


@dataclass(frozen=True)
class DropStates:
    """What a method may read at a drop besides attention, if it says `reads_states`. n and T as in `DropInput`.

    Attributes:
        normed: [I, n, D], `DropInput.hidden` after the LLM's last norm.
        key_norms: [I, n] float32, L1 norms of the tokens' keys in layer `Drop.scored_by`, turned by their positions,
            over all heads.
        text_normed: [I, T, D], the same of the question's tokens after the image, right-padded.
        text_key_norms: [I, T] float32.
        text_mask: [I, T] bool, at least one token an image.
    """

    normed: Tensor
    key_norms: Tensor
    text_normed: Tensor
    text_key_norms: Tensor
    text_mask: Tensor


@dataclass(frozen=True)
class DropInput:
    """What a method may read at a drop. n = the largest number of tokens that an image still has.

    Attributes:
        attention: [I, n] float32, the raters' attention to the image's tokens, averaged over the heads of the layer
            `Drop.scored_by` and weighted over the raters.
        hidden: [I, n, D], the tokens as `Drop.layer` would read them.
        token_counts: tokens each image still has, on the host; entries past them are unspecified.
        keep_counts: tokens each image is to keep, on the host.
        states: for a method that reads them, see `reads_states`; else None.
    """

    attention: Tensor
    hidden: Tensor
    token_counts: tuple[int, ...]
    keep_counts: tuple[int, ...]
    states: DropStates | None = None


@runtime_checkable
class LayerSelector(Protocol):
    """A selection method inside the LLM.

    Attributes:
        name: as of `Selector`.
        learned: as of `Selector`; False, since no such method is learned yet.
        needs: as of `Selector`; empty, since it reads nothing before the LLM.
        merges: as of `Selector`.
        per_sample: as of `Selector`.
        ignores_budget: as of `Selector`.
    """

    name: ClassVar[str]
    learned: ClassVar[bool]
    needs: ClassVar[frozenset[Need]]
    merges: ClassVar[bool]
    per_sample: ClassVar[bool]
    ignores_budget: ClassVar[bool]

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> tuple[Drop, ...]:
        """Return the drops of one image, layers ascending, the last of them with K tokens.

        Layers may depend on `num_layers` alone, counts never rise, and at K = N every drop keeps N.

        Raises:
            UnsupportedModeError: for an LLM with too few layers.
        """
        ...

    def raters(self, inputs: PromptInput) -> Raters:
        """Name the text tokens that judge, once for all drops."""
        ...

    def choose(self, inputs: DropInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` of the tokens image i still has.

        Indices count the tokens that are left, not patches. An image that keeps all of them keeps them unchanged.
        """
        ...

    def num_raters(self, num_text_tokens: int) -> int:
        """Return R for T text tokens: rows of attention that are computed at each drop."""
        ...

    def flops(self, shape: TowerShape, num_text_tokens: int, drops: tuple[Drop, ...]) -> int:
        """Return the method's own matrix products for one image, without the rows of attention."""
        ...


AnySelector = Selector | LayerSelector
"""A method of either kind."""


def reads_states(selector: object) -> bool:
    """Return whether a method inside the LLM reads `DropInput.states`: it says so by `reads_states = True`."""
    return bool(getattr(selector, "reads_states", False))


def last_text_token(inputs: PromptInput) -> Raters:
    """Return the last token of each question as its only rater."""
    rows = inputs.text_mask.sum(dim=1, keepdim=True) - 1
    return Raters(rows, torch.ones_like(rows, dtype=torch.float32))


def present_tokens(inputs: DropInput | PromptInput) -> Tensor:
    """Return True for the entries that hold a vision token, [I, n] bool."""
    table = inputs.attention if isinstance(inputs, DropInput) else inputs.vision_embeds
    counts = torch.tensor(inputs.token_counts, dtype=torch.int64).to(table.device, non_blocking=True)
    return torch.arange(table.shape[1], device=table.device) < counts.unsqueeze(1)


def attention_of_present(inputs: DropInput) -> Tensor:
    """Return the attention with -inf where there is no token, [I, n] float32, ready to be ranked."""
    return inputs.attention.masked_fill(~present_tokens(inputs), float("-inf"))
