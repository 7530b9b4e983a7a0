"""Leases: each sample of each cell is handed out until it is answered, whoever dies, and never for ever."""

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adallava.budget import Latency, TokenBudget
from adallava.records.answer_places import AnswerPlaces
from adallava.records.cells import CellPlan, plan_cells
from adallava.runs.executors.leases import SORTED_BATCHES, LeaseBook

IDS = [f"s{number}" for number in range(10)]
PLANS = plan_cells(["uniform"], [TokenBudget(count=3)])


def book_of(done=None, plans=PLANS, ids=IDS, batch_size=4):
    return LeaseBook(plans, ids, batch_size, AnswerPlaces() if done is None else done)


def spans(*leases):
    return [(lease.plan, lease.start, lease.stop) for lease in leases]


def test_batches_go_out_in_the_order_of_the_cells_and_only_what_is_missing():
    done = AnswerPlaces()
    for id_ in (*IDS[:4], "s5"):
        done.add(("full@1.0", id_, 0), 0)
    book = book_of(done)
    first, second, third = (book.take(worker) for worker in "aab")
    assert spans(first, second, third) == [(0, 4, 8), (0, 8, 10), (1, 0, 4)]
    assert first.missing == {"s4", "s6", "s7"}


def test_a_worker_gets_the_batches_of_the_cell_before_again_and_a_quick_one_those_of_others():
    book = book_of()
    had = {worker: book.take(worker) for worker in ("a", "b", "c")}
    assert spans(*had.values()) == [(0, 0, 4), (0, 4, 8), (0, 8, 10)]
    for lease in had.values():
        book.settle(lease)
    assert [spans(book.take(worker)) for worker in ("c", "a")] == [[(1, 8, 10)], [(1, 0, 4)]]
    assert spans(book.take("a")) == [(1, 4, 8)], "b is slower"
    assert book.take("b") is None


def test_what_a_dead_worker_was_at_goes_out_again_whole_and_what_it_had_not_begun_is_no_loss():
    book = book_of()
    book.take("a"), book.take("a")
    book.leave("a")
    again = [book.take("b"), book.take("b")]
    assert spans(*again) == [(0, 0, 4), (0, 4, 8)]
    assert [lease.losses for lease in again] == [1, 0]


def test_a_batch_that_workers_die_of_is_cut_until_its_one_bad_sample_has_failed():
    book, deaths = book_of(ids=IDS[:8], plans=PLANS[:1], batch_size=8), 0
    answered = []
    while not book.over:
        lease = book.take(f"worker {deaths}")
        if lease is None:
            break
        if "s5" in lease.missing:
            deaths += 1
            book.leave(f"worker {deaths - 1}")
        else:
            answered += lease.missing
            book.settle(lease)
    assert deaths == 5, "twice of eight, then of four, two, and alone"
    assert sorted(answered) == sorted(set(IDS[:8]) - {"s5"})
    assert [lease.missing for lease in book.failed] == [{"s5"}]
    assert not book.over, "until somebody has said so in a record"
    book.failed.clear()
    assert book.over


def test_a_worker_that_fails_at_a_batch_and_lives_keeps_what_else_it_holds():
    book = book_of(plans=PLANS[:1])
    first, second = book.take("a"), book.take("a")
    book.lose("a", first)
    assert book.holds("a", second)
    assert spans(book.take("b")) == spans(first)


def test_a_copy_of_a_slow_lease_is_settled_by_whoever_is_first():
    book = book_of(plans=PLANS[:1], ids=IDS[:4])
    slow = book.take("slow")
    assert book.take("idle") is None
    assert book.take_copy("idle", "slow") == slow
    assert book.take_copy("idle", "slow") is None, "it has one already"
    book.leave("slow")
    assert book.take("third") is None, "somebody is at it"
    book.settle(slow)
    assert book.over


def test_where_plans_differ_by_sample_several_batches_are_one_lease():
    plan = CellPlan("full", TokenBudget(ratio=1.0), scheduler="random", latency=Latency(ratio=0.5))
    book = book_of(plans=[plan], ids=[str(number) for number in range(100)])
    assert spans(book.take("a")) == [(0, 0, 4 * SORTED_BATCHES)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["take", "answer", "die", "fail"]), max_size=80), st.integers(1, 5), st.integers(1, 3))
def test_whatever_happens_every_sample_of_every_cell_is_answered_or_given_up(events, batch_size, num_workers):
    done, answers = AnswerPlaces(), Counter()
    book = book_of(done, batch_size=batch_size)
    held = {worker: deque() for worker in range(num_workers)}

    def take(worker):
        lease = book.take(worker)
        if lease is not None:
            held[worker].append(lease)

    def answer(worker):
        lease = held[worker].popleft()
        for id_ in lease.missing:
            answers[PLANS[lease.plan].cell, id_] += done.add((PLANS[lease.plan].cell, id_, lease.draw), 0)
        book.settle(lease)

    for number, event in enumerate(events):
        worker = number % num_workers
        if event == "take":
            take(worker)
        elif held[worker] and event == "answer":
            answer(worker)
        elif held[worker] and event == "fail":
            book.lose(worker, held[worker].popleft())
        elif event == "die":
            book.leave(worker)
            held[worker].clear()
    for _ in range(1000):
        if book.over or (book.failed and not any(held.values()) and not book._has_pending()):
            break
        take(0)
        for worker in held:
            while held[worker]:
                answer(worker)
    failed = {(PLANS[lease.plan].cell, id_) for lease in book.failed for id_ in lease.missing}
    assert set(answers) | failed == {(plan.cell, id_) for plan in PLANS for id_ in IDS}
    assert not set(answers) & failed
    assert set(answers.values()) <= {1}


@pytest.mark.parametrize("size", [1, 2])
def test_nothing_to_answer_is_over_at_once(size):
    done = AnswerPlaces()
    for plan in PLANS:
        for id_ in IDS:
            done.add((plan.cell, id_, 0), 0)
    assert book_of(done, batch_size=size).over


def test_samples_that_failed_at_one_place_are_answered_at_another_and_only_then_counted():
    book = book_of(ids=IDS[:4], plans=PLANS[:1])
    lease = book.take("a", "here")
    book.doubt(lease, frozenset({"s2"}), "here")
    book.settle(lease)
    assert book.take("a", "here") is None
    assert not book.over, "it waits for another"
    again = book.take("b", "there")
    assert (again.start, again.stop, again.missing, again.doubted) == (0, 4, {"s2"}, "here")
    book.settle(again)
    assert book.over


def test_where_no_other_place_is_left_they_are_answered_where_they_failed():
    book = book_of(ids=IDS[:4], plans=PLANS)
    lease = book.take("a", "here")
    book.doubt(lease, frozenset({"s2"}), "here")
    book.settle(lease)
    assert book.take("a", "here").plan == 1, "the next cell does not wait for it"
    assert book.take("a").missing == {"s2"}
