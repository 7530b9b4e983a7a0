"""Many requests of mixed sizes leave no more behind than few, and what breaks in the middle leaves nothing."""

import copy
import random
import threading
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from models import tiny_inputs
from test_captured import SIX_TOKENS, same

from adallava import AdaLlava
from adallava.engines import captured
from adallava.engines.captured import MOST_SEATS
from adallava.engines.graph_store import GraphStore
from adallava.engines.program_of_layers import Pieces, layer_steps
from adallava.errors import AdallavaError


class _Graph:
    """Stands in for a CUDA graph."""

    def replay(self) -> None:
        pass


@pytest.fixture
def fake_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a machine without CUDA capture."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", lambda *_, **__: nullcontext())


@pytest.mark.usefixtures("fake_graphs")
def test_graphs_are_bounded_and_those_used_longest_ago_go_first() -> None:
    store, ran = GraphStore(captures=True, most_graphs=8), Counter[int]()
    chosen = random.Random(0)
    for _ in range(1000):
        shape = chosen.randrange(200)
        store.run(("place", shape), lambda shape=shape: ran.update([shape]))  # type: ignore[misc]
        store.run(("place", "often"), lambda: None)
        assert len(store) <= 8
        assert len(store._seen) <= 32
    assert store.holds(("place", "often"))
    store.forget("place")
    assert (len(store), len(store._seen)) == (0, 0)


@pytest.mark.usefixtures("fake_graphs")
def test_what_cannot_be_captured_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store = GraphStore(captures=True, most_graphs=8)

    def refuse(*_: Any) -> None:
        raise AdallavaError("waits for the host")

    monkeypatch.setattr(store, "capture", refuse)
    ran = Counter[int]()
    for shape in range(500):
        for _ in range(3):
            store.run(("place", shape), lambda shape=shape: ran.update([shape]))  # type: ignore[misc]
    assert set(ran.values()) == {3}, "what is refused runs as it is"
    assert len(store._refused) <= 32


def test_plans_that_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adallava.engines.program_of_layers.MOST_COUNTED", 16)
    pieces, often = Pieces(), layer_steps([[[True]], [[False]], [[True]]])
    assert [pieces.in_one(often, num_layers=99) for _ in range(3)] == [False, False, True]
    for number in range(1, 400):
        runs = [[[bool(number >> bit & 1)]] for bit in range(9)]
        pieces.in_one(layer_steps(runs), num_layers=99)
        assert len(pieces._calls) <= 17
    assert pieces.in_one(often, num_layers=99)


def _held_bytes(model: AdaLlava) -> int:
    """Return what an engine's buffers take, memory that several share once."""
    engine: Any = model._engines._captured
    held = [engine._arena, *(value for seat in engine._seats.values() for value in vars(seat).values())]
    memory = [value.untyped_storage() for value in held if isinstance(value, torch.Tensor)]
    return sum({one.data_ptr(): one.nbytes() for one in memory}.values())


def test_requests_of_mixed_sizes_leave_memory_flat(full: AdaLlava) -> None:
    ours, chosen = full.with_engine("eager").with_method("uniform"), random.Random(0)
    sizes = [(batch, chosen.randint(1, 24), chosen.choice((4, 0.5, 1.0))) for batch in (1, 2, 3, 1, 5, 8, 1, 4, 6, 2)]
    held, places = [], set()
    for _ in range(3):
        for batch, words, budget in sizes:
            asked = tiny_inputs(full.processor, ["what is it? " * words] * batch)
            got = ours.generate(**asked, token_budget=budget, max_new_tokens=2, eos_token_id=[], do_sample=False)
            assert got.engine == "eager"
            places |= ours._engines._captured._seats.keys()
            assert len(ours._engines._captured._seats) <= MOST_SEATS
        held.append(_held_bytes(ours))
    assert len(places) > MOST_SEATS, "some were thrown away"
    # In the first round the cache grew, and what lay over the old one was thrown away.
    assert 0 < held[0] <= held[1] == held[2]


def test_two_models_in_two_threads(full: AdaLlava, six: AdaLlava, inputs: dict[str, Any]) -> None:
    models = (full.with_method("uniform"), six.with_method("uniform").with_engine("stock"))
    expected = [model.generate(**inputs, token_budget=0.5, **SIX_TOKENS) for model in models]
    got: list[list[Any]] = [[], []]

    def ask(number: int, model: AdaLlava) -> None:
        got[number] += [model.generate(**inputs, token_budget=0.5, **SIX_TOKENS) for _ in range(4)]

    ours = [model.with_engine("eager") for model in models]
    threads = [threading.Thread(target=ask, args=(number, model)) for number, model in enumerate(ours)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs, right in zip(got, expected, strict=True):
        assert [output.engine for output in outputs] == ["eager"] * 4
        for output in outputs:
            same(output, right)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize("stage", ["prefill", "decode"])
def test_what_breaks_in_the_middle_leaves_nothing(
    full: AdaLlava, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: BaseException, stage: str
) -> None:
    ours = full.with_engine("eager").with_method("uniform")
    first = ours.generate(**inputs, token_budget=0.5, **SIX_TOKENS)
    working, calls = getattr(captured, stage), Counter[str]()

    def broken(*given: Any, **named: Any) -> None:
        working(*given, **named)
        calls["passes"] += 1
        if calls["passes"] == (1 if stage == "prefill" else 2):
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(captured, stage, broken)
        with pytest.raises(type(error)):
            ours.generate(**inputs, token_budget=1.0, **SIX_TOKENS)
    # Another thread may go on, and gets the right answer.
    got: list[Any] = []
    other = threading.Thread(
        target=lambda: got.append(ours.generate(**inputs, token_budget=0.5, **SIX_TOKENS)), daemon=True
    )
    other.start()
    other.join(timeout=60)
    assert len(got) == 1
    same(got[0], first)
    same(first, full.with_method("uniform").generate(**inputs, token_budget=0.5, **SIX_TOKENS))


def test_low_rank_weights_run_on_stock_until_they_are_merged(full: AdaLlava, inputs: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    beside = peft.get_peft_model(copy.deepcopy(full.base), settings)
    ours = AdaLlava(beside, full.processor, engine="eager")
    unmerged = ours.generate(**inputs, **SIX_TOKENS)
    assert unmerged.engine == "stock"
    beside.merge_and_unload()
    merged = ours.generate(**inputs, **SIX_TOKENS)
    assert merged.engine == "eager"
    same(merged, ours.with_engine("stock").generate(**inputs, **SIX_TOKENS))
