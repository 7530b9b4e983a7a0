"""The policy: one device for everything, one floating-point type for every weight, told before files are read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_llava

from adallava import AdaLlava
from adallava.checkpoints.placement import pick_device, pick_dtype
from adallava.errors import InputError, UnsupportedModeError


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llava(tmp_path_factory.mktemp("half"), dtype=torch.float16))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, torch.float16),
        ("auto", torch.float16),
        ("float16", torch.float16),
        ("torch.bfloat16", torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        ("float32", torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_every_weight_has_the_type_asked_for_or_the_stored_one(half: str, asked: Any, given: torch.dtype) -> None:
    model = AdaLlava.from_pretrained(half, method="question", device="cpu", dtype=asked)
    assert model.dtype == given
    assert {parameter.dtype for parameter in model.base.parameters()} == {given}


@pytest.mark.parametrize("asked", ["int8", torch.int8, "fp16", "half", "float8_e4m3fn", ""])
def test_what_weights_cannot_be_is_told(asked: Any) -> None:
    with pytest.raises(InputError, match=r"dtype '.*' is not supported: give auto, float32, bfloat16, float16"):
        pick_dtype(asked)


@pytest.mark.parametrize("asked", [None, "cpu", torch.device("cpu")])
def test_everything_is_on_one_device(half: str, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = AdaLlava.from_pretrained(half, method="question", device=asked)
    assert isinstance(model.selector, torch.nn.Module)
    everything = [*model.base.parameters(), *model.base.buffers(), *model.selector.parameters()]
    assert {tensor.device for tensor in everything} == {torch.device("cpu")}


def test_by_default_it_is_the_first_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device(None) == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InputError, match="'cuda:2' is not on this machine; here are: cpu, cuda:0, cuda:1"):
        pick_device("cuda:2")


@pytest.mark.parametrize("asked", ["hpu", "vulkan", "xpu", "cpu:3"])
def test_a_kind_of_device_that_is_not_here_is_told(asked: str) -> None:
    if asked == "xpu" and torch.xpu.is_available():
        pytest.skip("it is here")
    with pytest.raises(InputError, match=f"device '{asked}' is not on this machine; here are: cpu"):
        pick_device(asked)


@pytest.mark.parametrize("asked", ["auto", "gpu", "meta", "cuda:x", ""])
def test_what_is_no_device_is_told(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=f"device '{asked}' is not the name of a device; here are: cpu"):
        pick_device(asked)


@pytest.mark.parametrize("method", ["full", "uniform", "question"])
@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        ({"device_map": "auto"}, "on one device: name it with device="),
        ({"torch_dtype": "float16"}, "name the type with dtype="),
        ({"load_in_4bit": True}, "only floating-point weights are supported"),
        ({"trust_remote_code": True}, "no code of a checkpoint is ever run"),
    ],
)
def test_arguments_of_transformers_are_told_what_to_be_instead(
    tmp_path: Path, method: str, arguments: dict[str, Any], instead: str
) -> None:
    with pytest.raises(UnsupportedModeError, match=f"{next(iter(arguments))} is not an argument here: {instead}"):
        AdaLlava.from_pretrained(str(tmp_path / "nothing is read"), method=method, **arguments)
