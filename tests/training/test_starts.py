"""How a training starts: what is refused before the folder is claimed, and which folder it may go on in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_llava
from PIL import Image
from safetensors.torch import load_file, save_file

from adallava.cli.main import main
from adallava.errors import CheckpointError, InputError, TrainingError
from adallava.training import claim
from adallava.training.own_data import OwnExamples, TaskExamples
from adallava.training.recipe import Recipe
from adallava.training.stages import train_stage

CPU = torch.device("cpu")
TOML = (
    'stage = "question"\n[keep]\nkeep_counts = [4]\n[optimisation]\nsteps = 4\nbatch_size = 2\nlearning_rate = 1e-3\n'
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_llava(tmp_path_factory.mktemp("base") / "model"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Five rows, the last of which has no picture."""
    for number in range(4):
        Image.new("RGB", (20, 20), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"no picture")
    rows = [{"image": f"{n}.png", "question": f"what is {n}?", "answer": "red"} for n in range(5)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.toml").write_text(TOML)
    return tmp_path / "mine.jsonl"


def _recipe(**fields: Any) -> Recipe:
    settings = {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}
    return Recipe.model_validate(
        {"stage": "question", "keep": {"keep_counts": [4]}, "optimisation": settings} | fields,
    )


def _train(recipe: Recipe, output: Path, base: Path, mine: Path) -> Path:
    return train_stage(recipe, output, start_from=str(base), data=TaskExamples.from_file(mine, {}), device=CPU)


def _killed_at(monkeypatch: pytest.MonkeyPatch, example: int) -> None:
    read = OwnExamples.__getitem__

    def dies(self: OwnExamples, index: int) -> Any:
        if index >= example:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(OwnExamples, "__getitem__", dies)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_killed_training_goes_on_in_the_same_order_and_on_no_other_data(
    base: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(_recipe(), tmp_path / "whole", base, mine)
    with monkeypatch.context() as patched:
        _killed_at(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            _train(_recipe(), tmp_path / "cut", base, mine)
    text = mine.read_text()
    mine.write_text(text.replace('"answer": "red"', '"answer": "blue"', 1))
    with pytest.raises(InputError, match=r"data\.sha256: .* there, .* here\): give the same, or another --output"):
        _train(_recipe(), tmp_path / "cut", base, mine)
    with pytest.raises(InputError, match=r"data: not recorded there, scenes here"):
        train_stage(_recipe(), tmp_path / "cut", start_from=str(base), device=CPU)
    mine.write_text(text)
    resumed = _train(_recipe(), tmp_path / "cut", base, mine)
    assert json.loads((tmp_path / "cut" / "curve.json").read_text())["resumed"]
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (whole, resumed))
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_what_differs_is_named_and_another_spelling_is_the_same(
    base: Path, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    _train(_recipe(), output, base, mine)
    with pytest.raises(InputError, match=r"recipe\.seed: 0 there, 1 here"):
        _train(_recipe(seed=1), output, base, mine)
    copied = tiny_llava(tmp_path / "copied")
    assert _train(_recipe(), output, copied, mine).is_dir()
    weights = load_file(copied / "model.safetensors")
    save_file({n: w + 1e-3 for n, w in weights.items()}, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"\(base\.weights: .{12}… there, .{12}… here\)"):
        _train(_recipe(), output, copied, mine)
    with monkeypatch.context() as patched:
        patched.setattr(claim, "_versions", lambda: {"torch": "1.0"})
        with pytest.raises(InputError, match=r"versions\.torch: .* there, 1\.0 here"):
            _train(_recipe(), output, base, mine)
    # What an older version wrote said neither data nor weights: it cannot be known to be the same.
    held = json.loads((output / "recipe.json").read_text())
    (output / "recipe.json").write_text(json.dumps({name: held[name] for name in ("recipe", "start_from")}))
    with pytest.raises(InputError, match=r"base\.weights: not recorded there"):
        _train(_recipe(), output, base, mine)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("steps = 4", "steps = 0"), "optimisation.steps: Input should be greater than 0"),
        (("1e-3", "0.0"), "learning_rate: Input should be greater than 0"),
        (("1e-3", "nan"), "learning_rate: Input should be a finite number"),
        (("1e-3", "inf"), "learning_rate: Input should be a finite number"),
        (("1e-3", '1e-3\nschedule = "cosinus"'), "optimisation.schedule: "),
        (("[4]", "[]"), "keep.keep_counts: "),
        (("[4]", "[0]"), "keep.keep_counts.0: "),
        (("batch_size = 2", "batch_size = 5"), "4 samples that can be used, and optimisation.batch_size is 5"),
        (('"question"\n[keep]', '"base"\n[keep]\nfull = 1.0'), "trains the base: name the parts that learn in trained"),
        (('"question"', '"question"\ntrained = ["lm_head"]'), "leave trained out"),
        (('"question"', '"question"\nkinds = ["colour"]'), "no questions of kind 'colour'"),
        (('"question"', '"question"\nselector = {depth = 3}'), "depth"),
        (
            ('"question"\n[keep]', '"base"\ntrained = ["visual"]\n[keep]\nfull = 1.0'),
            "no parameter of the base begins with 'visual'; its parts are vision_tower, multi_modal_projector",
        ),
    ],
)
def test_a_failed_start_is_one_line_and_leaves_no_folder(
    change: tuple[str, str], told: str, base: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    assert change[0] in TOML
    recipe.write_text(TOML.replace(*change))
    output = tmp_path / "deep" / "run"
    command = ["train", str(recipe), "--model", str(base), "--data", str(mine), "--output", str(output)]
    assert main([*command, "--device", "cpu"]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("adallava train:"))
    assert told in line
    assert not output.parent.exists()


def test_data_without_a_usable_row_leave_no_folder(base: Path, mine: Path, tmp_path: Path) -> None:
    rows = [
        {"image": "4.png", "question": "why?", "answer": "no"},
        {"image": "0.png", "question": "why <image>?", "answer": "no"},
        {"image": "0.png", "question": "why? " * 3000, "answer": "no"},
    ]
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"no sample of --data can be used: 3 of 3") as error:
        _train(_recipe(), tmp_path / "run", base, mine)
    assert all(part in str(error.value) for part in ("4.png", "holds <image>", "the model reads"))
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
def test_one_bad_picture_is_counted_at_the_end(
    base: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(tmp_path / "mine.toml"), "--model", str(base), "--data", str(mine)]
    assert main([*command, "--output", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert "left out 1 of 5 samples (row-4: " in capsys.readouterr().out


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "PMI_SIZE"])
def test_one_of_several_processes_trains_nothing(
    variable: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "2")
    with pytest.raises(InputError, match=f"{variable}=2: training is one process on one device"):
        train_stage(_recipe(), tmp_path / "run", start_from=str(base), device=CPU)
    assert not (tmp_path / "run").exists()
    claim.refuse_several_processes({variable: "1"})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [1, 4])
def test_what_is_no_longer_finite_is_never_saved(steps: int, base: Path, mine: Path, tmp_path: Path) -> None:
    """A rate beyond float32's range makes the weights of the first update infinite: its own loss was finite."""
    wild = {"steps": steps, "batch_size": 2, "learning_rate": 1e39, "warmup_steps": 0}
    with pytest.raises(TrainingError, match=r"at step \d.*nothing of it is saved.*lower learning_rate"):
        _train(_recipe(optimisation=wild), tmp_path / "run", base, mine)
    assert not (tmp_path / "run" / "adapter").exists()
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.filterwarnings("ignore")
def test_a_base_with_damaged_weights_is_refused_as_it_is_loaded(base: Path, mine: Path, tmp_path: Path) -> None:
    broken = tiny_llava(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "down_proj" in name)
    weights[name][0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="hold NaN or infinite numbers in 1 tensors"):
        _train(_recipe(), tmp_path / "run", broken, mine)


@pytest.mark.filterwarnings("ignore")
def test_tied_weights_learn_if_either_name_is_meant(base: Path, mine: Path, tmp_path: Path) -> None:
    """What a user writes to adapt a base on data of their own: stage `base`, without labels."""
    own = _recipe(stage="base", trained=("lm_head",), keep={"full": 0.5, "random": 0.5, "keep_counts": [8]})
    folder = _train(own, tmp_path / "run", base, mine)
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all("lm_head" in name or "embed_tokens" in name for name in changed)
