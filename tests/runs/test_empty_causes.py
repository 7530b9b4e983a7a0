import pytest

from adallava.runs.empty_causes import classify_empty

EOS, PAD, IMAGE, SPACE, WORD = 2, 0, 5, 7, 9


@pytest.mark.parametrize(
    ("response", "ids", "cause"),
    [
        ("", [], "no-new-tokens"),
        ("", [EOS], "first-token-eos"),
        ("", [EOS, WORD], "first-token-eos"),
        ("", [IMAGE, EOS], "special-tokens-only"),
        ("", [IMAGE, PAD, IMAGE], "special-tokens-only"),
        ("", [SPACE, EOS], "whitespace-only"),
        (" \n", [SPACE, SPACE], "whitespace-only"),
        ("", [IMAGE, SPACE, EOS], "whitespace-only"),
        ("word", [WORD, EOS], None),
        (" a ", [SPACE, WORD], None),
    ],
)
def test_the_cause_is_read_from_the_ids(response, ids, cause):
    assert classify_empty(response, ids, {EOS}, {EOS, PAD, IMAGE}) == cause
