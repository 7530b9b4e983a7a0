"""Counts what a model's parts cost with PyTorch's counter, from its config alone: on the meta device, without weights.

A layer's FLOPs are `per_token` for each of its tokens and `per_pair` for each pair of a query and a key. Three lengths
fix the polynomial, which must have whole numbers and no constant, and a token decoded after a cache must cost what it
says: a model that differs has no FLOPs here, rather than wrong ones.

Sources: `torch.utils.flop_counter` counts a multiply-add as 2, matrix products, convolutions and attention's products
alone. Tables of rotary positions are left out, which some versions of transformers make by a small product.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adallava.costs.parts import LayerCosts, LLMCosts, ModelCosts, TowerCosts
from adallava.errors import AdallavaError, InputError, UnknownNameError, in_short
from adallava.families.capabilities.of_classes import costed_parts
from adallava.families.costed_parts import CostedParts, first_alike
from adallava.families.transformers_internals import run_behind_cache

_LENGTHS = (2, 3, 700)
"""Of prompts."""

_SIDES = (1, 2, 3)
"""Of images, in patches: two of them, and the model's own."""

_TOKENS = (1, 2, 3)
"""That go through the projector."""

_counted: dict[str, ModelCosts] = {}
"""By a hash of the config. Costs follow from it and from nothing else."""


class _UncountableError(Exception):
    """A part's FLOPs do not follow its tokens as they should."""


def count_costs(config: Any) -> ModelCosts:
    """Return what the parts of a model cost. Counted once a process for each config.

    Args:
        config: transformers' config of a model whose family names its parts.

    Raises:
        InputError: for a model that cannot be counted, with the reason.
        UnknownNameError: for a `model_type` without a family.
    """
    key = _hash(config)
    if key not in _counted:
        try:
            parts = costed_parts(config)
            with torch.no_grad(), torch.device("meta"):
                projector = _per_token("the projector", parts.projector, parts.feature_width)
                added = [_per_token("what is added", each, parts.feature_width) for each in parts.adders]
                _counted[key] = ModelCosts(_tower_costs(parts), projector, _llm_costs(parts), sum(added), len(added))
        except (InputError, UnknownNameError):
            raise
        except Exception as error:  # Whatever a model of any kind does where there are no values.
            reason = str(error) if isinstance(error, _UncountableError | AdallavaError) else in_short(error)
            raise InputError(f"cannot count the FLOPs of a model of type {_types(config)}: {reason}") from error
    return _counted[key]


def _tower_costs(parts: CostedParts) -> TowerCosts:
    """Count the tower on two small images and on the model's own."""
    small = [side for side in _SIDES if side != parts.side]
    runs = [_tower_run(parts, side) for side in (*small[:2], parts.side)]
    extra_tokens = {run.sequence_length - run.num_patches for run in runs}
    per_patch = {Fraction(run.convolution, run.num_patches) for run in runs}
    if len(extra_tokens) != 1 or len(per_patch) != 1:
        raise _UncountableError("the vision tower does not make a token of each patch")
    points = [(run.sequence_length, run.flops) for run in runs]
    fixed, per_token, per_pair = _quadratic("the vision tower", points)
    per_window_pair = 0
    if parts.windowed_layers:
        num_layers = len(parts.tower_of_side(parts.side)[1])
        per_window_pair = _whole("a window", Fraction(per_pair * parts.windowed_layers, num_layers))
    return TowerCosts(
        num_vision_tokens=parts.side**2,
        extra_tokens=extra_tokens.pop(),
        width=parts.tower_width,
        per_patch=_whole("the vision tower", per_patch.pop()),
        per_token=per_token,
        per_pair=per_pair - per_window_pair,
        fixed=fixed,
        patches_per_token=parts.patches_per_token,
        one_sequence=parts.one_sequence,
        window=parts.window,
        per_window_pair=per_window_pair,
    )


@dataclass(frozen=True)
class _TowerRun:
    """Of one image; `flops` are all but those of the patches' convolution."""

    num_patches: int
    sequence_length: int
    flops: int
    convolution: int


def _tower_run(parts: CostedParts, side: int) -> _TowerRun:
    (tower, layers), pixels = parts.tower_of_side(side), side * parts.patch_size
    run = _count(lambda: tower(torch.empty(1, parts.channels, pixels, pixels)), layers)
    beside = run.total - sum(run.by_module) - run.convolution
    return _TowerRun(
        num_patches=side**2,
        sequence_length=run.result.last_hidden_state.shape[1],
        flops=beside + sum(run.by_module[first] for first in first_alike(layers)),
        convolution=run.convolution,
    )


def _per_token(name: str, module: nn.Module, width: int) -> int:
    points = []
    for num_tokens in _TOKENS:
        features = torch.empty(1, num_tokens, width)
        points.append((num_tokens, _count(partial(module, features), ()).total))
    fixed, per_token, per_pair = _quadratic(name, points)
    if fixed or per_pair:
        raise _UncountableError(f"{name} does not treat each token alone")
    return per_token


def _llm_costs(parts: CostedParts) -> LLMCosts:
    """Count each decoder layer over prompts of several lengths, and over one token after the shortest."""
    width = parts.model.get_input_embeddings().embedding_dim  # type: ignore[operator]
    prompts = [_llm_run(parts, torch.empty(1, length, width)) for length in _LENGTHS]
    cache = prompts[0].result
    windows = [_window(layer) for layer in cache.layers]
    if not parts.layers or len(windows) != len(parts.layers):
        raise _UncountableError(f"the LLM has {len(parts.layers)} layers, and {len(windows)} of them have a cache")
    layers = []
    for first, window in zip(first_alike(parts.layers), windows, strict=True):
        flops = [run.by_module[first] for run in prompts]
        layers.append(_layer_costs(first, flops, _cache_values(cache.layers[first]), window))
    _check_decoding(parts, layers, _llm_run(parts, torch.empty(1, 1, width), cache))
    outputs = {run.by_module[len(layers)] for run in prompts}
    if len(outputs) != 1:
        raise _UncountableError("the LLM's output layer is not run on the last token alone")
    return LLMCosts(width, tuple(layers), outputs.pop())


def _llm_run(parts: CostedParts, embeds: Tensor, cache: Any = None) -> "_Run":
    """Run the LLM on embeddings, [1, L, D], with logits of the last one alone: its layers, then its output layer."""
    run = _count(
        lambda: run_behind_cache(parts.model, embeds, cache),
        (*parts.layers, parts.output, *parts.positions),
    )
    if run.total != sum(run.by_module):
        raise _UncountableError("the LLM computes products outside of its layers")
    return run


def _check_decoding(parts: CostedParts, layers: Sequence[LayerCosts], step: "_Run") -> None:
    """Hold a token that was decoded after the shortest prompt to what prompts say."""
    keys = _LENGTHS[0] + 1
    for place in sorted(set(first_alike(parts.layers))):
        layer = layers[place]
        if step.by_module[place] != layer.per_token + min(keys, layer.window or keys) * layer.per_pair:
            raise _UncountableError(
                f"layer {place} of the LLM decodes a token by other products than it reads a prompt by"
            )


def _cache_values(cache_layer: Any) -> int:
    """Return how many numbers a layer's cache holds of one token."""
    numbers = cache_layer.keys.numel() + cache_layer.values.numel()
    return _whole("the cache", Fraction(numbers, cache_layer.keys.shape[-2]))


def _window(cache_layer: Any) -> int | None:
    return int(cache_layer.sliding_window) if getattr(cache_layer, "is_sliding", False) else None


def _layer_costs(place: int, flops: Sequence[int], cache_values: int, window: int | None) -> LayerCosts:
    fixed, per_token, per_pair = _quadratic(f"layer {place} of the LLM", list(zip(_LENGTHS, flops, strict=True)))
    if fixed:
        raise _UncountableError(f"layer {place} of the LLM costs {fixed} FLOPs whatever the prompt")
    return LayerCosts(per_token, per_pair, cache_values, window)


@dataclass(frozen=True)
class _Run:
    """What a run computed: all of it, in convolutions, in each of some modules; and its result."""

    total: int
    convolution: int
    by_module: tuple[int, ...]
    result: Any


def _count(run: Callable[[], Any], modules: Sequence[nn.Module]) -> _Run:
    counter, by_module, begun = FlopCounterMode(display=False), [0] * len(modules), [0] * len(modules)

    def enter(place: int) -> None:
        """Note the FLOPs so far as a module begins."""
        begun[place] = counter.get_total_flops()

    def leave(place: int) -> None:
        """Add what was counted while the module ran."""
        by_module[place] += counter.get_total_flops() - begun[place]

    hooks = []
    for place, module in enumerate(modules):
        hooks.append(module.register_forward_pre_hook(lambda *_, place=place: enter(place)))
        hooks.append(module.register_forward_hook(lambda *_, place=place: leave(place)))
    try:
        with counter:
            result = run()
    finally:
        for hook in hooks:
            hook.remove()
    by_product = counter.get_flop_counts().get("Global", {})  # Of no product, none.
    convolution = sum(flops for product, flops in by_product.items() if "convolution" in str(product))
    return _Run(counter.get_total_flops(), convolution, tuple(by_module), result)


def _quadratic(part: str, points: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """Return c, b and a of c + b * x + a * x², through three points.

    Raises:
        _UncountableError: if a number is not whole, or negative.
    """
    (x0, y0), (x1, y1), (x2, y2) = points
    rise = Fraction(y1 - y0, x1 - x0)
    per_pair = (Fraction(y2 - y1, x2 - x1) - rise) / (x2 - x0)
    per_token = rise - per_pair * (x0 + x1)
    fixed = y0 - per_token * x0 - per_pair * x0**2
    return _whole(part, fixed), _whole(part, per_token), _whole(part, per_pair)


def _whole(part: str, number: Fraction) -> int:
    if number.denominator != 1 or number < 0:
        raise _UncountableError(f"{part} costs something else than so much a token and so much a pair of tokens")
    return int(number)


def _hash(config: Any) -> str:
    """Return what tells a config from others, wherever it was loaded from."""
    fields = {name: value for name, value in config.to_dict().items() if name != "_name_or_path"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def _types(config: Any) -> str:
    configs = (config, *(getattr(config, part, None) for part in ("vision_config", "text_config")))
    return " with ".join(repr(each.model_type) for each in configs if each is not None)
