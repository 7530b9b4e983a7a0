"""Arithmetic on prompt lengths: failures 3 and 5, and the part of failure 7 that shows there.

A prompt that entered the LLM is its text and the kept vision tokens. The text of one sample is the same at
every budget, so `prompt_length - tokens_kept` must be too. lmms-eval records neither N nor K; there the
prompt's length at several budgets must fit *some* N.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from adallava.budget import TokenBudget
from adallava.doctor.answers import (
    EMPTY_SHARE_LIMIT,
    MIN_SAMPLES_TO_COMPARE,
    Answer,
    AnswerCell,
    AnswerFile,
    percent,
    same_answers,
)
from adallava.doctor.checks.failures import ErrorClass, error_lines, failed_as
from adallava.doctor.findings import Observation, found, not_visible, passed
from adallava.errors import BudgetError

LengthFault = Literal["unshortened", "budget-ignored", "off-by-one", "mismatch"]
"""`unshortened`: N placeholders for K features; `budget-ignored`: the same, and every answer is the full
model's; `off-by-one`: one token too many or too few; `mismatch`: any other difference."""

_MAX_VISION_TOKENS = 16384


@dataclass(frozen=True)
class LengthDeviation:
    """Answers of one cell whose text part is longer or shorter than the same sample's in the reference.

    Attributes:
        cell: where.
        fault: what the differences look like.
        answers: the deviating ones.
        differences: tokens by which their text parts differ, distinct values.
    """

    cell: AnswerCell
    fault: LengthFault
    answers: tuple[Answer, ...]
    differences: tuple[int, ...]

    def line(self) -> str:
        """One line of evidence."""
        shown = ", ".join(f"{difference:+d}" for difference in self.differences[:5])
        count = percent(len(self.answers), len(self.cell.answered))
        return f"{self.cell.label}: in {count} the prompt's text part is off by {shown} tokens"


def text_length(answer: Answer) -> int | None:
    """Tokens of the prompt that are not vision tokens, or None if the file does not say."""
    if answer.prompt_length is None or answer.tokens_kept is None:
        return None
    return answer.prompt_length - answer.tokens_kept


def length_deviations(file: AnswerFile) -> tuple[LengthDeviation, ...]:
    """Compare all cells' text lengths with the full-token cell's, or else with the most frequent ones."""
    deviations = []
    for group, cells in file.groups.items():
        reference = file.full_cell(group)
        expected = _reference_lengths(reference, cells)
        for cell in cells:
            deviation = _deviation(cell, expected, reference)
            if deviation is not None:
                deviations.append(deviation)
    return tuple(deviations)


def _reference_lengths(reference: AnswerCell | None, cells: Iterable[AnswerCell]) -> Mapping[str, int]:
    lengths: dict[str, list[int]] = defaultdict(list)
    for cell in [reference] if reference is not None else cells:
        for answer in cell.answered:
            length = text_length(answer)
            if length is not None:
                lengths[answer.sample_id].append(length)
    return {sample_id: max(set(values), key=values.count) for sample_id, values in lengths.items()}


def _deviation(cell: AnswerCell, expected: Mapping[str, int], reference: AnswerCell | None) -> LengthDeviation | None:
    deviating: list[tuple[Answer, int]] = []
    for answer in cell.answered:
        length = text_length(answer)
        if length is None or answer.sample_id not in expected:
            continue
        if length != expected[answer.sample_id]:
            deviating.append((answer, length - expected[answer.sample_id]))
    if not deviating:
        return None
    answers = tuple(answer for answer, _ in deviating)
    differences = tuple(sorted({difference for _, difference in deviating}))
    return LengthDeviation(cell, _fault(deviating, cell, reference), answers, differences)


def _fault(deviating: list[tuple[Answer, int]], cell: AnswerCell, reference: AnswerCell | None) -> LengthFault:
    if all(abs(difference) == 1 for _, difference in deviating):
        return "off-by-one"
    if any(difference != (a.num_vision_tokens or 0) - (a.tokens_kept or 0) for a, difference in deviating):
        return "mismatch"
    answers_are_the_full_models = (
        reference is not None
        and len(deviating) >= MIN_SAMPLES_TO_COMPARE
        and len(deviating) == len(cell.answered)
        and all(a.response == reference.by_sample[a.sample_id].response for a, _ in deviating)
    )
    return "budget-ignored" if answers_are_the_full_models else "unshortened"


def fits_one_n(lengths: Mapping[TokenBudget, int], shift: int) -> bool:
    """Say whether one N explains a sample's prompt lengths, if pruned prompts are `shift` tokens too long.

    Args:
        lengths: prompt length in tokens by budget; the budget 1.0 must be among them.
        shift: 0 for the healthy arithmetic `full - pruned = N - K`.
    """
    full = lengths[TokenBudget(ratio=1.0)]
    fewest, most = 1, _MAX_VISION_TOKENS
    for budget, length in lengths.items():
        if budget.ratio == 1.0:
            continue
        # N - K never falls as N grows, so the N that fit one budget lie side by side.
        counts = range(1, _MAX_VISION_TOKENS + 1)
        removed = _removed_tokens(budget)
        fewest = max(fewest, 1 + bisect_left(counts, full - length + shift, key=removed))
        most = min(most, bisect_right(counts, full - length + shift, key=removed))
    return fewest <= most


def _removed_tokens(budget: TokenBudget) -> Callable[[int], int]:
    return lambda num_tokens: num_tokens - budget.resolve(num_tokens)


def _counted_prompts(cells: Iterable[AnswerCell]) -> dict[str, dict[TokenBudget, int]]:
    """Prompt length by sample and budget, for cells whose budget the file tells."""
    lengths: dict[str, dict[TokenBudget, int]] = defaultdict(dict)
    for cell in cells:
        try:
            budget = TokenBudget.parse(cell.budget)
        except BudgetError:
            continue
        for answer in cell.answered:
            if answer.prompt_length is not None:
                lengths[answer.sample_id][budget] = answer.prompt_length
    return lengths


def _judge_counted(lengths: Mapping[TokenBudget, int]) -> LengthFault | Literal["fits"] | None:
    """Judge one sample of lmms-eval; None if its lengths cannot tell."""
    full = lengths.get(TokenBudget(ratio=1.0))
    if full is None or len(lengths) < 2:
        return None
    if all(length == full for length in lengths.values()):
        return "unshortened"
    if len(lengths) < 3:
        return None
    if fits_one_n(lengths, 0):
        return "fits"
    return "off-by-one" if fits_one_n(lengths, 1) or fits_one_n(lengths, -1) else "mismatch"


def _counted_verdicts(file: AnswerFile) -> dict[str, list[str]]:
    """Sample ids of an lmms-eval file by what their prompt lengths say."""
    verdicts: dict[str, list[str]] = defaultdict(list)
    for cells in file.groups.values():
        # Other methods may add tokens of their own to a prompt, so methods are not compared with each other.
        for method in {cell.method for cell in cells}:
            counted = _counted_prompts(cell for cell in cells if cell.method == method)
            for sample_id, lengths in counted.items():
                verdicts[_judge_counted(lengths) or "unknown"].append(sample_id)
    return verdicts


def check_placeholders(file: AnswerFile) -> Observation:
    """Failure 3: as many image placeholders as before, for fewer features."""
    return _check(
        file,
        faults=("unshortened", "mismatch"),
        error="placeholders",
        healthy="no prompt differs from its text and K by more than one token",
    )


def check_off_by_one(file: AnswerFile) -> Observation:
    """Failure 5: prompt ids and embeddings one apart."""
    return _check(
        file,
        faults=("off-by-one",),
        error="off-by-one",
        healthy="no prompt differs from its text and K by one token",
    )


def _check(file: AnswerFile, *, faults: tuple[LengthFault, ...], error: ErrorClass, healthy: str) -> Observation:
    failed = failed_as(file, error)
    evidence = error_lines(failed)
    examples = [f"{answer.sample_id} in {answer.cell}" for answer in failed]
    if file.form == "lmms-eval":
        return _check_counted(file, faults, healthy, evidence, examples)
    deviations = [deviation for deviation in length_deviations(file) if deviation.fault in faults]
    evidence.extend(deviation.line() for deviation in deviations)
    examples.extend(f"{a.sample_id} in {a.cell}" for deviation in deviations for a in deviation.answers)
    if evidence:
        return found("harness-bug", evidence, examples)
    if all(len(cells) < 2 for cells in file.groups.values()):
        return not_visible("one cell alone has nothing to compare its prompt lengths with")
    return passed(healthy)


def _check_counted(
    file: AnswerFile, faults: tuple[LengthFault, ...], healthy: str, evidence: list[str], examples: list[str]
) -> Observation:
    verdicts = _counted_verdicts(file)
    judged = sum(len(ids) for verdict, ids in verdicts.items() if verdict != "unknown")
    if verdicts["unshortened"] and all(map(same_answers, file.groups.values())):
        # The same prompts and the same answers: the budget had no effect at all, which is failure 7.
        faults = tuple(fault for fault in faults if fault != "unshortened")
    for fault in faults:
        ids = verdicts[fault]
        if len(ids) > EMPTY_SHARE_LIMIT * judged:
            evidence.append(f"{percent(len(ids), judged)} samples: {_COUNTED_EVIDENCE[fault]}")
            examples.extend(ids)
    if evidence:
        certain = bool(verdicts["mismatch"]) or "unshortened" not in faults
        return found("harness-bug" if certain else "cannot-tell", evidence, examples)
    if not verdicts["fits"]:
        return not_visible("it takes input_tokens in token_counts at three known budgets or more, 1.0 among them")
    return passed(healthy)


_COUNTED_EVIDENCE: Mapping[LengthFault, str] = {
    "unshortened": "input_tokens is the same at every budget (or counts the text alone)",
    "off-by-one": "no N explains input_tokens at all budgets, unless pruned prompts are one token off",
    "mismatch": "no N explains input_tokens at all budgets",
}
