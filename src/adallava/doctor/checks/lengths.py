"""Arithmetic on prompt lengths: failures 3 and 5, and the part of failure 7 that shows there.

A prompt that entered the LLM is its text and the kept vision tokens. The text of one sample is the same at
every budget, so `prompt_length - tokens_kept` must be too. lmms-eval records neither N nor K; there the
prompt's length at several budgets must fit *some* N.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from adallava.budget import TokenBudget
from adallava.doctor.answers import (
    EMPTY_SHARE_LIMIT,
    MIN_SAMPLES_TO_COMPARE,
    Answer,
    AnswerCell,
    AnswerFile,
    Sightings,
    percent,
    same_answers,
)
from adallava.doctor.checks.failures import ErrorClass, failed_as
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
        seen: the deviating ones.
        differences: tokens by which their text parts differ, distinct values.
    """

    cell: AnswerCell
    fault: LengthFault
    seen: Sightings
    differences: tuple[int, ...]

    def line(self) -> str:
        """One line of evidence."""
        shown = ", ".join(f"{difference:+d}" for difference in self.differences[:5])
        count = percent(self.seen.count, len(self.cell.answered))
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
    told = [reference] if reference is not None else list(cells)
    first: dict[str, int] = {}
    varying: dict[str, list[int]] = {}
    for sample_id, length in _text_lengths(told):
        if first.setdefault(sample_id, length) != length:
            varying[sample_id] = []
    if varying:
        for sample_id, length in _text_lengths(told):
            if sample_id in varying:
                varying[sample_id].append(length)
    return first | {sample_id: max(set(values), key=values.count) for sample_id, values in varying.items()}


def _text_lengths(cells: Iterable[AnswerCell]) -> Iterator[tuple[str, int]]:
    for cell in cells:
        for answer in cell.answered:
            length = text_length(answer)
            if length is not None:
                yield answer.sample_id, length


def _deviation(cell: AnswerCell, expected: Mapping[str, int], reference: AnswerCell | None) -> LengthDeviation | None:
    seen = Sightings()
    differences: set[int] = set()
    by_budget = True
    for answer in cell.answered:
        length = text_length(answer)
        if length is None or length == expected.get(answer.sample_id, length):
            continue
        seen.add(answer)
        difference = length - expected[answer.sample_id]
        differences.add(difference)
        by_budget = by_budget and difference == (answer.num_vision_tokens or 0) - (answer.tokens_kept or 0)
    if not seen.count:
        return None
    fault = _fault(differences, seen.count, cell, reference, by_budget=by_budget)
    return LengthDeviation(cell, fault, seen, tuple(sorted(differences)))


def _fault(
    differences: Collection[int], count: int, cell: AnswerCell, reference: AnswerCell | None, *, by_budget: bool
) -> LengthFault:
    """Say what the differences of so many answers look like; `by_budget` if each is N - K."""
    if all(abs(difference) == 1 for difference in differences):
        return "off-by-one"
    if not by_budget:
        return "mismatch"
    if reference is None or count < MIN_SAMPLES_TO_COMPARE or count < len(cell.answered):
        return "unshortened"
    full = {sample_id: answer.response for sample_id, answer in reference.by_sample.items()}
    return "budget-ignored" if all(a.response == full[a.sample_id] for a in cell.answered) else "unshortened"


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
        healthy="no prompt is off from its text plus K by more than one token",
    )


def check_off_by_one(file: AnswerFile) -> Observation:
    """Failure 5: prompt ids and embeddings one apart."""
    return _check(
        file,
        faults=("off-by-one",),
        error="off-by-one",
        healthy="no prompt is off from its text plus K by one token",
    )


def _check(file: AnswerFile, *, faults: tuple[LengthFault, ...], error: ErrorClass, healthy: str) -> Observation:
    failed = failed_as(file, error)
    evidence, examples = failed.lines(), failed.seen.names
    if file.form == "lmms-eval":
        return _check_counted(file, faults, healthy, evidence, examples)
    deviations = [deviation for deviation in length_deviations(file) if deviation.fault in faults]
    evidence.extend(deviation.line() for deviation in deviations)
    examples.extend(name for deviation in deviations for name in deviation.seen.names)
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
        return not_visible("it needs input_tokens in token_counts at three known budgets or more, 1.0 among them")
    return passed(healthy)


_COUNTED_EVIDENCE: Mapping[LengthFault, str] = {
    "unshortened": "input_tokens is the same at every budget (or counts the text alone)",
    "off-by-one": "no N explains input_tokens at all budgets, unless pruned prompts are one token off",
    "mismatch": "no N explains input_tokens at all budgets",
}
