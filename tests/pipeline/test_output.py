import pytest
import torch

from adallava.pipeline.result import measure_answers


@pytest.mark.parametrize(
    ("row", "eos", "length", "reason"),
    [
        ([5, 6, 2, 0], {2}, 3, "eos"),
        ([5, 6, 7, 8], {2}, 4, "length"),
        ([2, 0, 0, 0], {2}, 1, "eos"),
        ([5, 2, 2, 2], {2}, 2, "eos"),
        ([5, 3, 0, 0], {2, 3}, 2, "eos"),
        ([5, 6, 7, 2], {2}, 4, "eos"),
        ([5, 6, 7, 8], set(), 4, "length"),
    ],
)
def test_an_answer_ends_with_its_first_eos(row: list[int], eos: set[int], length: int, reason: str) -> None:
    assert measure_answers(torch.tensor([row]), eos) == ((length,), (reason,))


def test_an_empty_answer_has_no_tokens() -> None:
    assert measure_answers(torch.zeros((1, 0), dtype=torch.int64), {2}) == ((0,), ("length",))
