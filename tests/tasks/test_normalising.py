"""Exact match beyond ASCII."""

import json
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.errors import InputError
from adallava.tasks import exact_match, load_task, normalise_answer


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
        ("10\u301c20", "10\uff5e20"),
        ("don\u00b4t", "don't"),
        ("don\u1ffdt", "don't"),
        ("don \u0301t", "don't"),
        ("1\u20442", "1/2"),
        ("a\u0385", "a\u00a8\u0301"),
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


@pytest.mark.parametrize("sign", ["+", "-", "?", "。"])
def test_signs_alone_are_wrong_for_words_and_refused_as_a_rows_only_answer(sign, tmp_path):
    assert exact_match(sign, ["plus", ""]) == exact_match("", [sign]) == 0.0
    file = tmp_path / "q.jsonl"
    rows = [{"image": "a.png", "question": "Which?", "answer": answer} for answer in (["plus", sign], [sign, " "])]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="line 2: column 'answer' holds no answer but punctuation"):
        load_task(str(file))
    assert len(load_task(str(file), limit=1).samples) == 1


def test_signs_beyond_punctuation_are_answers():
    assert exact_match("±", ["±"]) == exact_match(" ×.", ["×"]) == 1.0


_ASCII = st.text(st.characters(max_codepoint=127, exclude_categories=["Cc"]) | st.sampled_from("\t\n\r\v\f"))


@given(_ASCII)
def test_of_ascii_only_case_spaces_and_outer_punctuation_go(text):
    assert normalise_answer(text) == " ".join(text.lower().split()).strip(string.punctuation + " ")


_TWINS = "a'- \u0301\u0308\u0323\u0345\u00b4\u00a0\u1ffd\u0385\u03d3\u1fcd\u301c\uff5e\u2044\u200b\uac00\u1100ŉſ"


@given(st.text() | st.text(_TWINS))
def test_normalised_twice_is_normalised_once_and_encodings_do_not_matter(text):
    once = normalise_answer(text)
    assert normalise_answer(once) == once
    assert {normalise_answer(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {once}


_COMPATIBLE = [*"aé'-ﬁⅧ１Ａ㍿\u00b4\u1ffd\u0384\u03d3\u301c\uff5e\u2044\u00a0…", "ﾊﾟ"]


@given(st.lists(st.sampled_from(_COMPATIBLE)))
def test_compatibility_encodings_do_not_matter_either_without_other_values(letters):
    text = "".join(letters)
    once = normalise_answer(text)
    assert {normalise_answer(unicodedata.normalize(form, text)) for form in ("NFKC", "NFKD")} == {once}
