"""CLIP's text tower beside a LLaVA, on a tiny random CLIP checkpoint in stock format."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_base, tiny_inputs, tiny_tokenizer
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adallava import AdaLlava
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs

LENGTH = 24
"""Tokens that the text tower takes, begin and end included."""


def tiny_clip(folder: Path, *, vision_width: int = 32) -> Path:
    """Save a random CLIP: a text tower of two layers and a vision tower of the tiny LLaVA's width."""
    from tokenizers.processors import TemplateProcessing
    from transformers import CLIPConfig, CLIPModel

    tokenizer = tiny_tokenizer()
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 3, "max_position_embeddings": LENGTH, "bos_token_id": begin, "eos_token_id": end,
        "pad_token_id": tokenizer.pad_token_id, "projection_dim": 20,
    }  # fmt: skip
    vision = {
        "hidden_size": vision_width, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 7, "projection_dim": 20,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20))
        for parameter in clip.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@torch.no_grad()
def test_relevance_is_clips_own_cosine(clip_folder: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

    base = tiny_base()
    family = wrap_model(base)
    features = family.encode(PictureInputs(torch.randn(2, 3, 28, 28))).features
    questions = ["red?", "is it blue"]
    ours = family.load_text_tower(str(clip_folder)).relevance(features, questions)
    assert ours.shape == (2, 16)

    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    text_tower = CLIPTextModelWithProjection.from_pretrained(clip_folder).eval()
    vision_tower = base.model.vision_tower
    post_layernorm = getattr(vision_tower, "vision_model", vision_tower).post_layernorm
    projection = CLIPVisionModelWithProjection.from_pretrained(clip_folder).visual_projection
    for row, question in enumerate(questions):
        text = text_tower(**tokenizer(question, return_tensors="pt")).text_embeds
        patches = projection(post_layernorm(features[row]))
        torch.testing.assert_close(ours[row], F.cosine_similarity(patches, text), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_long_question_is_the_mean_over_its_parts_and_changes_no_other_row(clip_folder: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    family = wrap_model(tiny_base())
    tower = family.load_text_tower(str(clip_folder))
    features = family.encode(PictureInputs(torch.randn(2, 3, 28, 28))).features
    long = "what is the colour of the ball on the left?"
    together = tower.relevance(features, [long, "red?"])
    torch.testing.assert_close(together[:1], tower.relevance(features[:1], [long]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], tower.relevance(features[1:], ["red?"]), atol=1e-5, rtol=1e-5)

    ids = AutoTokenizer.from_pretrained(clip_folder)(long, return_tensors="pt").input_ids[0]
    assert LENGTH < len(ids) <= 2 * LENGTH
    text_tower = CLIPTextModelWithProjection.from_pretrained(clip_folder).eval()
    texts = torch.cat([text_tower(input_ids=part[None]).text_embeds for part in ids.split(LENGTH)])
    patches = tower._visual_projection(tower._post_layernorm(features[0]))  # type: ignore[attr-defined]
    cosines = F.normalize(patches, dim=-1) @ F.normalize(texts, dim=-1).t()
    torch.testing.assert_close(together[0], cosines.mean(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("question", ["red?", "what is the colour of the ball on the left?"])
def test_its_flops_are_what_pytorch_counts(clip_folder: Path, question: str) -> None:
    family = wrap_model(tiny_base())
    tower = family.load_text_tower(str(clip_folder))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower.relevance(torch.randn(1, 16, 32), [question])
    assert tower.flops(question, 16) == counter.get_total_flops()


def test_cdpruner_answers_with_it_and_reads_the_question_alone(
    clip_folder: Path, full: AdaLlava, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = full.with_method("cdpruner", text_tower=str(clip_folder))
    asked: list[str] = []
    tower: Any = model._language.text_tower  # type: ignore[union-attr]
    relevance = tower.relevance
    monkeypatch.setattr(tower, "relevance", lambda f, questions: asked.extend(questions) or relevance(f, questions))
    inputs = tiny_inputs(model.processor, ["what is it?", "is the colour red or blue?"])
    output = model.generate(**inputs, token_budget=[5, 3], max_new_tokens=2)
    assert [record.tokens_kept for record in output.records] == [5, 3]
    assert asked == ["what is it?", "is the colour red or blue?"]
    assert model.text_tower_flops("why?") > 0


def test_without_it_cdpruner_is_refused_with_what_to_do(full: AdaLlava) -> None:
    with pytest.raises(UnsupportedModeError, match=r"'cdpruner'.*text tower.*--method-option cdpruner\.text_tower="):
        full.with_method("cdpruner")


def test_a_text_tower_of_another_width_is_refused(tmp_path: Path, full: AdaLlava) -> None:
    folder = tiny_clip(tmp_path, vision_width=40)
    with pytest.raises(CheckpointError, match="width 40, this model's features have 32"):
        full.with_method("cdpruner", text_tower=str(folder))


def test_a_folder_without_a_text_tower_is_named(tmp_path: Path, full: AdaLlava) -> None:
    with pytest.raises(CheckpointError, match=f"cannot load the text tower at '{tmp_path}'"):
        full.with_method("cdpruner", text_tower=str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("text_config", "num_attention_heads"), 5, "not a multiple of the number of attention heads"),
        (("text_config", "eos_token_id"), "x", "eos_token_id"),
        (("text_config", "layer_norm_eps"), -1.0, "layer_norm_eps is -1.0"),
        (("model_type",), "siglip", "its config is of the type 'siglip', not of a CLIP"),
    ],
)
def test_a_config_that_makes_no_text_tower_is_one_line(
    tmp_path: Path, clip_folder: Path, full: AdaLlava, keys: tuple[str, ...], value: Any, message: str
) -> None:
    folder = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    config = json.loads((folder / "config.json").read_text())
    (config["text_config"] if len(keys) > 1 else config)[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"cannot load the text tower at .*{message}"):
        full.with_method("cdpruner", text_tower=str(folder))
