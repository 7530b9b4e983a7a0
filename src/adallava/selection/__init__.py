"""Selection methods: vision tokens and K in, which K out. One file a method, found through the registry."""

from typing import Any

from adallava.registry import load_selector_class
from adallava.registry.options import construct
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import TowerShape


def build_selector(name: str, shape: TowerShape, /, **options: Any) -> AnySelector:
    """Construct the method registered under `name`; a learned one with fresh, random weights.

    Args:
        name: registry key.
        shape: what a learned method builds its weights for.
        options: the method's own constructor arguments.

    Raises:
        UnknownNameError: for an unknown method.
        AdallavaError: for an option that the method does not take, or a value that is not of the option's type.
    """
    selector: AnySelector = construct("selection method", load_selector_class(name), shape, options)
    return selector
