"""Settings, values and counts in a reader's words."""

import pytest

from adallava.records.counted_nouns import counted
from adallava.records.setting_words import setting_words, value_words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["64", "0.25"], "64,0.25"),
        ([], "none"),
        (None, "none"),
        (0, "0"),
        (True, "yes"),
        ({"fixed": {"plans": "4+6"}}, "fixed plans 4+6"),
        ("a" * 64, "aaaaaaaaaaaa…"),
    ],
)
def test_a_value_reads_without_brackets_or_whole_hashes(value, words):
    assert value_words(value) == words


def test_a_setting_is_named_as_its_option():
    assert [setting_words(field) for field in ("token_budgets", "batch_size")] == ["--token-budget", "--batch-size"]


def test_one_has_no_plural():
    assert [counted(1, "image"), counted(1000, "image"), counted(0, "batch", "batches")] == [
        "1 image", "1,000 images", "0 batches",
    ]  # fmt: skip
