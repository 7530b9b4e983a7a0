"""Of which type a converted model is: one, that of its LLM; whatever is cast is said, and nothing else is cast."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from original_llava import ADA_CONFIG, CONFIG, llm_weights, scheduler_weights, tower_weights, write_clip, write_original
from safetensors.torch import load_file
from torch import Tensor

from adallava.cli.main import main

pytestmark = pytest.mark.long


LLM = ("model.embed", "model.layers", "model.norm", "model.mm", "lm_head")
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
OWN_TOWER = {f"model.vision_tower.vision_tower.{name}": weight for name, weight in tower_weights().items()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("openai") / "clip")


def _convert(weights: dict[str, Tensor], clip: Path, folder: Path) -> tuple[int, Path]:
    """Write and convert a checkpoint; return the exit code and the new folder."""
    adallava = any(name.startswith("scheduler.") for name in weights)
    source = write_original(folder / "source", weights, ADA_CONFIG if adallava else CONFIG)
    output = folder / "stock"
    return main(["convert", str(source), "--vision-tower", str(clip), "--output", str(output)]), output


def _half(weights: dict[str, Tensor], *beginnings: str) -> dict[str, Tensor]:
    return {name: w.half() if name.startswith(beginnings) else w for name, w in weights.items()}


def _types_of(folder: Path) -> set[torch.dtype]:
    return {w.dtype for file in folder.glob("*.safetensors") for w in load_file(file).values()}


@pytest.mark.parametrize(
    ("beginning", "messages"),
    [
        ("lm_head.", ["its LLM and projector in two types", "'lm_head.weight' in float16", "' in float32"]),
        ("model.mm_projector.2.", ["its LLM and projector in two types", "'model.mm_projector.2."]),
        ("model.vision_tower.vision_tower.vision_model.pre", ["its vision tower in two types", "pre_layrnorm"]),
        ("scheduler.mlp_head.bias", ["its scheduler in two types", "'scheduler.mlp_head.bias' in float16"]),
    ],
)
def test_a_part_in_two_types_is_refused_by_two_names(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], beginning: str, messages: list[str]
) -> None:
    """One of them would be cast in silence when the folder is loaded."""
    code, output = _convert(_half(llm_weights() | OWN_TOWER | scheduler_weights(), beginning), clip, tmp_path)
    told = capsys.readouterr().err
    assert (code, output.exists(), len(told.splitlines())) == (2, False, 1)
    assert all(message in told for message in messages), told


@pytest.mark.parametrize("name", [Q_PROJ, "scheduler.mlp_head.weight"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (Tensor.long, "int64"),
        (lambda w: w.to(torch.complex64), "complex64"),
        (lambda w: w.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_weights_of_a_type_that_no_model_has_are_refused(
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Callable[[Tensor], Tensor],
    kind: str,
) -> None:
    weights = llm_weights() | scheduler_weights()
    code, output = _convert(weights | {name: change(weights[name])}, clip, tmp_path)
    assert (code, output.exists()) == (2, False)
    assert f"holds '{name}' in {kind}, and weights are in one of float16, " in capsys.readouterr().err


def test_a_checkpoint_without_an_llm_is_told(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _convert(OWN_TOWER, clip, tmp_path)[0] == 2
    assert "holds no weight of an LLM" in capsys.readouterr().err


def test_an_added_tower_is_cast_to_the_llms_type_and_that_is_said(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = _convert(_half(llm_weights(), *LLM), clip, tmp_path)
    said = capsys.readouterr().out
    assert (code, _types_of(output)) == (0, {torch.float16})
    assert f"weights in float16; the vision tower's are from {clip}, cast from float32" in said


def test_a_tower_of_the_checkpoints_own_is_cast_too(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = _convert(_half(llm_weights() | OWN_TOWER, *LLM), clip, tmp_path)
    said = capsys.readouterr().out
    assert (code, _types_of(output)) == (0, {torch.float16})
    assert f"the vision tower's are from {tmp_path / 'source'}, cast from float32" in said


def test_where_nothing_is_cast_nothing_is_said_of_it(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output = _convert(llm_weights(), clip, tmp_path)
    assert (code, _types_of(output)) == (0, {torch.float32})
    assert "cast" not in capsys.readouterr().out.replace(str(tmp_path), "").replace(str(clip), "")
