"""A checkpoint is a stranger's: its code never runs and nobody is asked, and absurd values end in one line at once."""

import ast
import builtins
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_llava
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_next import tiny_next

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.checkpoints.files import check_config
from adallava.checkpoints.json_files import read_json
from adallava.cli.main import main
from adallava.conversion.processor import read_tokenizer
from adallava.conversion.shards import read_config
from adallava.errors import CheckpointError, InputError
from adallava.processors.stock_processor import build_prompt

SRC = Path(__file__).parents[2] / "src" / "adallava"

_LOADERS = ("from_pretrained", "from_config")
_OURS = ("AdaLlava", "AdaLlavaProcessor", "cls")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with code beside it that tells of itself; on the terminal somebody always says yes."""
    copied = Path(shutil.copytree(original, tmp_path / "model"))
    (copied / "evil.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('EXECUTED').touch()\nclass X: ...\n"
    )

    def asked(prompt: str = "") -> str:
        (copied / "ASKED").touch()
        return "y"

    monkeypatch.setattr(builtins, "input", asked)
    return copied


def _set(path: Path, keys: str, value: Any) -> None:
    whole = json.loads(path.read_text()) if path.exists() else {}
    *outer, last = keys.split(".")
    inner = whole
    for key in outer:
        inner = inner.setdefault(key, {})
    inner[last] = value
    # As a number too large for a float is written: a reader of JSON makes infinity of it.
    path.write_text(json.dumps(whole).replace("Infinity", "1e999"))


def _load(folder: Path) -> AdaLlava:
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def test_every_door_to_transformers_says_that_no_code_is_trusted() -> None:
    doors, open_doors = 0, []
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr not in _LOADERS:
                continue
            owner = ast.unparse(node.func.value)
            if owner in _OURS and "stock_loading" not in path.name:
                continue
            doors += 1
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if said.get("trust_remote_code") != "False":
                open_doors.append(f"{path.name}:{node.lineno} {owner}.{node.func.attr}")
    assert not open_doors
    assert doors >= 7  # The search finds something.


AUTO_MAP = {
    "AutoProcessor": "evil.X",
    "AutoConfig": "evil.X",
    "AutoTokenizer": "evil.X",
    "AutoImageProcessor": "evil.X",
}


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("processor_config.json", "auto_map"),
        ("processor_config.json", "image_processor.auto_map"),
        ("preprocessor_config.json", "auto_map"),
        ("video_preprocessor_config.json", "auto_map"),
        ("tokenizer_config.json", "auto_map"),
        ("config.json", "auto_map"),
        ("config.json", "text_config.auto_map"),
        ("config.json", "vision_config.auto_map"),
        ("config.json", "configuration_files"),
        ("tokenizer_config.json", "fast_tokenizer_files"),
        ("generation_config.json", "auto_map"),
    ],
)
@pytest.mark.parametrize("door", [_load, lambda folder: AdaLlavaProcessor.from_pretrained(str(folder))])
def test_code_is_refused_by_file_and_key(folder: Path, file: str, keys: str, door: Callable[[Path], Any]) -> None:
    _set(folder / file, keys, AUTO_MAP if keys.endswith("auto_map") else ["config.9.json"])
    if file == "processor_config.json":
        _set(folder / file, "processor_class", "EvilProcessor")
    with pytest.raises(CheckpointError, match=rf"{file} asks for .* under '{keys}': no code of a checkpoint"):
        door(folder)
    assert not list(folder.glob("[AE][SX]*"))


def test_a_processor_of_no_known_class_asks_nobody(folder: Path) -> None:
    _set(folder / "processor_config.json", "processor_class", "EvilProcessor")
    with pytest.raises(CheckpointError, match="has no tokenizer and no image_processor"):
        AdaLlavaProcessor.from_pretrained(str(folder))
    _set(folder / "processor_config.json", "processor_class", "CLIPProcessor")
    with pytest.raises(CheckpointError, match="CLIPProcessor, which has no image_token"):
        AdaLlavaProcessor.from_pretrained(str(folder))
    assert not list(folder.glob("[AE][SX]*"))


def test_code_in_place_of_generate_and_kernels_of_the_hub_are_refused(folder: Path) -> None:
    _set(folder / "config.json", "text_config._attn_implementation", "somebody/kernels")
    with pytest.raises(CheckpointError, match=r"config.json asks for kernels from the hub under 'text_config\._attn"):
        _load(folder)
    _set(folder / "config.json", "text_config._attn_implementation", "sdpa")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "evil.py", folder / "custom_generate" / "generate.py")
    with pytest.raises(CheckpointError, match=r"asks for code of its own \(custom_generate/generate.py\)"):
        _load(folder)
    assert not list(folder.rglob("EXECUTED"))


def test_the_other_doors_refuse_it_too(folder: Path, full: AdaLlava, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    (clip / "config.json").write_text('{"model_type": "clip"}')
    _set(clip / "tokenizer_config.json", "auto_map", AUTO_MAP)
    with pytest.raises(CheckpointError, match=r"cannot load the text tower .*tokenizer_config.json asks for code"):
        full.with_method("cdpruner", text_tower=str(clip))
    _set(folder / "tokenizer_config.json", "auto_map", AUTO_MAP)
    for door in (read_config, read_tokenizer):
        with pytest.raises(CheckpointError, match=r"tokenizer_config.json asks for code of its own \(auto_map\)"):
            door(folder)


def test_the_command_says_so_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (28, 28)).save(tmp_path / "red.png")
    _set(folder / "processor_config.json", "auto_map", AUTO_MAP)
    code = main(["generate", "--model", str(folder), "--image", str(tmp_path / "red.png"), "--question", "?"])
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(folder.glob("[AE][SX]*"))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("text_config.num_hidden_layers", 10**9),
        ("vision_config.num_hidden_layers", 10**9),
        ("text_config.num_labels", 10**12),
        ("is_encoder_decoder", True),
        ("text_config.num_hidden_layers", 900),
        ("text_config.n_layers", 10**9),
        ("text_config.hidden_size", 2**20),
        ("text_config.intermediate_size", 2**19),
        ("text_config.vocab_size", 2**23),
        ("text_config.vocab_size", -1),
        ("text_config.num_attention_heads", "8"),
        ("text_config.hidden_size", 48.0),
        ("text_config.rms_norm_eps", 1e999),
        ("text_config.sliding_window", "x"),
        ("text_config.model_type", "\x1b[31mllama"),
        ("text_config.rope_parameters", {"rope_theta": -1.0, "rope_type": "default"}),
        ("vision_config.image_size", 10**9),
        ("vision_config.image_size", [28, 28]),
        ("vision_config.patch_size", 0),
        ("vision_config.patch_size", True),
        ("vision_feature_layer", 1000),
        ("vision_feature_layer", []),
        ("image_token_index", 10**12),
        ("text_config", "llama"),
    ],
)
def test_a_config_of_absurd_size_is_refused_before_anything_is_built(folder: Path, keys: str, value: Any) -> None:
    _set(folder / "config.json", keys, value)
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=keys.rpartition(".")[2]):
        _load(folder)
    # Building it would take hours, or all memory; on a busy machine a second is still at once.
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("processor_config.json", "patch_size", -7),
        ("processor_config.json", "patch_size", "7"),
        ("processor_config.json", "num_additional_image_tokens", 10**9),
        ("processor_config.json", "vision_feature_select_strategy", "banana"),
        ("processor_config.json", "image_processor.size", {"height": 10**9, "width": 10**9}),
        ("processor_config.json", "image_processor.image_std", [0, 0, 0]),
        ("processor_config.json", "image_processor.image_mean", ["a", "b", "c"]),
        ("processor_config.json", "image_processor.image_mean", 1e38),
        ("processor_config.json", "image_processor.image_mean", [0.5, -1e300, 0.5]),
        ("processor_config.json", "image_processor.image_std", 1e-30),
        ("processor_config.json", "image_processor.rescale_factor", 1e999),
        ("processor_config.json", "image_processor.rescale_factor", 1000),
        ("processor_config.json", "image_processor.resample", 17),
        ("processor_config.json", "image_processor.do_resize", "yes"),
        ("processor_config.json", "processor_class", 5),
        ("processor_config.json", "processor_class", "../evil"),
        ("generation_config.json", "num_beams", 4000),
        ("generation_config.json", "num_return_sequences", 4000),
        ("generation_config.json", "encoder_no_repeat_ngram_size", 2**31),
        ("generation_config.json", "sequence_bias", {"a": 1}),
        ("generation_config.json", "bad_words_ids", "x"),
        ("generation_config.json", "watermarking_config", 5),
        ("tokenizer_config.json", "tokenizer_class", ["X"]),
        ("tokenizer_config.json", "max_length", 10**30),
        ("tokenizer_config.json", "split_special_tokens", True),
        ("tokenizer_config.json", "padding_side", "up"),
        ("tokenizer_config.json", "model_max_length", -1),
        ("tokenizer_config.json", "chat_template", "x" * 300_000),
    ],
)
def test_impossible_values_of_a_processor_are_named(folder: Path, file: str, keys: str, value: Any) -> None:
    _set(folder / file, keys, value)
    with pytest.raises(CheckpointError, match=f"{file} is damaged: {keys}") as refused:
        AdaLlavaProcessor.from_pretrained(str(folder))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_deep_json_is_one_line(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": ' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged: it is nested too deeply"):
        _load(folder)
    (folder / name).write_text('{"a": ' * 200 + "1" + "}" * 200)
    with pytest.raises(CheckpointError):
        _load(folder)


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    for text in ('{"a": NaN}', '{"a": -Infinity}', '{"a": ' + "9" * 5000 + "}"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"a.json is damaged"):
            read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"],
)
@pytest.mark.timeout(30)
def test_a_pipe_is_not_waited_on(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name} is not a regular file"):
        _load(folder)


def test_a_device_is_not_read(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=r"config.json is not a regular file"):
        check_config(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"NaN or infinite numbers in 1 tensors, the first '.*layers.1.mlp.up_proj"
    ):
        _load(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_not_floating_point_are_refused(folder: Path, dtype: torch.dtype) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("up_proj.weight"))
    weights[name] = weights[name].to(dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"up_proj.weight' in the type (I8|I64|BOOL|F8_E4M3): weights are in a fl"
    ):
        _load(folder)


def test_a_header_without_end_is_refused(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**40))
        file.truncate(2**41)  # Sparse: it takes no room.
    with pytest.raises(CheckpointError, match="its header would have"):
        _load(folder)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}", "TimeoutError"),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(22) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
            "pr",
        ),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be used"),
        ("hello", "1 images it makes a prompt with 0 <image>"),
        ("<image><image>{{ messages[0]['content'][1]['text'] }}", "1 images it makes a prompt with 2 <image>"),
        (r"<image>{{ '\ud800' }}", "half a surrogate pair"),
    ],
)
def test_a_chat_template_ends(folder: Path, template: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adallava.processors.stock_processor._TEMPLATE_LIMIT_S", 0.3)
    processor = AdaLlavaProcessor.from_pretrained(str(folder))
    processor.chat_template = template
    with pytest.raises((CheckpointError, InputError), match=message):
        build_prompt(processor, "why?")


def test_a_processor_that_cannot_prepare_a_picture_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_next(tmp_path / "next")
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    _set(folder / "processor_config.json", "image_processor.image_processor_type", "ViTImageProcessor")
    ask = ["--image", str(tmp_path / "a.png"), "--question", "what", "--method", "full", "--no-image"]
    capsys.readouterr()
    assert main(["generate", "--model", str(folder), *ask]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "processor cannot prepare image and question: " in line


@pytest.mark.parametrize("pinpoints", [[[1, 1]], [[28, 28 * 17]]])
def test_pictures_of_no_tile_or_of_far_too_many_are_refused(tmp_path: Path, pinpoints: list[list[int]]) -> None:
    folder = tiny_next(tmp_path / "next")
    _set(folder / "config.json", "image_grid_pinpoints", pinpoints)
    with pytest.raises(CheckpointError, match=r"image_grid_pinpoints has \[.*, and a tile's side is 28 pixels"):
        _load(folder)
    _set(folder / "processor_config.json", "image_processor.image_grid_pinpoints", pinpoints)
    with pytest.raises(CheckpointError, match=r"image_grid_pinpoints has \[.*: of tiles of 28, 1 to 16 a side"):
        AdaLlavaProcessor.from_pretrained(str(folder))


def test_a_processor_with_other_tiles_than_the_models_is_refused(tmp_path: Path) -> None:
    folder = tiny_next(tmp_path / "next")
    # A column of 16 tiles leaves as many tokens of this picture as one of 3.
    _set(folder / "config.json", "image_grid_pinpoints", [[28 * 16, 28]])
    _set(folder / "processor_config.json", "image_processor.image_grid_pinpoints", [[28 * 3, 28]])
    model = _load(folder)
    prompt = build_prompt(model.processor, "why?")
    inputs = dict(model.processor(images=[Image.new("RGB", (28, 84))], text=[prompt], return_tensors="pt"))
    with pytest.raises(InputError, match=r"the processor cuts an image into 4 tiles at most, and by .* it has 17"):
        model.generate(**inputs, token_budget=1.0)
