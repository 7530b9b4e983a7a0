"""A method's color, shape and dash are its own, whatever else is on the page; and error bars do not fall on others."""

import itertools

import pytest

from adallava.records import FULL_METHOD
from adallava.registry.built_in import SCHEDULERS, SELECTORS
from adallava.report.dodge import stand_apart
from adallava.report.marks import COLOURS, PLACES, mark_of, method_marks

ON_LIGHT, ON_DARK = "#fffefb", "#17181b"


def linear(colour: str) -> tuple[float, ...]:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return tuple(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio."""
    bright, dim = sorted(
        (sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (one, other)),
        reverse=True,
    )
    return (bright + 0.05) / (dim + 0.05)


def oklab(colour: str) -> tuple[float, float, float]:
    """Björn Ottosson's space, in which a distance of 0.02 is just seen."""
    r, g, b = linear(colour)
    l_, m, s = (
        sum(w * x for w, x in zip(weights, (r, g, b), strict=True)) ** (1 / 3)
        for weights in (
            (0.4122214708, 0.5363325363, 0.0514459929),
            (0.2119034982, 0.6806995451, 0.1073969566),
            (0.0883024619, 0.2817188376, 0.6299787005),
        )
    )
    return (
        0.2104542553 * l_ + 0.7936177850 * m - 0.0040720468 * s,
        1.9779984951 * l_ - 2.4285922050 * m + 0.4505937099 * s,
        0.0259040371 * l_ + 0.7827717662 * m - 0.8086757660 * s,
    )


def test_a_mark_follows_from_the_name_alone() -> None:
    names = [*SELECTORS, "another-package", FULL_METHOD]
    forward, alone = method_marks(names), {name: method_marks([name])[name] for name in names}

    assert method_marks(reversed(names)) == forward == alone


def test_a_place_once_given_stays() -> None:
    """Pages of older versions have these: append to the list, and change nothing in it."""
    assert [mark_of(name).colour for name in ("question", "visionzip", "random")] == ["#0072B2", "#D55E00", "#00875F"]
    assert list(PLACES)[-1] == "prumerge-plus-k"
    assert mark_of("another-package") == mark_of("another-package")


def test_every_method_that_comes_with_the_package_has_a_color_of_its_own_and_looks_its_own_without() -> None:
    marks = [mark_of(name) for name in (*SELECTORS, FULL_METHOD)]

    assert set(SELECTORS) == set(PLACES), "a new method needs a place and a color: append both"
    for of_page in ({mark.colour for mark in marks}, {mark.dark_colour for mark in marks}):
        assert len(of_page) == len(SELECTORS) + 1
    assert len({(mark.symbol, mark.dash) for mark in marks}) == len(SELECTORS) + 1


@pytest.mark.parametrize(("page", "paper"), [(0, ON_LIGHT), (1, ON_DARK)], ids=["light", "dark"])
def test_colors_are_told_from_each_other_and_from_the_page(page: int, paper: str) -> None:
    colours = [both[page] for both in COLOURS]

    assert min(contrast(colour, paper) for colour in colours) >= 3.0
    apart = [
        sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in itertools.combinations(map(oklab, colours), 2)
    ]
    assert min(apart) >= 0.06**2, "three times what is just seen"


def test_another_packages_method_shares_no_color_and_shape_with_one_from_here() -> None:
    own = {(mark.colour, mark.symbol) for mark in map(mark_of, SELECTORS)}
    others = {(mark.colour, mark.symbol) for mark in map(mark_of, (f"other-{number}" for number in range(300)))}

    assert not own & others
    assert len(others) > 100


def test_layers_left_out_change_shape_and_dash_and_not_the_color() -> None:
    scheduled = [mark_of(f"uniform/{scheduler}@0.75") for scheduler in SCHEDULERS]

    assert {mark.colour for mark in scheduled} == {mark_of("uniform").colour}
    assert len({mark.symbol for mark in (*scheduled, mark_of("uniform"))}) == len(SCHEDULERS) + 1
    assert [mark_of(f"uniform/first@{latency}").dash for latency in ("0.875", "0.75", "0.625", "0.5")] == [
        "solid", "dash", "dashdot", "dot",
    ]  # fmt: skip


def test_points_of_one_cost_are_drawn_apart_around_it_and_others_where_they_are() -> None:
    drawn = stand_apart({"a": [8.0, 128.0], "b": [8.0, 32.0], "c": [8.0]})

    assert drawn["a"][0] < drawn["b"][0] < drawn["c"][0]
    assert drawn["b"][0] == pytest.approx(8.0)
    assert drawn["a"][0] * drawn["c"][0] == pytest.approx(64.0)
    assert (drawn["a"][1], drawn["b"][1]) == (128.0, 32.0)


def test_costs_that_nearly_meet_keep_their_order_and_many_take_little_room() -> None:
    near = stand_apart({"a": [100.0, 1000.0], "b": [99.99]})
    many = stand_apart({number: [10.0, 1000.0] for number in range(30)})

    assert near["b"][0] < near["a"][0]
    firsts = [places[0] for places in many.values()]
    assert firsts == sorted(firsts)
    assert len(set(firsts)) == 30
    assert max(firsts) / min(firsts) < (1000 / 10) ** 0.1


def test_nothing_to_draw_is_drawn_nowhere() -> None:
    assert stand_apart({}) == {}
