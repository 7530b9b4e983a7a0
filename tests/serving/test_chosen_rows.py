"""Rows chosen without an LLM, beside what the whole model chooses and reads."""

import json
from pathlib import Path

import pytest
import torch

from adallava import AdaLlava
from adallava.checkpoints.bundled import model_folder
from adallava.errors import UnsupportedModeError
from adallava.families.picture_inputs import PictureInputs
from adallava.model import build_prompt
from adallava.selection.selector_contract import reads_question
from adallava.serving.chosen_rows import EngineEmbeddings, RowChooser
from adallava.serving.serving_settings import ServingSettings
from adallava.tasks.scenes import scene_sample


@pytest.fixture(scope="module")
def whole() -> AdaLlava:
    return AdaLlava.from_pretrained("tiny", method="question", device="cpu")


class _Engine:
    """Embeds ids in one row, as vLLM does."""

    def __init__(self, whole: AdaLlava) -> None:
        self._embeddings = whole.base.get_input_embeddings()

    def embed_input_ids(self, ids: torch.Tensor) -> torch.Tensor:
        assert ids.ndim == 1
        embeds: torch.Tensor = self._embeddings(ids)
        return embeds


def _chooser(whole: AdaLlava, method: str) -> RowChooser:
    return RowChooser.load(
        model_folder("tiny"),
        ServingSettings(method=method),
        embeddings=EngineEmbeddings(_Engine(whole), whole.base.get_input_embeddings().num_embeddings),
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize("method", ["question", "visionzip", "pool", "random", "downsample"])
def test_a_picture_keeps_what_it_keeps_before_the_whole_model(whole: AdaLlava, method: str) -> None:
    """In one batch with mixed budgets and questions of other lengths."""
    model, counts, seeds = whole.with_method(method), [16, 64, 256], [0, 5, 9]
    asked = [scene_sample("test", number) for number in (6, 7, 8)]
    inputs = whole.processor(
        images=[scene.image for scene, _ in asked],
        text=[build_prompt(whole.processor, question.text) for _, question in asked],
        return_tensors="pt",
        padding=True,
    )
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    # As a server sends them: nothing for a method that reads no question.
    questions = [
        row[real & (row != whole.family.image_token_id)] if reads_question(type(model.selector)) else row[:0]
        for row, real in zip(ids, mask, strict=True)
    ]
    rows = _chooser(whole, method).choose(PictureInputs(inputs["pixel_values"]), counts, seeds, questions)
    kept = model.select(**inputs, token_budget=counts, seed=seeds)
    assert [one.places.tolist() for one in rows] == [list(of_sample.kept_indices[0]) for of_sample in kept]
    with torch.no_grad():
        stock = whole.base.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output
    assert torch.equal(rows[2].embeds, stock[2])
    if method in ("question", "visionzip", "random") and not model.selector.merges:
        assert torch.allclose(rows[0].embeds, stock[0][rows[0].places], atol=1e-5)


def test_the_llm_is_not_loaded(whole: AdaLlava) -> None:
    family = _chooser(whole, "uniform")._family
    assert family.num_llm_layers == 0
    embeddings = whole.base.get_input_embeddings().weight
    own = [name for name, weight in family.model.named_parameters() if weight is not embeddings]
    assert not [name for name in own if "vision_tower" not in name and "projector" not in name and "norm" not in name]


def test_a_method_that_needs_what_the_model_lacks_is_refused_when_it_is_loaded(whole: AdaLlava) -> None:
    with pytest.raises(UnsupportedModeError, match="text tower"):
        _chooser(whole, "cdpruner")


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    root = Path(__file__).parents[2]
    board = json.loads((root / "docs/grafana/serving.json").read_text())
    shown = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    source = (root / "src/adallava/serving/vllm_metrics.py").read_text()
    for name in ("adallava_budget", "adallava_tokens_kept", "adallava_tokens_seen"):
        assert name in shown
        assert f'"{name}"' in source
