"""What a sweep writes down for a method inside the LLM, against PyTorch's counter over the whole answer."""

from collections.abc import Iterator
from typing import Any

import pytest
from models import INSIDE_LLM, sample_of, tiny_base
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adallava import AdaLlava
from adallava.costs.flops import answer_flops
from adallava.costs.shapes import model_shape_from_config
from adallava.evaluation.inside_cost import inside_selector_flops
from adallava.selection.layer_contract import LayerSelector


@pytest.fixture(scope="module", params=["llama", "mistral"])
def base(request: pytest.FixtureRequest) -> Iterator[Any]:
    # The counter does not see the fused kernel of a CPU.
    with sdpa_kernel(SDPBackend.MATH):
        yield tiny_base(llm=request.param)


@pytest.mark.parametrize("method", INSIDE_LLM)
@pytest.mark.parametrize("budget", [3, 9, 16])
def test_an_answers_flops_are_what_pytorch_counts(
    full: AdaLlava, inputs: dict[str, Any], base: Any, method: str, budget: int
) -> None:
    model = AdaLlava(base, full.processor).with_method(method)
    counter = FlopCounterMode(display=False)
    with counter:
        output = model.generate(**sample_of(inputs, 1), token_budget=budget, max_new_tokens=4, do_sample=False)
    rotary = sum(sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    counted = counter.get_total_flops() - rotary
    (record,), (length,) = output.records, output.prompt_lengths
    shape = model_shape_from_config(base.config.to_dict())
    assert isinstance(model.selector, LayerSelector)
    selector = inside_selector_flops(model.selector, model.shape, shape.llm, record)
    by_part = answer_flops(
        shape,
        num_images=1,
        num_vision_tokens=16,
        tokens_kept_per_image=16,
        prompt_length=length,
        answer_length=output.answer_lengths[0],
        selector_flops=selector,
        tokens_kept_by_layer=record.tokens_kept_by_layer,
    )
    assert (selector > 0) == (budget < 16)
    assert sum(by_part.values()) == counted
