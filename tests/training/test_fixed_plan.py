"""The search for fixed plans: what it finds, that it scores what inference computes, and that its result loads."""

import json
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_inputs, tiny_llava
from PIL import Image

from adallava import AdaLlava
from adallava.adapters import read_adapter_config
from adallava.cli.main import main
from adallava.errors import BudgetError, CheckpointError, InputError
from adallava.training.examples import QuestionTokenizer
from adallava.training.own_data import TaskExamples
from adallava.training.plan_search import best_plans, count_plans, score_all, score_beam
from adallava.training.prompts import stack_prompts
from adallava.training.recipe import Recipe, load_recipe, with_steps
from adallava.training.stages import train_stage

CPU = torch.device("cpu")
ROWS = [("red", "which colour?", "red"), ("blue", "what is the colour?", "blue"), ("lime", "is it blue?", "no")]


def _worth(plans: Any) -> dict[tuple[int, ...], float]:
    """Each unit has a worth of its own: the best plan of n units is the n best."""
    own = (5.0, 1.0, 4.0, 2.0, 3.0)
    return {plan: sum(own[unit] for unit in plan) for plan in plans}


@pytest.mark.parametrize("width", [None, 1, 3])
def test_the_search_finds_the_best_of_each_length(width: int | None) -> None:
    scored = score_all(5, [2, 3], _worth) if width is None else score_beam(5, [2, 3], _worth, width)
    assert best_plans(scored) == {2: (0, 2), 3: (0, 2, 4)}
    if width is None:
        assert len(scored) == count_plans(5, [2, 3]) == 20


def test_a_beam_keeps_what_a_greedy_search_loses() -> None:
    # The best pair, 0 and 1, is only within triples that are not the best.
    worth = {(0, 1, 2): 1.0, (0, 1, 3): 1.0, (0, 2, 3): 3.0, (1, 2, 3): 1.0, (0, 1): 9.0}

    def score(plans: Any) -> dict[tuple[int, ...], float]:
        return {plan: worth.get(plan, 0.0) for plan in plans}

    assert best_plans(score_beam(4, [2], score, 1))[2] != (0, 1)
    assert best_plans(score_beam(4, [2], score, 2))[2] == (0, 1)


def test_equal_plans_are_told_apart_by_their_order() -> None:
    assert best_plans({(1, 2): 0.5, (0, 3): 0.5, (0, 2): 0.1}) == {2: (0, 3)}


def _recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"stage": "fixed-plan", "keep": {"full": 1.0}, **fields})


def _data(folder: Path) -> TaskExamples:
    (folder / "bad.png").write_bytes(b"not a picture")
    rows = [{"image": "bad.png", "question": "why?", "answer": "no"}]
    for colour, question, answer in ROWS:
        Image.new("RGB", (28, 28), colour).save(folder / f"{colour}.png")
        rows.append({"image": f"{colour}.png", "question": question, "answer": answer})
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TaskExamples.from_file(folder / "mine.jsonl", {})


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """The model's folder, the adapter's, and what the search wrote: 6 layers, a prefix of 2, all 14 plans."""
    folder = tmp_path_factory.mktemp("searched")
    base = tiny_llava(folder / "base", num_hidden_layers=6)
    adapter = train_stage(
        _recipe(prefix_layers=2, search={"batch_size": 2}),
        folder / "run",
        start_from=str(base),
        data=_data(folder),
        device=CPU,
    )
    return base, adapter, json.loads((folder / "run" / "plans.json").read_text())


def _inference_log_probabilities(model: AdaLlava, pictures: Path, latency: float) -> list[float]:
    """Return those of the right answers, by the model's own forward pass, one question at a time."""
    tokenize = QuestionTokenizer(model.processor)
    chances = []
    for colour, question, answer in ROWS:
        tokens = tokenize(question, answer)
        prompts = stack_prompts([[tokens]], 16, model.family.image_token_id, 0)
        picture = Image.open(pictures / f"{colour}.png")
        pixels = model.processor.image_processor([picture], return_tensors="pt")["pixel_values"]
        output = model.forward(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            labels=prompts.labels,
            pixel_values=pixels,
            latency=latency,
        )
        # The loss is the mean over the answer's tokens.
        chances.append(-len(tokens.answer_ids) * output.loss.item())  # type: ignore[union-attr]
    return chances


@pytest.mark.long
def test_every_plan_is_scored_as_inference_computes_it(searched: tuple[Path, Path, dict[str, Any]]) -> None:
    base, adapter, written = searched
    assert written["search"] == "exhaustive"
    assert [tuple(plan["layers"]) for plan in written["scored"]] == [
        plan for length in (1, 2, 3) for plan in combinations((2, 3, 4, 5), length)
    ]
    model = AdaLlava.from_pretrained(str(base), method="full", device="cpu")
    best: dict[int, float] = {}
    for plan in written["scored"]:
        fixed = model.with_scheduler("fixed", plans="+".join(map(str, plan["layers"])), prefix_layers=2)
        chances = _inference_log_probabilities(fixed, adapter.parents[1], plan["layers_run"])
        # The picture that cannot be read is left out, not replaced by another.
        assert plan["questions"] == 3
        assert plan["log_probability"] == pytest.approx(sum(chances) / 3, rel=1e-4)
        best[len(plan["layers"])] = max(best.get(len(plan["layers"]), -1e9), sum(chances) / 3)
    assert {len(plan["layers"]): plan["log_probability"] for plan in written["found"]} == pytest.approx(best, rel=1e-4)
    whole = _inference_log_probabilities(model, adapter.parents[1], 1.0)
    assert written["every_layer"]["log_probability"] == pytest.approx(sum(whole) / 3, rel=1e-4)


def test_the_result_is_an_adapter_that_the_model_finds(
    searched: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    base, adapter, written = searched
    model = AdaLlava.from_pretrained(str(base), method="full", device="cpu")
    inputs = tiny_inputs(model.processor, ["what is it?"])
    found = {plan["layers_run"]: plan["layers"] for plan in written["found"]}
    given = model.with_scheduler("fixed", adapter=adapter)
    for layers_run, layers in found.items():
        record = given.generate(**inputs, latency=layers_run, max_new_tokens=1).records[0]
        assert record.groups_run is not None
        assert [index for index, run in enumerate(record.groups_run) if run] == [0, 1, *layers]
        assert record.latency_tokens == 0
    assert given.scheduler_sha256 is not None
    with pytest.raises(CheckpointError, match="takes its options from its adapter"):
        model.with_scheduler("fixed", adapter=adapter, plans="4")

    # Beside the model it is found by name; options in the call come first.
    own = tiny_llava(tmp_path / "own", num_hidden_layers=6)
    beside = AdaLlava.from_pretrained(str(own), method="full", device="cpu")
    with pytest.raises(BudgetError, match="fixed-plan"):
        beside.with_scheduler("fixed").generate(**inputs, latency=4, max_new_tokens=1)
    given.with_scheduler("fixed", adapter=adapter).save_adapter(own / "adapters" / "fixed")
    assert read_adapter_config(own / "adapters" / "fixed").scheduler == "fixed"
    with pytest.raises(CheckpointError, match="was trained on"):
        _other_weights(own).with_scheduler("fixed")
    again = AdaLlava.from_pretrained(str(own), method="full", device="cpu").with_scheduler("fixed")
    assert again.scheduler.plans == {len(p): tuple(p) for p in found.values()}  # type: ignore[union-attr]


def _other_weights(folder: Path) -> AdaLlava:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    before = path.read_bytes()
    weights = load_file(path)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, path, metadata={"format": "pt"})
    model = AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    _ = model.weights_sha256
    path.write_bytes(before)
    return model


def test_a_beam_search_where_plans_are_many(searched: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    base, adapter, exhaustive = searched
    recipe = _recipe(prefix_layers=2, search={"batch_size": 2, "most_plans": 13, "beam_width": 6})
    data = TaskExamples.from_file(adapter.parents[1] / "mine.jsonl", {})
    train_stage(recipe, tmp_path, start_from=str(base), data=data, device=CPU)
    written = json.loads((tmp_path / "plans.json").read_text())
    assert written["search"] == "beam of 6"
    # A beam as wide as a level loses nothing.
    assert comb(4, 2) == 6
    assert written["found"] == exhaustive["found"]


def test_command_line_from_search_to_answer(
    searched: tuple[Path, Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, adapter, _ = searched
    (tmp_path / "mine.toml").write_text(
        'stage = "fixed-plan"\nprefix_layers = 2\nlowest_latency = 0.6\n[keep]\nfull = 1.0\n[search]\nquestions = 2\n'
    )
    data, output = str(adapter.parents[1] / "mine.jsonl"), tmp_path / "run"
    options = ["--model", str(base), "--device", "cpu", "--output", str(output)]
    assert main(["train", str(tmp_path / "mine.toml"), "--data", data, *options]) == 0
    printed = capsys.readouterr().out
    assert "4 of 6 layers: 0 … 1 and " in printed
    assert "of 2 right" in printed
    assert "3 of 6" not in printed
    assert "plans.json" in printed
    picture = str(adapter.parents[1] / "red.png")
    asked = ["--image", picture, "--question", "what?", "--model", str(base), "--method", "full", "--no-image"]
    schedule = ["--scheduler", "fixed", "--scheduler-adapter", str(output / "adapter"), "--latency", "4"]
    assert main(["generate", *asked, *schedule, "--device", "cpu", "--max-new-tokens", "1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert sum(map(bool, result["groups_run"])) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimisation": {"steps": 1, "batch_size": 1, "learning_rate": 1e-3}}, "learns nothing"),
        ({"trained": ["lm_head"]}, "learns nothing"),
        ({"keep": {}}, "needs a .keep. table"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _recipe(**fields)


def test_what_cannot_be_searched_is_told(searched: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    base, adapter, _ = searched
    with pytest.raises(InputError, match="takes no steps"):
        with_steps(load_recipe("tiny/fixed-plan"), 3)
    with pytest.raises(InputError, match="leave nothing"):
        train_stage(_recipe(prefix_layers=5), tmp_path / "a", start_from=str(base), device=CPU)
    samples = TaskExamples.from_file(adapter.parents[1] / "mine.jsonl", {}).samples
    with pytest.raises(InputError, match="at least 2 questions"):
        train_stage(
            _recipe(prefix_layers=2),
            tmp_path / "b",
            start_from=str(base),
            data=TaskExamples(samples[:2]),
            device=CPU,
        )
    with pytest.raises(InputError, match="has a scorer"):
        train_stage(
            _recipe(prefix_layers=2, keep={"question": 1.0}),
            tmp_path / "c",
            start_from=str(tiny_llava(tmp_path / "bare", adapters=False, num_hidden_layers=6)),
            data=TaskExamples(samples),
            device=CPU,
        )
