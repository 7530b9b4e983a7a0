"""A converted checkpoint is a stock one, and computes what the original code's arithmetic says."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_llava import (
    ADA_CONFIG,
    CONFIG,
    SIDE,
    llm_weights,
    logits,
    scheduler_weights,
    tower_weights,
    write_clip,
    write_original,
)
from PIL import Image
from safetensors.torch import load_file

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.conversion import convert_llava
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.model import build_prompt

QUESTION = "what is it?"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("openai") / "clip")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original(tmp_path_factory.mktemp("liuhaotian") / "llava-v1.5-7b", llm_weights())


@pytest.fixture(scope="module")
def converted(original: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "stock"
    assert main(["convert", str(original), "--vision-tower", str(clip), "--output", str(folder)]) == 0
    return folder


def _picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 40))


def _pixels_by_hand() -> torch.Tensor:
    """Pad to a square in the mean colour, resize by Pillow's bicubic filter, normalise: `expand2square` and CLIP."""
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    picture = _picture()
    square = Image.new("RGB", (64, 64), tuple(int(value * 255) for value in mean))
    square.paste(picture, (0, (64 - 40) // 2))
    values = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    return torch.from_numpy(((values - mean) / deviation).transpose(2, 0, 1)).float()


def _load(folder: Path) -> AdaLlava:
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu", dtype="float32")


def _inputs(model: AdaLlava) -> dict[str, Any]:
    prompt = build_prompt(model.processor, QUESTION)
    return dict(model.processor(images=[_picture()], text=[prompt], return_tensors="pt"))


def _compare(model: AdaLlava, tower: dict[str, torch.Tensor]) -> None:
    inputs = _inputs(model)
    ids, image = inputs["input_ids"][0].tolist(), model.base.config.image_token_id
    place = ids.index(image)
    assert ids[place : place + 16] == [image] * 16
    expected = logits(llm_weights(), tower, [*ids[:place], -200, *ids[place + 16 :]], _pixels_by_hand())
    with torch.no_grad():
        ours = model.forward(**inputs).logits[0]
    torch.testing.assert_close(ours[:, :32000], expected, atol=1e-3, rtol=1e-4)
    assert expected.std() > 1, "the logits must differ by far more than rounding"


def test_the_converted_model_computes_the_originals_logits(converted: Path) -> None:
    _compare(_load(converted), tower_weights())


def test_its_prompt_is_that_of_the_original_conversation(converted: Path) -> None:
    assert build_prompt(_load(converted).processor, QUESTION) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: <image>\nwhat is it? ASSISTANT:"
    )


def test_its_pixels_are_padded_in_the_mean_colour(converted: Path) -> None:
    pixels = _inputs(_load(converted))["pixel_values"][0]
    torch.testing.assert_close(pixels, _pixels_by_hand(), atol=1e-5, rtol=0)


def test_new_tokens_are_the_published_ones_and_never_the_likeliest(converted: Path) -> None:
    model = _load(converted)
    tokenizer = model.processor.tokenizer
    assert (tokenizer.convert_tokens_to_ids("<image>"), tokenizer.pad_token_id) == (32000, 32001)
    assert model.base.get_input_embeddings().num_embeddings == 32064
    with torch.no_grad():
        scores = model.forward(**_inputs(model)).logits[0]
    torch.testing.assert_close(scores[:, 32000], scores[:, :32000].mean(dim=1), atol=1e-4, rtol=1e-4)
    assert (scores.argmax(dim=1) < 32000).all()


def test_it_answers_and_selects_as_any_model(converted: Path) -> None:
    model = _load(converted)
    for method in ("visionzip", "random", "fastv"):
        (record,) = model.with_method(method).generate(**_inputs(model), token_budget=5, max_new_tokens=2).records
        assert (record.num_vision_tokens, record.tokens_asked) == (16, 5)


@pytest.mark.parametrize("pickled", [True, False])
def test_adallava_becomes_a_model_and_its_scheduler_under_its_own_names(
    tmp_path: Path, clip: Path, pickled: bool
) -> None:
    own_tower = tower_weights(seed=9)
    weights = llm_weights() | scheduler_weights()
    weights |= {f"model.vision_tower.vision_tower.{name}": w for name, w in own_tower.items() if w.is_floating_point()}
    source = write_original(tmp_path / "ada-llava-L-v1.5-7b", weights, ADA_CONFIG, pickled=pickled)
    done = convert_llava(source, clip, tmp_path / "stock")
    assert done.vision_tower_from == source
    _compare(_load(tmp_path / "stock"), own_tower)
    assert done.scheduler == tmp_path / "stock" / "adapters" / "adallava" / "adallava_scheduler.safetensors"
    kept = load_file(done.scheduler)
    assert set(kept) == set(scheduler_weights())
    assert all(torch.equal(kept[name], weight) for name, weight in scheduler_weights().items())
    note = json.loads(done.scheduler.with_name("adallava_scheduler.json").read_text())
    assert (note["scheduler_type"], note["num_prefix_layers"], note["token_selecting"]) == ("L", 2, "none")


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("old_pickle", [False, True])
def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path: Path, clip: Path, old_pickle: bool) -> None:
    source = write_original(tmp_path / "bad", llm_weights())
    shard, trace = source / "pytorch_model-00002-of-00002.bin", tmp_path / "it-ran"
    if old_pickle:
        shard.write_bytes(pickle.dumps(_Bomb(trace)))
    else:
        torch.save({"model.norm.weight": _Bomb(trace)}, shard)
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002.bin is (refused|damaged)"):
        convert_llava(source, clip, tmp_path / "stock")
    assert not trace.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"], "nothing half written is left"


def _no_shard(folder: Path) -> None:
    (folder / "pytorch_model-00002-of-00002.bin").unlink()


def _cut_shard(folder: Path) -> None:
    shard = folder / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:1000])


def _stranger(folder: Path) -> None:
    torch.save({"model.vision_controller.fc.weight": torch.ones(1)}, folder / "pytorch_model-00001-of-00002.bin")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _not_original(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": {}}))


def _another_projector(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "mm_projector_type": "linear"}))


def _anyres(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "image_aspect_ratio": "anyres"}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            _no_shard,
            CheckpointError,
            "lacks pytorch_model-00002-of-00002.bin, which pytorch_model.bin.index.json names",
        ),
        (_cut_shard, CheckpointError, "pytorch_model-00002-of-00002.bin is damaged"),
        (_stranger, CheckpointError, "'model.vision_controller.fc.weight', which neither LLaVA-1.5 nor AdaLLaVA has"),
        (_no_tokenizer, CheckpointError, r"neither tokenizer.json nor tokenizer.model.*--tokenizer"),
        (_not_original, UnsupportedModeError, "of the type 'llava' and not in the layout of the original"),
        (_another_projector, UnsupportedModeError, "mm_projector_type='linear' is not supported"),
        (_anyres, UnsupportedModeError, "image_aspect_ratio='anyres' is not supported"),
    ],
)
def test_what_cannot_be_converted_is_named(
    tmp_path: Path, clip: Path, damage: Any, error: type[Exception], message: str
) -> None:
    source = write_original(tmp_path / "source", llm_weights())
    damage(source)
    with pytest.raises(error, match=message):
        convert_llava(source, clip, tmp_path / "stock")


def test_the_tokenizer_may_come_from_another_folder(tmp_path: Path, original: Path, clip: Path) -> None:
    source = write_original(tmp_path / "source", llm_weights())
    _no_tokenizer(source)
    convert_llava(source, clip, tmp_path / "stock", tokenizer=original)
    assert len(_load(tmp_path / "stock").processor.tokenizer) == 32002


def test_a_command_says_what_is_wrong_in_one_line(
    original: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", str(original), "--vision-tower"]
    assert main([*command, str(original), "--output", str(tmp_path / "x")]) == 2
    assert "is no CLIP checkpoint" in capsys.readouterr().err
    assert main([*command, str(original), "--output", str(converted)]) == 2
    assert "is not an empty folder: give a new one" in capsys.readouterr().err
