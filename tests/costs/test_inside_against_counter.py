"""What a sweep writes down for a method inside the LLM, against PyTorch's counter over the whole answer."""

from collections.abc import Iterator
from typing import Any

import pytest
from models import INSIDE_LLM, tiny_base, tiny_inputs
from product_counter import ProductCounter
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.costs.flops import answer_flops
from adallava.runs.inside_cost import inside_selector_flops
from adallava.selection.layer_contract import LayerSelector


@pytest.fixture(scope="module")
def bases() -> Iterator[dict[str, Any]]:
    # The counter does not see the fused kernel of a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        yield {llm: tiny_base(llm=llm) for llm in ("llama", "mistral")} | {
            # Heads wider than D / heads, and norms of them.
            "qwen3": tiny_base(llm="qwen3", head_dim=16)
        }


ON = [("llama", 1, 3), ("mistral", 1, 9), ("llama", 1, 16), ("mistral", 2, 14), ("qwen3", 1, 5)]
MORE = {"fastv": ON, "pyramiddrop": [ON[3]], "dart": [ON[4]]}
"""By default every method on one LLM; one drop on all, several beside two images, one that reads states where heads are
wide."""

CASES = [
    pytest.param(method, *on, marks=[] if on in (ON[0], *MORE.get(method, ())) else [pytest.mark.long])
    for method in INSIDE_LLM
    for on in ON
]


@pytest.mark.parametrize(("method", "llm", "num_images", "budget"), CASES)
def test_an_answers_flops_are_what_pytorch_counts(
    full: AdaLlava, bases: dict[str, Any], method: str, llm: str, num_images: int, budget: int
) -> None:
    base = bases[llm]
    model = AdaLlava(base, full.processor).with_method(method)
    inputs = tiny_inputs(full.processor, ["is the colour red or blue?"], images_each=num_images)
    with ProductCounter() as counter:
        output = model.generate(**inputs, token_budget=budget, max_new_tokens=4, do_sample=False)
    counted = counter.flops
    (record,), (length,) = output.records, output.prompt_lengths
    shape = count_costs(base.config)
    assert isinstance(model.selector, LayerSelector)
    selector = inside_selector_flops(model.selector, [model.shape] * num_images, shape.llm, record)
    by_part = answer_flops(
        shape,
        num_images=num_images,
        num_vision_tokens=16 * num_images,
        tokens_kept_per_image=16,
        prompt_length=length,
        answer_length=output.answer_lengths[0],
        selector_flops=selector,
        tokens_kept_by_layer=record.tokens_kept_by_layer,
    )
    assert (selector > 0) == (budget < 16 * num_images)
    # Less text stands behind a second image than behind the first: its raters are padded, which is not counted.
    assert sum(by_part.values()) == (counted if num_images == 1 else pytest.approx(counted, rel=0.01))
