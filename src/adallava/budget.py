"""What a caller may ask for, and what it resolves to.

A token budget is a share of the N vision tokens (`0.25`, `"25%"`, `1.0`) or a number of them (`64`, `"64"`).
The type decides, as in scikit-learn: an `int` is a count, a `float` or a percentage is a share. So `1` is one
token and `1.0` is all of them.

A latency is written the same way: a share of the LLM's layers (`0.75`, `"75%"`) or a number of them (`24`).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar, Self

from adallava.errors import BudgetError, InputError

MAX_COUNT = 2**31 - 1
"""The largest number that anything takes which counts something: tokens, samples, draws."""

MAX_BEAMS = 128
"""Of a search for one answer, and answers to one sample: for each the LLM holds keys and values of its own."""

MAX_NGRAM = 1024
"""Tokens of a phrase that is not to be written again: transformers looks at that many for each token of a prompt."""

MAX_SEED = 2**63 - 1
"""The largest seed; the smallest is 0."""


@dataclass(frozen=True)
class _ShareOrCount:
    """Exactly one of a share in (0, 1] and a count of at least 1."""

    ratio: float | None = None
    count: int | None = None

    _kind: ClassVar[str]
    _forms: ClassVar[str]
    _least: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse a value that is both, neither, or out of range.

        Raises:
            BudgetError: naming the value and the accepted forms.
        """
        if (self.ratio is None) == (self.count is None):
            raise BudgetError(f"a {self._kind} is a share or a count, not both or neither: {_shown(self)}")
        if self.ratio is not None and not (math.isfinite(self.ratio) and 0.0 < self.ratio <= 1.0):
            raise BudgetError(f"{self._kind} {_shown(self.ratio)} is out of range: give {self._forms}")
        if self.count is not None and not 1 <= self.count <= MAX_COUNT:
            raise BudgetError(f"{self._kind} {_shown(self.count)} is out of range: give {self._forms}")

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read what a caller wrote: int, float, str, or an object of this class.

        Raises:
            BudgetError: for NaN, a negative, zero, a share above 1, or another type.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls._parse_text(value)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise BudgetError(f"{cls._kind} {_shown(value)} has type {type(value).__name__}: give {cls._forms}")
        if isinstance(value, Integral):
            return cls(count=int(value))
        try:
            return cls(ratio=float(value))
        except (OverflowError, ValueError) as error:
            if isinstance(error, BudgetError):
                raise
            raise BudgetError(f"{cls._kind} {_shown(value)} is out of range: give {cls._forms}") from None

    @classmethod
    def _parse_text(cls, text: str) -> Self:
        body = text.strip()
        try:
            if body.endswith("%"):
                return cls(ratio=float(body[:-1]) / 100.0)
            if body.lstrip("+-").isdigit():
                return cls(count=int(body))
            return cls(ratio=float(body))
        except BudgetError:
            if not body.endswith("%"):
                raise
            raise BudgetError(f"{cls._kind} {_cut(body)} is out of range: give {cls._forms}") from None
        except ValueError:
            raise BudgetError(f"{cls._kind} {_shown(text)} is not a number: give {cls._forms}") from None

    @classmethod
    def parse_all(cls, values: Iterable[object]) -> tuple[Self, ...]:
        """Read what a caller wrote for a list, each once, in the order given.

        Raises:
            BudgetError: naming the first that means nothing.
            InputError: if there is none.
        """
        parsed = tuple(dict.fromkeys(map(cls.parse, values)))
        if not parsed:
            raise InputError(f"--{cls._kind.replace(' ', '-')} holds no {cls._kind.split()[-1]}: {cls._least}")
        return parsed

    def __str__(self) -> str:
        """Return the form that `parse` reads back: `0.25` or `64`."""
        return repr(self.ratio) if self.ratio is not None else str(self.count)


@dataclass(frozen=True)
class TokenBudget(_ShareOrCount):
    """How many vision tokens an answer may use: exactly one of `ratio` and `count` is set.

    Attributes:
        ratio: share of the sample's N vision tokens, in (0, 1].
        count: number of vision tokens, at least 1.
    """

    _kind: ClassVar[str] = "token budget"
    _forms: ClassVar[str] = "a share in (0, 1] such as 0.25 or '25%', or a whole number of tokens such as 64"
    _least: ClassVar[str] = "give at least one, such as 0.25 or 64"

    def resolve(self, num_vision_tokens: int) -> int:
        """Return K for a sample of N vision tokens: floor(ratio * N), at least 1; a count is at most N.

        A count above N is the full model, not an error: 576 asks for everything a smaller tower has.
        """
        if num_vision_tokens < 1:
            raise BudgetError(f"a sample with {num_vision_tokens} vision tokens has no token budget to resolve")
        if self.count is not None:
            return min(self.count, num_vision_tokens)
        assert self.ratio is not None
        # The tiny slack undoes representation error: 0.29 * 100 is 28.999999999999996 in binary.
        return min(num_vision_tokens, max(1, math.floor(self.ratio * num_vision_tokens + _SLACK)))


BudgetLike = float | int | str | TokenBudget
"""A share (`0.25`, `"25%"`) or a count (`64`) of the vision tokens; see `TokenBudget`."""


@dataclass(frozen=True)
class Latency(_ShareOrCount):
    """How much of the LLM an answer may run: exactly one of `ratio` and `count` is set.

    Attributes:
        ratio: share of its layers, in (0, 1].
        count: number of layers, at least 1.
    """

    _kind: ClassVar[str] = "latency"
    _forms: ClassVar[str] = "a share in (0, 1] such as 0.75 or '75%', or a whole number of layers such as 24"
    _least: ClassVar[str] = "give at least one, such as 0.75"

    @property
    def is_full(self) -> bool:
        """True if it asks for everything, whatever the LLM."""
        return self.ratio == 1.0

    def is_all_of(self, num_layers: int) -> bool:
        """Return whether it asks for everything of an LLM with so many layers."""
        return self.is_full or (self.count is not None and self.count >= num_layers)

    def resolve(self, num_layers: int, prefix_layers: int, groups: int = 1) -> int:
        """Return how many units after the prefix run, rounded down to whole units.

        Args:
            num_layers: of the LLM. A count above it is the full model.
            prefix_layers: the first layers, which always run and count.
            groups: units in a layer.

        Raises:
            BudgetError: for less than the prefix, with the least that can be given.
        """
        layers = float(min(self.count, num_layers)) if self.count is not None else (self.ratio or 0.0) * num_layers
        if layers < prefix_layers - _SLACK:
            raise BudgetError(
                f"latency {self} asks for {layers:g} of {num_layers} layers, but the first {prefix_layers} always run: "
                f"give at least {prefix_layers / num_layers!r}, or {prefix_layers} layers"
            )
        return math.floor((layers - prefix_layers) * groups + _SLACK)


LatencyLike = float | int | str | Latency
"""A share (`0.75`, `"75%"`) or a count (`24`) of the LLM's layers; see `Latency`."""

_SLACK = 1e-9
_MAX_SHOWN = 80


def _shown(value: object) -> str:
    """Return a value as Python writes it, cut where it is too long to be read."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "with thousands of digits"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
