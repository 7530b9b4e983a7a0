"""One color, one marker and one dash a method: its own on every page and in every figure, whatever is next to it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adallava.records import FULL_METHOD

Dash = Literal["solid", "dash", "dashdot", "dot"]

PLACES = {
    name: place
    for place, name in enumerate(
        (
            "question", "visionzip", "random", "divprune", "uniform", "fastv", "pool", "budget-token", "cdpruner",
            "sparsevlm", "tome", "prumerge", "pyramiddrop", "mmtok", "downsample", "dart", "none", "hiprune", "scope",
            "cls-attention", "vispruner", "prumerge-plus", "feature-norm", "prumerge-k", "prumerge-plus-k",
        )
    )
}  # fmt: skip
"""Each method's place in `COLOURS`. A place is never given to another method: new methods come last, with a color."""

COLOURS = (
    ("#0072B2", "#1EBCFE"), ("#D55E00", "#FE9807"), ("#00875F", "#81D49C"), ("#C0609A", "#F96E96"),
    ("#AD7300", "#EBDA18"), ("#2F8FC4", "#0AEAFE"), ("#7A6A00", "#A89D18"), ("#750479", "#AD55B8"),
    ("#9700FC", "#B533FF"), ("#0609F9", "#2F6FFD"), ("#FF09FB", "#FC03FD"), ("#960209", "#FA0408"),
    ("#074C19", "#01A700"), ("#063A8B", "#2481B1"), ("#9C78FD", "#938BF3"), ("#1DAB02", "#0FFA1C"),
    ("#7D4F65", "#EBB3A9"), ("#D20349", "#E80A83"), ("#B301AE", "#E36EE3"), ("#5E18C1", "#7C5CE6"),
    ("#495DF6", "#6FA8FF"), ("#FF0BAA", "#EFA2FB"), ("#155B6A", "#02B38D"), ("#FE5674", "#AD6916"),
    ("#845FBE", "#CDB4F5"),
)  # fmt: skip
"""(on light paper, on a dark page). The first seven are Okabe and Ito's, darker where they are faint on paper; the
others lie as far from them, from each other and from black as they can, seen by normal and by red-green blind eyes,
with a contrast of at least 3 to 1."""

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
"""Plotly's symbol, and the character that looks like it."""

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dashdot", "dot")
"""One a round of shapes: in black and white, too, no two of 32 methods look alike."""

_SCHEDULED_SHAPES = (
    ("triangle-left", "◀"),
    ("triangle-right", "▶"),
    ("pentagon", "⬟"),
    ("diamond-tall", "⧫"),
    ("hourglass", "⧗"),
    ("bowtie", "⧓"),
    ("star-diamond", "✦"),
    ("hexagon2", "⬣"),
)
"""Where a scheduler leaves layers out, the shape is the scheduler's and the color the method's."""

_SCHEDULERS = ("layers", "heads", "adallava-layers", "adallava-heads", "first", "spaced", "random", "fixed")


@dataclass(frozen=True)
class Mark:
    """How a method is drawn: CSS hex colors on light and on dark, plotly's symbol, a glyph (one character), a dash."""

    colour: str
    dark_colour: str
    symbol: str
    glyph: str
    dash: Dash


FULL_MARK = Mark("#000000", "#F2F0EA", "star", "★", "dash")


def method_marks(curves: Iterable[str]) -> dict[str, Mark]:
    """Return each curve's mark, see `mark_of`."""
    return {curve: mark_of(curve) for curve in curves}


def mark_of(curve: str) -> Mark:
    """Return the mark of a method, or of a method and a scheduler (`METHOD/SCHEDULER@LATENCY`).

    It follows from the name alone. Another package's method gets a color by a hash of its name: two of them, or one
    and a method from here, may share it, but not color and shape with a method from here.
    """
    method, slash, schedule = curve.partition("/")
    mark = FULL_MARK if method == FULL_METHOD else _mark_of_method(method)
    if not slash:
        return mark
    scheduler, _, latency = schedule.partition("@")
    shape = _SCHEDULERS.index(scheduler) if scheduler in _SCHEDULERS else _hash(scheduler)
    symbol, glyph = _SCHEDULED_SHAPES[shape % len(_SCHEDULED_SHAPES)]
    return Mark(mark.colour, mark.dark_colour, symbol, glyph, _latency_dash(latency))


def _mark_of_method(method: str) -> Mark:
    place = PLACES.get(method)
    if place is None:
        number = _hash(method)
        place, turn = number % len(COLOURS), number // len(COLOURS)
        shape, dash = place + 1 + turn % (len(_SHAPES) - 1), turn // len(_SHAPES)
    else:
        shape, dash = place, place // len(_SHAPES)
    symbol, glyph = _SHAPES[shape % len(_SHAPES)]
    return Mark(*COLOURS[place], symbol, glyph, _DASHES[dash % len(_DASHES)])


def _latency_dash(latency: str) -> Dash:
    """Return a line with the more gaps, the fewer layers run; of a number of layers any, always the same."""
    try:
        share = float(latency)
    except ValueError:
        share = 2.0
    if share > 1.0:
        return _DASHES[_hash(latency) % len(_DASHES)]
    return _DASHES[sum(share < bound for bound in (0.8, 0.7, 0.6))]


def _hash(name: str) -> int:
    """Return a number that is the same in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", errors="replace")).digest()[:6], "big")
