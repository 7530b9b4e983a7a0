"""Selection methods: vision tokens and K in, which K out. One file a method, found through the registry."""

from typing import Any

from adallava.errors import AdallavaError
from adallava.registry import load_selector_class
from adallava.selection.contract import TowerShape
from adallava.selection.layer_contract import AnySelector


def build_selector(name: str, shape: TowerShape, **options: Any) -> AnySelector:
    """Construct the method registered under `name`; a learned one with fresh, random weights.

    Args:
        name: registry key.
        shape: what a learned method builds its weights for.
        options: the method's own constructor arguments.

    Raises:
        UnknownNameError: for an unknown method.
        AdallavaError: for an option that the method does not take.
    """
    cls = load_selector_class(name)
    try:
        selector: AnySelector = cls(shape, **options) if cls.learned else cls(**options)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
        raise AdallavaError(f"selection method {name!r} does not take these options ({given}): {error}") from error
    return selector
