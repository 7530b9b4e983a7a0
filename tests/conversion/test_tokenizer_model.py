"""A folder with nothing but SentencePiece's `tokenizer.model`, as `liuhaotian/llava-v1.5-7b` is published."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from original_llava import CONFIG, llm_weights, write_clip, write_original

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.conversion import convert_llava
from adallava.conversion.processor import read_tokenizer
from adallava.errors import CheckpointError

pytestmark = pytest.mark.long


TEXTS = [
    "what is it?",
    "why is the sky blue?",
    "the quick brown fox jumps",
    "USER: ASSISTANT:",
    "how many people walk?",
]
# In the form that transformers 4.31 wrote, the version in the published config.json.
ADDED = {"__type": "AddedToken", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
TOKENIZER_CONFIG: dict[str, Any] = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": {**ADDED, "content": "<s>"},
    "clean_up_tokenization_spaces": False,
    "eos_token": {**ADDED, "content": "</s>"},
    "legacy": False,
    "model_max_length": 2048,
    "pad_token": None,
    "padding_side": "right",
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": {**ADDED, "content": "<unk>"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a vocabulary with the options of Llama's: BPE, bytes for what is unknown, no normalisation."""
    sentencepiece = pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(path),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
    )
    return path.with_suffix(".model")


def _pieces(trained: Path) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(trained))


def _write_folder(folder: Path, trained: Path, *, config: bool = True) -> Path:
    """Write a checkpoint of the original code whose only words are in `tokenizer.model`."""
    num_words = _pieces(trained).vocab_size()
    weights = llm_weights()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:num_words].clone()
    write_original(folder, weights, {**CONFIG, "vocab_size": num_words})
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    (folder / "tokenizer.model").write_bytes(trained.read_bytes())
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    return folder


@pytest.mark.parametrize("config", [True, False])
def test_the_words_are_sentencepieces_and_texts_around_pictures_are_taken_apart(
    tmp_path: Path, trained: Path, config: bool
) -> None:
    """As LLaVA's `tokenizer_image_token` does: <s>, then each text on its own, with the picture between them."""
    pieces = _pieces(trained)
    clip = write_clip(tmp_path / "clip")
    convert_llava(_write_folder(tmp_path / "original", trained, config=config), clip, tmp_path / "stock")
    model = AdaLlava.from_pretrained(str(tmp_path / "stock"), method="full", device="cpu", dtype="float32")
    tokenizer = model.processor.tokenizer
    image = pieces.vocab_size()
    assert (tokenizer.convert_tokens_to_ids("<image>"), tokenizer.pad_token_id) == (image, image + 1)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.padding_side) == (1, 2, "left")
    for before, behind in [("USER: ", "\nwhat is it? ASSISTANT:"), ("", "  two  spaces é ☃ 1234"), ("a", " x")]:
        expected = [1, *pieces.encode(before), image, *pieces.encode(behind)]
        assert tokenizer(f"{before}<image>{behind}").input_ids == expected
        assert tokenizer.decode(pieces.encode(behind)) == pieces.decode(pieces.encode(behind))
    inputs = tokenizer("what is it?", return_tensors="pt")
    with torch.no_grad():
        assert model.forward(**{k: inputs[k] for k in ("input_ids", "attention_mask")}).logits.isfinite().all()


def test_a_tokenizer_json_gets_the_same_rules(tmp_path: Path) -> None:
    """Also where transformers wrote it with others: see `read_tokenizer`."""
    from published_llava import write_tokenizer

    write_tokenizer(tmp_path, added=False)
    tokens = read_tokenizer(tmp_path).tokenize("USER: <image>\nwhat")
    assert tokens == ["▁", *"USER:", "▁", "<image>", "▁", "<0x0A>", *"what"]


@pytest.mark.parametrize("missing", ["sentencepiece", "google.protobuf"])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, source = write_clip(tmp_path / "clip"), write_original(tmp_path / "original", {})
    (source / "tokenizer.json").unlink()
    (source / "tokenizer.model").write_bytes(b"not looked at")
    monkeypatch.setattr("adallava.conversion.processor.find_spec", lambda name: None if name == missing else sys)
    assert main(["convert", str(source), "--vision-tower", str(clip), "--output", str(tmp_path / "stock")]) == 2
    told = capsys.readouterr().err
    assert f"needs {missing.removeprefix('google.')}: pip install 'adallava[tokenizer-model]'" in told
    assert "--tokenizer" in told


def test_a_damaged_tokenizer_model_is_told(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cannot read the tokenizer in .*--tokenizer"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, trained: Path) -> None:
    clip, source = write_clip(tmp_path / "clip"), write_original(tmp_path / "original", llm_weights())
    other = _write_folder(tmp_path / "other", trained)
    with pytest.raises(CheckpointError, match=r"has \d+ words, the model's vocab_size is 32000"):
        convert_llava(source, clip, tmp_path / "stock", tokenizer=other)
