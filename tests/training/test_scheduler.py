"""Learning which layers run: the same function as inference, and something is learned."""

import json
from typing import Any

import pytest
import torch
from models import TINY_SHAPE, six_layers, tiny_inputs, tiny_llava
from PIL import Image
from torch.nn import functional as F
from truncated_reference import truncated

from adallava import AdaLlava
from adallava.adapters import read_adapter_config
from adallava.cli.main import main
from adallava.families.picture_inputs import PictureInputs
from adallava.scheduling.heads import HeadsScheduler
from adallava.scheduling.layers import LayersScheduler
from adallava.scheduling.scheduler_contract import Schedule, Units
from adallava.training import scheduler as scheduler_module
from adallava.training.base_stage import run_packed
from adallava.training.missing_layers import draw_missing_layers
from adallava.training.packing import TokenizedQuestion, pack, shared_positions
from adallava.training.prompts import stack_prompts
from adallava.training.recipe import KeepMix, Recipe
from adallava.training.scheduler import SchedulerObjective
from adallava.training.stages import train_stage

pytestmark = pytest.mark.long


QUESTION = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 12), answer_ids=(21, 2))
LONGER = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 15, 13), answer_ids=(22, 23, 2))
FULL = KeepMix(full=1.0)


@pytest.fixture(scope="module")
def six(full: AdaLlava) -> AdaLlava:
    model = six_layers(full)
    model.base.requires_grad_(False)
    return model


def _pixels(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(1))


class _Replayed:
    """A scheduler that repeats a plan, with the token of the one that drew it."""

    name, learned, per_sample = "replayed", True, True

    def __init__(self, scheduler: Any, active: torch.Tensor) -> None:
        self.scheduler, self.active = scheduler, active

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)

    def schedule(self, inputs: Any) -> Schedule:
        return Schedule(self.active)


@pytest.mark.parametrize("learning", ["policy", "gumbel"])
@pytest.mark.parametrize("cls", [LayersScheduler, HeadsScheduler])
def test_the_reward_is_what_inference_computes_for_the_drawn_plan(
    six: AdaLlava, monkeypatch: pytest.MonkeyPatch, cls: Any, learning: Any
) -> None:
    torch.manual_seed(0)
    scheduler = cls(six.family.decoder().shape)
    for parameter in scheduler.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    objective = SchedulerObjective(six.family, scheduler, learning=learning, keep=FULL, num_samples=2)
    made: list[Schedule] = []
    run = scheduler_module.run_behind
    monkeypatch.setattr(
        scheduler_module, "run_behind", lambda *args, **kwargs: made.append(args[4]) or run(*args, **kwargs)
    )
    prompts = stack_prompts([[QUESTION, LONGER]], 16, six.family.image_token_id, 0)
    rewards = objective(_pixels(), prompts)["reward"]
    (schedule,) = made
    rows = torch.arange(2).repeat_interleave(len(schedule.active) // 2)
    expected = []
    for row, active in zip(rows.tolist(), schedule.active, strict=True):
        units = scheduler.units(six.family.decoder().shape)
        output = six.with_scheduler(_Replayed(scheduler, active[None])).forward(
            input_ids=prompts.input_ids[row : row + 1],
            attention_mask=prompts.attention_mask[row : row + 1],
            labels=prompts.labels[row : row + 1],
            pixel_values=_pixels(),
            latency=units.share(int(active.sum())),
        )
        # The loss is the mean over the answer's tokens, the reward their sum.
        answer = (LONGER if row else QUESTION).answer_ids
        expected.append(-len(answer) * output.loss.item())  # type: ignore[union-attr]
    assert rewards.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


@pytest.mark.parametrize("learning", ["policy", "gumbel"])
def test_gradients_reach_head_and_token_and_not_the_base(
    six: AdaLlava, monkeypatch: pytest.MonkeyPatch, learning: Any
) -> None:
    torch.manual_seed(0)
    # A random base gives every answer less than the lowest reward.
    monkeypatch.setattr(scheduler_module, "LOWEST_REWARD", -50.0)
    scheduler = LayersScheduler(six.family.decoder().shape)
    torch.nn.init.normal_(scheduler.latency_mlp[2].weight, std=0.2)
    objective = SchedulerObjective(six.family, scheduler, learning=learning, keep=FULL, num_samples=32)
    prompts = stack_prompts([[QUESTION] * 2] * 2, 16, six.family.image_token_id, 0)
    objective(_pixels(2), prompts)["loss"].backward()
    for weight in (scheduler.head.weight, scheduler.latency_mlp[2].weight):
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in six.base.parameters())


def test_policy_learns_to_run_the_only_layer_that_is_rewarded(six: AdaLlava, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    scheduler = LayersScheduler(six.family.decoder().shape)
    objective = SchedulerObjective(six.family, scheduler, learning="policy", keep=FULL, num_samples=4)
    seen: list[torch.Tensor] = []
    made: list[Schedule] = []

    def remembered(*args: Any, **kwargs: Any) -> Any:
        made.append(args[4])
        return run(*args, **kwargs)

    def rewarded(family: Any, hidden: torch.Tensor, labels: torch.Tensor) -> Any:
        hit = made[-1].active[:, 1]
        seen.append(hit.float().mean())
        return torch.where(hit, -0.1, -3.0), hit

    run = scheduler_module.run_behind
    monkeypatch.setattr(scheduler_module, "answer_chances", rewarded)
    monkeypatch.setattr(scheduler_module, "run_behind", remembered)
    prompts = stack_prompts([[QUESTION]] * 8, 16, six.family.image_token_id, 0)
    optimiser = torch.optim.Adam(scheduler.parameters(), lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        objective(_pixels(8), prompts)["loss"].backward()
        optimiser.step()
    # By chance it is in half of the plans of one or two of three layers.
    assert sum(seen[:5]) / 5 < 0.75
    assert sum(seen[-8:]) / 8 > 0.95


def test_a_base_learns_with_the_layers_really_gone(six: AdaLlava) -> None:
    packed = pack([[QUESTION]], 0)
    kept = torch.randn(1, 4, TINY_SHAPE.llm_width)
    places = torch.tensor([[0, 3, 5, 9]])
    shared = shared_positions(six.family, packed, PictureInputs(_pixels()))
    run = run_packed(six.family, kept, places, packed, shared, missing_layers=frozenset({3, 5}))
    smaller = truncated(six.base, [(0,), (0,), (0,), (), (0,), ()], 1)
    expected = run_packed(AdaLlava(smaller, None).family, kept, places, packed, shared)
    torch.testing.assert_close(run.logits, expected.logits)
    assert F.cross_entropy(run.logits, run.targets).isfinite()


def test_any_number_of_layers_behind_the_prefix_may_be_missing() -> None:
    torch.manual_seed(0)
    drawn = [draw_missing_layers(Units(8, 4)) for _ in range(200)]
    assert {len(missing) for missing in drawn} == {1, 2, 3, 4}
    assert frozenset.union(*drawn) == {4, 5, 6, 7}


OPTIMISATION = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}


@pytest.mark.parametrize(("scheduler", "learn_by"), [("layers", "policy"), ("heads", "policy"), ("layers", "gumbel")])
def test_a_stage_leaves_an_adapter_that_answers(
    tmp_path: Any, tmp_path_factory: pytest.TempPathFactory, scheduler: str, learn_by: str
) -> None:
    base = tiny_llava(tmp_path_factory.mktemp("base"), adapters=False)
    recipe = Recipe.model_validate(
        {
            "stage": "scheduler",
            "scheduler": scheduler,
            "learn_by": learn_by,
            "questions_per_image": 2,
            "keep": {"full": 0.5, "random": 0.5, "keep_counts": [4]},
            "optimisation": OPTIMISATION,
        }
    )
    folder = train_stage(recipe, tmp_path / "out", start_from=str(base), device=torch.device("cpu"))
    config = read_adapter_config(folder)
    assert (config.method, config.scheduler) == (None, scheduler)
    model = AdaLlava.from_pretrained(str(base), method="full", device="cpu").with_scheduler(scheduler, adapter=folder)
    output = model.generate(**tiny_inputs(model.processor, ["why?"]), latency=3, max_new_tokens=1)
    assert output.records[0].groups_run is not None
    assert output.records[0].scheduler == scheduler


@pytest.mark.parametrize("with_base", [False, True])
def test_a_scheduler_learns_from_a_users_file_by_the_command(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], with_base: bool
) -> None:
    base = tiny_llava(tmp_path / "base", num_hidden_layers=4)
    for name, size in (("red", (40, 30)), ("blue", (28, 28))):
        Image.new("RGB", size, name).save(tmp_path / f"{name}.png")
    rows = [{"picture": f"{name}.png", "question": "what colour?", "answer": name} for name in ("red", "blue")]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.toml").write_text(
        'stage = "scheduler"\n'
        + ('trained = ["language_model"]\n' if with_base else "")
        + "[keep]\nfull = 0.5\nuniform = 0.5\nkeep_counts = [4]\n"
        "[optimisation]\nsteps = 3\nbatch_size = 2\nlearning_rate = 1e-3\nwarmup_steps = 0\n"
    )
    data = ["--data", str(tmp_path / "mine.jsonl"), "--image-column", "picture"]
    run = ["--model", str(base), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main(["train", str(tmp_path / "mine.toml"), *data, *run]) == 0
    made = tmp_path / "run" / ("model" if with_base else "adapter")
    assert f"wrote {made}" in capsys.readouterr().out
    model = AdaLlava.from_pretrained(str(made if with_base else base), method="uniform", device="cpu")
    model = model.with_scheduler("layers", adapter=None if with_base else made)
    (record,) = model.generate(
        **tiny_inputs(model.processor, ["why?"]), token_budget=0.5, latency=0.75, max_new_tokens=1
    ).records
    assert record.tokens_kept == 8
    assert record.groups_run is not None
    assert sum(map(bool, record.groups_run)) == 3


def test_stage_base_takes_missing_layers(tmp_path: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tiny_llava(tmp_path_factory.mktemp("base"), adapters=False)
    recipe = Recipe.model_validate(
        {
            "stage": "base",
            "trained": ["language_model"],
            "missing_layers_share": 1.0,
            "questions_per_image": 2,
            "keep": {"full": 1.0},
            "optimisation": OPTIMISATION,
        }
    )
    train_stage(recipe, tmp_path / "out", start_from=str(base), device=torch.device("cpu"))
    logged = (tmp_path / "out" / "curve.json").read_text()
    assert "loss_full_without_" in logged
