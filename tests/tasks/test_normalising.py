"""Exact match beyond ASCII."""

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.tasks import exact_match, normalise_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("１２", "12"),
        ("Ｒｅｄ！", "red"),
        ("ﾊﾝ", "ハン"),
        ("“red”", "red"),
        ("«rouge»", "rouge"),
        ("红色。", "红色"),
        ("「はい」、", "はい"),
        ("¿qué?", "qué"),
        ("re\u200bd\ufeff", "red"),
        ("❤\ufe0f", "❤"),
        ("\u200fכן\u200e", "כן"),
        ("cafe\u0301", "café"),
        ("\uac00", "\u1100\u1161"),
        ("STRASSE", "straße"),
        ("don’t", "don't"),
        ("10–20", "10-20"),
        ("−5", "-5"),
        ("１，０００", "1,000"),
        ("two\u3000words\u2028", "two words"),
        ("two\u00a0words", "two words"),
        ("ﬁve", "five"),
        ("Ⅷ", "viii"),
        ("red\x00", "red"),
    ],
)
def test_forms_of_one_text_are_the_same_answer(response, answer):
    assert exact_match(response, [answer]) == exact_match(answer, [response]) == 1.0


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("5²", "52"),
        ("1½", "11/2"),
        ("½", "12"),
        ("H₂O", "h20"),
        ("三", "3"),
        ("é", "e"),
        ("3.5", "35"),
        ("don’t", "dont"),
    ],
)
def test_other_values_stay_other_answers(response, answer):
    assert exact_match(response, [answer]) == 0.0


@pytest.mark.parametrize("response", ["。", "“”", "\u200b", "\u3000！", "\ufe0f"])
def test_punctuation_and_nothing_visible_are_never_right(response):
    assert exact_match(response, [response, ""]) == 0.0


_ASCII = st.text(st.characters(max_codepoint=127, exclude_categories=["Cc"]) | st.sampled_from("\t\n\r\v\f"))


@given(_ASCII)
def test_of_ascii_only_case_spaces_and_outer_punctuation_go(text):
    assert normalise_answer(text) == " ".join(text.lower().split()).strip(string.punctuation + " ")


@given(st.text())
def test_normalised_twice_is_normalised_once_and_encodings_do_not_matter(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once
    assert normalise_answer(unicodedata.normalize("NFD", text)) == normalise_answer(unicodedata.normalize("NFC", text))
