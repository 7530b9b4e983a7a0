"""What `adallava convert` refuses, in one line: files that would run something, lie, or hold part of a model."""

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_llava import CONFIG, llm_weights, write_clip, write_original
from safetensors.torch import save_file
from torch import Tensor

from adallava import AdaLlava
from adallava.cli.main import main

SHARD = "pytorch_model-00002-of-00002.bin"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("openai") / "clip")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_original(tmp_path / "llava-v1.5-7b", llm_weights())


def _convert(source: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Convert as a user types it; return the exit code and what stderr says."""
    capsys.readouterr()
    output = source.parent / "stock"
    code = main(["convert", str(source), "--vision-tower", str(clip), "--output", str(output)])
    assert output.exists() == (code == 0)
    assert not [path for path in source.parent.iterdir() if path.name.startswith(".")], "no partial output is left"
    return code, capsys.readouterr().err


def _refused(source: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code, told = _convert(source, clip, capsys)
    assert (code, len(told.splitlines())) == (2, 1), told
    assert "weights_only" not in told.replace("``weights_only=True``", ""), "no advice how to run it all the same"
    return told


def _held(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(folder / SHARD)
    return weights


def _zipped(shard: Path, bomb: _Bomb) -> None:
    torch.save({"model.norm.weight": torch.ones(1), "x": bomb}, shard)


def _unzipped(shard: Path, bomb: _Bomb) -> None:
    torch.save({"x": bomb}, shard, _use_new_zipfile_serialization=False)


def _bare(shard: Path, bomb: _Bomb) -> None:
    shard.write_bytes(pickle.dumps(bomb))


def _bare_old(shard: Path, bomb: _Bomb) -> None:
    shard.write_bytes(pickle.dumps(bomb, protocol=2))


def _zip_by_hand(shard: Path, bomb: _Bomb) -> None:
    with zipfile.ZipFile(shard, "w") as archive:
        for name, value in (("data.pkl", pickle.dumps(bomb, protocol=2)), ("version", b"3"), ("byteorder", b"little")):
            archive.writestr(f"archive/{name}", value)


def _zip_with_other_names(shard: Path, bomb: _Bomb) -> None:
    with zipfile.ZipFile(shard, "w") as archive:
        archive.writestr("../../evil/data.pkl", pickle.dumps(bomb))


def _tar(shard: Path, bomb: _Bomb) -> None:
    """As torch 0.1 wrote them."""
    with tarfile.open(shard, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            value = pickle.dumps(bomb)
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            archive.addfile(entry, io.BytesIO(value))


@pytest.mark.parametrize("write", [_zipped, _unzipped, _bare, _bare_old, _zip_by_hand, _zip_with_other_names, _tar])
def test_no_pickle_is_ever_run(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str], write: Callable[[Path, _Bomb], None]
) -> None:
    trace = source.parent / "it-ran"
    write(source / SHARD, _Bomb(trace))
    told = _refused(source, clip, capsys)
    assert f"{SHARD} is refused" in told or f"{SHARD} is damaged" in told
    assert not trace.exists()


def test_a_bomb_would_have_gone_off(tmp_path: Path) -> None:
    """What the test above looks for happens where a pickle is run."""
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "it-ran")))
    assert (tmp_path / "it-ran").exists()


def test_a_bomb_in_the_vision_tower_is_not_run_either(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip")
    torch.save({"vision_model.x": _Bomb(tmp_path / "it-ran")}, clip / "pytorch_model.bin")
    assert "pytorch_model.bin is refused" in _refused(source, clip, capsys)
    assert not (tmp_path / "it-ran").exists()


def _save(value: Any) -> Callable[[Path], None]:
    return lambda folder: torch.save(value, folder / SHARD)


def _with(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: torch.save({**_held(folder), **changed}, folder / SHARD)


def _sparse(folder: Path) -> None:
    weights = _held(folder)
    torch.save({**weights, Q_PROJ: llm_weights()[Q_PROJ].to_sparse()}, folder / SHARD)


def _packed(folder: Path) -> None:
    """Some 20 KB that would be 16 MB in memory."""
    with zipfile.ZipFile(folder / SHARD, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**24))


def _bytes(value: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / SHARD).write_bytes(value) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_save(torch.nn.Linear(2, 2)), "holds more than tensors (torch.nn.modules.linear.Linear)"),
        (_save({"state_dict": {"a": torch.ones(1)}}), "holds something other than named tensors"),
        (_save([torch.ones(1)]), "holds something other than named tensors"),
        (_save({1: torch.ones(1)}), "holds something other than named tensors"),
        (_with(epoch=3), "holds something other than named tensors"),
        (_sparse, "holds something other than named tensors"),
        (_with(x=torch.ones(1).expand(10**6, 10**6)), "and its tensors would take 40000"),
        (_with(**{f"x{number}": torch.ones(1).expand(9999) for number in range(999)}), "and its tensors would take"),
        (_packed, "'archive/data.pkl' in it is compressed, as no file of torch's is"),
        (_with(x=torch.ones(1, device="meta")), "holds something other than named tensors"),
        (_bytes(b""), "is damaged"),
        (_bytes(b"<!doctype html><html>"), "is damaged, or no file of tensors: torch cannot read it"),
        (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "run `git lfs pull`"),
    ],
)
def test_what_holds_no_named_tensors_is_told(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    damage(source)
    told = _refused(source, clip, capsys)
    assert f"{SHARD} is" in told
    assert message in told


def test_files_from_before_torch_1_6_are_read(source: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in source.glob("pytorch_model-*.bin"):
        torch.save(torch.load(shard), shard, _use_new_zipfile_serialization=False)
        assert not zipfile.is_zipfile(shard)
    assert _convert(source, clip, capsys)[0] == 0
    loaded = AdaLlava.from_pretrained(str(source.parent / "stock"), method="full", device="cpu").base.state_dict()
    assert torch.equal(loaded["model.language_model.layers.0.self_attn.q_proj.weight"], llm_weights()[Q_PROJ])


def test_one_safe_file_of_the_original_layout_is_read(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in source.glob("pytorch_model*"):
        file.unlink()
    save_file(llm_weights(), source / "model.safetensors")
    assert _convert(source, clip, capsys)[0] == 0


def _index(folder: Path, change: Callable[[dict[str, str]], dict[str, Any]]) -> None:
    path = folder / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "weight_map": change(index["weight_map"])}))


def _outside(folder: Path) -> None:
    (folder.parent / "outside.bin").write_bytes((folder / SHARD).read_bytes())
    _index(folder, lambda names: {key: "../outside.bin" if name == SHARD else name for key, name in names.items()})


def _no_names(folder: Path) -> None:
    _index(folder, lambda names: {})


def _without(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for shard in folder.glob("pytorch_model-*.bin"):
            torch.save({key: weight for key, weight in torch.load(shard).items() if name not in key}, shard)

    return damage


def _changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for shard in folder.glob("pytorch_model-*.bin"):
            torch.save({key: change(w).clone() if key == name else w for key, w in torch.load(shard).items()}, shard)

    return damage


def _twice(folder: Path) -> None:
    first = torch.load(folder / SHARD.replace("00002-of", "00001-of"))
    torch.save({**_held(folder), **dict([next(iter(first.items()))])}, folder / SHARD)


def _config(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps({**CONFIG, **changed})) and None


def _linear_by_default(folder: Path) -> None:
    fields = {name: value for name, value in CONFIG.items() if name != "mm_projector_type"}
    (folder / "config.json").write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_outside, "names '../outside.bin', which lies outside its folder: it is refused"),
        (_no_names, "has no readable weight_map"),
        (_without(Q_PROJ), "make no whole model: the weights do not fill the model: 1 are missing"),
        (_without("mm_projector"), "make no whole model: the weights do not fill the model: 4 are missing"),
        (_changed(Q_PROJ, lambda w: w[:5]), "(stored (5, 32), by the config (32, 32))"),
        (_twice, "a second time"),
        (_config(num_hidden_layers=5), "make no whole model: the weights do not fill the model: 18 are missing"),
        (
            _config(hidden_size="wide"),
            "config.json is damaged: hidden_size is 'wide', not a whole number of at least 1",
        ),
        (_config(vocab_size=None), "config.json is damaged: vocab_size is None, not a whole number of at least 1"),
        (_config(num_attention_heads=0), "config.json is damaged: num_attention_heads is 0, not a whole number of at"),
        (_config(token_selecting=["prumerge"]), "token_selecting=['prumerge'] is not supported"),
        (_config(mm_vision_select_layer=-5), "mm_vision_select_layer is -5, and the vision tower has 3 layers"),
        (_changed("model.embed_tokens.weight", lambda w: w[0]), "'model.embed_tokens.weight' has the shape (32,), not"),
        (_changed("lm_head.weight", lambda w: w[0, 0]), "'lm_head.weight' has the shape (), not one row for each of"),
        (
            _changed("lm_head.weight", lambda w: w[:9]),
            "'lm_head.weight' has the shape (9, 32), not one row for each of",
        ),
        (_linear_by_default, "mm_projector_type='linear' is not supported"),
        (_config(_name_or_path="liuhaotian/LLaVA-13b-delta-v0"), "holds differences to a LLaMA (delta weights)"),
    ],
)
def test_a_checkpoint_that_is_not_whole_leaves_no_folder(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], message: str
) -> None:
    damage(source)
    assert message in _refused(source, clip, capsys)


def _write_clip_with(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    clip = write_clip(folder / "clip")
    torch.save(change(torch.load(clip / "pytorch_model.bin")), clip / "pytorch_model.bin")
    return clip


def test_a_vision_tower_that_lacks_a_layer_is_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = _write_clip_with(tmp_path, lambda weights: {n: w for n, w in weights.items() if "layers.2." not in n})
    assert "16 are missing or of another shape, the first 'model.vision_tower." in _refused(source, clip, capsys)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", lambda f: f["vision_config"].update(patch_size="a"), "patch_size is 'a', not a whole number"),
        ("config.json", lambda f: f["vision_config"].update(image_size=[28]), "image_size is [28], not a whole number"),
        ("config.json", lambda f: f["vision_config"].update(hidden_size=None), "hidden_size is None, not a whole"),
        # CLIP's default of 224 pixels, which are not those of the weights.
        ("config.json", lambda f: f["vision_config"].pop("image_size"), "(stored (17, 24), by the config (1025, 24))"),
        ("config.json", lambda f: f.pop("vision_config"), "is not a CLIP checkpoint: its config has no vision_config"),
        ("config.json", lambda f: f.update(model_type="siglip"), "is not a CLIP checkpoint"),
        ("preprocessor_config.json", lambda f: f.pop("image_std"), "it has no image_std"),
        ("preprocessor_config.json", lambda f: f.update(image_mean="x"), "image_mean is 'x', not three numbers"),
        ("preprocessor_config.json", lambda f: f.update(image_mean=[10**400] * 3), "image_mean is [1000000"),
        ("preprocessor_config.json", lambda f: f.update(image_std=[1e-30] * 3), "image_std is [1e-30, 1e-30, 1e-30]"),
        ("preprocessor_config.json", lambda f: f.update(image_std=[0.5, 0.5]), "image_std is [0.5, 0.5], not three"),
        ("preprocessor_config.json", lambda f: f.update(image_std=[0.5, 0, 0.5]), "image_std is [0.5, 0, 0.5], not"),
        ("preprocessor_config.json", lambda f: f.update(resample="cubic"), "resample is 'cubic', not the number of a"),
    ],
)
def test_a_damaged_config_of_the_vision_tower_is_told(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    change: Callable[[dict[str, Any]], object],
    message: str,
) -> None:
    clip = write_clip(tmp_path / "clip")
    _edit(clip / file, change)
    assert message in _refused(source, clip, capsys)


def test_what_a_clip_config_leaves_out_is_clips_default(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 224 pixels in patches of 32: 7 x 7 and the class token.
    embeddings = {
        "vision_model.embeddings.patch_embedding.weight": torch.ones(24, 3, 32, 32),
        "vision_model.embeddings.position_embedding.weight": torch.ones(50, 24),
    }
    clip = _write_clip_with(tmp_path, lambda weights: weights | embeddings)
    _edit(clip / "config.json", lambda f: [f["vision_config"].pop(name) for name in ("image_size", "patch_size")])
    assert _convert(source, clip, capsys)[0] == 0
    assert AdaLlava.from_pretrained(str(source.parent / "stock"), method="full", device="cpu").shape.grid == (7, 7)


def test_weights_that_share_memory_are_written_apart(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tied weights, and views of one tensor, as a pickle keeps them."""
    weights, both = llm_weights(), torch.cat([llm_weights()[Q_PROJ], torch.zeros(32, 32)])
    weights |= {Q_PROJ: both[:32], Q_PROJ.replace("q_proj", "k_proj"): both[16:48]}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    for file in source.glob("pytorch_model*"):
        file.unlink()
    torch.save(weights, source / "pytorch_model.bin")
    assert _convert(source, clip, capsys)[0] == 0
    loaded = AdaLlava.from_pretrained(str(source.parent / "stock"), method="full", device="cpu").base.state_dict()
    for part, expected in (("q_proj", both[:32]), ("k_proj", both[16:48])):
        assert torch.equal(loaded[f"model.language_model.layers.0.self_attn.{part}.weight"], expected)
    assert torch.equal(loaded["lm_head.weight"], loaded["model.language_model.embed_tokens.weight"])


def test_a_folder_of_low_rank_weights_is_told_how_to_become_a_model(
    source: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`liuhaotian/llava-v1.5-7b-lora`: the model's config, peft's files, and the projector apart; no tokenizer."""
    for file in [*source.glob("pytorch_model*"), *source.glob("*token*")]:
        file.unlink()
    peft = {"peft_type": "LORA", "base_model_name_or_path": "./checkpoints/vicuna-7b-v1-5", "r": 128}
    (source / "adapter_config.json").write_text(json.dumps(peft))
    torch.save({"base_model.model.lm_head.lora_A.weight": torch.ones(1)}, source / "adapter_model.bin")
    torch.save({"base_model.model.model.mm_projector.0.weight": torch.ones(1)}, source / "non_lora_trainables.bin")
    told = _refused(source, clip, capsys)
    assert "holds low-rank weights (LoRA) and not the model that they change: merge them with" in told


def test_a_folder_with_a_projector_alone_is_told(source: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`liuhaotian/llava-v1.5-mlp2x-336px-pretrain-vicuna-7b-v1.5`."""
    for file in [*source.glob("pytorch_model*"), *source.glob("*token*")]:
        file.unlink()
    torch.save({"model.mm_projector.0.weight": torch.ones(1)}, source / "mm_projector.bin")
    assert "holds only a projector (mm_projector.bin)" in _refused(source, clip, capsys)


def test_a_hub_id_is_told_to_be_fetched(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", "liuhaotian/llava-v1.5-7b", "--vision-tower", str(clip), "--output", str(tmp_path / "x")]
    assert main(command) == 2
    assert (
        "there is no folder 'liuhaotian/llava-v1.5-7b': conversion reads only local folders" in capsys.readouterr().err
    )
