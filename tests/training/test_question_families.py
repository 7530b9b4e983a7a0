"""A question's controller learns on every family: what it is rewarded for is what inference computes."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import tiny_image, tiny_llava
from PIL import Image
from tiny_gemma3 import tiny_gemma3
from tiny_idefics3 import tiny_idefics3
from tiny_internvl import tiny_internvl
from tiny_mistral3 import tiny_mistral3
from tiny_next import tiny_next
from tiny_onevision import tiny_onevision
from tiny_qwen import tiny_qwen

from adallava import AdaLlava
from adallava.errors import UnsupportedModeError
from adallava.pipeline.layout import repeated
from adallava.processors.stock_processor import build_prompt, make_inputs
from adallava.selection.question import QuestionSelector
from adallava.training.blank import write_blank
from adallava.training.collate import Collator, separate_prompts
from adallava.training.examples import Example
from adallava.training.own_data import TaskExamples
from adallava.training.pictures import picture_form, picture_inputs
from adallava.training.policy import answer_log_probabilities
from adallava.training.prompted import Prompted, kept_in_order, repeated_images
from adallava.training.recipe import BlankModel, Recipe
from adallava.training.stages import train_stage

CPU = torch.device("cpu")


def tiny_siglip_qwen2(folder: Path) -> Path:
    """Save a LLaVA with a SigLIP tower and a Qwen2."""
    sizes = dict.fromkeys(("vision_width", "vision_mlp_width", "llm_width", "llm_mlp_width"), 32)
    sizes |= dict.fromkeys(("vision_layers", "llm_layers", "vision_heads", "llm_heads", "llm_kv_heads"), 2)
    write_blank(BlankModel(tower="siglip_vision_model", llm="qwen2", image_px=28, patch_px=7, **sizes), folder, 0)
    return folder


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "llava": tiny_llava,
    "siglip-qwen2": tiny_siglip_qwen2,
    "llava_next": tiny_next,
    "qwen2_vl": lambda folder: tiny_qwen("qwen2_vl", folder),
    "qwen2_5_vl": lambda folder: tiny_qwen("qwen2_5_vl", folder),
    "qwen3_vl": lambda folder: tiny_qwen("qwen3_vl", folder),
    "internvl": tiny_internvl,
    "llava_onevision": tiny_onevision,
    "gemma3": tiny_gemma3,
    "mistral3": tiny_mistral3,
    "idefics3": tiny_idefics3,
    "smolvlm": lambda folder: tiny_idefics3(folder, "SmolVLM"),
}

SIZES = [(40, 30), (60, 170)]


def default_and_long(*default: str) -> list[Any]:
    """Return every family as a parameter; those that are not named run in `make test-long`."""
    return [pytest.param(name, marks=() if name in default else pytest.mark.long) for name in FOLDERS]


def examples(seed: int = 0) -> list[Example]:
    """Return two pictures of different sizes, each with two questions of different lengths."""
    texts = [("what is it?", "is the colour red or blue?"), ("why?", "what is the colour?")]
    return [
        Example(_pixels(seed + index, size), questions, ("yes", "no"), {}, None, None)
        for index, (size, questions) in enumerate(zip(SIZES, texts, strict=True))
    ]


def _pixels(seed: int, size: tuple[int, int]) -> Any:
    return np.asarray(tiny_image(seed, size=size))


def with_large_scores(selector: QuestionSelector) -> QuestionSelector:
    """Return it with scores that differ by more than rounding does."""
    torch.manual_seed(1)
    torch.nn.init.normal_(selector.first_score.weight, std=1.0)
    return selector.eval()


@pytest.mark.parametrize("name", default_and_long("qwen3_vl", "internvl"))
@torch.no_grad()
def test_a_scorers_greedy_choice_and_its_reward_are_those_of_inference(name, tmp_path):
    base = AdaLlava.from_pretrained(str(FOLDERS[name](tmp_path)), method="full", device="cpu")
    family, processor = base.family, base.processor
    selector = with_large_scores(QuestionSelector(family.shape, width=16, question_width=8, film_width=8))
    prompts = separate_prompts(processor, family.shape.num_vision_tokens, family.image_token_id)
    alone = picture_form(family, processor).alone
    batch = Collator(processor, questions=prompts, pixels_alone=alone)(examples())
    pictures = picture_inputs(family, batch["pixel_values"], batch.get("beside"))
    prompted = Prompted.of(family, batch["prompts"], pictures)
    layout = prompted.layout(6)
    chosen = kept_in_order(prompted.scores(selector, layout).argsort(dim=1, descending=True), layout.keep_counts)
    rewards, _ = answer_log_probabilities(prompted, layout, chosen)

    model = base.with_selector(selector)
    for row, (picture, question) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        output = model.forward(**asked(base, examples()[picture], question), token_budget=6)
        answered = int((output.batch.labels != -100).sum())
        assert rewards[row].item() == pytest.approx(-answered * output.loss.item(), rel=2e-4, abs=2e-5)
        first = sum(prompt.num_images for prompt in layout.prompts[:row])
        rows = chosen[first : first + layout.prompts[row].num_images]
        width = output.selection.indices.shape[1]
        assert torch.equal(output.selection.indices, rows[:, :width])


def asked(base: AdaLlava, example: Example, question: int) -> dict[str, Any]:
    """Return what the processor makes of one question and its answer, as a user would give it to `forward`."""
    prompt = build_prompt(base.processor, example.questions[question])
    made = make_inputs(base.processor, [Image.fromarray(example.image)], [prompt])
    tokenizer = base.processor.tokenizer
    answer = tokenizer(example.answers[question], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    ids = torch.cat([made["input_ids"], torch.tensor([answer])], dim=1)
    labels = torch.full_like(ids, -100)
    labels[:, -len(answer) :] = torch.tensor([answer])
    beside = {n: v for n, v in made.items() if n in base.family.picture_inputs}
    return {**beside, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def test_a_layout_of_repeated_prompts_is_the_one_that_repeated_prompts_have(tmp_path):
    base = AdaLlava.from_pretrained(str(tiny_internvl(tmp_path)), method="full", device="cpu")
    prompts = separate_prompts(base.processor, 16, base.family.image_token_id)
    batch = Collator(base.processor, questions=prompts, pixels_alone=False)(examples())
    pictures = picture_inputs(base.family, batch["pixel_values"], batch["beside"])
    once = Prompted.of(base.family, batch["prompts"], pictures)
    thrice = Prompted.of(base.family, batch["prompts"].repeat(3), pictures)
    # Pictures of one image and of four, so that images of a prompt's repeats must be kept apart.
    assert [prompt.num_images for prompt in once.layout(6).prompts] == [1, 1, 4, 4]
    found, expected = repeated(once.layout(6), 3), thrice.layout(6)
    for field in dataclasses.fields(expected):
        of_repeats, planned = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(planned, torch.Tensor):
            assert torch.equal(of_repeats, planned), field.name
    assert found.keep_counts == expected.keep_counts
    assert torch.equal(repeated_images(once.layout(6), once.images, 3), thrice.images)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "idefics3" else pytest.mark.long) for name in FOLDERS]
)
@pytest.mark.filterwarnings("ignore")
def test_a_controller_is_trained_from_a_recipe_and_leaves_the_base_as_it_is(name, tmp_path):
    base = FOLDERS[name](tmp_path / "base")
    weights = (base / "model.safetensors").read_bytes()
    rows = []
    for seed, size in enumerate(SIZES):
        tiny_image(seed, size=size).save(tmp_path / f"{seed}.png")
        rows.append(json.dumps({"image": f"{seed}.png", "question": "what is it?", "answer": "yes"}) + "\n")
    (tmp_path / "mine.jsonl").write_text("".join(rows))
    recipe = Recipe.model_validate(
        {
            "stage": "question",
            "keep": {"keep_counts": [4]},
            "optimisation": {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        }
    )
    data = TaskExamples.from_file(tmp_path / "mine.jsonl", {})
    adapter = train_stage(recipe, tmp_path / "run", start_from=str(base), data=data, device=CPU)
    assert AdaLlava.from_pretrained(str(base), method="question", adapter=adapter, device="cpu").method == "question"
    assert (base / "model.safetensors").read_bytes() == weights
    with pytest.raises(UnsupportedModeError, match="only stage 'question'") if name != "llava" else nullcontext():
        train_stage(
            recipe.model_copy(update={"stage": "budget-token"}),
            tmp_path / "other",
            start_from=str(base),
            data=data,
            device=CPU,
        )
