"""What generation promises, it promises for every family: `full` is each of them in turn, and all follows from it."""

from pathlib import Path
from typing import Any

import pytest
from models import MECHANISMS, SCHEDULERS, six_layers, six_layers_for, tiny_inputs
from tiny_gemma3 import tiny_gemma3
from tiny_idefics3 import tiny_idefics3
from tiny_internvl import tiny_internvl
from tiny_mistral3 import tiny_mistral3
from tiny_next import tiny_next
from tiny_onevision import tiny_onevision
from tiny_qwen import tiny_qwen

from adallava import AdaLlava

FAMILIES = (
    *("llava", "llava_next", "qwen2_5_vl", "qwen3_vl", "gemma3", "idefics3", "internvl", "llava_onevision"),
    "mistral3",
)
QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]


@pytest.fixture(scope="session", params=FAMILIES)
def family_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A random checkpoint of each family, with processor and adapters. Do not write to it."""
    if request.param == "llava":
        return tiny_folder
    folder = tmp_path_factory.mktemp(request.param)
    own = {"llava_next": tiny_next, "gemma3": tiny_gemma3, "idefics3": tiny_idefics3}
    own |= {"internvl": tiny_internvl, "llava_onevision": tiny_onevision, "mistral3": tiny_mistral3}
    return own[request.param](folder) if request.param in own else tiny_qwen(request.param, folder)


@pytest.fixture(scope="session")
def full(family_folder: Path) -> AdaLlava:
    """The full-token model of `family_folder`."""
    return AdaLlava.from_pretrained(str(family_folder), method="full", device="cpu")


@pytest.fixture(scope="session")
def llava(tiny_folder: Path) -> AdaLlava:
    """The full-token Llava, for what is written down for its 16 tokens."""
    return AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu")


@pytest.fixture(scope="session")
def llava_inputs(llava: AdaLlava) -> dict[str, Any]:
    """The prompts of `inputs`, for `llava`."""
    return tiny_inputs(llava.processor, QUESTIONS)


@pytest.fixture(scope="session")
def inputs(full: AdaLlava) -> dict[str, Any]:
    """Three prompts of different lengths, one picture each; for LLaVA-NeXT of different sizes."""
    return tiny_inputs(full.processor, QUESTIONS)


@pytest.fixture(scope="module")
def six(full: AdaLlava) -> AdaLlava:
    """A base of the family with six layers, for schedulers."""
    return six_layers(full)


@pytest.fixture(scope="module")
def six_by_scheduler(full: AdaLlava, six: AdaLlava) -> dict[str, AdaLlava]:
    """The base for each scheduler, by its name: one with heads of their own for `adallava-heads`."""
    return {name: six_layers_for(full, name) if name == "adallava-heads" else six for name in SCHEDULERS}


IN_EVERY_MODE = (
    *("test_forward.py", "test_generation_arguments.py", "test_generation_modes.py"),
    *("test_half_precision.py", "test_inside.py", "test_scheduled.py"),
)


ALWAYS = {
    "qwen2_5_vl": ("test_full_budget_is_the_stock_model_to_the_bit",),
    "qwen3_vl": (
        "test_full_budget_is_the_stock_model_to_the_bit",
        "test_fewer_tokens_are_the_stock_model_with_the_others_taken_out",
        "test_masking_dropped_tokens_equals_removing_them",
    ),
}
"""Of families with rows of positions, in `make test` too: the second has all that the first has, and deepstack."""


OWN_TESTS = ("internvl", "llava_onevision")
"""Families whose own tests hold them to the same on smaller batches; all of it here in `make test-long`."""


BY_THEIR_OWN = ("gemma3", "idefics3", "mistral3")
"""Families whose types of tokens, or scattered placeholders, no reference by hand here has: what goes on inside their
LLM is held in tests/families/, and by default the rest is, too."""

LIKE_THE_FIRST = (
    *("test_the_order_of_a_batch_does_not_matter", "test_several_images_in_a_prompt"),
    *("test_select_names_the_same_tokens_as_generate", "test_generate_leaves_nothing_behind_on_the_base"),
)
IN_SECOND = ("question", "pool", "pyramiddrop")
"""Of those tests the second family has, by default, what gathers, merges, and drops inside its LLM."""

OF_CHOICE_ALONE = {
    "test_fewer_tokens_are_the_stock_model_with_the_others_taken_out": MECHANISMS,
    "test_masking_dropped_tokens_equals_removing_them": MECHANISMS,
    "test_full_budget_is_the_stock_model_to_the_bit": IN_SECOND,
    "test_a_mixed_batch_gives_each_sample_what_it_gives_alone": IN_SECOND,
}
"""Methods that stand for all in other families than the first, where what follows a choice does not depend on it.
`test_exactly_k_tokens_reach_the_llm` crosses every method with them."""

CROSSING_ALL = (
    *("test_generation_contract.py", "test_generation_arguments.py", "test_generation_modes.py"),
    *("test_half_precision.py", "test_host_waits.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every family keeps the contracts here; all but the first in every mode, type and schedule in `make test-long`."""
    # Of LLMs, not of families, though their names are alike.
    of_llms = [item for item in items if item.path.name == "test_text_models.py"]
    own = [item for item in items if item not in of_llms and any(name in item.name for name in BY_THEIR_OWN)]
    items[:] = [item for item in items if item not in own or item.path.name in CROSSING_ALL]
    for item in own:
        item.add_marker(pytest.mark.long)
    for item in items:
        if item in of_llms:
            continue
        in_every_mode = item.path.name in IN_EVERY_MODE
        name = getattr(item, "originalname", item.name)
        later = any(family in item.name and name not in always for family, always in ALWAYS.items())
        later |= any(family in item.name for family in OWN_TESTS)
        second = "llava_next" in item.name
        later |= second and name in LIKE_THE_FIRST and not any(f"-{method}]" in item.name for method in IN_SECOND)
        later |= _another_stands_for_it(item, name)
        if later or (in_every_mode and second):
            item.add_marker(pytest.mark.long)


def _another_stands_for_it(item: pytest.Item, name: str) -> bool:
    """Whether, in another family than the first, another method shows the same."""
    params: dict[str, Any] = item.callspec.params if hasattr(item, "callspec") else {}
    method = params.get("method", params.get("model"))
    others = params.get("family_folder") not in (None, FAMILIES[0])
    return others and method is not None and method not in OF_CHOICE_ALONE.get(name, (method,))
