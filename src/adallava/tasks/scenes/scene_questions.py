"""Questions about a scene, with answers balanced so that guessing does not help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from adallava.tasks.scenes.draw import make_scene
from adallava.tasks.scenes.draws import Draws
from adallava.tasks.scenes.masks import covered_patches
from adallava.tasks.scenes.records import Question, Scene, SceneNumber, SceneObject
from adallava.tasks.scenes.scene_layout import coarse_name, far_axes, is_clear_of_borders, unique_objects
from adallava.tasks.scenes.vocabulary import COLORS, KINDS, MAX_COUNT, SHAPES, check_count, check_kinds, split_id

EVIDENCE_COVER_PERCENT: Final = 10
_QUESTION_STREAM = 2
_DIRECTIONS = (("left of", "right of"), ("above", "below"))  # per axis: smaller, larger first

# Chances of a first group where its availability is skewed: large counts and cells in the
# corners are rarer, so they are taken more often when they can be. Measured over 20,000
# training layouts; groups that are not named here are equally likely.
_WEIGHTS: Final = {
    "counting": {"0": 103, "1": 100, "2": 107, "3": 162, "4": 405, "5": 876},
    "locating": {
        **dict.fromkeys(("a1", "a4", "d1", "d4"), 116),
        **dict.fromkeys(("a2", "a3", "b1", "b4", "c1", "c4", "d2", "d3"), 107),
        **dict.fromkeys(("b2", "b3", "c2", "c3"), 101),
    },
}

Evidence = tuple[SceneObject | SceneNumber, ...]


class Candidate(NamedTuple):
    """A question that could be asked.

    `groups`: what is picked first and second, before one of the candidates that share both;
    `words`: its text in pieces; `evidence`: what it is about.
    """

    groups: tuple[str, str]
    answer: str
    words: tuple[str, ...]
    evidence: Evidence


def _attribute(scene: Scene) -> list[Candidate]:
    counts: Counter[tuple[str, ...]] = Counter()
    for item in scene.objects:
        color, shape, size = item.color, item.shape, item.size
        # The values of the three attributes are distinct words, so one counter serves all.
        counts.update(((color,), (shape,), (size,)))
        counts.update(((size, shape), (size, color), (color, shape)))
    candidates = []
    for item in scene.objects:
        color, shape, size = item.color, item.shape, item.size
        for name, answer, noun, reference in (
            ("color", color, (), (shape,)),
            ("color", color, (), (size, shape)),
            ("shape", shape, ("object",), (color,)),
            ("shape", shape, ("object",), (size,)),
            ("shape", shape, ("object",), (size, color)),
            ("size", size, (), (shape,)),
            ("size", size, ("object",), (color,)),
            ("size", size, (), (color, shape)),
        ):
            if counts[reference] == 1:
                words = ("what", name, "is the", *reference, *noun)
                candidates.append(Candidate((name, answer), answer, words, (item,)))
    return candidates


def _existence(scene: Scene) -> list[Candidate]:
    objects = scene.objects
    colors = {item.color for item in objects}
    shapes = {item.shape for item in objects}
    candidates = []
    # Only colors and shapes that are in the image: a missing pair is then a hard negative.
    for color in (name for name in COLORS if name in colors):
        for shape in (name for name in SHAPES if name in shapes):
            both = tuple(o for o in objects if o.color == color and o.shape == shape)
            either = both or tuple(o for o in objects if o.color == color or o.shape == shape)
            answer = "yes" if both else "no"
            words = ("is there a", color, shape)
            candidates.append(Candidate((answer, ""), answer, words, either))
    return candidates


def _classes(scene: Scene) -> dict[str, list[tuple[str, Evidence]]]:
    """For "color" and for "shape": (plural phrase, the objects it holds) of every value."""
    objects = scene.objects
    return {
        "color": [(f"{c} objects", tuple(o for o in objects if o.color == c)) for c in COLORS],
        "shape": [(s + ("es" if s.endswith("s") else "s"), tuple(o for o in objects if o.shape == s)) for s in SHAPES],
    }


def _counting(scene: Scene) -> list[Candidate]:
    candidates = []
    for form, classes in _classes(scene).items():
        for phrase, members in classes:
            if len(members) <= MAX_COUNT:
                answer = str(len(members))
                words = ("how many", phrase, "are there")
                candidates.append(Candidate((answer, form), answer, words, members))
    return candidates


def _comparison(scene: Scene) -> list[Candidate]:
    candidates = []
    for form, classes in _classes(scene).items():
        # Classes with no member would turn the question into one of existence.
        present = [entry for entry in classes if entry[1]]
        for (phrase, members), (other_phrase, others) in combinations(present, 2):
            if len(members) == len(others):
                continue
            answer, swapped = ("yes", "no") if len(members) > len(others) else ("no", "yes")
            words = ("are there more", phrase, "than", other_phrase)
            swapped_words = ("are there more", other_phrase, "than", phrase)
            evidence = members + others
            candidates.append(Candidate((form, answer), answer, words, evidence))
            candidates.append(Candidate((form, swapped), swapped, swapped_words, evidence))
    return candidates


def _relation(scene: Scene) -> list[Candidate]:
    candidates = []
    for first, second in combinations(unique_objects(scene.objects), 2):
        one, other = (first.color, first.shape), (second.color, second.shape)
        evidence = (first, second)
        for axis in far_axes(first, second):
            before, after = _DIRECTIONS[axis]
            if first.center_px[axis] > second.center_px[axis]:
                before, after = after, before
            for words, answer in (
                (("is the", *one, before, "the", *other), "yes"),
                (("is the", *other, after, "the", *one), "yes"),
                (("is the", *one, after, "the", *other), "no"),
                (("is the", *other, before, "the", *one), "no"),
            ):
                candidates.append(Candidate((answer, ""), answer, words, evidence))
    return candidates


def _reading(scene: Scene) -> list[Candidate]:
    return [
        Candidate(("", ""), number.text, ("what is the", number.color, "number"), (number,)) for number in scene.numbers
    ]


def _locating(scene: Scene) -> list[Candidate]:
    candidates = []
    for item in unique_objects(scene.objects):
        if is_clear_of_borders(item):
            answer = coarse_name(item)
            words = ("where is the", item.color, item.shape)
            candidates.append(Candidate((answer, ""), answer, words, (item,)))
    return candidates


_CANDIDATES: dict[str, Callable[[Scene], list[Candidate]]] = {
    "attribute": _attribute,
    "existence": _existence,
    "counting": _counting,
    "comparison": _comparison,
    "relation": _relation,
    "reading": _reading,
    "locating": _locating,
}


def _grouped(candidates: list[Candidate], level: int) -> dict[str, list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for entry in candidates:
        groups.setdefault(entry.groups[level], []).append(entry)
    return groups


def _pick(kind: str, candidates: list[Candidate], draws: Draws) -> Candidate:
    """One candidate, by its first group, then its second; always takes three draws."""
    weights = _WEIGHTS.get(kind, {})
    first = _grouped(candidates, 0)
    names = list(first)
    name = names[draws.weighted([weights.get(name, 1) for name in names])]
    second = _grouped(first[name], 1)
    return draws.choice(second[draws.choice(list(second))])


def _evidence_patches(evidence: Evidence) -> tuple[int, ...]:
    patches: set[int] = set()
    for item in evidence:
        if isinstance(item, SceneNumber):
            patches.update(item.patches)
        else:
            patches.update(covered_patches(item, EVIDENCE_COVER_PERCENT))
    return tuple(sorted(patches))


def make_questions(scene: Scene, kinds: Sequence[str], salt: int = 0) -> tuple[Question, ...]:
    """One question per entry of `kinds`, in that order; any kind can be asked of any scene.

    Fixed by the scene's split and index, the position in `kinds`, and `salt`. A kind that
    occurs again gets another question where the scene has one.
    """
    key = (_QUESTION_STREAM, split_id(scene.split), scene.index, check_count("salt", salt))
    draws = Draws(*key, block_words=48)
    candidates: dict[str, list[Candidate]] = {}
    asked: set[tuple[str, ...]] = set()
    questions = []
    for kind in check_kinds(kinds):
        if kind not in candidates:
            candidates[kind] = _CANDIDATES[kind](scene)
        unasked = [entry for entry in candidates[kind] if entry.words not in asked]
        entry = _pick(kind, unasked or candidates[kind], draws)
        asked.add(entry.words)
        text = " ".join(entry.words) + "?"
        questions.append(Question(kind, text, entry.answer, _evidence_patches(entry.evidence)))
    return tuple(questions)


def scene_sample(split: str, index: int) -> tuple[Scene, Question]:
    """An image and the one question evaluation asks about it; kinds alternate by index."""
    scene = make_scene(split, index)
    (question,) = make_questions(scene, (KINDS[scene.index % len(KINDS)],))
    return scene, question
