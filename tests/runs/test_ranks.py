"""Which process answers what, and where, as arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.errors import InputError
from adallava.runs.ranks import Ranks, device_of_rank, is_own, ranks_of_one_host


def ranks(rank, world_size):
    return Ranks(rank=rank, local_rank=rank, world_size=world_size)


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 20))
def test_every_batch_of_a_turn_is_exactly_one_rank_s(world_size, num_batches, turn):
    for batch in range(num_batches):
        assert sum(is_own(ranks(rank, world_size), num_batches, batch, turn) for rank in range(world_size)) == 1


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 20))
def test_over_the_turns_no_rank_has_two_batches_more_than_another(world_size, num_batches, num_turns):
    shares = [
        sum(
            is_own(ranks(rank, world_size), num_batches, b, turn)
            for turn in range(num_turns)
            for b in range(num_batches)
        )
        for rank in range(world_size)
    ]
    assert max(shares) - min(shares) <= 1


def test_only_what_is_left_over_goes_round():
    def owners(turn):
        return [next(r for r in range(3) if is_own(ranks(r, 3), 8, batch, turn)) for batch in range(8)]

    assert owners(0) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert owners(1) == [0, 1, 2, 0, 1, 2, 2, 0]
    assert owners(2) == [0, 1, 2, 0, 1, 2, 1, 2]
    assert owners(3) == owners(0)


@pytest.mark.parametrize(
    ("asked", "rank", "world_size", "num_cuda", "expected"),
    [
        (None, 0, 1, 4, None),
        ("cuda", 0, 1, 4, "cuda"),
        (None, 3, 4, 4, "cuda:3"),
        ("cuda", 1, 2, 4, "cuda:1"),
        (None, 3, 4, 1, "cuda:0"),
        (None, 3, 4, 2, "cuda:1"),
        ("cuda:1", 0, 4, 2, "cuda:1"),
        ("cpu", 3, 4, 2, "cpu"),
        (None, 3, 4, 0, None),
    ],
)
def test_each_rank_has_a_device_and_shares_it_where_there_are_too_few(asked, rank, world_size, num_cuda, expected):
    assert device_of_rank(asked, ranks(rank, world_size), num_cuda) == expected


def test_one_host_is_asked_for(monkeypatch):
    assert ranks_of_one_host() == Ranks()
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert ranks_of_one_host() == Ranks(rank=1, local_rank=1, world_size=2)
    for local in ("1", ""):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        with pytest.raises(InputError, match="processes of one host"):
            ranks_of_one_host()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE is 2"),
        ({"RANK": "-1"}, "RANK is -1 and WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE is 0"),
        ({"RANK": "first"}, "RANK is 'first', which is not a whole number: unset it"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '', which is not a whole number"),
        ({"LOCAL_RANK": "0.5"}, "LOCAL_RANK is '0.5', which"),
    ],
)
def test_variables_that_cannot_be_right_are_refused(monkeypatch, variables, told):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=told):
        ranks_of_one_host()
