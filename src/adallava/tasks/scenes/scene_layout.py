"""What is where: chooses objects and numbers so that every kind of question can be asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import combinations

from adallava.tasks.scenes.digits import digit_pools
from adallava.tasks.scenes.draws import Draws
from adallava.tasks.scenes.records import SceneNumber, SceneObject
from adallava.tasks.scenes.vocabulary import (
    BOX_PATCHES,
    CELL_COLUMNS,
    CELL_PX,
    COLORS,
    EXTENT_PX,
    GRID,
    JITTER_PX,
    PATCH_PX,
    SHAPES,
    SIZES,
)

_MIN_OBJECTS, _MAX_OBJECTS = 4, 10
_MAX_NUMBERS, _MAX_DIGITS = 3, 4
_PLACE_TRIES = 40
# Chances of the theme's count being 0..5. Layouts with many equal objects are rejected more
# often, so they are drawn more often.
_THEME_WEIGHTS = (4, 4, 4, 4, 5, 7)
RELATION_GAP_PX = 28  # centers closer than this along an axis are not asked about
BORDER_GAP_PX = 6  # centers closer than this to a coarse cell's border are not asked about


@dataclass(frozen=True)
class Layout:
    """The contents of an image; boxes of objects and numbers never overlap."""

    objects: tuple[SceneObject, ...]
    numbers: tuple[SceneNumber, ...]


def coarse_cell(item: SceneObject) -> tuple[int, int]:
    """(column, row), each 0..3, of the coarse cell that holds the object's center."""
    x_px, y_px = item.center_px
    return x_px // CELL_PX, y_px // CELL_PX


def coarse_name(item: SceneObject) -> str:
    """The coarse cell as it is answered: column letter a-d, then row digit 1-4."""
    column, row = coarse_cell(item)
    return f"{CELL_COLUMNS[column]}{row + 1}"


def is_clear_of_borders(item: SceneObject) -> bool:
    """Whether the center is at least `BORDER_GAP_PX` from every coarse cell border."""
    return all(BORDER_GAP_PX <= position % CELL_PX <= CELL_PX - BORDER_GAP_PX for position in item.center_px)


def unique_objects(objects: tuple[SceneObject, ...]) -> list[SceneObject]:
    """Objects that no other object equals in both color and shape."""
    counts = Counter((item.color, item.shape) for item in objects)
    return [item for item in objects if counts[item.color, item.shape] == 1]


@cache
def _box_bits(row: int, col: int, height: int, width: int) -> int:
    """The patches of a box as bits of one integer: testing overlap is then a single `&`."""
    line = ((1 << width) - 1) << col
    return sum(line << (GRID * (row + step)) for step in range(height))


def _place(draws: Draws, taken: int, height: int, width: int) -> tuple[int, int, int] | None:
    """A free box as (row, col, patches taken so far), or None if none was found in time."""
    for _ in range(_PLACE_TRIES):
        row, col = draws.below(GRID - height + 1), draws.below(GRID - width + 1)
        bits = _box_bits(row, col, height, width)
        if not taken & bits:
            return row, col, taken | bits
    return None


def _themed(draws: Draws, values: tuple[str, ...], theme_count: int, total: int) -> list[str]:
    """`total` values: exactly `theme_count` are one random value, the others uniform."""
    theme = draws.choice(values)
    others = [value for value in values if value != theme]
    rest = [draws.choice(others) for _ in range(total - theme_count)]
    return [theme] * theme_count + rest


def _attributes(draws: Draws) -> list[tuple[str, str, str]]:
    """(shape, color, size) of each object, one color or shape being the theme, counted 0..5.

    The theme makes every count common enough for counting questions to have balanced answers.
    """
    theme_count = draws.weighted(_THEME_WEIGHTS)
    total = draws.between(max(_MIN_OBJECTS, theme_count), _MAX_OBJECTS)
    if draws.below(2):
        colors = _themed(draws, COLORS, theme_count, total)
        shapes = [draws.choice(SHAPES) for _ in range(total)]
    else:
        shapes = _themed(draws, SHAPES, theme_count, total)
        colors = [draws.choice(COLORS) for _ in range(total)]
    sizes = [draws.choice(SIZES) for _ in range(total)]
    return draws.shuffled(list(zip(shapes, colors, sizes, strict=True)))


def _number_text(draws: Draws) -> str:
    """1..4 digits, the length uniform, without a leading zero unless it is the only digit."""
    length = draws.between(1, _MAX_DIGITS)
    first = draws.below(10) if length == 1 else draws.between(1, 9)
    return str(first) + "".join(str(draws.below(10)) for _ in range(length - 1))


def _numbers(draws: Draws, split: str) -> tuple[tuple[SceneNumber, ...], int] | None:
    """1..3 numbers in distinct colors, and the patches they take.

    Two numbers of one row have a free cell between them: else only ink would part them.
    """
    pools = digit_pools()[split]
    colors = draws.shuffled(COLORS)[: draws.between(1, _MAX_NUMBERS)]
    taken = closed = 0  # the cells that numbers cover, and those with a cell on either side
    numbers = []
    for color in colors:
        text = _number_text(draws)
        image_ids = tuple(draws.choice(pools[int(digit)]) for digit in text)
        place = _place(draws, closed, 1, len(text))
        if place is None:
            return None
        row, col, closed = place
        taken |= _box_bits(row, col, 1, len(text))
        first, end = max(col - 1, 0), min(col + len(text) + 1, GRID)
        closed |= _box_bits(row, first, 1, end - first)
        numbers.append(SceneNumber(text, color, row, col, image_ids))
    return tuple(numbers), taken


def _objects(draws: Draws, taken: int) -> tuple[SceneObject, ...] | None:
    """4..10 objects in free boxes, or None if they did not fit."""
    objects = []
    for shape, color, size in _attributes(draws):
        side = BOX_PATCHES[size]
        place = _place(draws, taken, side, side)
        if place is None:
            return None
        row, col, taken = place
        x_px = PATCH_PX * col + draws.below(JITTER_PX + 1)
        y_px = PATCH_PX * row + draws.below(JITTER_PX + 1)
        objects.append(SceneObject(shape, color, size, x_px, y_px, EXTENT_PX[size]))
    return tuple(objects)


def far_axes(first: SceneObject, second: SceneObject) -> list[int]:
    """Axes (0: x, 1: y) along which two centers are at least `RELATION_GAP_PX` apart."""
    return [axis for axis in (0, 1) if abs(first.center_px[axis] - second.center_px[axis]) >= RELATION_GAP_PX]


def _yields_every_kind(objects: tuple[SceneObject, ...]) -> bool:
    """Whether each kind, and each form of the attribute kind, has a question here."""
    colors = Counter(item.color for item in objects)
    shapes = Counter(item.shape for item in objects)
    pairs = Counter((item.color, item.shape) for item in objects)
    if len(pairs) == len(colors) * len(shapes):
        return False  # no hard negative for existence
    if len(set(colors.values())) == 1 and len(set(shapes.values())) == 1:
        return False  # only ties to compare
    if 1 not in Counter((item.shape, item.size) for item in objects).values():
        return False  # no color to ask for
    if 1 not in Counter((item.color, item.size) for item in objects).values():
        return False  # no shape to ask for
    unique = unique_objects(objects)
    return any(map(is_clear_of_borders, unique)) and any(
        far_axes(first, second) for first, second in combinations(unique, 2)
    )


def make_layout(draws: Draws, split: str) -> Layout:
    """Draws layouts until one fits and yields every kind; most do at once."""
    while True:
        placed = _numbers(draws, split)
        if placed is None:
            continue
        numbers, taken = placed
        objects = _objects(draws, taken)
        if objects is not None and _yields_every_kind(objects):
            return Layout(objects, numbers)
