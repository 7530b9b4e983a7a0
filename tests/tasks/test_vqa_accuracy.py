"""VQA accuracy against cases worked out by hand from the published rules (`vqaEval.py` of GT-Vision-Lab/VQA)."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.tasks.contractions import CONTRACTIONS
from adallava.tasks.vqa_accuracy import lmms_vqa_accuracy, official_vqa_accuracy

BOTH = pytest.mark.parametrize("accuracy", [official_vqa_accuracy, lmms_vqa_accuracy])


def people(*counted: tuple[str, int]) -> list[str]:
    answers = [answer for answer, count in counted for _ in range(count)]
    assert len(answers) == 10
    return answers


@BOTH
@pytest.mark.parametrize(("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_leaving_one_out_of_ten(accuracy, matches, expected):
    # With n matches: n times n - 1 others agree, 10 - n times n. For n = 2: (2 * 1/3 + 8 * 2/3) / 10 = 0.6.
    assert accuracy("red", people(("red", matches), ("blue", 10 - matches))) == pytest.approx(expected)


@BOTH
@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("ten", "10"),
        ("the red car", "red car"),
        ("A dog.", "dog"),
        ("1,000", "1000"),  # a comma between digits goes without a space
        ("1,000/2", "10002"),  # and so does all other punctuation of that text
        ("t-shirt", "t shirt"),  # inside a word a mark becomes a space
        ("red - blue", "red  blue"),  # at a space it goes
        ("stop!", "stop"),
        ("3.5", "3.5"),  # a full stop before a digit stays
        ("p.m.", "pm"),
        ("dont", "don't"),
        ("shouldnt've", "shouldn't've"),
        ("red\ncar", "red car"),
    ],
)
def test_both_sides_are_normalised_where_people_differ(accuracy, response, answer):
    assert accuracy(response, people((answer, 5), ("something else", 5))) == 1.0
    assert accuracy(answer, people((response, 5), ("something else", 5))) == 1.0


@BOTH
def test_no_two_words_become_one_and_case_of_contractions_is_lost(accuracy):
    assert accuracy("tshirt", people(("t-shirt", 5), ("shirt", 5))) == 0.0
    assert accuracy("im", people(("I'm", 5), ("you", 5))) == 0.0  # the table's "Im" never meets a lower-case word


def test_where_all_agree_only_the_official_script_leaves_both_sides_as_they_are():
    for response, answer in (("Yes", "yes"), ("the dog", "dog"), ("two", "2"), ("yes.", "yes")):
        assert official_vqa_accuracy(response, [answer] * 10) == 0.0
        assert lmms_vqa_accuracy(response, [answer] * 10) == 1.0
    assert official_vqa_accuracy(" 2 ", ["2\n"] * 10) == 1.0


def test_a_run_of_commas_between_digits_counts_for_lmms_eval_only():
    answers = people(("1,,2", 5), ("3", 5))
    assert lmms_vqa_accuracy("12", answers) == 1.0
    assert official_vqa_accuracy("12", answers) == 0.0
    assert official_vqa_accuracy("1 2", answers) == 1.0  # there each comma became a space, and words are joined by one


def test_only_the_first_32_full_stops_go():
    answers = people(("." * 33 + "yes", 5), ("no", 5))
    for accuracy in (official_vqa_accuracy, lmms_vqa_accuracy):
        assert accuracy("." * 33 + "yes", answers) == 1.0
        assert accuracy("yes", answers) == 0.0  # theirs is ".yes" by now
        assert accuracy("yes", people(("." * 32 + "yes", 5), ("no", 5))) == 1.0


@BOTH
@given(st.lists(st.sampled_from(["red", "Blue", "2", "two", "a", ""]), min_size=10, max_size=10), st.text(max_size=12))
def test_a_score_is_a_share_and_people_have_no_order(accuracy, answers, response):
    score = accuracy(response, answers)
    assert 0.0 <= score <= 1.0
    assert accuracy(response, answers[::-1]) == pytest.approx(score)


def test_contractions_lack_one_apostrophe_of_their_form():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["couldn'tve"] == CONTRACTIONS["couldnt've"] == "couldn't've"
    assert CONTRACTIONS["oclock"] == "o'clock"
    assert CONTRACTIONS["'ows'at"] == "'ow's'at"
    assert CONTRACTIONS["somebody'd"] == "somebodyd"
    assert "couldntve" not in CONTRACTIONS
    assert "lets" not in CONTRACTIONS


def documented_cases():
    """Yield the rows of the table of literal cases: response, answers, and both scores."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "data.md").read_text()
    rows = re.findall(r'^\| "(.*?)" \| (\d+ ".*?") \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    for response, said, official, lmms in rows:
        answers = people(*((text, int(count)) for count, text in re.findall(r'(\d+) "(.*?)"', said)))
        yield response, answers, float(official), float(lmms)


@pytest.mark.parametrize(("response", "answers", "official", "lmms"), list(documented_cases()))
def test_the_documented_cases_are_as_documented(response, answers, official, lmms):
    assert official_vqa_accuracy(response, answers) == pytest.approx(official)
    assert lmms_vqa_accuracy(response, answers) == pytest.approx(lmms)


def test_there_are_documented_cases_where_the_variants_differ():
    assert sum(official != lmms for _, _, official, lmms in documented_cases()) >= 3
