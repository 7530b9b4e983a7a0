"""A learned scheduler held to a few plans: which, in which order, and nearest by what."""

import json
from pathlib import Path

import pytest
import torch
from models import scheduled, tiny_image, tiny_inputs, tiny_llava

from adallava import AdaLlava
from adallava.errors import BudgetError, CheckpointError, InputError
from adallava.scheduling.codebook import find_plans, nearest_plans, read_book
from adallava.training.own_data import TaskExamples
from adallava.training.recipe import Recipe
from adallava.training.stages import train_stage


def _plans(active: torch.Tensor) -> list[str]:
    return ["".join(str(int(unit)) for unit in row) for row in active]


def test_the_nearest_plan_has_the_highest_sum_of_logits() -> None:
    logits = torch.tensor([[0.9, 0.1, 0.8, 0.3], [0.1, 0.9, 0.2, 0.0], [9.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    book = read_book(["0+3", "1+2"], 2, 4)
    assert _plans(nearest_plans(logits, (2, 2, 0, 4), book)) == ["1001", "0110", "0000", "1111"]
    assert _plans(nearest_plans(logits[:2], (2, 2), read_book(["0+3", "1+2"], 1, 4))) == ["1001", "1001"]


def test_a_book_with_every_plan_is_no_book() -> None:
    every = [f"{a}+{b}" for a in range(5) for b in range(a + 1, 5)][:8]
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    free = torch.zeros_like(logits).scatter(1, logits.topk(2, dim=1).indices, 1.0).bool()
    held = nearest_plans(logits, (2,) * 50, read_book(every, 8, 5))
    inside = [plan in {_plans(p[None].bool())[0] for p in read_book(every, 8, 5)[2]} for plan in _plans(free)]
    assert any(inside)
    assert all(a == b for a, b, known in zip(_plans(held), _plans(free), inside, strict=True) if known)


def test_plans_come_in_the_order_of_what_they_add() -> None:
    # Three prompts want 0+1; one wants 2+3, and one 1+2, which 0+1 serves nearly as well.
    logits = torch.tensor([[3.0, 3, 0, 0]] * 3 + [[0.0, 0, 5, 5], [1.9, 2, 2.1, 0]])
    assert find_plans(logits, 2) == ["0+1", "2+3", "1+2"]
    assert find_plans(logits[:3], 2) == ["0+1"]


@pytest.mark.parametrize(("texts", "size", "message"), [
    (["0+3"], 0, "1 to 8"),
    (["0+3"], 9, "1 to 8"),
    ([], 4, "holds no plans"),
    (["0+0"], 1, "'0\\+0' is not a list"),
    (["0+4"], 1, "below 4"),
    (["x"], 1, "'x' is not a list"),
])  # fmt: skip
def test_a_book_that_means_nothing_is_refused(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_book(texts, size, 4)


def test_a_number_of_units_without_plans_is_told() -> None:
    with pytest.raises(BudgetError, match=r"no plan of 3 of 4 units \(it has plans of 2\)"):
        nearest_plans(torch.zeros(1, 4), (3,), read_book(["0+3"], 1, 4))


def test_the_stage_writes_plans_beside_the_weights_and_the_option_holds_to_them(tmp_path: Path) -> None:
    base = tiny_llava(tmp_path / "base", num_hidden_layers=6)
    full = AdaLlava.from_pretrained(str(base), method="full", device="cpu")
    own = base / "adapters" / "layers"
    scheduled(full, "layers").save_adapter(own)
    with pytest.raises(InputError, match="training stage codebook"):
        full.with_scheduler("layers", codebook=2)
    rows = []
    for number in range(6):
        tiny_image(number).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "what is it?", "answer": "red"})
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.model_validate({"stage": "codebook", "keep": {"full": 1.0}, "search": {"batch_size": 4}})
    data = TaskExamples.from_file(tmp_path / "mine.jsonl", {})
    adapter = train_stage(recipe, tmp_path / "run", start_from=str(base), data=data, device=torch.device("cpu"))
    assert (adapter / "adapter_model.safetensors").read_bytes() == (own / "adapter_model.safetensors").read_bytes()
    written = json.loads((tmp_path / "run" / "plans.json").read_text())
    first = {row["units"]: row["plans"][0] for row in written["found"]}

    free = full.with_scheduler("layers", adapter=adapter)
    held = full.with_scheduler("layers", adapter=adapter, codebook=1)
    assert held.scheduler_sha256 != free.scheduler_sha256 == full.with_scheduler("layers").scheduler_sha256
    (ran,) = held.read_layers(**tiny_inputs(full.processor, ["why?"]), latency=5) or ()
    prefix = held.scheduler.config["prefix_layers"]
    assert [layer - prefix for layer in range(prefix, 6) if ran.groups_run[layer]] == [
        int(unit) for unit in first[5 - prefix].split("+")
    ]
    with pytest.raises(CheckpointError, match="not from the call: num_frequencies"):
        full.with_scheduler("layers", adapter=adapter, num_frequencies=4)
