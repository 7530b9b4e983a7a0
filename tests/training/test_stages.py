"""Stages from recipe to result: what learns, what stays, what resumes, what is refused."""

import json
import re
import warnings

import pytest
import torch
from models import tiny_llava
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainingArguments

from adallava import AdaLlava
from adallava.errors import InputError, UnknownNameError, UnsupportedModeError
from adallava.training import start
from adallava.training.examples import SceneExamples
from adallava.training.fit import arguments
from adallava.training.own_data import TaskExamples
from adallava.training.recipe import RECIPES, SEARCHES, Recipe, load_recipe, with_steps
from adallava.training.stages import train_stage

CPU = torch.device("cpu")
BLANK = {
    "vision_width": 24,
    "vision_layers": 1,
    "vision_heads": 2,
    "vision_mlp_width": 24,
    "llm_width": 24,
    "llm_layers": 2,
    "llm_heads": 2,
    "llm_kv_heads": 1,
    "llm_mlp_width": 24,
}


def recipe(stage, **fields):
    fields.setdefault("optimisation", {"steps": 3, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0})
    return Recipe.model_validate({"stage": stage, **fields})


def base_recipe():
    return recipe(
        "base",
        blank=BLANK,
        trained=("language_model", "lm_head"),
        questions_per_image=7,
        ground_weight=0.1,
        ground_layer=1,
        keep={
            "evidence": 0.5,
            "random": 0.2,
            "pool": 0.2,
            "full": 0.1,
            "keep_counts": [16],
            "evidence_keep_counts": [16],
        },
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of `base_recipe` from beginning to end."""
    folder = tmp_path_factory.mktemp("trained") / "whole"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_stage(base_recipe(), folder, device=CPU)
    return folder


def test_every_bundled_recipe_is_valid():
    names = sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.toml"))
    assert {"tiny/align", "tiny/base", "tiny/question", "tiny/budget-token", "question"} <= set(names)
    for name in names:
        recipe = load_recipe(name)
        assert recipe.stage in SEARCHES or recipe.optimisation.steps > 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps = 600", "steps = 1000000000000000000", "optimisation.steps: Input should be less than"),
        ("steps = 600", "steps = true", "optimisation.steps: Input should be a valid integer"),
        ("batch_size = 48", "batch_size = 1000000000", "optimisation.batch_size: Input should be less than"),
        ("steps = 600", "steps = " + "9" * 4301, "4301 digits"),
        ("[selector]", "[selector]\nextra = 1000000000", "selector.extra: Input should be less than"),
    ],
)
def test_a_number_of_a_recipe_that_nothing_can_be_built_in_is_refused(tmp_path, old, new, said):
    text = (RECIPES / "tiny" / "question.toml").read_text()
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=f"recipe mine.toml: .*{said}"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_model_from_nothing_that_no_memory_holds_is_refused(tmp_path):
    text = (RECIPES / "tiny" / "align.toml").read_text()
    for name in ("vision_width", "vision_mlp_width", "llm_width", "llm_mlp_width"):
        text = re.sub(rf"^{name} = .*$", f"{name} = 65536", text, flags=re.MULTILINE)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError, match=r"recipe mine.toml: .*a model of some \d{11,} weights: at most 4294967296"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_a_misspelled_recipe_or_field_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="tiny/align"):
        load_recipe("tiny/aline")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('stage = "base"\nsteps = 3\n')
    with pytest.raises(InputError, match="steps"):
        load_recipe(str(wrong))


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_stage_resumes_to_the_same_weights(whole, tmp_path, monkeypatch):
    draw = SceneExamples.__getitem__

    def dies(self, index):
        if index >= 4:
            raise KeyboardInterrupt
        return draw(self, index)

    monkeypatch.setattr(SceneExamples, "__getitem__", dies)
    with pytest.raises(KeyboardInterrupt):
        train_stage(base_recipe(), tmp_path / "cut", device=CPU)
    assert not (tmp_path / "cut" / "model").exists()
    monkeypatch.setattr(SceneExamples, "__getitem__", draw)
    train_stage(base_recipe(), tmp_path / "cut", device=CPU)

    expected, cut = (load_file(run / "model" / "model.safetensors") for run in (whole, tmp_path / "cut"))
    assert expected.keys() == cut.keys()
    for name in expected:
        torch.testing.assert_close(expected[name], cut[name], atol=1e-6, rtol=1e-5)
    assert json.loads((tmp_path / "cut" / "curve.json").read_text())["resumed"]


@pytest.mark.filterwarnings("ignore")
def test_only_the_named_parts_learn_and_another_recipe_never_continues_a_folder(whole):
    before = load_file(whole / "blank" / "model.safetensors")
    after = load_file(whole / "model" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name for name in changed)
    with pytest.raises(InputError, match="another recipe"):
        train_stage(with_steps(base_recipe(), 2), whole, device=CPU)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_controllers_learn_from_a_users_file_on_any_base_and_leave_it_as_it_is(tmp_path):
    base = tiny_llava(tmp_path / "base")
    weights = (base / "model.safetensors").read_bytes()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    names = ("red.png", "bad.png", "red.png")
    rows = [{"image": name, "question": "what colour?", "answer": "red"} for name in names]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TaskExamples.from_file(tmp_path / "mine.jsonl", {})
    for stage in ("question", "budget-token"):
        adapter = train_stage(
            recipe(stage, keep={"keep_counts": [4]}),
            tmp_path / stage,
            start_from=str(base),
            data=data,
            device=CPU,
        )
        model = AdaLlava.from_pretrained(str(base), method=stage, adapter=adapter, device="cpu")
        assert model.method == stage
    assert (base / "model.safetensors").read_bytes() == weights


@pytest.mark.filterwarnings("ignore")
def test_scorer_and_base_learn_together_and_are_saved_as_one_model(tmp_path):
    start = tiny_llava(tmp_path / "start")
    joint = recipe(
        "joint",
        trained=("language_model", "lm_head"),
        questions_per_image=2,
        selection_keep_counts=(4,),
        others_share=0.5,
        keep={"random": 0.5, "full": 0.5, "keep_counts": [8]},
        optimisation={"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0},
    )
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    (tmp_path / "mine.jsonl").write_text(
        2 * (json.dumps({"image": "red.png", "question": "which?", "answer": "red"}) + "\n")
    )
    data = TaskExamples.from_file(tmp_path / "mine.jsonl", {})
    folder = train_stage(joint, tmp_path / "run", start_from=str(start), data=data, device=CPU)

    log = json.loads((tmp_path / "run" / "curve.json").read_text())["log"]
    assert {"loss_selected", "reward"} <= set().union(*log)
    assert {"loss_random", "loss_full"} & set().union(*log)
    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name for name in changed)
    # The scorer is beside its base, so that a further stage starts from both.
    assert AdaLlava.from_pretrained(str(folder), method="question", device="cpu").method == "question"
    first = load_file(folder / "adapters" / "question" / "adapter_model.safetensors")
    again = train_stage(with_steps(joint, 1), tmp_path / "again", start_from=str(folder), data=data, device=CPU)
    second = load_file(again / "adapters" / "question" / "adapter_model.safetensors")
    assert all((first[name] - second[name]).abs().max() < 0.01 for name in first)


def test_a_recipe_that_needs_labelled_patches_refuses_a_users_file(tmp_path):
    data = TaskExamples([])
    with pytest.raises(InputError, match="labeled patches"):
        train_stage(base_recipe(), tmp_path, data=data, device=CPU)


def test_a_stage_from_nothing_takes_no_model(tmp_path):
    with pytest.raises(InputError, match="leave --model"):
        train_stage(base_recipe(), tmp_path, start_from="tiny", device=CPU)


def test_a_stage_without_a_start_says_so(tmp_path):
    with pytest.raises(InputError, match="--model"):
        train_stage(recipe("question"), tmp_path, device=CPU)


def test_one_device_trains_however_many_gpus_are_in_sight(tmp_path, monkeypatch):
    """With more, `Trainer` would wrap the objective in DataParallel, which splits batches by rows."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 2))
    settings = arguments(base_recipe(), tmp_path, CPU)
    assert (settings.n_gpu, settings.train_batch_size) == (1, 2)


def test_a_gpu_that_the_trainer_would_not_use_is_refused(tmp_path):
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES=1"):
        train_stage(base_recipe(), tmp_path, device=torch.device("cuda:1"))


def test_a_blank_that_was_cut_short_claims_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("adallava.training.start.write_blank", killed)
    with pytest.raises(KeyboardInterrupt):
        train_stage(base_recipe(), tmp_path / "run", device=CPU)
    assert not (tmp_path / "run").exists()


def test_of_two_trainings_that_begin_at_once_one_finds_the_other(tmp_path, monkeypatch):
    load = start.load_family

    def load_slowly(*arguments, **named):
        (tmp_path / "recipe.json").write_text('{"of": "the other one"}')
        return load(*arguments, **named)

    monkeypatch.setattr(start, "load_family", load_slowly)
    with pytest.raises(InputError, match="another recipe"):
        train_stage(recipe("question"), tmp_path, start_from="tiny", device=CPU)


def test_a_damaged_recipe_file_is_named(tmp_path):
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(InputError, match=r"recipe.json is damaged"):
        train_stage(base_recipe(), tmp_path, device=CPU)


@pytest.mark.parametrize(
    ("blank", "error", "said"),
    [
        ({"family": "nothing"}, UnsupportedModeError, "no family makes a 'nothing' from nothing; these do: llava, "),
        ({"tower": "vit"}, InputError, r"\[blank\] tower = 'vit' is not made from nothing here: give one of clip_"),
        ({"family": "qwen2_5_vl", "llm": "qwen2"}, InputError, r"\[blank\] llm = 'qwen2': a Qwen2.5-VL has its own"),
        ({"family": "qwen2_5_vl", "patch_px": 7}, InputError, "patch_px = 7 .* give an even number of pixels"),
    ],
)
def test_a_model_from_nothing_of_unknown_parts_is_refused_in_a_line(tmp_path, monkeypatch, blank, error, said):
    monkeypatch.setattr("adallava.training.blank.scenes_corpus", lambda: ["what is it?"])
    with pytest.raises(error, match=said):
        train_stage(recipe("align", blank=BLANK | blank, trained=("visual",)), tmp_path / "run", device=CPU)


def test_a_controller_without_anything_to_choose_is_refused(tmp_path):
    base = tiny_llava(tmp_path / "base")
    nothing = recipe("question", keep={"keep_counts": [16, 99]})
    with pytest.raises(
        InputError, match=r"keep_counts = \[16, 99\]: .* has 16 vision tokens per image, so that nothing"
    ):
        train_stage(nothing, tmp_path / "run", start_from=str(base), device=CPU)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["tiny-qwen2.5-vl", "tiny-siglip-qwen2"])
def test_models_of_other_families_go_through_their_stages(tmp_path, family):
    start = None
    for stage in ("align", "base", "question"):
        whole = load_recipe(f"{family}/{stage}")
        few = whole.optimisation.model_copy(update={"steps": 2, "batch_size": 2})
        blank = None if whole.blank is None else whole.blank.model_copy(update=BLANK | {"llm_width": 48})
        small = whole.model_copy(update={"optimisation": few, "blank": blank, "ground_layer": 1})
        made = train_stage(small, tmp_path / stage, start_from=start, device=CPU)
        start = start if stage == "question" else str(made)
    model = AdaLlava.from_pretrained(start, method="question", adapter=made, device="cpu")
    assert model.family.shape.llm_width == 48
