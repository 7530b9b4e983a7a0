"""What may be handed over as a base: a PeftModel runs as it does itself, wrappers and headless models are named."""

import copy
import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_base, tiny_inputs, tiny_llava, tiny_processor

from adallava import AdaLlava
from adallava.errors import CheckpointError, InputError, UnsupportedModeError

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture(scope="module")
def adapted() -> Any:
    """A PeftModel with LoRA in tower, projector and LLM, and a head of its own; weights drawn, not zero."""
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "linear_1"], modules_to_save=["lm_head"], init_lora_weights=False
    )
    return peft.get_peft_model(tiny_base(), config).eval()


@needs_peft
def test_at_full_budget_a_peft_model_gives_its_own_bits(adapted: Any) -> None:
    model = AdaLlava(adapted, tiny_processor())
    one = tiny_inputs(model.processor, ["what is it?"])
    ours = model.forward(**one).logits
    assert torch.equal(ours, adapted(**one).logits)
    assert not torch.equal(ours, tiny_base()(**one).logits)
    inputs = tiny_inputs(model.processor, ["what is it?", "is the colour red or blue?"])
    answer = model.generate(**inputs, max_new_tokens=3).sequences
    assert torch.equal(answer, adapted.generate(**inputs, max_new_tokens=3, do_sample=False))


@needs_peft
@pytest.mark.parametrize("method", ["divprune", "cls-attention", "fastv"])
def test_methods_choose_as_on_the_merged_model(adapted: Any, method: str) -> None:
    merged = copy.deepcopy(adapted).merge_and_unload()
    inputs = tiny_inputs(tiny_processor(), ["what is it?"])
    kept = [
        AdaLlava(base, tiny_processor()).with_method(method).select(**inputs, token_budget=5)[0].kept_indices
        for base in (adapted, merged)
    ]
    assert kept[0] == kept[1]


@needs_peft
def test_whole_layers_can_be_left_out_and_groups_of_heads_are_refused(adapted: Any) -> None:
    model = AdaLlava(adapted, tiny_processor())
    inputs = tiny_inputs(model.processor, ["what is it?"])
    merged = AdaLlava(copy.deepcopy(adapted).merge_and_unload(), tiny_processor())
    ours, theirs = (m.with_scheduler("first").forward(**inputs, latency=0.75).logits for m in (model, merged))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    from adallava.scheduling import build_scheduler

    heads = build_scheduler("heads", model.family.decoder().shape, groups=2)
    with pytest.raises(UnsupportedModeError, match=r"q_proj of this model's layers is a Linear.*merge adapters"):
        model.with_scheduler(heads)


@needs_peft
def test_what_was_learned_for_the_bare_base_belongs_to_another_model(adapted: Any, tmp_path: Path) -> None:
    folder = tiny_llava(tmp_path)
    bare = AdaLlava.from_pretrained(str(folder), method="full", device="cpu")
    model = AdaLlava(adapted, tiny_processor(), name_or_path=str(folder))
    other = copy.deepcopy(adapted)
    with torch.no_grad():
        next(p for name, p in other.named_parameters() if "lora_B" in name).add_(1.0)
    changed = AdaLlava(other, tiny_processor(), name_or_path=str(folder))
    assert len({bare.weights_sha256, model.weights_sha256, changed.weights_sha256}) == 3
    with pytest.raises(CheckpointError, match="use that base, or pass allow_other_base=True"):
        model.with_method("question")


@needs_peft
def test_adapters_that_change_the_prompt_are_refused() -> None:
    import peft

    config = peft.PromptTuningConfig(
        num_virtual_tokens=2, token_dim=48, num_layers=4, num_attention_heads=4, num_transformer_submodules=1
    )
    with pytest.raises(UnsupportedModeError, match="puts tokens of its own before the prompt"):
        AdaLlava(peft.PeftModel(tiny_base(), config), tiny_processor())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # What torch.compile imports.
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (torch.nn.DataParallel, r"a DataParallel cannot be the base model .*give its \.module"),
        (partial(torch.compile, backend="eager"), r"a OptimizedModule cannot be the base model .*give its \._orig_mod"),
        (lambda base: base.model, r"a LlavaModel cannot be the base model: give a LlavaForConditionalGeneration"),
        (lambda base: "tiny", r"a str is not a loaded model.*AdaLlava\.from_pretrained"),
        (lambda base: None, r"a NoneType is not a loaded model"),
    ],
)
def test_what_is_no_stock_model_is_refused_by_name(wrap: Any, message: str) -> None:
    with pytest.raises(UnsupportedModeError, match=message):
        AdaLlava(wrap(tiny_base()), tiny_processor())


@pytest.mark.parametrize("part", ["tokenizer", "image_processor", "chat_template"])
def test_a_part_of_a_processor_is_not_taken_for_one(part: str) -> None:
    given = "a name" if part == "chat_template" else getattr(tiny_processor(), part)
    with pytest.raises(InputError, match=rf"a {type(given).__name__} cannot be the processor"):
        AdaLlava(tiny_base(), given)


def test_without_a_processor_a_model_says_so_before_it_answers() -> None:
    inputs = tiny_inputs(tiny_processor(), ["what?"])
    with pytest.raises(InputError, match="made without a processor"):
        AdaLlava(tiny_base(), None).generate(**inputs, max_new_tokens=1)


def test_a_pipelines_parts_make_a_model_and_nothing_else_does() -> None:
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=tiny_base(), processor=tiny_processor(), device="cpu")
    model = AdaLlava(pipe.model, pipe.processor).with_method("uniform")
    assert model.generate(**tiny_inputs(model.processor, ["what?"]), token_budget=5, max_new_tokens=1).records
    with pytest.raises(UnsupportedModeError, match=r"give its \.model, and its \.processor"):
        AdaLlava(pipe, pipe.processor)
    with pytest.raises(UnsupportedModeError, match=r"AdaLlava\(pipe\.model, pipe\.processor\)"):
        pipeline("image-text-to-text", model=model, processor=tiny_processor(), device="cpu")
