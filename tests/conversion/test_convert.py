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
    ada_logits,
    llm_weights,
    logits,
    scheduler_weights,
    tower_weights,
    write_clip,
    write_original,
)
from PIL import Image
from published_llava import pixel_tolerance, write_tokenizer

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
    expected = logits(llm_weights(), tower, [*ids[:place], -200, *ids[place + 16 :]], inputs["pixel_values"][0])
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
    torch.testing.assert_close(pixels, _pixels_by_hand(), atol=pixel_tolerance(), rtol=0)


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


def test_generate_answers_about_pictures_that_are_padded_however_thin(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where torchvision is there it pads, which takes a hint about a picture's axes for that of its own tensors."""
    monkeypatch.chdir(tmp_path)
    _picture().save("wide.png")
    _picture().resize((60, 3)).save("thin.png")
    for name in ("wide.png", "thin.png"):
        call = ["generate", "--model", str(converted), "--image", name, "--question", QUESTION, "--device", "cpu"]
        code = main([*call, "--method", "uniform", "--token-budget", "5", "--max-new-tokens", "2", "--json"])
        assert (code, len(json.loads(capsys.readouterr().out)["results"][0]["kept_indices"][0])) == (0, 5)


OWN_TOWER = {name: weight for name, weight in tower_weights(seed=9).items() if weight.is_floating_point()}


def _write_adallava(folder: Path, kind: str = "L", *, pickled: bool = False, **fields: Any) -> Path:
    weights = llm_weights() | scheduler_weights(kind)
    weights |= {f"model.vision_tower.vision_tower.{name}": weight for name, weight in OWN_TOWER.items()}
    return write_original(folder, weights, {**ADA_CONFIG, "scheduler_type": kind, **fields}, pickled=pickled)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "name", "pickled"), [("L", "adallava-layers", True), ("H", "adallava-heads", False)])
def test_adallava_becomes_a_model_and_an_adapter_that_compute_the_originals_logits(
    tmp_path: Path, clip: Path, kind: str, name: str, pickled: bool
) -> None:
    source = _write_adallava(tmp_path / f"ada-llava-{kind}-v1.5-7b", kind, pickled=pickled)
    done = convert_llava(source, clip, tmp_path / "stock")
    assert (done.vision_tower_from, done.method) == (source, None)
    assert done.scheduler == tmp_path / "stock" / "adapters" / name
    full = _load(tmp_path / "stock")
    _compare(full, OWN_TOWER)
    model, inputs = full.with_scheduler(name), _inputs(full)
    ids, image = inputs["input_ids"][0].tolist(), model.base.config.image_token_id
    place = ids.index(image)
    original_ids = [*ids[:place], -200, *ids[place + 16 :]]
    plans = set()
    for latency in (1.0, 0.85, 2 / 3, 0.5, 1 / 3):
        expected, heads = ada_logits(
            llm_weights() | scheduler_weights(kind), OWN_TOWER, original_ids, inputs["pixel_values"][0], latency, kind
        )
        with torch.no_grad():
            ours = model.forward(**inputs, latency=latency).logits[0]
        torch.testing.assert_close(ours[:, :32000], expected, atol=1e-3, rtol=1e-4)
        (record,) = model.generate(**inputs, latency=latency, max_new_tokens=1).records
        assert record.groups_run is not None
        behind = [len(run) / record.groups_per_layer for run in record.groups_run[1:]]
        assert behind == heads.mean(dim=1).tolist()
        plans.add(tuple(behind))
    assert len(plans) == (3 if kind == "L" else 5)


@pytest.mark.parametrize(("kind", "name"), [("L", "adallava-layers"), ("H", "adallava-heads")])
def test_converted_adallava_decodes_with_the_plan_of_its_prefill(
    tmp_path: Path, clip: Path, kind: str, name: str
) -> None:
    convert_llava(_write_adallava(tmp_path / "ada", kind), clip, tmp_path / "stock")
    model = _load(tmp_path / "stock").with_scheduler(name)
    inputs = _inputs(model)
    output = model.generate(**inputs, latency=0.85, max_new_tokens=4, do_sample=False, output_logits=True)
    # The same answer behind the prompt in one pass: the plan is that of the token, which stands before it.
    (answer,) = output.answer_ids
    whole = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), torch.tensor([answer])], dim=1)
    with torch.no_grad():
        passed = model.forward(
            input_ids=whole, pixel_values=inputs["pixel_values"], labels=labels, latency=0.85
        ).logits[0]
    first = output.prompt_lengths[0] - 1
    steps = torch.cat(list(output.transformers_output.logits))
    torch.testing.assert_close(passed[first : first + len(answer)], steps, atol=1e-3, rtol=1e-4)


@pytest.mark.long
def test_a_sweep_runs_converted_adallava_with_its_token_at_every_latency(tmp_path: Path, clip: Path) -> None:
    convert_llava(_write_adallava(tmp_path / "ada"), clip, tmp_path / "stock")
    command = ["sweep", "--model", str(tmp_path / "stock"), "--scheduler", "adallava-layers", "--latency", "1.0,0.67"]
    command += ["--method", "uniform", "--token-budget", "0.5", "--limit", "3", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    lines = map(json.loads, (tmp_path / "run" / "samples.jsonl").read_text().splitlines())
    tokens = {line["cell"]: (line["latency_tokens"], len(line["groups_run"] or [])) for line in lines}
    scheduled = {
        f"{start}/adallava-layers@{latency}" for start in ("full@1.0", "uniform@0.5") for latency in (1.0, 0.67)
    }
    assert tokens == dict.fromkeys(("full@1.0", "uniform@0.5"), (0, 0)) | dict.fromkeys(scheduled, (1, 3))
    assert main(["doctor", str(tmp_path / "run")]) == 0


def test_what_adallava_was_tuned_with_is_said(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _write_adallava(tmp_path / "ada", token_selecting="prumerge+")
    command = ["convert", str(source), "--vision-tower", str(clip), "--output", str(tmp_path / "stock")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "run it with --scheduler adallava-layers" in said
    assert "run it with --method prumerge-plus" in said


def _damaged_scheduler(folder: Path, **changed: torch.Tensor | None) -> Path:
    weights = {name: w for name, w in (scheduler_weights() | changed).items() if w is not None}
    return write_original(folder, llm_weights() | weights, ADA_CONFIG)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda folder: write_original(folder, llm_weights(), ADA_CONFIG), CheckpointError, "no weight that begins"),
        (
            lambda folder: _damaged_scheduler(folder, **{"scheduler.mlp_head.bias": None}),
            CheckpointError,
            "do not fit the config.*head.bias",
        ),
        (
            lambda folder: _damaged_scheduler(folder, **{"scheduler.gate.weight": torch.ones(1)}),
            CheckpointError,
            "'scheduler.gate.weight', which AdaLLaVA's scheduler does not have",
        ),
        (lambda folder: _write_adallava(folder, num_prefix_layers=2), CheckpointError, "size mismatch for head.weight"),
        (lambda folder: _write_adallava(folder, "X"), UnsupportedModeError, "scheduler_type='X' is not supported"),
        (
            lambda folder: _write_adallava(folder, token_selecting="adaptive"),
            UnsupportedModeError,
            "token_selecting='adaptive' is not supported",
        ),
    ],
)
def test_a_scheduler_that_is_not_whole_is_named(
    tmp_path: Path, clip: Path, write: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        convert_llava(write(tmp_path / "ada"), clip, tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"], "no partial output is left"


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
            "lacks 1 of 2 shards that pytorch_model.bin.index.json names: pytorch_model-00002-of-00002.bin",
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


def test_the_tokenizer_may_be_the_published_one_with_its_two_tokens(tmp_path: Path, original: Path, clip: Path) -> None:
    write_tokenizer(tmp_path / "llava-hf")
    convert_llava(original, clip, tmp_path / "stock", tokenizer=tmp_path / "llava-hf")
    model = _load(tmp_path / "stock")
    assert (len(model.processor.tokenizer), model.base.config.image_token_id) == (32002, 32000)
    _compare(model, tower_weights())


def test_a_command_says_what_is_wrong_in_one_line(
    original: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", str(original), "--vision-tower"]
    assert main([*command, str(original), "--output", str(tmp_path / "x")]) == 2
    assert "is not a CLIP checkpoint" in capsys.readouterr().err
    assert main([*command, str(original), "--output", str(converted)]) == 2
    assert "is not an empty folder: give a new one" in capsys.readouterr().err
