import pytest

from adallava.tasks import exact_match, normalise_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red.", "red"),
        ("  two   words \n", "two words"),
        ('"Yes!"', "yes"),
        ("3.5", "3.5"),
        ("The cat", "the cat"),
        ("(B)", "b"),
        ("...", ""),
    ],
)
def test_normalising_strips_case_space_and_outer_punctuation_only(text, expected):
    assert normalise_answer(text) == expected


def test_any_of_the_answers_is_right():
    assert exact_match("Grey.", ["gray", "grey"]) == 1.0
    assert exact_match("green", ["gray", "grey"]) == 0.0


def test_a_part_of_an_answer_is_wrong():
    assert exact_match("12", ["123"]) == 0.0
    assert exact_match("red circle", ["red"]) == 0.0


@pytest.mark.parametrize("response", ["", "  ", "?!"])
def test_nothing_is_never_right(response):
    assert exact_match(response, ["", "?!", response]) == 0.0
