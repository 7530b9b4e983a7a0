"""A family from outside the package: one class by an entry point, and every command takes it."""

import json
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from models import sample_of, tiny_base, tiny_image, tiny_inputs, tiny_processor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.costs.counted import count_costs
from adallava.errors import UnsupportedModeError
from adallava.families.llava import LlavaFamily
from adallava.registry import found as registry
from adallava.runs.answer_flops import count_flops


class VipLlavaFamily(LlavaFamily):
    """VipLLaVA: features of several layers of the tower side by side, with a norm before the projector."""

    name = "vipllava"
    transformers_class = "VipLlavaForConditionalGeneration"

    def __init__(self, model: Any) -> None:
        model.config.vision_feature_layer = list(model.config.vision_feature_layers)
        model.config.vision_feature_select_strategy = "default"
        super().__init__(model)


def _register(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Register a value in each group, as an installed package would."""

    def installed(*, group: str, **named: Any) -> Any:
        mine = [EntryPoint("vipllava", value, group) for name, value in values.items() if group == f"adallava.{name}"]
        return [*entry_points(group=group, **named), *mine]

    monkeypatch.setattr(registry, "entry_points", installed)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    _register(monkeypatch, families=f"{__name__}:VipLlavaFamily")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

    base = tiny_base()
    config = VipLlavaConfig(
        vision_config=base.config.vision_config,
        text_config=base.config.text_config,
        image_token_index=base.config.image_token_id,
        vision_feature_layers=[-1, -2],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VipLlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config = base.generation_config
    written = tmp_path_factory.mktemp("vip")
    model.save_pretrained(written)
    tiny_processor().save_pretrained(written)
    return written


def test_without_it_the_model_is_refused(folder: Path) -> None:
    with pytest.raises(UnsupportedModeError, match=r"family 'vipllava'; supported are: .*llava, llava_next"):
        AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("method", ["uniform", "divprune", "fastv"])
def test_with_it_the_full_budget_is_the_stock_model(folder: Path, method: str) -> None:
    model = AdaLlava.from_pretrained(str(folder), method=method, device="cpu")
    inputs = tiny_inputs(model.processor, ["what is it?", "is the colour red or blue?"])
    assert model.shape.vision_width == 2 * 32
    ours = model.generate(**inputs, token_budget=1.0, max_new_tokens=4, do_sample=False)
    stock = model.base.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(ours.sequences, stock)
    fewer = model.generate(**inputs, token_budget=[5, 0.5], max_new_tokens=2)
    assert [record.tokens_at_end for record in fewer.records] == [5, 8]


@pytest.mark.long
@pytest.mark.usefixtures("registered")
def test_with_it_the_commands_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_image().save(tmp_path / "a.png")
    common = ["--model", str(folder), "--method", "uniform", "--token-budget", "0.25", "--device", "cpu"]
    ask = ["--image", str(tmp_path / "a.png"), "--question", "why?", "--max-new-tokens", "2", "--json"]
    ask += ["--output-image", str(tmp_path / "kept.png")]
    assert main(["generate", *common, *ask]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["tokens_kept"] == 4
    assert main(["sweep", *common, "--limit", "2", "--max-new-tokens", "2", "--output", str(tmp_path / "run")]) == 0
    assert main(["doctor", "--model", str(folder), "--method", "uniform", "--device", "cpu"]) == 0


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("budget", [5, 12])
def test_its_costs_are_what_pytorch_counts(folder: Path, budget: int) -> None:
    """As LLaVA names the parts: two layers of the tower side by side, and a norm is no matrix product."""
    model = AdaLlava.from_pretrained(str(folder), method="uniform", device="cpu")
    inputs = sample_of(tiny_inputs(model.processor, ["why?"]), 0)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        output = model.generate(**inputs, token_budget=budget, max_new_tokens=3, do_sample=False)
    rotary = sum(sum(f.values()) for name, f in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    shape = count_costs(model.base.config)
    assert shape.projector_per_token == 2 * (2 * 32) * 48 + 2 * 48 * 48
    expected = sum(count_flops(model, shape, output.records[0], "why?", output.answer_lengths[0]).values())
    assert expected == counter.get_total_flops() - rotary


@pytest.mark.usefixtures("registered")
def test_a_family_that_names_no_parts_answers_and_is_swept_without_flops(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VipLlavaFamily, "costed_parts", None, raising=False)
    monkeypatch.setattr("adallava.costs.counted._counted", {})
    monkeypatch.chdir(tmp_path)
    tiny_image().save(tmp_path / "a.png")
    common = ["--model", str(folder), "--method", "uniform", "--token-budget", "0.25", "--device", "cpu"]
    ask = ["--image", str(tmp_path / "a.png"), "--question", "why?", "--max-new-tokens", "2"]
    assert main(["generate", *common, *ask]) == 0
    capsys.readouterr()
    few = ["--limit", "2", "--max-new-tokens", "2"]
    assert main(["sweep", *common, *few, "--output", str(tmp_path / "run")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot count the FLOPs of a model whose model_type is 'vipllava': its family has no `costed_parts`" in said
    assert '"flops":{}' in (tmp_path / "run" / "samples.jsonl").read_text()


@pytest.mark.usefixtures("registered")
def test_an_unfinished_family_is_told_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(VipLlavaFamily, "transformers_class")
    monkeypatch.delattr(LlavaFamily, "transformers_class")
    with pytest.raises(registry.AdallavaError, match=r"model family 'vipllava'.* lacks transformers_class"):
        registry.load_family_class("vipllava")
