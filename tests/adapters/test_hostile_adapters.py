"""An adapter is a stranger's too: impossible values and weights are refused by name, before memory is asked for."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models import TINY_SHAPE
from safetensors.torch import load_file, save_file

from adallava import AdaLlava
from adallava.adapters import load_adapter, store, weights_sha256
from adallava.errors import CheckpointError


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder / "adapters" / "question", tmp_path / "adapter"))


def _load(folder: Path, base: Path, **options: Any) -> Any:
    return load_adapter(
        folder, **{"method": "question", "shape": TINY_SHAPE, "base_weights_sha256": weights_sha256(base), **options}
    )


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda t: t.fill_(float("nan")), "holds NaN or infinite numbers"),
        (lambda t: t.index_fill(0, torch.tensor([0]), float("inf")), "holds NaN or infinite numbers"),
        (lambda t: t.to(torch.int32), r"is of the type torch.int32, not a floating-point one"),
        (lambda t: t.to(torch.bool), r"is of the type torch.bool"),
    ],
)
def test_weights_that_choose_nothing_are_refused_by_name(
    adapter: Path, tiny_folder: Path, tensor: Any, message: str
) -> None:
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    name = max(weights)
    save_file({**weights, name: tensor(weights[name].clone())}, file)
    with pytest.raises(CheckpointError, match=f"'{name}' {message}"):
        _load(adapter, tiny_folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_vision_tokens", -1),
        ("num_vision_tokens", "16"),
        ("vision_width", 10**12),
        ("llm_width", 48.5),
        ("grid", [4, 0]),
        ("method", 5),
        ("base_weights_sha256", None),
        ("selector_config", {"width": 10**12}),
        ("selector_config", {"width": {"a": 1}}),
        ("selector_config", []),
        ("surprise", 1),
    ],
)
def test_impossible_values_are_named(adapter: Path, tiny_folder: Path, field: str, value: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=rf"adapter_config.json is damaged: {field}"):
        _load(adapter, tiny_folder)


@pytest.mark.parametrize(
    "options", [{"width": -1}, {"num_heads": 0}, {"width": "64"}, {"widht": 64}, {"width": 2**20, "film_width": 2**20}]
)
def test_options_that_no_method_has_take_no_memory(adapter: Path, tiny_folder: Path, options: dict[str, Any]) -> None:
    path = adapter / "adapter_config.json"
    fields = json.loads(path.read_text())
    # Two widths of a million are 4 TB of weights.
    path.write_text(json.dumps({**fields, "selector_config": {**fields["selector_config"], **options}}))
    with pytest.raises(CheckpointError, match="damaged"):
        _load(adapter, tiny_folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.timeout(30)
def test_a_pipe_is_not_waited_on(adapter: Path, tiny_folder: Path, name: str) -> None:
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    with pytest.raises(CheckpointError, match=f"{name} is not a regular file"):
        _load(adapter, tiny_folder)


def test_deep_json_is_one_line(adapter: Path, tiny_folder: Path) -> None:
    (adapter / "adapter_config.json").write_text('{"selector_config": ' + "[" * 100_000)
    with pytest.raises(CheckpointError, match=r"adapter_config.json is damaged"):
        _load(adapter, tiny_folder)


def test_one_trained_on_other_weights_is_said_once(logged: list[logging.LogRecord]) -> None:
    store._say_once.cache_clear()
    full = AdaLlava.from_pretrained("tiny", method="full", device="cpu")
    full.with_method("question")
    assert not logged
    for _ in range(2):
        full.with_method("budget-token")
    (record,) = logged
    assert "budget-token' was trained on other weights (d3be71c8e3f0…)" in record.getMessage()


@pytest.mark.parametrize("option", ["name", "shape", "self", "cls"])
def test_an_option_named_like_an_argument_of_the_loader_is_refused(
    adapter: Path, tiny_folder: Path, option: str
) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "selector_config": {option: 3}}))
    with pytest.raises(CheckpointError, match="does not take these options"):
        _load(adapter, tiny_folder)
