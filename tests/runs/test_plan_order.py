"""A batch runs a layer if any of its samples does: samples with one plan belong together, and nothing else changes."""

from itertools import chain
from types import SimpleNamespace

import pytest
from models import scheduled, six_layers, tiny_image

from adallava import AdaLlava
from adallava.budget import Latency
from adallava.records.cells import CellPlan
from adallava.runs.answering import Answerer, answer_batch
from adallava.runs.batches import BatchStore, prepare_batch
from adallava.runs.plan_order import sort_by_plan
from adallava.tasks import TaskSample

DECODING = SimpleNamespace(samples=False, num_beams=1, eos_token_ids=[], options={}, pad_token_id=0)
QUESTIONS = ("what is it?", "is the colour red or blue?", "why?", "a red one or a blue one?")
SAMPLES = [TaskSample(str(n), QUESTIONS[n % 4], ("a",), None, lambda n=n: [tiny_image(n)]) for n in range(11)]


@pytest.fixture(scope="module")
def six(tiny_folder) -> AdaLlava:
    return six_layers(AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu", engine="stock"))


def _answerer(model: AdaLlava, decoding=DECODING) -> Answerer:
    config = SimpleNamespace(seed=0, decoding=decoding, max_new_tokens=2)
    return Answerer(model, None, config, lambda sample, response: 1.0)


def _cell(scheduler: str, share: float = 0.75) -> CellPlan:
    return CellPlan("full", None, scheduler=scheduler, latency=Latency(ratio=share))


def _sorted(model, cell, draw=0, decoding=DECODING):
    store = BatchStore(SAMPLES, 4, lambda samples: prepare_batch(model.processor, samples))
    answerer = _answerer(model, decoding)
    batches = sort_by_plan(answerer, cell, draw, store.batches, store)
    return answerer, store, batches


def _layers_run(answerer, store, batches, cell):
    """Return how many layers each batch ran for some row, and the response of each sample."""
    answered = [answer_batch(answerer, cell, 0, store, batch) for batch in batches]
    plans = [[[bool(groups) for groups in record.ran.groups_run] for record in records] for records in answered]
    return (
        [sum(map(any, zip(*rows, strict=True))) for rows in plans],
        {record.sample_id: (record.response, record.ran) for record in chain.from_iterable(answered)},
    )


@pytest.mark.parametrize(("scheduler", "engine"), [("random", "stock"), ("layers", "eager")])
def test_batches_are_sorted_by_plan_run_fewer_layers_and_answer_the_same(six, scheduler, engine):
    model, cell = scheduled(six, scheduler).with_engine(engine), _cell(scheduler)
    answerer, store, batches = _sorted(model, cell)
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(sample.id for batch in batches for sample in batch) == sorted(sample.id for sample in SAMPLES)
    assert _sorted(model, cell)[2] == batches, "a resumed sweep goes on with the batches it had"
    layers, answers = _layers_run(answerer, store, batches, cell)
    layers_before, answers_before = _layers_run(answerer, store, store.batches, cell)
    assert sum(layers) < sum(layers_before)
    assert answers == answers_before


def test_each_draw_has_plans_of_its_own(six):
    model = scheduled(six, "random")
    assert _sorted(model, _cell("random"), 0)[2] != _sorted(model, _cell("random"), 1)[2]


@pytest.mark.parametrize(
    ("scheduler", "engine", "share", "samples"),
    [
        pytest.param("spaced", "stock", 0.75, False, id="one plan for all"),
        pytest.param("layers", "stock", 0.75, False, id="stock gathers rows"),
        pytest.param("layers", "eager", 1.0, False, id="every layer runs"),
        pytest.param("random", "stock", 0.75, True, id="drawn tokens follow from the batch"),
    ],
)
def test_batches_stay_where_sorting_gives_nothing(six, scheduler, engine, share, samples):
    decoding = SimpleNamespace(**{**vars(DECODING), "samples": samples})
    model = scheduled(six, scheduler).with_engine(engine)
    _, store, batches = _sorted(model, _cell(scheduler, share), decoding=decoding)
    assert batches is store.batches
