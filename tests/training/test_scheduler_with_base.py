"""A scheduler and its base learn together: on what inference computes, and saved as one model with both dials."""

import json
import shutil
from typing import Any

import pytest
import torch
from models import TINY_SHAPE, six_layers, tiny_inputs, tiny_llava
from safetensors.torch import load_file, save_file

from adallava import AdaLlava
from adallava.adapters import read_adapter_config, weights_sha256
from adallava.errors import AdallavaError, InputError
from adallava.scheduling.heads import HeadsScheduler
from adallava.scheduling.layers import LayersScheduler
from adallava.selection.question import QuestionSelector
from adallava.training import scheduler as scheduler_module
from adallava.training.base_stage import BaseObjective
from adallava.training.packing import TokenizedQuestion, pack
from adallava.training.prompts import PromptBatch, stack_prompts
from adallava.training.recipe import KeepMix, Recipe
from adallava.training.scheduler import SchedulerObjective, SchedulerWithBaseObjective
from adallava.training.stages import carry_over_adapters, train_stage

pytestmark = pytest.mark.long


CPU = torch.device("cpu")
QUESTIONS = [
    TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 12), answer_ids=(21, 2)),
    TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 15, 13), answer_ids=(22, 23, 2)),
]
PIXELS = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
BY_SCORER = KeepMix(question=1.0, question_keep_counts=(4,))


@pytest.fixture(scope="module")
def six(full: AdaLlava) -> AdaLlava:
    return six_layers(full)


def _spread(module: Any) -> Any:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def _objective(model: AdaLlava, scheduler: Any, scorer: QuestionSelector, **options: Any) -> SchedulerWithBaseObjective:
    options = {"learning": "policy", "keep": BY_SCORER, "num_samples": 2, **options}
    others = BaseObjective(model.family, KeepMix(full=1.0), ground_weight=0.0, ground_layer=0)
    choice = SchedulerObjective(model.family, scheduler, scorer=scorer.requires_grad_(False), **options)
    return SchedulerWithBaseObjective(others, choice, others_share=0.0, policy_weight=0.1)


def _prompts(model: AdaLlava) -> PromptBatch:
    return stack_prompts([QUESTIONS], 16, model.family.image_token_id, 0)


@pytest.mark.parametrize("count", [0, 2, "all"])
@pytest.mark.parametrize("cls", [LayersScheduler, HeadsScheduler])
def test_the_base_learns_on_what_inference_computes_with_both_dials(
    six: AdaLlava, monkeypatch: pytest.MonkeyPatch, cls: Any, count: Any
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(scheduler_module, "_GREEDY_NOISE", 0.0)
    scheduler, scorer = _spread(cls(six.family.decoder().shape)), _spread(QuestionSelector(TINY_SHAPE))
    objective = _objective(six, scheduler, scorer)
    units = objective.choice.units
    count = units.count if count == "all" else count
    objective.choice.counts = [count]
    prompts = _prompts(six)
    outputs = objective(PIXELS, pack([QUESTIONS], 0), prompts)
    expected = (
        six.with_selector(scorer)
        .with_scheduler(scheduler)
        .forward(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            labels=prompts.labels,
            pixel_values=PIXELS.repeat(2, 1, 1, 1),
            token_budget=4 / 16,
            latency=units.share(count),
        )
    )
    assert outputs["loss_scheduled"].item() == pytest.approx(expected.loss.item(), rel=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("learning", ["policy", "gumbel"])
@pytest.mark.parametrize("cls", [LayersScheduler, HeadsScheduler])
def test_gradients_reach_scheduler_and_base_and_not_the_scorer(
    six: AdaLlava, monkeypatch: pytest.MonkeyPatch, cls: Any, learning: Any
) -> None:
    torch.manual_seed(0)
    # A random base gives every answer less than the lowest reward.
    monkeypatch.setattr(scheduler_module, "LOWEST_REWARD", -50.0)
    model = six_layers(six)
    scheduler, scorer = _spread(cls(six.family.decoder().shape)), _spread(QuestionSelector(TINY_SHAPE))
    objective = _objective(model, scheduler, scorer, learning=learning, num_samples=32)
    objective.choice.counts = [2]
    objective(PIXELS, pack([QUESTIONS], 0), _prompts(model))["loss"].backward()
    llm = model.base.model.language_model
    learned = (
        scheduler.head.weight,
        scheduler.latency_mlp[2].weight,
        llm.layers[0].mlp.down_proj.weight,
        model.base.lm_head.weight,
        model.base.model.multi_modal_projector.linear_1.weight,
    )
    for weight in learned:
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    behind = [layer.mlp.down_proj.weight.grad for layer in llm.layers[3:]]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in behind)
    assert all(parameter.grad is None for parameter in scorer.parameters())


def test_what_leaves_nothing_to_learn_is_refused(six: AdaLlava) -> None:
    scheduler = LayersScheduler(six.family.decoder().shape)
    options: dict[str, Any] = {"learning": "policy", "num_samples": 2}
    with pytest.raises(InputError, match=r"keep\.question needs a model that has a scorer"):
        SchedulerObjective(six.family, scheduler, keep=BY_SCORER, **options)
    with pytest.raises(InputError, match=r"lowest latency of 0\.9"):
        SchedulerObjective(six.family, scheduler, keep=KeepMix(full=1.0), lowest_latency=0.9, **options)
    with pytest.raises(AdallavaError, match="prefix_layers is 6, and this LLM has 6 layers"):
        BaseObjective(
            six.family,
            KeepMix(full=1.0),
            ground_weight=0.0,
            ground_layer=0,
            missing_layers_share=0.5,
            prefix_layers=6,
        )


@pytest.mark.parametrize("prefix_layers", [1, 5])
def test_a_base_meets_every_share_of_layers_from_the_prefix_on(six: AdaLlava, prefix_layers: int) -> None:
    torch.manual_seed(0)
    objective = BaseObjective(
        six.family,
        KeepMix(full=1.0),
        ground_weight=0.0,
        ground_layer=0,
        missing_layers_share=0.9,
        prefix_layers=prefix_layers,
    )
    packed = pack([QUESTIONS], 0)
    with torch.no_grad():
        steps = [objective(PIXELS, packed) for _ in range(80)]
    ways = {name for step in steps for name in step if name.startswith("loss_full")}
    expected = {f"loss_full_without_{missing}" for missing in range(1, 6 - prefix_layers + 1)}
    assert ways == expected | {"loss_full"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["layers", "heads"])
def test_both_are_saved_as_one_model_with_its_scorer(tmp_path: Any, name: str) -> None:
    start = tiny_llava(tmp_path / "start", num_hidden_layers=4)
    recipe = Recipe.model_validate(
        {
            "stage": "scheduler",
            "scheduler": name,
            "scheduler_options": {"prefix_layers": 1},
            "trained": ["language_model", "lm_head"],
            "missing_layers_share": 0.5,
            "others_share": 0.4,
            "lowest_latency": 0.5,
            "questions_per_image": 2,
            "keep": {"random": 0.5, "question": 0.5, "keep_counts": [8], "question_keep_counts": [4]},
            "optimisation": {
                "steps": 10,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "selector_learning_rate": 3e-3,
                "warmup_steps": 0,
                "schedule": "constant",
            },
        }
    )
    folder = train_stage(recipe, tmp_path / "run", start_from=str(start), device=CPU)
    assert folder == tmp_path / "run" / "model"
    log = json.loads((tmp_path / "run" / "curve.json").read_text())["log"]
    assert {"loss_scheduled", "reward"} <= set().union(*log)
    assert any(name.startswith("loss_random") for name in set().union(*log))

    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("layers.3." in key for key in changed)
    assert all("language_model" in key or "lm_head" in key for key in changed)
    scorer, scheduler = (read_adapter_config(folder / "adapters" / part) for part in ("question", name))
    assert scorer.base_weights_sha256 == scheduler.base_weights_sha256 == weights_sha256(folder)
    # The scorer did not learn on, and its file says on which weights it did.
    assert (scorer.trained_on_sha256, scheduler.trained_on_sha256) == (weights_sha256(start), None)
    held = [load_file(place / "adapters" / "question" / "adapter_model.safetensors") for place in (start, folder)]
    assert all(torch.equal(held[0][key], held[1][key]) for key in held[0])

    model = AdaLlava.from_pretrained(str(folder), method="question", device="cpu").with_scheduler(name)
    output = model.generate(**tiny_inputs(model.processor, ["why?"]), token_budget=0.5, latency=0.5, max_new_tokens=1)
    assert (output.records[0].method, output.records[0].tokens_kept) == ("question", 8)
    assert output.records[0].groups_run is not None
    assert output.records[0].scheduler == name


@pytest.mark.filterwarnings("ignore")
def test_scheduler_and_base_have_learning_rates_of_their_own(tmp_path: Any) -> None:
    start = tiny_llava(tmp_path / "start", num_hidden_layers=4)
    fields: dict[str, Any] = {
        "stage": "scheduler",
        "trained": ["language_model"],
        "others_share": 0.0,
        "questions_per_image": 2,
        "keep": {"full": 1.0},
        "optimisation": {
            "steps": 1,
            "batch_size": 2,
            "learning_rate": 1e-5,
            "selector_learning_rate": 1e-2,
            "warmup_steps": 0,
            "weight_decay": 0.0,
        },
        "scheduler_options": {"prefix_layers": 1},
        "lowest_latency": 0.3,
        # All rewards of a random base are the lowest: without this weight no plan would be better than another.
        "spread_weight": 0.1,
    }
    folder = train_stage(Recipe.model_validate(fields), tmp_path / "run", start_from=str(start), device=CPU)
    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    # AdamW's first step is as long as its learning rate.
    assert max(float((before[key] - after[key]).abs().max()) for key in before) < 2e-5
    saved = load_file(folder / "adapters" / "layers" / "adapter_model.safetensors")
    # Zero before: the last matrix of the latency's encoding.
    assert float(saved["scheduler.latency_mlp.2.weight"].abs().max()) == pytest.approx(1e-2, rel=0.1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", ["question", "scheduler"])
def test_what_a_model_has_learned_goes_on(tmp_path: Any, stage: str) -> None:
    start = tiny_llava(tmp_path / "start", num_hidden_layers=4)
    fields: dict[str, Any] = {
        "stage": stage,
        "questions_per_image": 2,
        "keep": {"full": 1.0, "keep_counts": [8]},
        "optimisation": {"steps": 1, "batch_size": 2, "learning_rate": 1e-5, "warmup_steps": 0, "weight_decay": 0.0},
        "scheduler_options": {"prefix_layers": 1},
        "spread_weight": 0.1,
    }
    name = {"question": "question", "scheduler": "layers"}[stage]
    shutil.rmtree(start / "adapters" / name, ignore_errors=True)
    going_on = Recipe.model_validate(fields | {"goes_on": True})
    with pytest.raises(InputError, match=rf"continues from adapters/{name}, .* train it first"):
        train_stage(going_on, tmp_path / "nothing", start_from=str(start), device=CPU)
    first = train_stage(Recipe.model_validate(fields | {"seed": 5}), tmp_path / "a", start_from=str(start), device=CPU)
    shutil.copytree(first, start / "adapters" / name)
    then = train_stage(going_on, tmp_path / "b", start_from=str(start), device=CPU)
    fresh = train_stage(Recipe.model_validate(fields), tmp_path / "c", start_from=str(start), device=CPU)
    if stage == "scheduler":
        other_prefix = Recipe.model_validate(fields | {"goes_on": True, "scheduler_options": {"prefix_layers": 2}})
        with pytest.raises(InputError, match=r"continues from a scheduler with .*'prefix_layers': 1"):
            train_stage(other_prefix, tmp_path / "d", start_from=str(start), device=CPU)
    before, after, other = (load_file(folder / "adapter_model.safetensors") for folder in (first, then, fresh))
    # AdamW's first step is as long as its learning rate; another seed starts elsewhere.
    assert 0 < max(float((before[key] - after[key]).abs().max()) for key in before) < 2e-5
    assert max(float((before[key] - other[key]).abs().max()) for key in before) > 1e-2


def test_what_the_start_model_had_learned_goes_along_and_names_its_base(tmp_path: Any) -> None:
    start = tiny_llava(tmp_path / "start")
    folder = tmp_path / "new"
    shutil.copytree(start, folder)
    shutil.rmtree(folder / "adapters" / "budget-token")
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    own = (folder / "adapters" / "question" / "adapter_config.json").read_bytes()
    carry_over_adapters(start, folder)
    config = read_adapter_config(folder / "adapters" / "budget-token")
    assert config.base_weights_sha256 == weights_sha256(folder)
    assert config.trained_on_sha256 == weights_sha256(start) != weights_sha256(folder)
    assert AdaLlava.from_pretrained(str(folder), method="budget-token", device="cpu").method == "budget-token"
    # What the stage itself has written stays.
    assert (folder / "adapters" / "question" / "adapter_config.json").read_bytes() == own
    # Carried on once more, it still names the base that it learned on.
    third = tmp_path / "third"
    shutil.copytree(folder, third)
    shutil.rmtree(third / "adapters" / "budget-token")
    carry_over_adapters(folder, third)
    assert read_adapter_config(third / "adapters" / "budget-token").trained_on_sha256 == weights_sha256(start)
