"""A batch that does not fit into memory is halved until it does; any other error leaves each sample to itself."""

from types import SimpleNamespace

import pytest
import torch

from adallava.budget import TokenBudget
from adallava.records.cells import plan_cells
from adallava.runs.answering import Answerer, answer_batch
from adallava.runs.batches import PreparedBatch
from adallava.tasks import TaskSample

PLAN = plan_cells(["uniform"], [TokenBudget(count=3)])[1]
SAMPLES = [TaskSample(f"s{number}", "why?", ("a",), None, lambda: None) for number in range(7)]


def answered(error_of):
    """Answer the seven as one batch; return the records, and what was asked in between: rows, or memory given back."""
    asked = []

    class Stub(Answerer):
        def answer(self, plan, draw, batch):
            asked.append(len(batch.samples))
            error = error_of(batch.samples)
            if error is not None:
                raise error
            return [SimpleNamespace(sample_id=sample.id, error=None) for sample in batch.samples]

        def give_back_memory(self):
            asked.append("given back")

    def prepare(samples):
        return PreparedBatch(tuple(samples), (), {})

    store = SimpleNamespace(prepared=prepare, prepare=prepare)
    return answer_batch(Stub(None, None, None, None), PLAN, 0, store, SAMPLES), asked


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no room"), MemoryError("no room")])
def test_what_does_not_fit_is_halved_and_memory_is_given_back_before(error):
    records, asked = answered(lambda samples: error if len(samples) > 2 else None)
    assert [record.sample_id for record in records] == [sample.id for sample in SAMPLES]
    assert asked == [7, "given back", 4, "given back", 2, 2, 3, "given back", 2, 1]


def test_one_sample_that_does_not_fit_alone_fails_alone():
    records, _ = answered(lambda samples: torch.OutOfMemoryError("no room") if SAMPLES[6] in samples else None)
    assert [record.sample_id for record in records if record.error is not None] == ["s6"]
    assert records[6].error == "OutOfMemoryError: no room"


def test_after_another_error_each_is_answered_alone():
    records, asked = answered(lambda samples: ValueError("odd") if SAMPLES[2] in samples else None)
    assert asked == [7, *[1] * 7]
    assert [record.error for record in records if record.error] == ["ValueError: odd"]
