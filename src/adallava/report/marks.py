"""One colour, one marker and one dash a method, the same wherever the method appears on the page."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adallava.records import FULL_METHOD

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7A00")
"""Okabe and Ito's palette for all kinds of colour vision; black is the full-token model's. Its yellow is too
faint on paper and is darkened."""

_SHAPES = (
    ("circle", "●"),
    ("square", "■"),
    ("triangle-up", "▲"),
    ("diamond", "◆"),
    ("triangle-down", "▼"),
    ("cross", "✚"),
    ("hexagon", "⬢"),
    ("x", "✖"),
)
"""Plotly's symbol, and the character that looks like it. Eight against seven colours:
methods that share a colour never share a shape, up to 56 methods."""

Dash = Literal["solid", "dash", "dashdot", "dot"]

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dashdot", "dot")
"""Methods that share a colour differ in their dashes, up to 28 methods."""


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: `colour` is a CSS hex colour, `symbol` plotly's name, `glyph` a character."""

    colour: str
    symbol: str
    glyph: str
    dash: Dash


FULL_MARK = Mark("#000000", "star", "★", "dash")


def method_marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Return each method's mark; they are given out in order of first appearance."""
    marks: dict[str, Mark] = {}
    for method in methods:
        if method in marks:
            continue
        if method == FULL_METHOD:
            marks[method] = FULL_MARK
            continue
        rank = sum(name != FULL_METHOD for name in marks)
        symbol, glyph = _SHAPES[rank % len(_SHAPES)]
        dash = _DASHES[rank // len(OKABE_ITO) % len(_DASHES)]
        marks[method] = Mark(OKABE_ITO[rank % len(OKABE_ITO)], symbol, glyph, dash)
    return marks
