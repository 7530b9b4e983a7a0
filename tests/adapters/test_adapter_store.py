import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models import LEARNED, TINY_SHAPE, save_tiny_adapter, scheduled

from adallava import AdaLlava, __version__
from adallava.adapters import load_adapter, read_adapter_config, save_adapter, weights_sha256
from adallava.adapters.store import sha256_of
from adallava.errors import CheckpointError
from adallava.selection import build_selector
from adallava.selection.selector_contract import TowerShape

OTHER_BASE = "0" * 64


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder / "adapters" / "question", tmp_path / "adapter"))


def _load(folder: Path, base: Path, **options: Any) -> Any:
    arguments = {"method": "question", "shape": TINY_SHAPE, "base_weights_sha256": weights_sha256(base), **options}
    return load_adapter(folder, **arguments)


@pytest.mark.parametrize("method", LEARNED)
def test_an_adapter_comes_back_as_it_was_saved(tiny_folder: Path, tmp_path: Path, method: str) -> None:
    selector: Any = build_selector(method, TINY_SHAPE)
    save_adapter(
        tmp_path / "new" / "folder",
        selector,
        shape=TINY_SHAPE,
        base_model_name_or_path="somewhere",
        base_weights_sha256=weights_sha256(tiny_folder),
    )
    loaded = _load(tmp_path / "new" / "folder", tiny_folder, method=method)
    assert loaded.selector.config == selector.config
    assert not loaded.selector.training
    for name, tensor in selector.state_dict().items():
        assert torch.equal(loaded.selector.state_dict()[name], tensor)
    assert loaded.config.base_model_name_or_path == "somewhere"
    assert loaded.config.adallava_version == __version__
    assert loaded.sha256 == sha256_of(tmp_path / "new" / "folder" / "adapter_model.safetensors")


def test_options_other_than_the_defaults_are_remembered(tiny_folder: Path, tmp_path: Path) -> None:
    selector = build_selector("question", TINY_SHAPE, width=24, num_heads=2)
    save_adapter(
        tmp_path,
        selector,
        shape=TINY_SHAPE,
        base_model_name_or_path="",
        base_weights_sha256=weights_sha256(tiny_folder),
    )
    assert _load(tmp_path, tiny_folder).selector.config["width"] == 24


def test_an_adapter_of_another_base_is_refused_with_both_named(adapter: Path, tiny_folder: Path) -> None:
    own = weights_sha256(tiny_folder)
    with pytest.raises(CheckpointError, match=f"{own[:12]}.*this base has {OTHER_BASE[:12]}"):
        _load(adapter, tiny_folder, base_weights_sha256=OTHER_BASE)
    assert _load(adapter, tiny_folder, base_weights_sha256=OTHER_BASE, allow_other_base=True).sha256


def test_an_adapter_of_other_shapes_is_refused_even_so(adapter: Path, tiny_folder: Path) -> None:
    shape = TowerShape(25, 32, 48, (5, 5))
    with pytest.raises(CheckpointError, match=r"num_vision_tokens=16.*the base has .*num_vision_tokens=25"):
        _load(adapter, tiny_folder, shape=shape, allow_other_base=True)


def test_an_adapter_of_another_method_is_refused(adapter: Path, tiny_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is for 'question', not for 'budget-token'"):
        _load(adapter, tiny_folder, method="budget-token")


def test_damaged_files_are_named(adapter: Path, tiny_folder: Path) -> None:
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"weights in .*adapter_model.safetensors.* are damaged"):
        _load(adapter, tiny_folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors is missing"):
        _load(adapter, tiny_folder)
    fields = json.loads(config.read_text())
    config.write_text(json.dumps({**fields, "grid": "4x4"}))
    with pytest.raises(CheckpointError, match=r"adapter_config.json is damaged: grid"):
        _load(adapter, tiny_folder)
    config.write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config.json is damaged"):
        _load(adapter, tiny_folder)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config.json is missing"):
        _load(adapter, tiny_folder)


def test_weights_of_another_architecture_are_named(adapter: Path, tiny_folder: Path) -> None:
    fields = json.loads((adapter / "adapter_config.json").read_text())
    fields["selector_config"]["width"] = 64
    (adapter / "adapter_config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"are damaged.*size mismatch"):
        _load(adapter, tiny_folder)


def test_a_method_without_weights_has_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="'random' has no weights to save"):
        save_adapter(
            tmp_path,
            build_selector("random", TINY_SHAPE),
            shape=TINY_SHAPE,
            base_model_name_or_path="",
            base_weights_sha256="",
        )


def _write_shards(folder: Path, **shards: bytes) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in shards.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    weight_map = {f"weight of {name}": f"{name}.safetensors" for name in shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_models_hash_is_that_of_the_weights_that_are_loaded(tmp_path: Path) -> None:
    _write_shards(tmp_path / "shards", b=b"two", a=b"one")
    # Of the digests of b"one" and b"two", by coreutils.
    of_both = "298315b0a8b450097e70dd056648c5ab87b6aaa2bf31f75465906c243cb36145"
    assert weights_sha256(tmp_path / "shards") == of_both
    (tmp_path / "shards" / "left-over.safetensors").write_bytes(b"three")
    (tmp_path / "shards" / "config.json").write_text("{}")
    assert weights_sha256(tmp_path / "shards") == of_both
    _write_shards(tmp_path / "swapped", a=b"two", b=b"one")
    assert weights_sha256(tmp_path / "swapped") != of_both
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert weights_sha256(tmp_path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    with pytest.raises(CheckpointError, match=r"has no weights"):
        weights_sha256(tmp_path / "none")


def test_a_saved_adapter_answers_as_before_it_was_saved(
    full: AdaLlava, tiny_folder: Path, tmp_path: Path, inputs: dict[str, Any]
) -> None:
    save_tiny_adapter(tiny_folder, tmp_path / "first", "question")
    model = full.with_method("question", tmp_path / "first")
    model.save_adapter(tmp_path / "second")
    again = full.with_method("question", tmp_path / "second")
    assert again.adapter_sha256 == model.adapter_sha256 == sha256_of(tmp_path / "second" / "adapter_model.safetensors")
    assert [s.kept_indices for s in again.select(**inputs, token_budget=5)] == [
        s.kept_indices for s in model.select(**inputs, token_budget=5)
    ]
    assert read_adapter_config(tmp_path / "second").base_weights_sha256 == weights_sha256(tiny_folder)


def test_one_adapter_holds_a_method_and_a_scheduler(tiny_folder: Path, tmp_path: Path, full: AdaLlava) -> None:
    both = scheduled(full, "heads").with_method("question")
    both.save_adapter(tmp_path / "both")
    config = read_adapter_config(tmp_path / "both")
    assert (config.method, config.scheduler) == ("question", "heads")
    assert config.scheduler_config["groups"] == 2
    again = full.with_method("question", adapter=tmp_path / "both").with_scheduler("heads", adapter=tmp_path / "both")
    assert again.adapter_sha256 == again.scheduler_sha256 is not None
    for part in ("selector", "scheduler"):
        saved, loaded = getattr(both, part).state_dict(), getattr(again, part).state_dict()
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)


def test_an_adapter_of_a_scheduler_alone(tiny_folder: Path, tmp_path: Path, full: AdaLlava) -> None:
    scheduled(full, "layers").save_adapter(tmp_path)
    assert full.with_scheduler("layers", adapter=tmp_path).scheduler_sha256 is not None
    with pytest.raises(CheckpointError, match="holds the scheduler 'layers', not 'heads'"):
        full.with_scheduler("heads", adapter=tmp_path)
    with pytest.raises(CheckpointError, match="is for None, not for 'question'"):
        full.with_method("question", adapter=tmp_path)
    with pytest.raises(CheckpointError, match="no adapter for the learned scheduler 'layers'"):
        full.with_scheduler("layers")
    with pytest.raises(CheckpointError, match="scheduler 'first' is not learned"):
        full.with_scheduler("first", adapter=tmp_path)
    with pytest.raises(CheckpointError, match="takes its options from its adapter"):
        full.with_scheduler("layers", adapter=tmp_path, prefix_layers=1)
    with pytest.raises(CheckpointError, match="'uniform' and 'first' has no weights to save"):
        full.with_method("uniform").with_scheduler("first").save_adapter(tmp_path / "none")
