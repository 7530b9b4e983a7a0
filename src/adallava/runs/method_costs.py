"""Whether a method says what its choice costs: its `flops` against what PyTorch counts, before a sweep believes it."""

from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from adallava.errors import AdallavaError, in_short
from adallava.model import AdaLlava
from adallava.pipeline.checked import check_merging, check_selection, rounded_count
from adallava.runs.answer_flops import said_flops
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import (
    AttentionMethod,
    BudgetTokenMethod,
    OwnCountMethod,
    RoundingMethod,
    SelectionInput,
    Selector,
    TowerLayer,
    TowerShape,
)

_QUESTION_TOKENS = 4
_TOLERANCE = 0.01
_FAR_MORE = 10
_MOST_BESIDE = 1000
"""For each token, besides products: sums, and sorting."""


def check_method_costs(models: Mapping[str, AdaLlava]) -> list[str]:
    """Refuse a method whose `flops` are less than its `select` computes; see `docs/how_to/add_a_method.md`.

    They may be more: the counter sees products, and some methods count their sums too, or compute outside of PyTorch.
    What is far more is noted, in the words that are returned.

    A choice among random tokens of the model's shape is counted, a quarter of them kept. Methods inside the LLM have no
    products of their own worth the name, and methods that keep nothing none at all.

    Raises:
        AdallavaError: naming the method, what it says and what was counted, or what it raises.
    """
    notes = []
    for name, model in models.items():
        selector = model.selector
        if selector is None or isinstance(selector, LayerSelector):
            continue
        keeps_none = selector.ignores_budget and not isinstance(selector, OwnCountMethod)
        if not keeps_none:
            try:
                notes += _check(name, selector, model.shape, model)
            except AdallavaError:
                raise
            except Exception as error:  # whatever somebody's method happens to raise; every answer would fail with it
                raise AdallavaError(
                    f"method {name!r} fails at a first choice, among random tokens: {in_short(error)}. Mend it, or "
                    "leave it out (docs/how_to/add_a_method.md)"
                ) from error
    return notes


@torch.no_grad()
def _check(name: str, selector: Selector, shape: TowerShape, model: AdaLlava) -> list[str]:
    keep_count = max(1, shape.num_vision_tokens // 4)
    if isinstance(selector, RoundingMethod):
        keep_count = rounded_count(selector, keep_count, shape.grid)
    columns = len(selector.asked_attention) if isinstance(selector, AttentionMethod) else 1
    inputs = _random_inputs(model, shape, keep_count, columns)
    with FlopCounterMode(display=False) as counter:
        if isinstance(selector, BudgetTokenMethod):
            selector.budget_token(inputs.budget_ratios)
        selection = selector.select(inputs)
        if not isinstance(selector, OwnCountMethod):
            sizes = (shape.num_vision_tokens,)
            check_merging(selector, check_selection(name, selection, (keep_count,), sizes), sizes)
        selection.apply(inputs.features)
    counted = counter.get_total_flops()
    said = said_flops(selector, shape, _QUESTION_TOKENS, keep_count)
    words = f"method {name!r} says that choosing {keep_count} of {shape.num_vision_tokens} tokens costs {said} FLOPs"
    if said < (1 - _TOLERANCE) * counted:
        raise AdallavaError(f"{words}, and PyTorch counts {counted}: its `flops` must return what `select` computes")
    if said > _FAR_MORE * counted + _MOST_BESIDE * shape.num_vision_tokens:
        return [f"{words}, and PyTorch counts {counted}: unless it computes outside of PyTorch, it is shown too costly"]
    return []


def _random_inputs(model: AdaLlava, shape: TowerShape, keep_count: int, attentions: int) -> SelectionInput:
    """Return one image's inputs of the model's widths, type and device; whatever a method may need is there.

    Args:
        model: its own.
        shape: its own.
        keep_count: K.
        attentions: kinds of attention that the method asks for.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        """Return random values of a size."""
        return torch.randn(*size, generator=generator).to(model.device, model.dtype)

    num_tokens, width = shape.num_vision_tokens, shape.layer_width
    layer = TowerLayer(normal(1, num_tokens + 1, width), normal(1, width), shape.tower_heads)
    mask = torch.ones(1, _QUESTION_TOKENS, dtype=torch.bool, device=model.device)
    return SelectionInput(
        features=normal(1, num_tokens, shape.vision_width),
        grid=shape.grid,
        keep_counts=(keep_count,),
        budget_ratios=torch.tensor([keep_count / num_tokens], device=model.device),
        seeds=torch.zeros(1, dtype=torch.int64, device=model.device),
        question_embeds=normal(1, _QUESTION_TOKENS, shape.llm_width),
        question_mask=mask,
        budget_features=normal(1, shape.vision_width),
        attention_received=normal(1, num_tokens, attentions).float().softmax(dim=1),
        feature_layer=layer,
        last_layer=layer,
        projected=normal(1, num_tokens, shape.llm_width),
        word_embeds=normal(1, _QUESTION_TOKENS, shape.llm_width),
        word_mask=mask,
        text_relevance=normal(1, num_tokens).float().tanh(),
    )
