"""Adapters: any folder gives a method or a scheduler that runs, or a checkpoint error in words."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from models import TINY_SHAPE, scheduled, six_layers
from mutations import damaged_bytes, damaged_json, json_text

from adallava import AdaLlava
from adallava.adapters import load_adapter, save_adapter, weights_sha256
from adallava.adapters.store import load_scheduler

FINDINGS: dict[str, tuple[str, str, bytes]] = {}
"""Part, text of the config, bytes of the weights (b"" for those that are right), by what is wrong."""

PARTS = ("question", "budget-token", "layers", "fixed")


@pytest.fixture(scope="module")
def six(full: AdaLlava) -> AdaLlava:
    return six_layers(full)


@pytest.fixture(scope="module")
def adapters(six: AdaLlava, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a folder of a valid adapter by part."""
    folder = tmp_path_factory.mktemp("adapters")
    found = {name: Path(shutil.copytree(tiny_folder / "adapters" / name, folder / name)) for name in PARTS[:2]}
    for name in PARTS[2:]:
        model = scheduled(six, name)
        save_adapter(
            folder / name,
            None,
            scheduler=model.scheduler,
            shape=TINY_SHAPE,
            base_model_name_or_path="tiny",
            base_weights_sha256=weights_sha256(tiny_folder),
        )
        found[name] = folder / name
    return found


def inputs(adapters: dict[str, Path]) -> st.SearchStrategy[tuple[str, str, bytes]]:
    """Return a strategy of configs and weights, of which mostly one is damaged."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> tuple[str, str, bytes]:
        part = draw(st.sampled_from(PARTS))
        config = json.loads((adapters[part] / "adapter_config.json").read_text())
        text = json_text(draw(damaged_json(config, extra_keys=("width", "num_heads", "scheduler_config", "plans"))))
        path = adapters[part] / "adapter_model.safetensors"
        weights = b""
        if path.exists() and draw(st.integers(0, 2)) == 0:
            weights = draw(_damaged_safetensors(path.read_bytes()))
            text = draw(st.sampled_from((text, json.dumps(config))))
        return part, text, weights

    return draw_one()


@st.composite
def _damaged_safetensors(draw: st.DrawFn, valid: bytes) -> bytes:
    length = int.from_bytes(valid[:8], "little")
    header, body = valid[8 : 8 + length], valid[8 + length :]
    match draw(st.sampled_from(("header", "text", "bytes"))):
        case "header":
            header = json_text(draw(damaged_json(json.loads(header)))).encode("utf-8", "surrogatepass")
        case "text":
            header = draw(damaged_bytes(header, most=3))
        case "bytes":
            return (
                draw(damaged_bytes(valid[:40], most=2)) + valid[40:]
                if draw(st.booleans())
                else valid[: -len(valid) // 3]
            )
    body = draw(damaged_bytes(body[:16], most=1)) + body[16:]
    return len(header).to_bytes(8, "little") + header + body


def check(
    six: AdaLlava, adapters: dict[str, Path], base_sha256: str, folder: Path, value: tuple[str, str, bytes]
) -> None:
    """Load a folder's part, and have the scheduler or the method say something."""
    part, text, weights = value
    (folder / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    target, path = folder / "adapter_model.safetensors", adapters[part] / "adapter_model.safetensors"
    target.unlink(missing_ok=True)
    if weights or path.exists():
        target.write_bytes(weights or path.read_bytes())
    if part in PARTS[:2]:
        selector = load_adapter(folder, method=part, shape=TINY_SHAPE, base_weights_sha256=base_sha256).selector
        assert all(bool(torch.isfinite(tensor).all()) for tensor in selector.state_dict().values())
    else:
        shape = six.family.decoder().shape
        loaded = load_scheduler(folder, name=part, shape=shape, base_weights_sha256=base_sha256)
        assert loaded.scheduler.units(shape).num_layers == shape.num_layers


@pytest.fixture(scope="module")
def checked(six: AdaLlava, adapters: dict[str, Path], tiny_folder: Path) -> Any:
    return partial(check, six, adapters, weights_sha256(tiny_folder))


@pytest.mark.parametrize("name", FINDINGS)
def test_adapters_that_failed_once(name: str, checked: Any, tmp_path: Path) -> None:
    judge(partial(checked, tmp_path), FINDINGS[name], tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_a_valid_adapter_loads(part: str, checked: Any, adapters: dict[str, Path], tmp_path: Path) -> None:
    value = part, (adapters[part] / "adapter_config.json").read_text(), b""
    assert judge(partial(checked, tmp_path), value, tmp_path) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_adapters(checked: Any, adapters: dict[str, Path], tmp_path: Path) -> None:
    tally = fuzz("adapters", inputs(adapters), partial(checked, tmp_path), tmp_path, findings=len(FINDINGS))
    assert tally.answered
    assert tally.refused
