"""Selection methods: vision tokens and K in, which K out. One file a method, found through the registry."""

from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

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
        AdallavaError: for an option that the method does not take, or a value that is not of the option's type.
    """
    cls = load_selector_class(name)
    _check_types(name, cls, options)
    try:
        selector: AnySelector = cls(shape, **options) if cls.learned else cls(**options)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
        raise AdallavaError(f"selection method {name!r} does not take these options ({given}): {error}") from error
    return selector


def _check_types(name: str, cls: type[Any], options: Mapping[str, Any]) -> None:
    """Hold options to the annotations of the constructor: a wrong type would come to light in the middle of a run.

    Strictly: no text for a number, no true for 1, no NaN. An option without an annotation takes anything.
    """
    hints = get_type_hints(cls.__init__)
    for option, value in options.items():
        if option in hints:
            try:
                TypeAdapter(hints[option], config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise AdallavaError(f"selection method {name!r}: {option}={value!r} is refused: {reason}") from error
