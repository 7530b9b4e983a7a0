"""A model that cannot be loaded, under every command that loads one: one line on stderr, exit code 2, no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_cache import use_hub_cache, write_hub_cache
from models import TINY_SHAPE, tiny_base, tiny_processor
from PIL import Image

from adallava import AdaLlava
from adallava.adapters import save_adapter
from adallava.cli.main import main
from adallava.errors import AdallavaError
from adallava.selection import build_selector
from adallava.training.recipe import RECIPES

HUB_ID = "somebody/llava"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in shards, with an adapter that was trained on another base of the same shapes."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_base().save_pretrained(folder, max_shard_size="100KB")
    tiny_processor().save_pretrained(folder)
    adapter = folder / "adapters" / "question"
    selector = build_selector("question", TINY_SHAPE)
    save_adapter(adapter, selector, shape=TINY_SHAPE, base_model_name_or_path="another", base_weights_sha256="0" * 64)
    return folder


def _wrong_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "checkpoints" / "model").mkdir(parents=True)
    (folder / "checkpoints" / "config.json").write_text("{}")


def _missing_shard(folder: Path) -> None:
    next(folder.glob("model-00002-*")).unlink()


def _truncated(folder: Path) -> None:
    shard = next(folder.glob("model-00002-*"))
    shard.write_bytes(shard.read_bytes()[:-1])


def _wrong_family(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "mllama"}')


def _original_layout(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "openai/clip"}')


def _quantised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))


def _other_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))


def _lfs_pointer(folder: Path) -> None:
    next(folder.glob("model-00002-*")).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _damaged_tokenizer(folder: Path) -> None:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text()[:-10])


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (_wrong_folder, "holds no model: it has no config.json; did you mean its folder 'checkpoints'?"),
    (_missing_shard, "lacks 1 of"),
    (_truncated, "is truncated or damaged: it has"),
    (_wrong_family, "is of the family 'mllama'; supported are: "),
    (_original_layout, "convert it with `adallava convert`"),
    (_quantised, "are quantized (quantization_config)"),
    (_other_width, "do not fill the model"),
    (_lfs_pointer, "is a pointer of Git LFS, not the file itself: run `git lfs pull` there"),
    (_damaged_tokenizer, "tokenizer.json is damaged"),
]


def _generate(model: str, folder: Path) -> list[str]:
    Image.new("RGB", (40, 30), "red").save(folder / "a.png")
    return ["generate", "--model", model, "--image", str(folder / "a.png"), "--question", "why?", "--method", "uniform"]


def _sweep(model: str, folder: Path) -> list[str]:
    return ["sweep", "--model", model, "--method", "uniform", "--limit", "2", "--output", str(folder / "run")]


def _doctor(model: str, folder: Path) -> list[str]:
    return ["doctor", "--model", model, "--method", "uniform"]


def _train(model: str, folder: Path, recipe: str = "question") -> list[str]:
    return ["train", recipe, "--model", model, "--steps", "1", "--output", str(folder / "trained")]


COMMANDS = [_generate, _sweep, _doctor, _train]


def _refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must refuse its model; return its one line."""
    capsys.readouterr()
    assert main([*command, "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1, told
    assert told.startswith(f"adallava {command[0]}: ")
    return told


@pytest.mark.parametrize(
    ("damage", "message", "command", "by_hub_id"),
    [
        pytest.param(
            *damage,
            command,
            by_hub_id,
            marks=[] if place == (number + by_hub_id) % len(COMMANDS) else [pytest.mark.long],
        )
        for number, damage in enumerate(DAMAGES)
        for place, command in enumerate(COMMANDS)
        for by_hub_id in (False, True)
    ],
)
def test_what_is_wrong_with_the_model_is_one_line(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
    command: Callable[[str, Path], list[str]],
    by_hub_id: bool,
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    damage(folder)
    if by_hub_id:
        write_hub_cache(tmp_path / "home", HUB_ID, folder)
        use_hub_cache(tmp_path / "home", monkeypatch)
    model = HUB_ID if by_hub_id else str(folder)
    assert message in _refused(command(model, tmp_path), capsys)
    claims = [tmp_path / "trained" / "recipe.json", tmp_path / "run" / "run.json"]
    assert not any(claim.exists() for claim in claims), "an output is not claimed by a mistake"
    with pytest.raises(AdallavaError):
        AdaLlava.from_pretrained(model, method="uniform", device="cpu")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_id_that_is_not_here_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[str, Path], list[str]],
) -> None:
    use_hub_cache(tmp_path, monkeypatch)
    told = _refused(command("llava-hf/llava-1.5-7b-hf", tmp_path), capsys)
    assert "'llava-hf/llava-1.5-7b-hf'" in told
    assert "not a hub id in the local cache; the hub cannot be reached" in told


@pytest.mark.parametrize("command", [_generate, _sweep])
def test_an_adapter_of_another_base_is_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[[str, Path], list[str]]
) -> None:
    asked = ["question" if word == "uniform" else word for word in command(str(whole), tmp_path)]
    told = _refused(asked, capsys)
    assert "was trained on 'another' with weights 000000000000…, this base has" in told


def test_to_the_doctor_an_adapter_of_another_base_is_a_finding(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", str(whole), "--method", "question", "--device", "cpu", "--json"]) == 1
    told = capsys.readouterr()
    assert "was trained on 'another' with weights 000000000000…, this base has" in told.out
    assert "Traceback" not in told.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_is_not_here_is_one_line(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[[str, Path], list[str]]
) -> None:
    capsys.readouterr()
    capsys.readouterr()
    assert main([*command(str(whole), tmp_path), "--device", "cuda:99"]) == 2
    told = capsys.readouterr().err
    assert "'cuda:99' is not on this machine; here are: cpu" in told
    assert len(told.splitlines()) == 1, told


@pytest.mark.long
def test_after_a_mistake_in_its_name_training_starts_in_the_same_folder(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "few.toml"
    of_7b = (RECIPES / "question.toml").read_text()
    recipe.write_text(of_7b.replace("[128, 64, 32]", "[8, 4]"))  # of 16 tokens
    _refused(_train(str(tmp_path / "misspelled"), tmp_path, str(recipe)), capsys)
    assert main([*_train(str(whole), tmp_path, str(recipe)), "--device", "cpu"]) == 0
