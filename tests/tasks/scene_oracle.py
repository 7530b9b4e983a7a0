"""Answers to the questions of `scenes`, worked out from the objects and the text alone."""

from functools import cache

import numpy as np

from adallava.tasks.scenes import (
    COLORS,
    GRID,
    IMAGE_PX,
    PATCH_COUNT,
    PATCH_PX,
    SHAPES,
    SIZES,
    SPLITS,
    Question,
    Scene,
    SceneObject,
    make_scene,
)

PLURALS = dict(zip(("circles", "squares", "triangles", "crosses", "rings"), SHAPES, strict=True))


@cache
def drawn_scenes() -> tuple[Scene, ...]:
    """Some scenes of every split; nobody may paint over them."""
    return tuple(make_scene(split, index) for split in SPLITS for index in range(80))


def matching(scene: Scene, phrase: str) -> list[SceneObject]:
    """The objects that a phrase such as "large red objects" or "crosses" describes."""
    found = list(scene.objects)
    for word in phrase.split():
        word = PLURALS.get(word, word)
        if word in COLORS:
            found = [item for item in found if item.color == word]
        elif word in SHAPES:
            found = [item for item in found if item.shape == word]
        elif word in SIZES:
            found = [item for item in found if item.size == word]
        else:
            assert word in {"object", "objects"}, phrase
    return found


def the(scene: Scene, phrase: str) -> SceneObject:
    found = matching(scene, phrase)
    assert len(found) == 1, f"{phrase!r} is not unique"
    return found[0]


def middle(item: SceneObject) -> tuple[float, float]:
    return item.x_px + item.extent_px / 2, item.y_px + item.extent_px / 2


def after(text: str, prefix: str) -> str:
    assert text.startswith(prefix), text
    return text.removeprefix(prefix).removesuffix("?")


def oracle_attribute(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    name = text.split()[1]
    item = the(scene, after(text, f"what {name} is the "))
    return {"color": item.color, "shape": item.shape, "size": item.size}[name], [item]


def oracle_existence(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    phrase = after(text, "is there a ")
    color, shape = phrase.split()
    both = matching(scene, phrase)
    either = [item for item in scene.objects if item.color == color or item.shape == shape]
    if not both:  # a hard negative: each half of the pair is there
        assert matching(scene, color)
        assert matching(scene, shape)
    return ("yes", both) if both else ("no", either)


def oracle_counting(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    found = matching(scene, after(text, "how many ").removesuffix(" are there"))
    assert len(found) <= 5
    return str(len(found)), found


def oracle_comparison(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    one, other = (matching(scene, part) for part in after(text, "are there more ").split(" than "))
    assert len(one) != len(other)
    return ("yes" if len(one) > len(other) else "no"), one + other


def oracle_relation(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    words = after(text, "is the ").replace(" of ", " ").split()
    one, other = the(scene, " ".join(words[:2])), the(scene, " ".join(words[-2:]))
    axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[words[2]]
    gap = sign * (middle(other)[axis] - middle(one)[axis])
    assert abs(gap) >= 28
    return ("yes" if gap > 0 else "no"), [one, other]


def oracle_locating(scene: Scene, text: str) -> tuple[str, list[SceneObject]]:
    item = the(scene, after(text, "where is the "))
    for border in (0, 56, 112, 168, 224):
        assert all(abs(place - border) >= 6 for place in middle(item))
    column, row = (int(place // 56) for place in middle(item))
    return "abcd"[column] + "1234"[row], [item]


ORACLES = {
    "attribute": oracle_attribute,
    "existence": oracle_existence,
    "counting": oracle_counting,
    "comparison": oracle_comparison,
    "relation": oracle_relation,
    "locating": oracle_locating,
}


@cache
def covers(item: SceneObject) -> np.ndarray:
    """Share of every patch that the shape covers, [256], from its geometry in floats."""
    y, x = np.ogrid[0.5:IMAGE_PX, 0.5:IMAGE_PX]
    half = item.extent_px / 2
    dx, dy = (x - middle(item)[0]) / half, (y - middle(item)[1]) / half
    inside = (abs(dx) <= 1) & (abs(dy) <= 1)
    radius = np.hypot(dx, dy)
    inside &= {
        "square": True,
        "circle": radius <= 1,
        "ring": (radius <= 1) & (radius >= 0.55),
        "triangle": abs(dx) <= (dy + 1) / 2,
        "cross": (abs(dx) <= 1 / 3) | (abs(dy) <= 1 / 3),
    }[item.shape]
    shares: np.ndarray = inside.reshape(GRID, PATCH_PX, GRID, PATCH_PX).mean(axis=(1, 3)).reshape(-1)
    return shares


def check_patches(patches: tuple[int, ...], about: list[SceneObject], least: float) -> None:
    """The patches are those covered at least `least`, give or take pixels on the shape's edge."""
    shares = np.max([covers(item) for item in about], axis=0) if about else np.zeros(PATCH_COUNT)
    assert set(np.flatnonzero(shares >= least + 0.03)) <= set(patches)
    assert set(patches) <= set(np.flatnonzero(shares >= least - 0.03))


def check_question(scene: Scene, question: Question) -> None:
    assert question.text == question.text.lower()
    assert question.text.endswith("?")
    assert question.text[:-1].replace(" ", "").isalpha()
    assert list(question.patches) == sorted(set(question.patches))
    assert all(0 <= patch < PATCH_COUNT for patch in question.patches)
    if question.kind == "reading":
        color = after(question.text, "what is the ").removesuffix(" number")
        (number,) = [number for number in scene.numbers if number.color == color]
        first = number.row * GRID + number.col
        assert question.answer == number.text
        assert question.patches == tuple(range(first, first + len(number.text)))
        return
    answer, about = ORACLES[question.kind](scene, question.text)
    assert question.answer == answer
    assert bool(question.patches) == bool(about)
    check_patches(question.patches, about, 0.10)
