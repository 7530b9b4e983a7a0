"""What every family keeps to on a batch of its own: what is dropped is masked, a batch is its samples, costs count.

Each prompt's images stand in its placeholders in order. Their sizes, N of each by prompt, are given where they differ.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from models import METHOD_OPTIONS
from product_counter import ProductCounter
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.runs.answer_flops import count_flops

Sizes = Sequence[Sequence[int]] | None
Kept = Sequence[Sequence[Sequence[int]]]


def staying(inputs: dict[str, Any], image_token_id: int, kept: Kept, sizes: Sizes = None) -> Tensor:
    """Return the mask of the full prompts, [B, L], with the tokens that are not kept hidden."""
    mask = inputs["attention_mask"].clone()
    for row, images in enumerate(kept):
        places = (inputs["input_ids"][row] == image_token_id).nonzero().flatten()
        of_images = places.chunk(len(images)) if sizes is None else places.split(list(sizes[row]))
        for image, indices in zip(of_images, images, strict=True):
            mask[row, image] = 0
            mask[row, image[list(indices)]] = 1
    return mask


def masked_forward(base: Any, inputs: dict[str, Any], mask: Tensor, **more: Any) -> Any:
    """Return the stock model's output for the full prompts, at their own positions, with tokens hidden."""
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    return base(**inputs | {"attention_mask": mask}, position_ids=positions, use_cache=False, **more)


@torch.no_grad()
def masked_logits(base: Any, inputs: dict[str, Any], kept: Kept, sizes: Sizes = None) -> list[Tensor]:
    """Return the stock model's logits at the tokens that stay, of the full prompts with the others masked."""
    mask = staying(inputs, base.config.image_token_id, kept, sizes)
    logits = masked_forward(base, inputs, mask).logits
    return [row[stays.bool()] for row, stays in zip(logits, mask, strict=True)]


@torch.no_grad()
def logits_masked_from_layer(base: Any, inputs: dict[str, Any], first: int, hidden: Tensor) -> Tensor:
    """Return the stock model's logits of full prompts, some of whose tokens are hidden from layer `first` on."""

    def hide(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        mask = kwargs["attention_mask"]
        nothing = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        return args, kwargs | {"attention_mask": mask.masked_fill(hidden[:, None, None, :], nothing)}

    hooks = [
        layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in base.model.language_model.layers[first:]
    ]
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    logits: Tensor = base(**inputs, position_ids=positions, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


@torch.no_grad()
def check_dropped_are_masked(
    full: AdaLlava, inputs: dict[str, Any], method: str, budgets: list[Any], counts: list[int], sizes: Sizes = None
) -> None:
    """Methods that merge, or see smaller pictures, are held to their counts alone: what they add is in the features."""
    model = full.with_method(method, **METHOD_OPTIONS.get(method, {}))
    selector: Any = model.selector
    made = model.forward(**inputs, token_budget=budgets, seed=3)
    kept = [ran.kept_indices for ran in model.select(**inputs, token_budget=budgets, seed=3)]
    if not selector.ignores_budget and method != "downsample":
        assert [sum(map(len, images)) for images in kept] == counts
    if selector.merges or method == "downsample":
        return
    for row, expected in enumerate(masked_logits(full.base, inputs, kept, sizes)):
        torch.testing.assert_close(made.logits[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)


def check_gradients(
    full: AdaLlava, inputs: dict[str, Any], weights: list[Tensor], budget: int, sizes: Sizes = None
) -> None:
    """The loss of the last labels has the gradients that it has where dropped tokens are masked."""
    model = full.with_method("uniform")
    is_image = inputs["input_ids"] == full.family.image_token_id
    labels = inputs["input_ids"].masked_fill(is_image, IGNORED_LABEL)
    labels[:, :-6] = IGNORED_LABEL
    ours = torch.autograd.grad(model.forward(**inputs, labels=labels, token_budget=budget).loss, weights)
    kept = [ran.kept_indices for ran in model.select(**inputs, token_budget=budget)]
    mask = staying(inputs, full.family.image_token_id, kept, sizes)
    stock = masked_forward(full.base, inputs, mask, labels=labels)
    for one, other in zip(ours, torch.autograd.grad(stock.loss, weights), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def check_alone(
    model: AdaLlava, inputs: dict[str, Any], budgets: list[Any], alone_of: Callable[[int], dict[str, Any]]
) -> None:
    """A sample of a batch is answered as `alone_of` its row is."""
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    together = model.generate(**inputs, token_budget=budgets, **options)
    for row, budget in enumerate(budgets):
        one = model.generate(**alone_of(row), token_budget=budget, **options)
        assert one.records[0].kept_indices == together.records[row].kept_indices
        assert one.answer_ids[0] == together.answer_ids[row]


@torch.no_grad()
def check_stock_bits(full: AdaLlava, inputs: dict[str, Any], alone: dict[str, Any], methods: Sequence[str]) -> None:
    """At the full budget, answers of the batch and logits of a prompt without padding are the stock model's."""
    stock = full.base.generate(**inputs, max_new_tokens=4, do_sample=False)
    logits = full.base(**alone, use_cache=False).logits
    for each in (full, *map(full.with_method, methods)):
        assert torch.equal(each.generate(**inputs, max_new_tokens=4, do_sample=False).sequences, stock)
        assert torch.equal(each.forward(**alone).logits, logits)


def counted_and_expected(model: AdaLlava, inputs: dict[str, Any], budget: int) -> tuple[int, dict[str, int]]:
    """Return what PyTorch counts of an answer of three tokens, and what the record of it says by part."""
    with sdpa_kernel(SDPBackend.MATH), ProductCounter() as counter:
        output = model.generate(**inputs, token_budget=budget, max_new_tokens=3, do_sample=False)
    costs = count_costs(model.base.config)
    expected = count_flops(model, costs, output.records[0], "why?", output.answer_lengths[0])
    return counter.flops, expected
