"""The questions of the bundled task: right answers, and nothing to gain from guessing."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scene_oracle import check_question, drawn_scenes

from adallava.tasks.scenes import (
    COLORS,
    KINDS,
    SHAPES,
    SIZES,
    SPLITS,
    Question,
    Scene,
    make_questions,
    make_scene,
    scene_sample,
)

ASKED = 900  # questions of each kind, for the tests of balance


@pytest.fixture
def scenes() -> tuple[Scene, ...]:
    return drawn_scenes()


def test_answers_agree_with_the_oracle(scenes: tuple[Scene, ...]) -> None:
    for scene in scenes[::5]:
        for question in make_questions(scene, KINDS, salt=scene.index):
            check_question(scene, question)


@settings(max_examples=15, deadline=None, database=None)
@given(st.sampled_from(SPLITS), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_any_index_yields_every_kind(split: str, index: int, salt: int) -> None:
    scene = make_scene(split, index)
    questions = make_questions(scene, KINDS, salt)
    assert tuple(question.kind for question in questions) == KINDS
    assert questions == make_questions(make_scene(split, index), KINDS, salt)
    for question in questions:
        check_question(scene, question)


def test_repeated_kinds_ask_something_else(scenes: tuple[Scene, ...]) -> None:
    for scene in scenes[:60]:
        texts = [question.text for question in make_questions(scene, ("reading",) * len(scene.numbers))]
        assert len(set(texts)) == len(texts)
        texts = [question.text for question in make_questions(scene, KINDS[:5] * 2)]
        assert len(set(texts)) == len(texts)
        again = make_questions(scene, ("reading",) * 5)  # more than there are numbers
        assert {question.answer for question in again} == {number.text for number in scene.numbers}


def test_salt_and_position_change_the_question(scenes: tuple[Scene, ...]) -> None:
    by_salt = [make_questions(scene, ("existence",), salt) for scene in scenes[:50] for salt in (0, 1)]
    assert sum(one != other for one, other in zip(by_salt[::2], by_salt[1::2], strict=True)) > 35
    assert make_questions(scenes[0], ()) == ()


def test_evaluation_alternates_kinds() -> None:
    for index in range(14):
        scene, question = scene_sample("test", index)
        assert scene == make_scene("test", index)
        assert question.kind == KINDS[index % 7]
        assert (question,) == make_questions(scene, (question.kind,))


@pytest.fixture(scope="module")
def asked() -> dict[str, list[Question]]:
    """`ASKED` questions of each kind."""
    found = defaultdict(list)
    for index in range(ASKED):
        for question in make_questions(make_scene("train", index), KINDS):
            found[question.kind].append(question)
    return found


def majority(answers: list[str]) -> float:
    return Counter(answers).most_common(1)[0][1] / len(answers)


# Bounds leave about four standard errors of `ASKED` draws.
@pytest.mark.parametrize(
    ("kind", "answers", "bound"),
    [
        ("existence", 2, 0.56),
        ("counting", 6, 0.21),
        ("comparison", 2, 0.56),
        ("relation", 2, 0.56),
        ("locating", 16, 0.09),
    ],
)
def test_no_answer_stands_out(asked: dict[str, list[Question]], kind: str, answers: int, bound: float) -> None:
    given_answers = [question.answer for question in asked[kind]]
    assert len(set(given_answers)) == answers
    assert majority(given_answers) <= bound


def test_attribute_forms_and_answers_are_even(asked: dict[str, list[Question]]) -> None:
    forms = defaultdict(list)
    for question in asked["attribute"]:
        forms[question.text.split()[1]].append(question.answer)
    for form, bound in (("color", 0.24), ("shape", 0.28), ("size", 0.59)):
        assert 0.28 <= len(forms[form]) / ASKED <= 0.39
        assert majority(forms[form]) <= bound
    assert {name: set(answers) for name, answers in forms.items()} == {
        "color": set(COLORS),
        "shape": set(SHAPES),
        "size": set(SIZES),
    }


def test_the_text_does_not_give_the_answer_away(asked: dict[str, list[Question]]) -> None:
    # The best guess per text is learnt on one half and scored on the other.
    for kind, bound in (("existence", 0.58), ("comparison", 0.58), ("relation", 0.58), ("counting", 0.26)):
        seen = defaultdict(Counter)
        for question in asked[kind][::2]:
            seen[question.text][question.answer] += 1
        tested = [question for question in asked[kind][1::2] if question.text in seen]
        right = sum(seen[question.text].most_common(1)[0][0] == question.answer for question in tested)
        if len(tested) >= 400:  # relation has thousands of texts, so few are met twice
            assert right / len(tested) <= bound
    assert majority([question.answer for question in asked["reading"]]) < 0.05


def test_numbers_have_every_length_equally_often(asked: dict[str, list[Question]]) -> None:
    lengths = Counter(len(question.answer) for question in asked["reading"])
    assert set(lengths) == {1, 2, 3, 4}
    assert all(0.19 <= count / ASKED <= 0.31 for count in lengths.values())


def test_wrong_kind_or_salt() -> None:
    scene = make_scene("train", 0)
    with pytest.raises(ValueError, match=r"'colour'.*attribute, existence"):
        make_questions(scene, ("colour",))
    with pytest.raises(ValueError, match="bare string 'reading'"):
        make_questions(scene, "reading")
    with pytest.raises(ValueError, match="salt is -2"):
        make_questions(scene, KINDS, salt=-2)
    with pytest.raises(TypeError):
        make_scene("train", 1.5)  # type: ignore[arg-type]
