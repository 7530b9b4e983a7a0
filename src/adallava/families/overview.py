"""What each model family can do, read from its class: for a table, before any model is loaded."""

import inspect
import sys
from dataclasses import dataclass
from typing import Any

from adallava.families.capabilities.of_classes import NamesCostedParts
from adallava.families.capabilities.of_llms import DrivesDecoder
from adallava.families.capabilities.of_pictures import ShowsPatches
from adallava.families.capabilities.of_towers import HasTextTower, ReadsBudgetToken, ResizesPictures
from adallava.registry import family_names, load_family_class

ABILITIES: dict[str, type[Any]] = {
    "in-LLM methods, schedulers": DrivesDecoder,
    "FLOPs": NamesCostedParts,
    "drawings": ShowsPatches,
    "downsample": ResizesPictures,
    "budget-token": ReadsBudgetToken,
    "text tower": HasTextTower,
}
"""By the name that a table gives them."""


@dataclass(frozen=True)
class FamilyFacts:
    """One family.

    Attributes:
        name: the `model_type` of its configs.
        transformers_class: that loads it.
        about: what its tokens are, in a sentence.
        abilities: those of `ABILITIES` that its class has; a method may need more, of one model's tower.
    """

    name: str
    transformers_class: str
    about: str
    abilities: tuple[str, ...]


def family_facts() -> tuple[FamilyFacts, ...]:
    """Return what there is to say of all registered families."""
    return tuple(map(_facts, family_names()))


def _facts(name: str) -> FamilyFacts:
    cls: Any = load_family_class(name)
    about = (inspect.getdoc(sys.modules[cls.__module__]) or "").split("\n")[0]
    abilities = tuple(label for label, protocol in ABILITIES.items() if _has(cls, protocol))
    return FamilyFacts(name, cls.transformers_class, about.rstrip("."), abilities)


def _has(cls: type, protocol: type) -> bool:
    """Return whether a class has the methods that a protocol itself declares."""
    own = [name for name, value in vars(protocol).items() if callable(value) or isinstance(value, staticmethod)]
    return all(callable(getattr(cls, name, None)) for name in own if not name.startswith("_"))
