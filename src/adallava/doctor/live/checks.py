"""The live doctor: what a model does, not what its records say. One check a failure, in a registry."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adallava.budget import TokenBudget
from adallava.doctor.checks.failures import error_class
from adallava.doctor.findings import Diagnosis, Observation, Outcome, found, not_visible, passed
from adallava.doctor.live.engine_check import check_engine_equals_stock
from adallava.doctor.live.probe import FULL_BUDGET, Inputs, Probe, logits_at, make_probe, padded_on_the_right
from adallava.doctor.registry import outcome
from adallava.errors import CheckpointError
from adallava.model import AdaLlava
from adallava.pipeline.result import AdaLlavaOutput

NEAR_TIES = 0.25
"""The largest share of a sample's tokens that rounding is taken to change: rows mixed up change more than this."""

DEFAULT_BUDGETS = (TokenBudget(ratio=0.5), TokenBudget(ratio=0.25), TokenBudget(ratio=0.1))


@dataclass(frozen=True)
class LiveCheck:
    """A check that drives a model: its name, what it looks for, and what to do about it."""

    id: str
    failure: int | None
    title: str
    remedy: str
    observe: Callable[[Probe], Observation]

    def run(self, probe: Probe) -> Outcome:
        """Look, and return what was seen. A check that the model makes impossible has found something."""
        try:
            observation = self.observe(probe)
        except Exception as error:  # whatever a broken model raises is what this command is for
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            kind = error_class(message)
            observation = found("harness-bug", [f"raised {message}" + ("" if kind == "other" else f" ({kind})")])
        return outcome(self.id, self.failure, self.title, self.remedy, observation)


def check_devices_and_dtypes(probe: Probe) -> Observation:
    """Failure 8: all parameters and buffers on one device; the base in one floating-point type."""
    base, selector = _tensors(probe.model.base), _tensors(probe.model.selector)
    devices = Counter(str(tensor.device) for _, tensor in (*base, *selector))
    dtypes = Counter(str(parameter.dtype) for parameter in probe.model.base.parameters())
    evidence = [f"{count} tensors on {device}" for device, count in devices.most_common()]
    evidence += [f"{count} parameters of the base in {dtype}" for dtype, count in dtypes.most_common()]
    usual = devices.most_common(1)[0][0]
    strangers = [name for name, tensor in (*base, *selector) if str(tensor.device) != usual]
    if strangers:
        return found("harness-bug", [*evidence, f"not on {usual}: {', '.join(strangers[:5])}"])
    if len(dtypes) > 1:
        return found("cannot-tell", evidence)
    return passed(*evidence)


def _tensors(module: object) -> list[tuple[str, Tensor]]:
    if not isinstance(module, nn.Module):
        return []
    return [*module.named_parameters(), *module.named_buffers()]


def check_adapter(probe: Probe) -> Observation:
    """Failure 7: a learned method whose weights are missing, or not numbers."""
    model = probe.model
    if model.selector is None or not model.selector.learned:
        return passed(f"method {model.method} has no weights of its own")
    broken = [name for name, tensor in _tensors(model.selector) if not torch.isfinite(tensor).all()]
    if broken:
        return found("harness-bug", [f"weights that are not finite: {', '.join(broken[:5])}"])
    if model.adapter_sha256 is None:
        return found("harness-bug", [f"method {model.method} is learned, and no adapter was loaded for it"])
    return passed(f"adapter {model.adapter_sha256[:12]}… was made for this base")


def check_full_equals_stock(probe: Probe) -> Observation:
    """Failure 4: at the full budget, the tokens and the logits of the stock model."""
    if probe.ignores_budget:
        return not_visible(f"method {probe.model.method} has no full budget")
    base = probe.model.base
    length = probe.together["input_ids"].shape[1]
    stock = base.generate(**probe.together, **probe.decoding)[:, length:]
    ours = probe.generate(probe.together, FULL_BUDGET, list(range(len(probe.singles)))).answer_ids
    differing = [row for row, ids in enumerate(ours) if stock[row].tolist()[: len(ids)] != ids]
    samples = range(len(probe.singles))
    gaps = [_logit_gap(probe, probe.singles[sample], [sample]) for sample in samples]
    gaps.append(_logit_gap(probe, padded_on_the_right(probe.together), list(samples)))
    evidence = [f"largest difference of a logit: {max(gaps[:-1]):.3g} alone, {gaps[-1]:.3g} in a batch"]
    if differing:
        row = differing[0]
        evidence.insert(0, f"{len(differing)} of {len(ours)} answers have other tokens than the stock model's")
        evidence.insert(1, f"sample {row}: {ours[row]}, stock {stock[row].tolist()}")
        return found("harness-bug", evidence, [f"validation scene {row}" for row in differing])
    if max(gaps) > 0.0:
        return found("cannot-tell", ["the answers' tokens are equal, the logits are not", *evidence])
    return passed(f"{len(ours)} answers and all logits of their prompts are equal to the bit, alone and in a batch")


@torch.no_grad()
def _logit_gap(probe: Probe, inputs: Inputs, seeds: list[int]) -> float:
    """Return how far the prompts' logits are from the stock model's at most, padding left out."""
    stock = probe.model.base(**inputs, use_cache=False).logits
    ours = logits_at(probe.model, inputs, FULL_BUDGET, seeds)
    return float((ours - stock)[inputs["attention_mask"].bool()].abs().max())


def check_k_honoured(probe: Probe) -> Observation:
    """Failure 7: exactly K different patches, in order, at every budget."""
    if not probe.pruning_budgets:
        return not_visible("the full-token model drops nothing")
    totals = ", ".join(map(str, sorted(set(probe.token_counts))))
    evidence, counts = [], []
    for budget, selections in probe.selections.items():
        counts.append(f"{budget}: {', '.join(map(str, sorted({probe.planned(budget, s) for s in selections})))}")
        for sample, selection in enumerate(selections):
            expected = probe.planned(budget, selection)
            kept = [len(set(image)) for image in selection.kept_indices]
            ordered = all(list(image) == sorted(set(image)) for image in selection.kept_indices)
            if sum(kept) != expected or selection.tokens_at_end != expected or not ordered:
                evidence.append(f"budget {budget}, sample {sample}: {sum(kept)} patches kept, not {expected}")
    if evidence:
        return found("harness-bug", evidence[:5])
    return passed(f"K of N = {totals} by budget: {', '.join(counts)}")


def check_prompt_shortened(probe: Probe) -> Observation:
    """Failures 3 and 5: the LLM reads as many tokens as the text has, and K; a method inside it begins with N."""
    evidence: list[str] = []
    for budget, answers in probe.alone.items():
        for sample, alone in enumerate(answers):
            kept = probe.planned(budget, alone.output.records[0])
            num_tokens = probe.token_counts[sample]
            entering = num_tokens if probe.inside_llm else kept
            text = probe.singles[sample]["input_ids"].shape[1] - num_tokens
            stated = alone.output.prompt_lengths[0]
            if alone.entered_tokens != text + entering or stated != text + entering:
                evidence.append(
                    f"budget {budget}, sample {sample}: {alone.entered_tokens} tokens entered the LLM, "
                    f"{stated} are stated, text and {'N' if probe.inside_llm else 'K'} are {text + entering}"
                )
            elif alone.tokens_at_end != text + kept:
                evidence.append(
                    f"budget {budget}, sample {sample}: the LLM's last layer read {alone.tokens_at_end} tokens, "
                    f"text and K are {text + kept}"
                )
    if evidence:
        return found("harness-bug", evidence[:5])
    if probe.inside_llm:
        return passed(
            "the text's tokens and N enter the LLM, and its last layer reads the text's and K, at every budget"
        )
    return passed("the tokens that enter the LLM are the text's and K, at every budget")


def check_batch_equals_alone(probe: Probe) -> Observation:
    """Failure 6: in a batch of mixed budgets each sample keeps and answers what it does alone.

    In half precision a layer may round otherwise in a batch: then, and only then, a few near ties may fall otherwise.
    """
    budgets = list(islice(cycle((*probe.pruning_budgets, FULL_BUDGET)), len(probe.singles)))
    batch = probe.generate(probe.together, budgets, list(range(len(budgets))))
    other_patches, other_answers, flipped = [], [], []
    for row, budget in enumerate(budgets):
        alone = probe.alone[budget][row].output
        if alone.records[0].kept_indices != batch.records[row].kept_indices:
            other_patches.append(row)
            flipped.append(_share_of_others(alone.records[0].kept_indices, batch.records[row].kept_indices))
        elif alone.answer_ids[0] != batch.answer_ids[row]:
            other_answers.append(row)
    rows = len(budgets)
    # In 16 bits a batch rounds otherwise than a single row, which can tip a near tie.
    exact = probe.model.dtype in (torch.float32, torch.float64)
    if other_patches:
        line = (
            f"{len(other_patches)} of {rows} samples keep other patches in a batch, up to {max(flipped):.0%} of theirs"
        )
        if exact or max(flipped) > NEAR_TIES or probe.reads_same_bits:
            return found("harness-bug", [line])
        cause = "its layers" if probe.inside_llm else "the tower"
        return passed(
            f"{line}: near ties, since in {str(probe.model.dtype).removeprefix('torch.')} {cause} round otherwise in a "
            "batch; keep to one batch size within a run"
        )
    if other_answers:
        line = f"{len(other_answers)} of {rows} samples keep the same patches and answer otherwise in a batch"
        return found("harness-bug" if exact else "cannot-tell", [line])
    return passed(f"{rows} samples at mixed budgets keep and answer the same alone and together")


def _share_of_others(alone: Sequence[Sequence[int]], together: Sequence[Sequence[int]]) -> float:
    """Return what share of a sample's tokens is kept alone and not in the batch."""
    pairs = list(zip(alone, together, strict=True))
    others = sum(len(set(one) - set(other)) for one, other in pairs)
    return others / max(1, sum(len(one) for one, _ in pairs))


def check_first_token(probe: Probe) -> Observation:
    """Failure 9: the first new token is EOS."""
    counts = {
        budget: sum(_begins_with_eos(alone.output) for alone in answers) for budget, answers in probe.alone.items()
    }
    samples = len(probe.singles)
    shown = ", ".join(f"{count} of {samples} at budget {budget}" for budget, count in counts.items())
    if any(counts.values()):
        return found("model-finding", [f"first new token is EOS: {shown}"])
    return passed(f"no answer begins with EOS ({samples} samples at {len(counts)} budgets)")


def _begins_with_eos(output: AdaLlavaOutput) -> bool:
    return output.answer_lengths[0] == 1 and output.finish_reasons[0] == "eos"


def check_selection_reads_input(probe: Probe) -> Observation:
    """Additional: a method that chooses per sample must not choose the same patches for all."""
    selector = probe.model.selector
    if selector is None or not selector.per_sample or not probe.pruning_budgets:
        return not_visible(f"method {probe.model.method} need not choose per sample")
    same = [
        f"budget {budget}: all {len(selections)} samples keep the same patches"
        for budget, selections in probe.selections.items()
        if len({selection.kept_indices for selection in selections}) == 1
    ]
    if same:
        return found("model-finding" if probe.model.method == "budget-token" else "cannot-tell", same)
    return passed(f"{len(probe.singles)} samples keep different patches at every budget")


def check_finite(probe: Probe) -> Observation:
    """Additional: logits and scores are numbers."""
    evidence = []
    for budget in (FULL_BUDGET, *probe.pruning_budgets):
        for sample, inputs in enumerate(probe.singles):
            logits = logits_at(probe.model, inputs, budget, sample)
            if not torch.isfinite(logits).all():
                bad = int((~torch.isfinite(logits)).sum())
                evidence.append(f"budget {budget}, sample {sample}: {bad} logits are not finite")
    for budget, selections in probe.selections.items():
        if not all(math.isfinite(score) for selection in selections for score in selection.score_range or ()):
            evidence.append(f"budget {budget}: the selection's scores are not finite")
    if evidence:
        return found("model-finding", evidence[:5])
    return passed("all logits and scores are finite")


LIVE_CHECKS: tuple[LiveCheck, ...] = (
    LiveCheck(
        "devices-and-dtypes",
        8,
        "parts of the model are on two devices, or in two types",
        "Load everything onto one device in one type; give inputs to that device.",
        check_devices_and_dtypes,
    ),
    LiveCheck(
        "adapter-loaded",
        7,
        "the method's weights are not what was asked for",
        "Give the adapter that was trained on this base, or train one with `adallava train`.",
        check_adapter,
    ),
    LiveCheck(
        "full-equals-stock",
        4,
        "the full budget is not the stock model",
        "Send K = N through the same code as K < N; look for tokens that a method adds to the tower.",
        check_full_equals_stock,
    ),
    LiveCheck(
        "engine-equals-stock",
        None,
        "the engine in use gives other tokens than stock generate",
        "Take engine 'stock' until it is found; look at what it holds between calls: masks, positions, cached keys.",
        check_engine_equals_stock,
    ),
    LiveCheck(
        "k-honoured",
        7,
        "the method does not keep exactly K patches",
        "A method returns K different indices in ascending order for each image; see docs/how_to/add_a_method.md.",
        check_k_honoured,
    ),
    LiveCheck(
        "prompt-shortened",
        3,
        "other tokens enter the LLM than the text's and K",
        "Shorten ids, mask, labels, positions and embeddings in one place; one token off is an insertion "
        "that only some of them got.",
        check_prompt_shortened,
    ),
    LiveCheck(
        "batch-equals-alone",
        6,
        "a sample's answer depends on its batch",
        "Look for indices, masks or positions taken from one row and used for all.",
        check_batch_equals_alone,
    ),
    LiveCheck(
        "first-token-eos",
        9,
        "the model ends its answer at once",
        "A finding about the model, if the checks above pass: report it with the score, or train over these budgets.",
        check_first_token,
    ),
    LiveCheck(
        "selection-reads-input",
        None,
        "a method that chooses per sample chose the same patches for all",
        "Check that features, question and seed of each sample reach the method; a learned one may have "
        "collapsed to positions.",
        check_selection_reads_input,
    ),
    LiveCheck(
        "finite-logits",
        None,
        "logits or scores are not finite",
        "Load the weights in float32 or bfloat16; float16 overflows in many towers.",
        check_finite,
    ),
)


def diagnose_model(
    model: AdaLlava, budgets: Sequence[TokenBudget] = DEFAULT_BUDGETS, *, num_samples: int = 6
) -> Diagnosis:
    """Run every live check on a model with its method.

    Args:
        model: with a method; not changed.
        budgets: to examine besides the full one.
        num_samples: bundled images to ask about.
    """
    probe = make_probe(model, budgets, num_samples=num_samples)
    asked = ", ".join(map(str, (FULL_BUDGET, *probe.pruning_budgets)))
    return Diagnosis(
        source=f"{model.name_or_path} with {model.method}",
        form="model",
        summary=f"{num_samples} bundled images at token budgets {asked}",
        outcomes=tuple(check.run(probe) for check in LIVE_CHECKS),
    )


def diagnose_method(
    full: AdaLlava,
    method: str,
    adapter: str | Path | None = None,
    budgets: Sequence[TokenBudget] = DEFAULT_BUDGETS,
    *,
    num_samples: int = 6,
    options: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Put a method on a loaded model and run every live check; an adapter that does not fit is a finding.

    Raises:
        UnknownNameError: for a method that is not registered.
        UnsupportedModeError: for a method that needs what the model lacks.
    """
    try:
        model = full.with_method(method, adapter, **(options or {}))
    except CheckpointError as error:
        check = next(check for check in LIVE_CHECKS if check.observe is check_adapter)
        refused = found("harness-bug", [str(error)])
        return Diagnosis(
            source=f"{full.name_or_path} with {method}",
            form="model",
            summary="the method could not be loaded, so that nothing else was checked",
            outcomes=(outcome(check.id, check.failure, check.title, check.remedy, refused),),
        )
    return diagnose_model(model, budgets, num_samples=num_samples)
