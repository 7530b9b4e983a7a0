"""Low-rank weights that learn with a scheduler: what peft's users expect, and one merged model."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_inputs, tiny_llava
from PIL import Image
from safetensors.torch import load_file

from adallava import AdaLlava
from adallava.adapters import weights_sha256
from adallava.errors import CheckpointError, InputError
from adallava.families import load_family
from adallava.training.lora import add_lora
from adallava.training.own_data import TaskExamples
from adallava.training.recipe import Lora, Recipe, with_steps
from adallava.training.stages import train_stage

pytestmark = pytest.mark.long


CPU = torch.device("cpu")


def _recipe(**fields: Any) -> Recipe:
    given = {
        "stage": "scheduler",
        "scheduler_options": {"prefix_layers": 1},
        "lora": {"r": 4, "alpha": 8},
        "others_share": 0.3,
        "questions_per_image": 2,
        "keep": {"random": 0.5, "full": 0.5, "keep_counts": [8]},
        "optimisation": {
            "steps": 10,
            "batch_size": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "schedule": "constant",
        },
        **fields,
    }
    return Recipe.model_validate(given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base's folder and the stage's, of a user's own questions."""
    folder = tmp_path_factory.mktemp("lora")
    start = tiny_llava(folder / "start", num_hidden_layers=4)
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    rows = [{"image": "red.png", "question": text, "answer": "red"} for text in ("what colour?", "which?")]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TaskExamples.from_file(folder / "mine.jsonl", {})
    assert train_stage(_recipe(), folder / "run", start_from=str(start), data=data, device=CPU) == folder / "run/model"
    return start, folder / "run"


@pytest.mark.long
@pytest.mark.parametrize("latency", [1.0, 0.5])
def test_the_adapter_beside_its_base_and_the_merged_model_give_the_same_logits(
    trained: tuple[Path, Path], latency: float
) -> None:
    from peft import PeftModel

    start, run = trained
    merged = AdaLlava.from_pretrained(str(run / "model"), method="uniform", device="cpu").with_scheduler("layers")
    base = load_family(str(start), dtype=torch.float32, device=CPU, attn_implementation="sdpa").model
    beside = AdaLlava(
        PeftModel.from_pretrained(base, run / "lora").get_base_model(), merged.processor, name_or_path=str(start)
    ).with_method("uniform")
    adapter = run / "model" / "adapters" / "layers"
    # Without its low-rank weights, the base is not what the scheduler was trained on.
    with pytest.raises(CheckpointError, match="allow_other_base"):
        beside.with_scheduler("layers", adapter=adapter)
    beside = beside.with_scheduler("layers", adapter=adapter, allow_other_base=True)
    inputs = tiny_inputs(merged.processor, ["what is it?", "why?"])
    logits = [m.forward(**inputs, token_budget=0.5, latency=latency).logits for m in (merged, beside)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    bare = AdaLlava.from_pretrained(str(start), method="uniform", device="cpu")
    bare = bare.with_scheduler("layers", adapter=adapter, allow_other_base=True)
    assert (bare.forward(**inputs, token_budget=0.5, latency=latency).logits - logits[0]).abs().max() > 1e-2


def test_only_projections_of_the_llm_differ_and_both_dials_answer(trained: tuple[Path, Path]) -> None:
    start, run = trained
    before, after = load_file(start / "model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    projections = {key for key in before if "language_model.model.layers" in key and "_proj" in key}
    assert changed == projections
    assert len(projections) == 4 * 7
    # Of the stated rank.
    for key in projections:
        assert torch.linalg.matrix_rank((after[key] - before[key]).double(), rtol=1e-3) <= 4
    # The base is untouched, and the scorer that it had goes with the merged model.
    config = json.loads((run / "model" / "adapters" / "question" / "adapter_config.json").read_text())
    assert config["trained_on_sha256"] == weights_sha256(start)
    model = AdaLlava.from_pretrained(str(run / "model"), method="question", device="cpu").with_scheduler("layers")
    (record,) = model.generate(
        **tiny_inputs(model.processor, ["why?"]), token_budget=0.5, latency=0.5, max_new_tokens=1
    ).records
    assert record.tokens_kept == 8
    assert record.groups_run is not None
    assert sum(map(bool, record.groups_run)) == 2
    # `heads` splits plain projections, which the merged model has.
    assert {type(m) for n, m in model.base.named_modules() if n.endswith("q_proj")} == {torch.nn.Linear}


def test_the_adapter_is_in_pefts_own_form(trained: tuple[Path, Path]) -> None:
    _, run = trained
    config = json.loads((run / "lora" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    weights = load_file(run / "lora" / "adapter_model.safetensors")
    assert len(weights) == 2 * 4 * 7
    assert not any("vision_tower" in name for name in weights)


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_weights(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adallava.training import fit as fit_module

    start, _ = trained
    recipe = with_steps(_recipe(), 4)
    whole = train_stage(recipe, tmp_path / "whole", start_from=str(start), device=CPU)
    monkeypatch.setattr(fit_module.StageTrainer, "training_step", _killed_at(2, fit_module.StageTrainer.training_step))
    with pytest.raises(KeyboardInterrupt):
        train_stage(recipe, tmp_path / "cut", start_from=str(start), device=CPU)
    monkeypatch.undo()
    train_stage(recipe, tmp_path / "cut", start_from=str(start), device=CPU)
    assert json.loads((tmp_path / "cut" / "curve.json").read_text())["resumed"]
    for name in (whole.relative_to(tmp_path / "whole") / "model.safetensors", Path("lora/adapter_model.safetensors")):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "cut" / name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def _killed_at(step: int, training_step: Any) -> Any:
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    return run


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scheduler": "heads"}, "slices of plain projections"),
        ({"trained": ["lm_head"]}, "leave trained out"),
        ({"stage": "base"}, "is for stage 'scheduler'"),
        ({"lora": {"rank": 4}}, "rank"),
        ({"lora": {"target_modules": []}}, "target_modules"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _recipe(**fields)


def test_without_peft_the_way_to_install_it_is_named(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="pip install peft"):
        train_stage(_recipe(), tmp_path / "run", start_from=str(trained[0]), device=CPU)
    assert not (tmp_path / "run").exists()


def test_projections_that_the_llm_does_not_have_are_named(trained: tuple[Path, Path]) -> None:
    family = load_family(str(trained[0]), dtype=torch.float32, device=CPU, attn_implementation="sdpa")
    with pytest.raises(InputError, match=r"lora\.target_modules qkv_proj"):
        add_lora(family, Lora(target_modules=("qkv_proj",)), seed=0)
