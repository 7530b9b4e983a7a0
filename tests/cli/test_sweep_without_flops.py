"""A model whose FLOPs cannot be counted is swept without them: nowhere 0, nowhere a figure, and said once."""

from pathlib import Path
from typing import Any

import pytest
from models import tiny_base, tiny_llava, tiny_processor
from sweep_inputs import samples, sweep

from adallava.cli.main import main
from adallava.records import Results, Run
from adallava.report import paper_figures

LATENT: dict[str, Any] = {
    "llm": "deepseek_v3",
    "num_key_value_heads": 4,
    "first_k_dense_replace": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
"""An LLM that decodes by other products than it reads a prompt by."""

TWO = ("--method", "uniform,none", "--token-budget", "8,4")


def test_it_is_swept_diagnosed_reported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, run = str(tiny_llava(tmp_path / "model", adapters=False, **LATENT)), tmp_path / "run"
    assert sweep(model, run, *TWO) == 0
    said = capsys.readouterr()
    message = " ".join(said.err.split())
    assert message.count("cannot count the FLOPs of a model of type 'llava' with 'clip_vision_model' with 'deep") == 1
    assert "FLOPs" not in said.out
    assert all(one.score is not None and one.flops == {} and one.kv_bytes is None for one in samples(run))
    results = Results.model_validate_json((run / "results.json").read_bytes())
    assert all(cell.flops == {} and "flops" not in cell.on_front for cell in results.cells)
    assert any("tokens" in cell.on_front for cell in results.cells)
    assert {area.axis for area in results.areas} <= {"tokens", "ms"}
    assert Run.model_validate_json((run / "run.json").read_bytes()).provenance.weight_counts == {}
    page = (run / "report.html").read_text()
    assert page.count("FLOPs are not counted for this kind of model.") == 1
    assert "GFLOPs" not in page.partition("<footer")[0].partition("<script")[0]
    assert main(["doctor", str(run)]) == 0
    drawn: list[str] = []
    monkeypatch.setattr(paper_figures, "save_figure", lambda _, stem: drawn.append(stem.name) or [])
    assert main(["report", str(run), "--figures", str(tmp_path / "figures")]) == 0
    assert "FLOPs" not in (tmp_path / "figures" / "costs.md").read_text()
    assert drawn
    assert not any("gflops" in name for name in drawn)
    assert main(["compare", str(run), str(run)]) == 0


@pytest.mark.parametrize("llm", ["qwen2", "siglip"])
def test_models_of_other_kinds_are_swept_with_flops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], llm: str
) -> None:
    folder = tmp_path / "model"
    model = _with_siglip(folder) if llm == "siglip" else str(tiny_llava(folder, adapters=False, llm=llm))
    assert sweep(model, tmp_path / "run", "--method", "uniform", "--token-budget", "4", "--limit", "1") == 0
    assert "cannot count" not in capsys.readouterr().err
    assert all(one.flops["prefill"] > 0 and one.kv_bytes for one in samples(tmp_path / "run"))


def test_a_roofline_that_needs_flops_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny_llava(tmp_path / "model", adapters=False, **LATENT))
    assert sweep(model, tmp_path / "run", *TWO, "--roofline", "h100-sxm") == 2
    assert "--roofline h100-sxm needs FLOPs, and cannot count" in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def _with_siglip(folder: Path) -> str:
    import torch
    from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    base = tiny_base()
    tower = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=tower,
        text_config=base.config.text_config,
        image_token_id=base.config.image_token_id,
        vision_feature_select_strategy="full",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
    model.generation_config = base.generation_config
    model.save_pretrained(folder)
    processor = tiny_processor()
    processor.vision_feature_select_strategy, processor.num_additional_image_tokens = "full", 0
    processor.save_pretrained(folder)
    return str(folder)
