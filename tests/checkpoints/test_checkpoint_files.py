"""A checkpoint that cannot be whole is told by the file that is wrong, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_base, tiny_llava, tiny_processor

from adallava import AdaLlava
from adallava.errors import CheckpointError, UnsupportedModeError


@pytest.fixture(scope="module")
def sharded_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    tiny_base().save_pretrained(folder, max_shard_size="100KB")
    tiny_processor().save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


@pytest.fixture
def sharded(sharded_original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded_original, tmp_path / "model"))


def _load(folder: Path) -> AdaLlava:
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_shards_load_as_one_file_does(sharded: Path, full: AdaLlava) -> None:
    weights = _load(sharded).base.state_dict()
    for name, tensor in full.base.state_dict().items():
        assert torch.equal(weights[name], tensor)


def _remove_shard(folder: Path) -> None:
    next(folder.glob("model-00002-*")).unlink()


def _cut_shard(folder: Path) -> None:
    shard = next(folder.glob("model-00002-*"))
    shard.write_bytes(shard.read_bytes()[:-1])


def _cut_header(folder: Path) -> None:
    shard = next(folder.glob("model-00002-*"))
    shard.write_bytes(shard.read_bytes()[:20])


def _empty_shard(folder: Path) -> None:
    next(folder.glob("model-00002-*")).write_bytes(b"")


def _web_page(folder: Path) -> None:
    next(folder.glob("model-00002-*")).write_bytes((9).to_bytes(8, "little") + b"<!doctype")


def _header(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        header = text.encode()
        next(folder.glob("model-00002-*")).write_bytes(len(header).to_bytes(8, "little") + header)

    return damage


def _damage_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def _pickled(folder: Path) -> None:
    for shard in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        shard.unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llava"')


def _nest_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": ' * 100_000)


def _original_layout(folder: Path) -> None:
    config = {"model_type": "llava", "mm_vision_tower": "openai/clip-vit-large-patch14-336"}
    (folder / "config.json").write_text(json.dumps(config))


def _one_folder_too_high(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "config.json").rename(inner / "config.json")


def _cache_of_a_repository(folder: Path) -> None:
    snapshot = folder / "snapshots" / "1a2b"
    snapshot.mkdir(parents=True)
    (folder / "config.json").rename(snapshot / "config.json")


def _no_weights(folder: Path) -> None:
    for shard in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        shard.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_shard, r"lacks 1 of \d+ shards .*: model-00002-of-\d+.safetensors. Fetch them"),
        (_cut_shard, r"model-00002-of-\d+.safetensors is truncated or damaged: it has (\d+) bytes, its header"),
        (_cut_header, r"model-00002-of-\d+.safetensors is not a complete safetensors file: it ends inside its header"),
        (_empty_shard, r"model-00002-of-\d+.safetensors is not a complete safetensors file: it ends inside its header"),
        (_web_page, r"model-00002-of-\d+.safetensors is not a safetensors file: its header cannot be read"),
        (
            _header('{"a": {"data_offsets": []}}'),
            r"model-00002-of-\d+.safetensors is not a safetensors file: its header",
        ),
        (
            _header('{"a": {"data_offsets": [0, "9"]}}'),
            r"model-00002-of-\d+.safetensors is not a safetensors file: its",
        ),
        (
            _header('{"a": {"data_offsets": [0, null]}}'),
            r"model-00002-of-\d+.safetensors is not a safetensors file: its",
        ),
        (
            _header("[" * 100_000),
            r"model-00002-of-\d+.safetensors is not a safetensors file: its header cannot be read",
        ),
        (_damage_index, r"model.safetensors.index.json is damaged: it has no readable weight_map"),
        (_pickled, r"no weights in safetensors but pickled ones \(pytorch_model.bin\), which are never read"),
        (_damage_config, r"config.json is damaged: Expecting"),
        (_nest_config, r"config.json is damaged: it is nested too deeply"),
        (_original_layout, r"layout of the original LLaVA code.*`adallava convert`"),
        (_no_weights, r"has no weights: neither model.safetensors nor model.safetensors.index.json is in it"),
        (_one_folder_too_high, r"has no config.json; did you mean its folder 'inner'\?"),
        (_cache_of_a_repository, r"has no config.json; did you mean its folder 'snapshots/1a2b'\?"),
    ],
)
def test_what_is_wrong_is_named(sharded: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(sharded)
    with pytest.raises(CheckpointError, match=message):
        _load(sharded)


@pytest.mark.parametrize(
    ("change", "unread"),
    [
        (lambda config: config["text_config"].update(num_hidden_layers=3), "9 stored weights unread.*layers.3"),
        (lambda config: config["vision_config"].update(num_hidden_layers=1), r"16 stored weights unread.*layers\.1"),
        (lambda config: config.update(multimodal_projector_bias=False), "2 stored weights unread.*projector.*bias"),
    ],
    ids=["LLM", "tower", "projector"],
)
def test_stored_layers_that_the_config_does_not_count_are_refused(
    tiny_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], unread: str
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=unread):
        _load(folder)


def test_an_adapter_is_no_model(tiny_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is an adapter, not a model"):
        _load(tiny_folder / "adapters" / "question")


def test_a_config_of_another_family_is_told_before_its_weights_are_looked_at(sharded: Path) -> None:
    (sharded / "config.json").write_text('{"model_type": "mllama"}')
    _remove_shard(sharded)
    with pytest.raises(UnsupportedModeError, match=r"family 'mllama'; supported are: .*llava"):
        _load(sharded)


def test_weights_of_another_width_are_named(tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path, adapters=False)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"12 are .*layers.0.mlp.down_proj.weight' \(stored \(48, 96\), by"):
        _load(folder)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_type_is_the_stored_one_unless_another_is_asked_for(tmp_path: Path, stored: torch.dtype) -> None:
    folder = str(tiny_llava(tmp_path, adapters=False, dtype=stored))
    assert AdaLlava.from_pretrained(folder, method="full", device="cpu").dtype == stored
    cast = AdaLlava.from_pretrained(folder, method="full", device="cpu", dtype="float16")
    assert {parameter.dtype for parameter in cast.base.parameters()} == {torch.float16}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_the_weights_are_the_mapped_file(tiny_folder: Path) -> None:
    """Nothing is copied on the CPU: the weights lie in pages that the system knows as the file's."""
    model = AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu")
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in lines if line.endswith(str(tiny_folder / "model.safetensors"))]
    areas = [(int(start, 16), int(end, 16)) for start, end in mapped]
    for name, parameter in model.base.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in areas), name
