"""What a caller may ask for, and what it resolves to.

A token budget is a share of the N vision tokens (`0.25`, `"25%"`, `1.0`) or a number of them (`64`, `"64"`).
The type decides, as in scikit-learn: an `int` is a count, a `float` or a percentage is a share. So `1` is one
token and `1.0` is all of them.
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real

from adallava.errors import BudgetError

_FORMS = "a share in (0, 1] such as 0.25 or '25%', or a whole number of tokens such as 64"


@dataclass(frozen=True)
class TokenBudget:
    """How many vision tokens an answer may use: exactly one of `ratio` and `count` is set.

    Attributes:
        ratio: share of the sample's N vision tokens, in (0, 1].
        count: number of vision tokens, at least 1.
    """

    ratio: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse a budget that is both, neither, or out of range.

        Raises:
            BudgetError: naming the value and the accepted forms.
        """
        if (self.ratio is None) == (self.count is None):
            raise BudgetError(f"a token budget is a share or a count, not both or neither: {self!r}")
        if self.ratio is not None and not (math.isfinite(self.ratio) and 0.0 < self.ratio <= 1.0):
            raise BudgetError(f"token budget {self.ratio!r} is out of range: give {_FORMS}")
        if self.count is not None and self.count < 1:
            raise BudgetError(f"token budget {self.count!r} is out of range: give {_FORMS}")

    @classmethod
    def parse(cls, value: object) -> "TokenBudget":
        """Read a budget from what a caller wrote: int, float, str or `TokenBudget`.

        Raises:
            BudgetError: for NaN, a negative, zero, a share above 1, or another type.
        """
        if isinstance(value, TokenBudget):
            return value
        if isinstance(value, str):
            return cls._parse_text(value)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise BudgetError(f"token budget {value!r} has type {type(value).__name__}: give {_FORMS}")
        if isinstance(value, Integral):
            return cls(count=int(value))
        return cls(ratio=float(value))

    @classmethod
    def _parse_text(cls, text: str) -> "TokenBudget":
        body = text.strip()
        try:
            if body.endswith("%"):
                return cls(ratio=float(body[:-1]) / 100.0)
            if body.lstrip("+-").isdigit():
                return cls(count=int(body))
            return cls(ratio=float(body))
        except ValueError as error:
            if isinstance(error, BudgetError):
                raise
            raise BudgetError(f"token budget {text!r} is not a number: give {_FORMS}") from None

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
        return min(num_vision_tokens, max(1, math.floor(self.ratio * num_vision_tokens + 1e-9)))

    def __str__(self) -> str:
        """Return the form that `parse` reads back: `0.25` or `64`."""
        return repr(self.ratio) if self.ratio is not None else str(self.count)
