"""LLaVA-NeXT's FLOPs against PyTorch's counter: pictures of different sizes, budgets and batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from costs_by_hand import LLAVA_1_5_7B
from models import INSIDE_LLM, MECHANISMS, rest_is_long, sample_of, tiny_inputs, tiny_tokens, with_every_option
from product_counter import ProductCounter
from tiny_next import NEXT_GRIDS, NEXT_LACKS, tiny_next
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.costs.flops import answer_flops, decode_flops, prefill_flops, vision_flops
from adallava.costs.parts import ModelCosts
from adallava.errors import InputError
from adallava.pipeline.allocate import share_over_images
from adallava.registry import selector_names
from adallava.runs.answer_flops import count_flops

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]
NEW = 3
METHODS = [name for name in selector_names() if name not in NEXT_LACKS]

TOWER_RUNS = [3, 3, 4]
"""By hand, of the pictures of `NEXT_GRIDS`: the whole and its tiles of 28 x 28, those with nothing but padding too."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> AdaLlava:
    return AdaLlava.from_pretrained(str(tiny_next(tmp_path_factory.mktemp("next"))), method="full", device="cpu")


@pytest.fixture(scope="module")
def inputs(full: AdaLlava) -> dict[str, Any]:
    return tiny_inputs(full.processor, QUESTIONS)


@pytest.fixture(scope="module")
def shape(full: AdaLlava) -> ModelCosts:
    return count_costs(full.base.config)


@pytest.fixture(autouse=True)
def _seen_by_the_counter() -> Iterator[None]:
    """The counter does not see the fused kernel of a CPU."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _counted(model: AdaLlava, inputs: dict[str, Any], budget: Any) -> tuple[Any, int]:
    options: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    with ProductCounter() as counter:
        output = model.generate(**inputs, token_budget=budget, **options)
    return output, counter.flops


def _padding(model: AdaLlava, record: Any) -> int:
    """What merging costs more, because the whole and the tiles are one batch; no one's own cost, so not in the form."""
    if model.selector is None or not model.selector.merges:
        return 0
    sizes = [rows * columns for rows, columns in record.grids]
    width = model.shape.vision_width
    if model.method not in INSIDE_LLM:
        kept = [len(indices) for indices in record.kept_indices]
        return 2 * width * (len(sizes) * max(sizes) * max(kept) - sum(n * k for n, k in zip(sizes, kept, strict=True)))
    schedules = [
        model.selector.schedule(4, size, len(indices))  # type: ignore[union-attr]
        for size, indices in zip(sizes, record.kept_indices, strict=True)
    ]
    padding, before = 0, sizes
    for drops in zip(*schedules, strict=True):
        kept = [drop.keep_count for drop in drops]
        padding += len(sizes) * max(before) * max(kept) - sum(n * k for n, k in zip(before, kept, strict=True))
        before = kept
    return 2 * model.shape.llm_width * padding


QUICK = ("random", "pool", "mmtok", "pyramiddrop")
CASES = [
    pytest.param(name, 0.2, (place % 3,), marks=[] if name in QUICK else [pytest.mark.long])
    for place, name in enumerate(METHODS)
]
"""What gathers, merges, reads words, and drops inside the LLM, on the pictures in turn; more takes longer. In
tests/runs/test_answer_flops.py each way in which tokens reach the LLM is counted on one tile.

What choosing costs is held to the counter for every method in tests/selection/test_selector_flops.py.
"""
CASES += [("full", 1.0, (0, 1, 2))]
CASES += [pytest.param(name, 0.6, (2,), marks=pytest.mark.long) for name in MECHANISMS if name in METHODS]


@pytest.mark.parametrize(("method", "budget", "pictures"), CASES)
def test_an_answer_costs_what_pytorch_counts(
    full: AdaLlava, inputs: dict[str, Any], shape: ModelCosts, method: str, budget: float, pictures: tuple[int, ...]
) -> None:
    model = with_every_option(full, method)
    for picture in pictures:
        question = QUESTIONS[picture]
        output, counted = _counted(model, sample_of(inputs, picture), budget)
        (record,) = output.records
        assert record.grids == NEXT_GRIDS[picture]
        assert sum(record.tower_runs) == TOWER_RUNS[picture]
        flops = count_flops(model, shape, record, question, NEW)
        assert sum(flops.values()) == pytest.approx(counted - _padding(model, record), rel=0.01)
        assert flops["vision"] >= (0 if method == "none" else vision_flops(shape.vision) * TOWER_RUNS[picture])


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.long), 3])
@pytest.mark.parametrize(
    "method",
    rest_is_long(
        ["full", "random", "cls-attention", "divprune", "mmtok", "fastv", "pyramiddrop"],
        ("full", "mmtok", "pyramiddrop"),
    ),
)
def test_a_batch_alike_costs_its_samples(full: AdaLlava, shape: ModelCosts, method: str, size: int) -> None:
    model = full.with_method(method)
    one = sample_of(tiny_inputs(full.processor, QUESTIONS), 2)
    batch = {name: torch.cat([tensor] * size) for name, tensor in one.items()}
    output, counted = _counted(model, batch, 1.0 if method == "full" else 0.4)
    costs = [sum(count_flops(model, shape, record, QUESTIONS[2], NEW).values()) for record in output.records]
    assert sum(costs) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize("method", rest_is_long(["full", "random", "cls-attention", "divprune"], ("full", "divprune")))
def test_of_a_mixed_batch_only_the_llm_pays_for_padding(
    full: AdaLlava, inputs: dict[str, Any], shape: ModelCosts, method: str
) -> None:
    """The tower, the method and the projector see each picture's own tiles and tokens; the LLM's rows are padded."""
    model = full.with_method(method)
    output, counted = _counted(model, inputs, 1.0 if method == "full" else [0.3, 1.0, 7])
    parts = [count_flops(model, shape, r, q, NEW) for r, q in zip(output.records, QUESTIONS, strict=True)]
    before = sum(flops[part] for flops in parts for part in ("vision", "selector", "projector"))
    longest = max(output.prompt_lengths)
    llm = prefill_flops(shape.llm, longest) + decode_flops(shape.llm, longest, NEW)
    assert before + 3 * llm == pytest.approx(counted, rel=0.001)


@pytest.mark.parametrize(
    ("tiles", "patches", "kept", "published"),
    [
        (5, (36, 48), 2340, (1.910, 0.098, 34.260, 0.029, 36.30)),
        (5, (36, 48), 585, (1.910, 0.025, 8.709, 0.027, 10.67)),
        (3, (24, 24), 1176, (1.146, 0.049, 16.952, 0.028, 18.18)),
        (3, (24, 24), 294, (1.146, 0.012, 4.784, 0.027, 5.97)),
    ],
)
def test_the_figures_of_the_page_on_costs(
    tiles: int, patches: tuple[int, int], kept: int, published: tuple[float, ...]
) -> None:
    sizes = [576, patches[0] * (patches[1] + 1)]
    by_part = answer_flops(
        LLAVA_1_5_7B,
        num_images=2,
        num_vision_tokens=sum(sizes),
        tokens_kept_per_image=share_over_images(kept, sizes),
        tokens_per_image=sizes,
        towers=[LLAVA_1_5_7B.vision] * tiles,
        prompt_length=kept + 70,
        answer_length=3,
        selector_flops=0,
    )
    parts = [by_part[part] / 1e12 for part in ("vision", "projector", "prefill", "decode")]
    assert [round(part, 3) for part in parts] == list(published[:4])
    assert round(sum(parts), 2) == published[4]
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "costs.md").read_text()
    cells = " | ".join([*(f"{figure:.3f}" for figure in published[:4]), f"{published[4]:.2f}"])
    assert f"| {kept} | {cells} |" in page


def test_images_of_an_answer_have_their_own_tokens() -> None:
    counts: dict[str, Any] = {"prompt_length": 99, "answer_length": 1, "selector_flops": 0, "num_images": 2}
    with pytest.raises(InputError, match=r"num_vision_tokens is 30, but 2 image\(s\) of 16 \+ 20 patches make 36"):
        answer_flops(
            LLAVA_1_5_7B, num_vision_tokens=30, tokens_kept_per_image=[1, 1], tokens_per_image=[16, 20], **counts
        )
    with pytest.raises(InputError, match="tokens_per_image has 1 counts for 2"):
        answer_flops(LLAVA_1_5_7B, num_vision_tokens=16, tokens_kept_per_image=[1, 1], tokens_per_image=[16], **counts)
    with pytest.raises(InputError, match="tokens_kept_per_image is 17, but an image has only 16"):
        answer_flops(
            LLAVA_1_5_7B, num_vision_tokens=36, tokens_kept_per_image=[17, 1], tokens_per_image=[16, 20], **counts
        )


def test_the_projector_reads_kept_tokens_alone(full: AdaLlava, inputs: dict[str, Any]) -> None:
    seen: list[int] = []
    hook = full.base.model.multi_modal_projector.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel() // args[0].shape[-1])
    )
    full.with_method("uniform").generate(**inputs, token_budget=[5, 1.0, 0.5], max_new_tokens=1)
    hook.remove()
    totals = [sum(tiny_tokens(full, [picture])) for picture in range(3)]
    assert seen == [5 + totals[1] + totals[2] // 2]
