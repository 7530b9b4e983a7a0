"""Constructs what the registry finds; options are held to what the constructor takes before anything runs."""

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from adallava.errors import AdallavaError, in_short


def construct(kind: str, cls: type[Any], shape: object, options: Mapping[str, Any]) -> Any:
    """Return an object of a class of the registry; a learned one with fresh, random weights.

    Args:
        kind: for messages, such as "scheduler".
        cls: has `name` and `learned`.
        shape: what a learned one builds its weights for.
        options: constructor arguments.

    Raises:
        AdallavaError: for an option that it does not take, a value that is not of the option's type, or whatever
            another package's constructor raises.
    """
    given_first = (shape,) if cls.learned else ()
    given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "none"
    try:
        signature = inspect.signature(cls)
        taken = list(signature.parameters)[len(given_first) :]
        if not set(options) <= set(taken) and not _takes_any(signature):
            takes = f"it takes {', '.join(taken)}" if taken else "it takes none"
            raise AdallavaError(f"{kind} {cls.name!r} does not take these options ({given}): {takes}")
        signature.bind(*given_first, **options)  # Of names alone: values are looked at next.
        _check_types(kind, cls, options)
        return cls(*given_first, **options)
    except TypeError as error:
        raise AdallavaError(f"{kind} {cls.name!r} does not take these options ({given}): {error}") from error
    except AdallavaError:
        raise
    except Exception as error:
        raise AdallavaError(
            f"{kind} {cls.name!r} cannot be made: {cls.__module__}.{cls.__qualname__} raises {in_short(error)}"
        ) from error


def _takes_any(signature: inspect.Signature) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())


def _check_types(kind: str, cls: type[Any], options: Mapping[str, Any]) -> None:
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
                raise AdallavaError(f"{kind} {cls.name!r}: {option}={value!r} is refused: {reason}") from error
