"""By its hub id, offline, out of a cache in the real layout: files by their hash, and a snapshot of links to them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_cache import use_hub_cache, write_hub_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from models import tiny_llava
from PIL import Image
from published_llava import config_fields, new_name, random_weights, write_published

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import find_checkpoint

HUB_ID = "llava-hf/llava-1.5-7b-hf"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hf")
    write_hub_cache(root / "home", HUB_ID, write_published(root / "source", "7b"))
    return root / "home"


def test_the_published_checkpoint_loads_by_its_hub_id(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub_cache(home, monkeypatch)
    model = AdaLlava.from_pretrained(HUB_ID, method="uniform", device="cpu")
    assert (model.name_or_path, model.dtype, model.shape.num_vision_tokens) == (HUB_ID, torch.float16, 576)
    loaded = {name.replace("vision_model.", ""): weight for name, weight in model.base.state_dict().items()}
    for name, weight in random_weights(config_fields("7b")).items():
        assert torch.equal(loaded[new_name(name).replace("vision_model.", "")], weight), name
    assert AdaLlavaProcessor.from_pretrained(HUB_ID).patch_size == 14


def test_the_weights_are_the_mapped_blobs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("asks Linux what is mapped")
    use_hub_cache(home, monkeypatch)
    model = AdaLlava.from_pretrained(HUB_ID, method="full", device="cpu")
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/blobs/" in line]
    areas = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    for name, parameter in model.base.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in areas), name


@pytest.mark.long
def test_a_user_names_it_on_the_command_line(home: Path, tmp_path: Path) -> None:
    """In processes of their own, which have nothing but HF_HOME and HF_HUB_OFFLINE."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("HF_HUB_CACHE", None)
    Image.new("RGB", (60, 40), "red").save(tmp_path / "a.png")
    model = ["--model", HUB_ID, "--method", "uniform", "--token-budget", "0.25", "--max-new-tokens", "2"]
    model += ["--device", "cpu"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "adallava", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    asked = run("generate", *model, "--image", "a.png", "--question", "why?", "--json")
    assert (asked.returncode, asked.stderr) == (0, "")
    (result,) = json.loads(asked.stdout)["results"]
    assert (result["num_vision_tokens"], result["tokens_kept"]) == (576, 144)
    swept = run("sweep", *model, "--limit", "2", "--output", "run")
    assert swept.returncode == 0, swept.stderr
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert {json.loads(line)["tokens_kept"] for line in lines} == {576, 144}


def test_adapters_beside_it_are_found_and_belong_to_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_llava(tmp_path / "source")
    write_hub_cache(tmp_path / "home", "somebody/tiny", source)
    use_hub_cache(tmp_path / "home", monkeypatch)
    model = AdaLlava.from_pretrained("somebody/tiny", method="question", device="cpu")
    assert model.weights_sha256 == AdaLlava.from_pretrained(str(source), method="full").weights_sha256
    assert model.adapter_sha256 is not None


def _remove(snapshot: Path) -> None:
    (snapshot / "model-00002-of-00002.safetensors").unlink()


def _remove_blob(snapshot: Path) -> None:
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()


def _cut(snapshot: Path) -> None:
    blob = (snapshot / "model-00002-of-00002.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1])


def _other_family(snapshot: Path) -> None:
    (snapshot / "config.json").resolve().write_text('{"model_type": "mllama"}')


def _no_config(snapshot: Path) -> None:
    (snapshot / "config.json").unlink()


def _no_tokenizer(snapshot: Path) -> None:
    (snapshot / "tokenizer.json").unlink()


LACKS_ONE = "lacks 1 of 2 shards .*: model-00002-of-00002.safetensors. Fetch them"


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_remove, CheckpointError, LACKS_ONE),
        (_remove_blob, CheckpointError, LACKS_ONE),
        (
            _cut,
            CheckpointError,
            r"00002-of-00002.safetensors is truncated .* Delete .*/blobs/[0-9a-f]{64}, to which it links",
        ),
        (_other_family, UnsupportedModeError, f"'{HUB_ID}' is of the family 'mllama'"),
        (_no_config, CheckpointError, "holds no model: it has no config.json"),
        (_no_tokenizer, CheckpointError, "has no tokenizer: neither tokenizer.json nor tokenizer.model"),
    ],
)
def test_what_is_wrong_in_the_cache_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object, error: type[Exception], message: str
) -> None:
    copied = Path(shutil.copytree(home, tmp_path / "home", symlinks=True))
    use_hub_cache(copied, monkeypatch)
    assert callable(damage)
    damage(find_checkpoint(HUB_ID))
    with pytest.raises(error, match=message):
        AdaLlava.from_pretrained(HUB_ID, method="full", device="cpu")


def test_a_download_that_was_cut_off_is_told_by_the_shard(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer versions of huggingface_hub keep a list of a repository's files, and refuse a snapshot that lacks one."""
    copied = Path(shutil.copytree(home, tmp_path / "home", symlinks=True))
    use_hub_cache(copied, monkeypatch)
    snapshot = find_checkpoint(HUB_ID)
    _remove(snapshot)
    # As huggingface_hub 2.4 does in such a case, without the errors that older versions have not.
    incomplete = LocalEntryNotFoundError("the cached snapshot is incomplete")
    incomplete.snapshot_path = str(snapshot)  # type: ignore[attr-defined]

    def refuse(*_: object, **__: object) -> str:
        raise incomplete

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=LACKS_ONE):
        AdaLlava.from_pretrained(HUB_ID, method="full", device="cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llava-hf/llava-1.5-13b-hf", "not a hub id in the local cache; the hub cannot be reached"),
        ("a/folder/that/is/not/there", "not a bundled name, not a folder, not a hub id .OWNER/NAME.: check the path"),
        ("~/llava", "not a bundled name, not a folder, not a hub id .OWNER/NAME.: check the path"),
        ("", "not a bundled name, not a folder, not a hub id .OWNER/NAME.: check the path"),
    ],
)
def test_what_is_not_there_is_told(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    use_hub_cache(home, monkeypatch)
    with pytest.raises(CheckpointError, match=message):
        AdaLlava.from_pretrained(name, method="full", device="cpu")


def test_pickles_of_a_repository_are_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from fnmatch import fnmatch

    from adallava.checkpoints.hub import MODEL_FILES

    wanted = ["config.json", "model-00001-of-00003.safetensors", "tokenizer.model", "chat_template.jinja"]
    wanted += ["adapters/question/adapter_model.safetensors", "adapters/question/adapter_config.json"]
    for name in wanted:
        assert any(fnmatch(name, pattern) for pattern in MODEL_FILES), name
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "modeling.py", "a.gguf"):
        assert not any(fnmatch(name, pattern) for pattern in MODEL_FILES), name
