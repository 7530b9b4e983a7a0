"""The live doctor on a tiny random model: healthy as it is, and each planted fault is found."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from models import rest_is_long, tiny_llava

from adallava.budget import TokenBudget
from adallava.doctor import Diagnosis
from adallava.doctor.live.checks import diagnose_method, diagnose_model
from adallava.doctor.live.engine_check import check_engine_equals_stock, partings_of, tell
from adallava.doctor.live.probe import make_probe
from adallava.engines.captured import CapturedEngine
from adallava.model import AdaLlava
from adallava.pipeline import prepare
from adallava.pipeline.drops import DropPlan, plan_drops
from adallava.pipeline.layout import Layout, with_keep_counts
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, top_k_in_order

BUDGETS = (TokenBudget(ratio=0.5), TokenBudget(count=3))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> AdaLlava:
    folder = tiny_llava(tmp_path_factory.mktemp("tiny"))
    return AdaLlava.from_pretrained(str(folder), method="full", device="cpu")


def diagnose(model: AdaLlava, budgets: tuple[TokenBudget, ...] = BUDGETS[:1]) -> Diagnosis:
    return diagnose_model(model, budgets, num_samples=3)


def found(diagnosis: Diagnosis) -> set[str]:
    return {outcome.check for outcome in diagnosis.findings}


class Planted:
    """A method after whose model: scores are the features' norms, so it reads each image."""

    name: ClassVar[str] = "planted"
    learned: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()
    merges: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True
    ignores_budget: ClassVar[bool] = False

    def choose(self, scores: torch.Tensor, inputs: SelectionInput) -> Selection:
        return Selection(top_k_in_order(scores, inputs.keep_counts), inputs.keep_counts, scores=scores)

    def select(self, inputs: SelectionInput) -> Selection:
        return self.choose(inputs.features.float().norm(dim=-1), inputs)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        return 0


class OneTooFew(Planted):
    def choose(self, scores: torch.Tensor, inputs: SelectionInput) -> Selection:
        fewer = tuple(max(1, count - 1) for count in inputs.keep_counts)
        return Selection(top_k_in_order(scores, fewer), fewer, scores=scores)


class FirstImagesIndices(Planted):
    """A greedy method, the only kind that sees several images at once, whose steps look at the first of them."""

    def table(self, inputs: SelectionInput) -> tuple[torch.Tensor, None]:
        scores = self.select(inputs).scores
        assert scores is not None
        return scores, None

    def order(self, table: torch.Tensor, steps: int) -> torch.Tensor:
        return table[:1].expand_as(table).argsort(dim=1, descending=True)[:, :steps]


class SamePatchTwice(Planted):
    def choose(self, scores: torch.Tensor, inputs: SelectionInput) -> Selection:
        honest = super().choose(scores, inputs)
        return replace(honest, indices=torch.zeros_like(honest.indices))


class NotANumber(Planted):
    def choose(self, scores: torch.Tensor, inputs: SelectionInput) -> Selection:
        return replace(super().choose(scores, inputs), scores=scores * float("nan"))


@pytest.mark.parametrize(
    "method", rest_is_long(["full", "question", "none", "pyramiddrop"], ("question", "pyramiddrop"))
)
def test_a_sound_model_is_healthy(full: AdaLlava, method: str) -> None:
    diagnosis = diagnose_method(full, method, budgets=BUDGETS, num_samples=3)
    assert diagnosis.healthy, diagnosis.findings
    assert len(diagnosis.outcomes) == 10


@pytest.mark.parametrize("method", ["question", "fastv"])
def test_an_engine_of_our_own_is_held_to_stock(full: AdaLlava, method: str) -> None:
    (told,) = _of_engine(full.with_engine("eager").with_method(method))
    assert told == "18 answers by eager: the tokens of stock generate"


def test_an_engine_that_answers_otherwise_is_found(full: AdaLlava, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = CapturedEngine.generate

    def off_by_one(engine: CapturedEngine, run: Any, plan: Any, clock: Any) -> Any:
        made = stock(engine, run, plan, clock)
        made.result.sequences[-1, -3] += 1
        return made

    monkeypatch.setattr(CapturedEngine, "generate", off_by_one)
    diagnosis = diagnose(full.with_engine("eager").with_selector(Planted()))
    assert found(diagnosis) == {"engine-equals-stock"}
    (finding,) = diagnosis.findings
    assert finding.severity == "harness-bug"
    assert "no tie of its logits explains it" in finding.evidence[0]


def test_a_tie_is_told_from_an_error() -> None:
    """Logits 0.01 apart are one thing to a model whose rounding is 0.01, and two to one whose rounding is 0.0001."""
    scores = (torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.01, -3.0]]))
    stock = SimpleNamespace(answer_ids=[[0, 1]], transformers_output=SimpleNamespace(scores=scores))
    tie = partings_of([[0, 0]], stock, [4], noise=0.01)
    assert [(one.sample, one.place, one.ids) for one in tie] == [(4, 1, (1, 0))]
    assert tie[0].deviations == pytest.approx(1.0, rel=1e-3)
    assert tell(tie, "").status == "passed"
    assert tell(partings_of([[0, 0]], stock, [4], noise=0.0001), "").status == "found"
    assert tell(partings_of([[0]], stock, [4], noise=9.0), "").status == "found", "an answer that ends early is no tie"
    assert partings_of([[0, 1]], stock, [4], noise=0.01) == []


def _of_engine(model: AdaLlava) -> tuple[str, ...]:
    return check_engine_equals_stock(make_probe(model, BUDGETS, num_samples=3)).evidence


def test_the_plants_host_is_healthy(full: AdaLlava) -> None:
    diagnosis = diagnose(full.with_selector(Planted()), BUDGETS)
    assert diagnosis.healthy, diagnosis.findings


@pytest.mark.parametrize(
    ("selector", "check"),
    [
        (OneTooFew(), "k-honoured"),
        (SamePatchTwice(), "k-honoured"),
        (FirstImagesIndices(), "batch-equals-alone"),
        (NotANumber(), "finite-logits"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Planted) else value,
)
def test_a_broken_method_is_found(full: AdaLlava, selector: Any, check: str) -> None:
    findings = found(diagnose(full.with_selector(selector)))
    assert check in findings
    assert "devices-and-dtypes" not in findings


@pytest.mark.long
def test_sample_zeros_indices_show_in_the_batch_alone(full: AdaLlava) -> None:
    """Alone, such a method is right: only a batch can show it."""
    assert found(diagnose(full.with_selector(FirstImagesIndices()))) == {"batch-equals-alone"}


@pytest.mark.long
def test_what_the_last_layer_reads_is_watched_not_believed(full: AdaLlava, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(selector: LayerSelector, layout: Layout, num_layers: int) -> DropPlan:
        counts = [min(16, count + 1) for count in layout.keep_counts]
        return plan_drops(selector, with_keep_counts(layout, counts), num_layers)

    monkeypatch.setattr(prepare, "plan_drops", one_more)
    diagnosis = diagnose(full.with_method("fastv"))
    shortened = next(finding for finding in diagnosis.findings if finding.check == "prompt-shortened")
    assert "the LLM's last layer read" in shortened.evidence[0]


@contextmanager
def scaled(parameter: torch.Tensor, factor: float) -> Iterator[None]:
    kept = parameter.detach().clone()
    with torch.no_grad():
        parameter.mul_(factor)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def test_weights_that_are_not_numbers_are_found(full: AdaLlava) -> None:
    with scaled(full.base.lm_head.weight, float("nan")):
        assert "finite-logits" in found(diagnose(full))


def test_a_model_that_ends_at_once_is_a_finding_about_the_model(full: AdaLlava) -> None:
    """All logits 0 but for EOS: the first new token ends the answer, and nothing else is wrong."""
    eos = full.base.generation_config.eos_token_id

    def only_eos(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        forced = torch.zeros_like(logits)
        forced[..., eos] = 1.0
        return forced

    handle = full.base.lm_head.register_forward_hook(only_eos)
    try:
        diagnosis = diagnose(full.with_method("uniform"))
    finally:
        handle.remove()
    (finding,) = diagnosis.findings
    assert (finding.failure, finding.severity) == (9, "model-finding")
    assert "3 of 3 at budget 0.5" in finding.evidence[0]


def test_a_part_in_another_type_is_found(full: AdaLlava) -> None:
    projector = full.base.model.multi_modal_projector
    projector.to(torch.float64)
    try:
        diagnosis = diagnose(full)
    finally:
        projector.to(torch.float32)
    outcome = next(outcome for outcome in diagnosis.findings if outcome.check == "devices-and-dtypes")
    assert any("torch.float64" in line for line in outcome.evidence)


def test_a_part_on_another_device_is_found(full: AdaLlava) -> None:
    """`meta` stands for a second device: a machine without one has it too."""
    model = full.with_selector(Planted())
    model.base.register_buffer("stray", torch.zeros(1, device="meta"))
    try:
        diagnosis = diagnose(model)
    finally:
        del model.base.stray
    assert found(diagnosis) == {"devices-and-dtypes"}
    assert "stray" in diagnosis.findings[0].evidence[-1]


def test_an_adapter_of_another_base_is_found(full: AdaLlava, tmp_path: Path) -> None:
    other = tiny_llava(tmp_path, seed=5)
    diagnosis = diagnose_method(full, "question", other / "adapters" / "question", budgets=BUDGETS)
    assert found(diagnosis) == {"adapter-loaded"}
    assert "this base has" in diagnosis.findings[0].evidence[0]
