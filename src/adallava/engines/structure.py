"""Takes arguments apart into tensors and the rest, and puts them together again."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


class UnknownPartError(TypeError):
    """A value that is neither a tensor, nor a number or name, nor made of them."""


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of a value, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _parts(value) for tensor in tensors_in(part)]


def shape_of(value: Any) -> Hashable:
    """Return all of a value but its tensors' numbers on a device: equal for two values that differ in them alone.

    Raises:
        UnknownPartError: if a part cannot be compared.
    """
    if isinstance(value, Tensor):
        # What lies on the host, such as the sizes of images, decides what is done.
        told = tuple(value.flatten().tolist()) if value.device.type == "cpu" else ()
        return (tuple(value.shape), value.dtype, value.device, told)
    if isinstance(value, tuple | list):
        return (type(value), *map(shape_of, value))
    if isinstance(value, Mapping):
        return (type(value), *((name, shape_of(part)) for name, part in value.items()))
    if is_dataclass(value) and not isinstance(value, type):
        return (type(value), *(shape_of(getattr(value, field.name)) for field in fields(value)))
    if not isinstance(value, Hashable):
        raise UnknownPartError(f"a {type(value).__name__} cannot be compared")
    return value


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a value with other tensors in the place of its own, taken in order."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple | list):
        return type(value)(with_tensors(part, tensors) for part in value)
    if isinstance(value, Mapping):
        return {name: with_tensors(part, tensors) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: with_tensors(getattr(value, field.name), tensors) for field in fields(value)}
        return replace(value, **changed)
    return value


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        yield from value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name) for field in fields(value))
