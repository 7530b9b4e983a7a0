"""What a method of a contributor's gets wrong is said where it is returned, by name, on every path."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from models import tiny_inputs

from adallava import AdaLlava, Selection
from adallava.errors import AdallavaError
from adallava.pipeline.checked import check_indices, check_selection
from adallava.runs.method_costs import check_method_costs
from adallava.selection.fastv import FastVSelector
from adallava.selection.uniform import UniformSelector


class Returning(UniformSelector):
    """Returns what a test says, whatever it is asked."""

    def __init__(self, indices: torch.Tensor) -> None:
        super().__init__()
        self.indices = indices

    def select(self, inputs: Any) -> Selection:
        return Selection(self.indices.repeat(len(inputs.features), 1), inputs.keep_counts)


class ReturningInside(FastVSelector):
    """The same inside the LLM."""

    def choose(self, inputs: Any) -> Selection:
        return Selection(torch.tensor([[2, 1, 0]]).repeat(len(inputs.keep_counts), 1), inputs.keep_counts)


WRONG = [
    ([3, 2, 1], torch.int64, r"\[3, 2, 1\] of image 0.*ascending, unique"),
    ([1, 1, 2], torch.int64, "ascending, unique"),
    ([1, 2, 16], torch.int64, "below 16"),
    ([-1, 2, 3], torch.int64, "below 16"),
    ([1, 2, 3], torch.int32, "of type int32, which must be int64"),
    ([1, 2, 3], torch.float32, "of type float32, which must be int64"),
    ([1, 2, 3, 4], torch.int64, r"asked to keep \(3,.*shape \(1, 4\), not \(1, 3\)"),
]


@pytest.mark.parametrize(("indices", "dtype", "message"), WRONG)
@pytest.mark.parametrize("call", ["forward", "generate", "select"])
def test_wrong_indices_are_refused_on_every_path(
    llava: AdaLlava, call: str, indices: list[int], dtype: torch.dtype, message: str
) -> None:
    model = llava.with_selector(Returning(torch.tensor(indices, dtype=dtype)))
    inputs = tiny_inputs(llava.processor, ["why?"])
    with pytest.raises(AdallavaError, match=f"'uniform'.*{message}"):
        getattr(model, call)(**inputs, token_budget=3)


def test_a_choice_inside_the_llm_is_looked_at_too(llava: AdaLlava, llava_inputs: dict[str, Any]) -> None:
    model = llava.with_selector(ReturningInside())
    with pytest.raises(AdallavaError, match=r"'fastv' kept \[2, 1, 0\]"):
        model.forward(**llava_inputs, token_budget=3)


def test_what_is_no_selection_is_named() -> None:
    with pytest.raises(AdallavaError, match="'mine' returned a Tensor, not a Selection"):
        check_selection("mine", torch.zeros(1, 1), (1,), [4])  # type: ignore[arg-type]


def test_where_looking_would_wait_a_wrong_index_cannot_leave_the_image_and_is_told_later() -> None:
    """The meta device stands for one that has not come so far; its flag is then given the value it would have."""
    waiting = check_selection("mine", Selection(torch.zeros(1, 2, dtype=torch.int64, device="meta"), (2,)), (2,), [4])
    assert waiting.within is not None
    read = Selection(torch.tensor([[0, 3]]), (2,), within=torch.tensor(False))
    with pytest.raises(AdallavaError, match="'mine' kept tokens that no image has"):
        check_indices("mine", read, [4])
    assert check_indices("mine", Selection(torch.tensor([[0, 3]]), (2,), within=torch.tensor(True)), [4]) == [(0, 3)]


class Reading(UniformSelector):
    """Reads what it did not ask for."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.read = read

    def select(self, inputs: Any) -> Selection:
        self.read(inputs)
        return super().select(inputs)


READS = {
    "projected": lambda inputs: inputs.projected.float(),
    "last_layer": lambda inputs: inputs.last_layer.cls_attention(),
    "feature_layer": lambda inputs: inputs.feature_layer.patch_keys,
    "text_relevance": lambda inputs: inputs.features.sum(-1) + inputs.text_relevance,
    "word_embeds": lambda inputs: torch.nn.functional.normalize(inputs.word_embeds, dim=-1),
    "budget_features": lambda inputs: inputs.budget_features[:, None],
}


@pytest.mark.parametrize("field", READS)
def test_a_need_that_was_not_declared_is_named(llava: AdaLlava, llava_inputs: dict[str, Any], field: str) -> None:
    model = llava.with_selector(Reading(READS[field]))
    with pytest.raises(AdallavaError, match=rf"'uniform' reads `{field}`, and its `needs` does not name Need\."):
        model.generate(**llava_inputs, token_budget=3, max_new_tokens=1)


class Costly(UniformSelector):
    """Computes a matrix product, and says what a test says that it costs."""

    said: Any = 0

    def select(self, inputs: Any) -> Selection:
        inputs.features @ inputs.features.transpose(1, 2)
        return super().select(inputs)

    def flops(self, *_: Any) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        *((few, "and PyTorch counts 16384") for few in (0, 2 * 16 * 16 * 32 - 1000)),
        *((odd, "a whole number from 0 to") for odd in (None, True, -5, 16384.0, 10**400)),
    ],
)
def test_costs_that_are_not_what_is_computed_are_refused(llava: AdaLlava, said: Any, reason: str) -> None:
    selector = Costly()
    selector.said = said
    with pytest.raises(AdallavaError, match=rf"'uniform' says .* {str(said)[:40]}.* FLOPs.* {reason}"):
        check_method_costs({"uniform": llava.with_selector(selector)})


def test_costs_far_beyond_what_is_computed_are_noted_and_sums_are_not(llava: AdaLlava) -> None:
    selector, products = Costly(), 2 * 16 * 16 * 32
    for said in (products, 2 * products):
        selector.said = said
        assert check_method_costs({"uniform": llava.with_selector(selector)}) == []
    selector.said = 10**12
    (note,) = check_method_costs({"uniform": llava.with_selector(selector)})
    assert "costs 1000000000000 FLOPs, and PyTorch counts 16384: unless it computes outside of PyTorch" in note


class Weighing(UniformSelector):
    """Says whether it merges, and returns the weights that a test gives it, or none."""

    def __init__(self, merges: bool, weights: torch.Tensor | None) -> None:
        super().__init__()
        self.merges, self.weights = merges, weights  # type: ignore[misc]

    def select(self, inputs: Any) -> Selection:
        return replace(super().select(inputs), merge_weights=self.weights)


@pytest.mark.parametrize(
    ("merges", "weights", "message"),
    [
        (True, None, "says that it merges tokens .* returned no `merge_weights`"),
        (False, torch.full((1, 4, 16), 1 / 16), "says that it merges nothing"),
        (True, torch.full((1, 4, 15), 1 / 16), r"of shape \(1, 4, 15\) and type float32, not \(1, 4, 16\)"),
        (True, torch.ones((1, 4, 16), dtype=torch.int64), "and type int64, not"),
        (True, torch.full((1, 4, 16), float("nan")), "with NaN or infinite numbers"),
    ],
)
def test_weights_are_those_of_a_method_that_says_it_merges(
    llava: AdaLlava, merges: bool, weights: torch.Tensor | None, message: str
) -> None:
    model = llava.with_selector(Weighing(merges, weights))
    with pytest.raises(AdallavaError, match=f"'uniform' .*{message}"):
        model.forward(**tiny_inputs(llava.processor, ["why?"]), token_budget=4)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([0]), "an image of 16 tokens keeps 0: its `own_counts` must be from 1 to all"),
        (torch.tensor([99]), "an image of 16 tokens keeps 99"),
        (torch.tensor([2.5]), "must return int64 counts, one for each of 1 images"),
        (torch.tensor([3, 3]), "must return int64 counts"),
        ([3], r"must return int64 counts, .* not \[3\]"),
    ],
)
def test_counts_that_a_method_finds_are_counts_of_its_images(llava: AdaLlava, counts: Any, message: str) -> None:
    class Finding(UniformSelector):
        ignores_budget = True

        def own_counts(self, inputs: Any) -> Any:
            return counts

    with pytest.raises(AdallavaError, match=f"'uniform'.*{message}"):
        llava.with_selector(Finding()).forward(**tiny_inputs(llava.processor, ["why?"]))


@pytest.mark.parametrize("kept", [9, 0, -1, 2.0, "x", True])
def test_a_method_that_cannot_keep_every_count_keeps_fewer_and_some(llava: AdaLlava, kept: Any) -> None:
    class Rounding(UniformSelector):
        def keep_count(self, asked: int, grid: tuple[int, int]) -> Any:
            return kept

    with pytest.raises(
        AdallavaError, match=f"'uniform' was asked for 4 tokens, and its `keep_count` returned {kept!r}"
    ):
        llava.with_selector(Rounding()).forward(**tiny_inputs(llava.processor, ["why?"]), token_budget=4)


class Failing(UniformSelector):
    """Chooses by what a test says."""

    choose: Any = None

    def select(self, inputs: Any) -> Selection:
        return self.choose(inputs)


@pytest.mark.parametrize(
    ("choose", "said"),
    [
        (lambda _: 1 / 0, r"fails at a first choice.*ZeroDivisionError: division by zero"),
        (lambda _: None, "returned a NoneType, not a Selection"),
        (lambda inputs: Selection([[0]], inputs.keep_counts), "indices that are a list, no tensor"),
        (lambda inputs: Selection(torch.arange(4.0)[None], inputs.keep_counts), "of type float32, which must be int64"),
        (lambda inputs: Selection(torch.arange(4)[None] + 99, inputs.keep_counts), "below 16"),
    ],
)
def test_a_method_that_cannot_choose_is_refused_before_a_sweep_asks_it(llava: AdaLlava, choose: Any, said: str) -> None:
    selector = Failing()
    selector.choose = choose
    with pytest.raises(AdallavaError, match=rf"'uniform' .*{said}"):
        check_method_costs({"uniform": llava.with_selector(selector)})
