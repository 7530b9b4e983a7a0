"""A method's side of the contract, checked where core code meets it: what it may read, and what it returned."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NoReturn

import torch
from torch import Tensor

from adallava.errors import AdallavaError
from adallava.selection.layer_contract import AnySelector, LayerSelector
from adallava.selection.selector_contract import Need, ResizingMethod, RoundingMethod, Selection, SelectionInput

NEED_OF_FIELD = {
    "attention_received": Need.ATTENTION_RECEIVED,
    "budget_features": Need.BUDGET_TOKEN,
    "feature_layer": Need.FEATURE_LAYER,
    "last_layer": Need.LAST_LAYER,
    "projected": Need.PROJECTED,
    "word_embeds": Need.WORDS,
    "word_mask": Need.WORDS,
    "text_relevance": Need.TEXT_TOWER,
}
"""Fields of `SelectionInput` that are made only for methods that ask for them."""


class _Undeclared:
    """Stands in a field that the method did not ask for: whatever it does with it says which need is missing."""

    def __init__(self, name: str, field: str) -> None:
        self._message = (
            f"method {name!r} reads `{field}`, and its `needs` does not name Need.{NEED_OF_FIELD[field].name}: add it, "
            "so that the model makes what the method reads"
        )

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise AdallavaError(self._message)

    __getattr__ = __getitem__ = __len__ = __iter__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __mul__ = __rmul__ = __truediv__ = __matmul__ = __rmatmul__ = _refuse

    @classmethod
    def __torch_function__(cls, _func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        found = next(value for value in (*args, *(kwargs or {}).values()) if isinstance(value, cls))
        found._refuse()


def declared_inputs(name: str, needs: frozenset[Need], inputs: SelectionInput) -> SelectionInput:
    """Return what a method may read, with a clear error in the place of each field that it did not ask for.

    Args:
        name: the method's.
        needs: that it declares.
        inputs: all that was made; None where nothing was.
    """
    missing = {
        field: _Undeclared(name, field)
        for field, need in NEED_OF_FIELD.items()
        if need not in needs and getattr(inputs, field) is None
    }
    return replace(inputs, **missing)  # type: ignore[arg-type]


def check_selection(
    name: str, selection: Selection, keep_counts: tuple[int, ...], token_counts: Sequence[int]
) -> Selection:
    """Return a method's choice if it is one, once, where it is returned.

    On the CPU the indices themselves are looked at. On another device that would wait for it: there, indices are
    clamped, so that a wrong one cannot end the process, and `within` says on the device whether any was wrong;
    `check_indices` reads it with the rest once the answer is there.

    Args:
        name: the method's.
        selection: what it returned.
        keep_counts: K of each image that was asked for.
        token_counts: tokens that each image had.

    Raises:
        AdallavaError: naming what does not keep the contract.
    """
    if not isinstance(selection, Selection):
        raise AdallavaError(f"method {name!r} returned a {type(selection).__name__}, not a Selection")
    if not isinstance(selection.indices, torch.Tensor):
        kind = type(selection.indices).__name__
        raise AdallavaError(f"method {name!r} returned indices that are a {kind}, no tensor")
    expected = (len(keep_counts), max(keep_counts, default=0))
    if tuple(selection.keep_counts) != keep_counts or tuple(selection.indices.shape) != expected:
        raise AdallavaError(
            f"method {name!r} was asked to keep {keep_counts} and returned {selection.keep_counts} with indices of "
            f"shape {tuple(selection.indices.shape)}, not {expected}"
        )
    if selection.indices.dtype != torch.int64:
        raise AdallavaError(
            f"method {name!r} returned indices of type {str(selection.indices.dtype).removeprefix('torch.')}, "
            "which must be int64"
        )
    if selection.indices.device.type == "cpu":
        check_indices(name, selection, token_counts)
        return selection
    most = max(token_counts, default=1) - 1
    clamped = selection.indices.clamp(0, most)
    return replace(selection, indices=clamped, within=(clamped == selection.indices).all())


def rounded_count(selector: RoundingMethod, asked: int, grid: tuple[int, int]) -> int:
    """Return the K that a method keeps where another was asked for.

    Raises:
        AdallavaError: if it is not a count, or more than was asked for.
    """
    kept: object = selector.keep_count(asked, grid)
    if not isinstance(kept, int) or isinstance(kept, bool) or not min(asked, 1) <= kept <= asked:
        raise AdallavaError(
            f"method {selector.name!r} was asked for {asked} tokens, and its `keep_count` returned {kept!r}: it must "
            f"be a whole number from {min(asked, 1)} to that"
        )
    return kept


def check_own_counts(name: str, counts: object, num_images: int) -> Tensor:
    """Return the counts that a method found for itself, if they are one for each image.

    Raises:
        AdallavaError: naming what they are.
    """
    if not isinstance(counts, Tensor) or counts.dtype != torch.int64 or tuple(counts.shape) != (num_images,):
        raise AdallavaError(
            f"method {name!r}: its `own_counts` must return int64 counts, one for each of {num_images} images, not "
            f"{f'{counts!r}'[:80]}"
        )
    return counts


def check_merging(selector: AnySelector, selection: Selection, token_counts: Sequence[int]) -> None:
    """Refuse weights of a method that says it merges nothing, and none of one that says it does.

    Inside the LLM a method may merge at some drops alone, of very few tokens it may merge none (VisionZip), those of
    a smaller picture the tower merges.

    Args:
        selector: the method.
        selection: what it returned, of the right shape.
        token_counts: tokens that each image had.

    Raises:
        AdallavaError: naming what does not keep the contract.
    """
    name, weights = selector.name, selection.merge_weights
    if weights is None:
        many = any(size <= 4 * kept < 4 * size for kept, size in zip(selection.keep_counts, token_counts, strict=True))
        if selector.merges and many and not isinstance(selector, LayerSelector | ResizingMethod):
            raise AdallavaError(
                f"method {name!r} says that it merges tokens (`merges = True`) and returned no `merge_weights`: return "
                "them, or say `merges = False`"
            )
        return
    if not selector.merges:
        raise AdallavaError(
            f"method {name!r} returned `merge_weights`, and says that it merges nothing: say `merges = True`, so that "
            "what it does not keep is not called lost"
        )
    expected = (*selection.indices.shape, max(token_counts, default=0))
    if tuple(weights.shape) != expected or not weights.is_floating_point():
        raise AdallavaError(
            f"method {name!r} returned `merge_weights` of shape {tuple(weights.shape)} and type "
            f"{str(weights.dtype).removeprefix('torch.')}, not {expected} and float32"
        )
    if weights.device.type == "cpu" and not bool(weights.isfinite().all()):
        raise AdallavaError(f"method {name!r} returned `merge_weights` with NaN or infinite numbers")


def check_indices(name: str, selection: Selection, token_counts: Sequence[int]) -> list[tuple[int, ...]]:
    """Return each image's kept tokens, read from the device.

    Args:
        name: the method's.
        selection: its choice.
        token_counts: tokens that each image had.

    Raises:
        AdallavaError: if they are not ascending, unique and within the image.
    """
    if selection.within is not None and not bool(selection.within):
        raise AdallavaError(f"method {name!r} kept tokens that no image has: indices must be in [0, N)")
    rows = zip(selection.indices.tolist(), selection.keep_counts, strict=True)
    kept = [tuple(row[:count]) for row, count in rows]
    for image, (indices, num_tokens) in enumerate(zip(kept, token_counts, strict=True)):
        within = all(0 <= index < num_tokens for index in indices)
        if not within or any(a >= b for a, b in pairwise(indices)):
            raise AdallavaError(
                f"method {name!r} kept {list(indices)} of image {image}: indices must be ascending, unique and "
                f"below {num_tokens}"
            )
    return kept
