"""A model whose FLOPs have no closed form here is swept without them: nowhere 0, nowhere a figure, and said once."""

import json
from pathlib import Path
from typing import Any

import pytest
from models import tiny_base, tiny_llava, tiny_processor
from sweep_inputs import samples, sweep

from adallava.cli.main import main
from adallava.records import Results, Run

LLMS: dict[str, dict[str, Any]] = {"qwen2": {}, "phi3": {}, "gemma": {"head_dim": 12}}
TWO = ("--method", "uniform,none", "--token-budget", "8,4")


@pytest.mark.parametrize("llm", LLMS)
def test_it_is_swept_diagnosed_reported_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], llm: str
) -> None:
    model, run = str(tiny_llava(tmp_path / "model", adapters=False, llm=llm, **LLMS[llm])), tmp_path / "run"
    assert sweep(model, run, *TWO) == 0
    said = capsys.readouterr()
    message = " ".join(said.err.split())
    assert message.count("cannot count the FLOPs of a model whose text_config.model_type is") == 1
    assert repr(llm) in message
    assert "FLOPs" not in said.out
    assert all(one.score is not None and one.flops == {} and one.kv_bytes is None for one in samples(run))
    results = Results.model_validate_json((run / "results.json").read_bytes())
    assert all(cell.flops == {} and "flops" not in cell.on_front for cell in results.cells)
    assert any("tokens" in cell.on_front for cell in results.cells)
    assert {area.axis for area in results.areas} <= {"tokens", "ms"}
    assert Run.model_validate_json((run / "run.json").read_bytes()).provenance.weight_counts == {}
    if llm != "qwen2":
        return
    page = (run / "report.html").read_text()
    assert page.count("FLOPs are not counted: those of this kind of model have no closed form here.") == 1
    assert "GFLOPs" not in page.partition("<footer")[0].partition("<script")[0]
    assert main(["doctor", str(run)]) == 0
    assert main(["report", str(run), "--figures", str(tmp_path / "figures")]) == 0
    assert "FLOPs" not in (tmp_path / "figures" / "costs.md").read_text()
    assert not list((tmp_path / "figures").glob("*gflops*"))
    assert main(["compare", str(run), str(run)]) == 0


def test_both_dials_have_no_front_over_flops(tmp_path: Path) -> None:
    """A tower of SigLIP has no closed form either, and its LLM can leave layers out."""
    model = _with_siglip(tmp_path / "model")
    dials = ("--scheduler", "first", "--latency", "1.0,0.5", "--scheduler-option", "first.prefix_layers=2")
    assert sweep(model, tmp_path / "run", *TWO, *dials) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert all(cell["flops"] == {} for cell in results["cells"])
    assert all(front["axis"] != "flops" for front in results["dials"]["fronts"])


def test_a_roofline_that_needs_flops_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(tiny_llava(tmp_path / "model", adapters=False, llm="qwen2"))
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
