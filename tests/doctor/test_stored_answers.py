"""Answers that are put aside come back as they were, however many there are."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adallava.doctor import stored_answers
from adallava.doctor.answers import Answer, AnswerCell
from adallava.doctor.stored_answers import Store, StoredAnswers
from adallava.errors import RunFolderError

ANSWERS = st.builds(
    Answer,
    cell=st.just("random@3"),
    sample_id=st.sampled_from("abcdef"),
    question=st.sampled_from(["what?", "why?"]),
    targets=st.sampled_from([(), ("yes", "no")]),
    response=st.sampled_from(["yes", "", "1"]),
    # A number is no other number that equals it: 1 and 1.0, 0 and False.
    score=st.sampled_from([None, 1, 1.0, 0.0, 0.5]),
    draw=st.integers(0, 2),
    error=st.sampled_from([None, None, "OSError: gone"]),
    chosen_per_sample=st.booleans(),
    kept_sets=st.sampled_from([None, (b"\x03",), ((3, 2), b"")]),
    batch_key=st.sampled_from([None, (1.5, 4)]),
)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of three, and a file on the disk."""
    monkeypatch.setattr(stored_answers, "ROWS", 3)
    monkeypatch.setattr(stored_answers, "IN_MEMORY_BYTES", 1)
    return iter(())


@settings(deadline=None, max_examples=60)
@given(st.lists(ANSWERS, max_size=14))
def test_a_cell_that_is_put_aside_is_the_cell_in_memory(answers: list[Answer]) -> None:
    store = Store()
    store.number("f")  # Another cell has met a sample before.
    stored = StoredAnswers(store)
    for answer in answers:
        stored.add(answer)
    aside, held = (AnswerCell("random@3", "", "random", "3", False, of) for of in (stored, tuple(answers)))

    assert list(map(repr, aside.answers)) == list(map(repr, held.answers))
    assert [stored[number] for number in range(len(stored))] == answers
    assert (len(aside.answers), len(aside.answered)) == (len(answers), len(held.answered))
    assert dict(aside.by_sample) == dict(held.by_sample)
    assert len(aside.by_sample) == len(held.by_sample)
    assert aside.repeated == held.repeated


def test_a_full_disk_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()

    def full(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._file, "write", full)
    with pytest.raises(RunFolderError, match=r"No space left on device.*set TMPDIR to a folder with room"):
        store.write(b"answers")
