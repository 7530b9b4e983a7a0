"""The parts of a model whose products are counted, built from its config on the meta device: no weights, no values.

Of layers that are alike only the first computes. It is counted for the others too, which pass on what they read.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adallava.families.transformers_internals import errors_alone


@dataclass(frozen=True)
class CostedParts:
    """A model without values, in parts.

    Attributes:
        model: whose forward runs the LLM on embeddings.
        tower_of_side: makes a vision tower, and its layers, for a square picture of so many patches a side.
        side: of the model's own pictures, in patches.
        patch_size: in pixels.
        channels: of a picture.
        tower_width: features per token of the tower.
        projector: reads [1, tokens, feature_width].
        feature_width: of what it reads.
        layers: the LLM's decoder layers, those that are counted for others and those that pass on.
        output: the LLM's output layer.
        positions: modules that make tables of rotary positions, which are not counted.
        adders: each reads what the projector does, and makes what is added after one layer of the LLM.
        patches_per_token: of a tower that sees each picture at its own size; None of others.
        one_sequence: whether such a tower compares the patches of all pictures, under a mask.
        window: side of the windows, in tokens, that some of the tower's layers look within.
        windowed_layers: how many, of layers that are alike.
    """

    model: nn.Module
    tower_of_side: Callable[[int], tuple[nn.Module, Sequence[nn.Module]]]
    side: int
    patch_size: int
    channels: int
    tower_width: int
    projector: nn.Module
    feature_width: int
    layers: Sequence[nn.Module]
    output: nn.Module
    positions: Sequence[nn.Module]
    adders: Sequence[nn.Module] = ()
    patches_per_token: int | None = None
    one_sequence: bool = False
    window: int | None = None
    windowed_layers: int = 0


def on_meta(cls: Any, config: Any) -> Any:
    """Return a model of a class of transformers without values, in eval mode. The config is copied."""
    with torch.device("meta"), errors_alone():
        model = cls._from_config(
            copy.deepcopy(config),
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="batched_mm",
        )
    return model.eval()


def stacked_layers(model: nn.Module, num_layers: int) -> tuple[nn.Module, ...]:
    """Return a transformer's layers: of its lists of modules, the outermost that is as long; none if there is none."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == num_layers)
    return tuple(next(lists, ()))


def first_alike(layers: Sequence[nn.Module]) -> list[int]:
    """Return for each layer the place of the first with the same class and weights of the same shapes."""
    kinds = [(type(layer), tuple((name, each.shape) for name, each in layer.named_parameters())) for layer in layers]
    return [kinds.index(kind) for kind in kinds]


def let_first_stand_for_all(layers: Sequence[nn.Module]) -> None:
    """Make each layer that is like an earlier one pass on what it reads."""
    for place, first in enumerate(first_alike(layers)):
        if place != first:
            _pass_on(layers[place], layers[first])


def one_side(size: int | Sequence[int]) -> int:
    """Return a side of a square that a config states once, or for rows and for columns."""
    return size if isinstance(size, int) else int(size[0])


def costed_parts_of(
    model: Any,
    tower: Any,
    llm: Any,
    projector: nn.Module,
    feature_width: int,
    *,
    called: Callable[[Any], nn.Module] = lambda tower: tower,
) -> CostedParts:
    """Return the parts of a model without values, whose tower is made from its `vision_config`.

    Args:
        model: on the meta device.
        tower: its vision tower.
        llm: its LLM, without the head.
        projector: what each token passes alone.
        feature_width: of what that reads.
        called: makes of a tower what is called with pixels alone.
    """
    vision = model.config.vision_config
    patch = one_side(vision.patch_size)
    layers = stacked_layers(llm, llm.config.num_hidden_layers)
    let_first_stand_for_all(layers)

    def tower_of_side(side: int) -> tuple[nn.Module, Sequence[Any]]:
        """Return a tower for pictures of so many patches a side, and its layers."""
        config = copy.deepcopy(vision)
        pixels = side * patch
        config.image_size = pixels if isinstance(vision.image_size, int) else [pixels, pixels]
        built = on_meta(type(tower), config)
        tower_layers = stacked_layers(built, vision.num_hidden_layers)
        let_first_stand_for_all(tower_layers)
        return called(built), tower_layers

    return CostedParts(
        model=model,
        tower_of_side=tower_of_side,
        side=one_side(vision.image_size) // patch,
        patch_size=patch,
        channels=vision.num_channels,
        tower_width=vision.hidden_size,
        projector=projector,
        feature_width=feature_width,
        layers=layers,
        output=model.get_output_embeddings(),
        positions=tuple(module for name, module in llm.named_children() if name.startswith("rotary_emb")),
    )


def _pass_on(layer: nn.Module, first: nn.Module) -> None:
    """Return hidden states as the first of its kind does, which has run before: alone, or in a tuple."""
    tuples: list[bool] = []
    first.register_forward_hook(lambda _, __, output: tuples.append(isinstance(output, tuple)))
    layer.forward = lambda hidden_states, *_, **__: (hidden_states,) if tuples[-1] else hidden_states
