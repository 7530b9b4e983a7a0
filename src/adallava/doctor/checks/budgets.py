"""Failure 7: the budget, or the method, never reached the model; and selections that read nothing."""

from collections.abc import Callable, Iterator
from itertools import combinations

from adallava.budget import TokenBudget
from adallava.doctor.answers import (
    MIN_SAMPLES_TO_COMPARE,
    NO_BUDGET,
    Answer,
    AnswerCell,
    AnswerFile,
    Sightings,
    percent,
    same_answers,
)
from adallava.doctor.checks.layers_left_out import layers_as_asked, layers_run, moved_selections
from adallava.doctor.checks.lengths import length_deviations
from adallava.doctor.findings import Observation, found, not_visible, passed
from adallava.errors import BudgetError
from adallava.records.index_sets import is_within

_WIDE_SPREAD = 0.5
"""Budgets count as far apart if the smallest is at most this share of the largest."""


def check_budget_applied(file: AnswerFile) -> Observation:
    """Failure 7: what ran is not what was asked for."""
    if file.form == "lmms-eval":
        return _check_by_answers(file)
    if not any(cell.answered for cell in file.cells):
        return not_visible("no sample was answered")
    evidence: list[str] = []
    examples: list[str] = []
    for cell in file.cells:
        for what, seen in _contradictions(cell):
            evidence.append(f"{cell.label}: {percent(seen.count, len(cell.answered))} {what}")
            examples.extend(seen.names)
    for deviation in length_deviations(file):
        if deviation.fault == "budget-ignored":
            evidence.append(f"{deviation.line()}, that is N - K, and all answers are the full model's")
    evidence.extend(f"{a.label} and {b.label} kept the same patches of every sample" for a, b in same_selections(file))
    evidence.extend(
        f"{a.label} and {b.label} have only {100 * share:.0f} % of their patches in common: layers left out must not "
        "change the choice"
        for a, b, share in moved_selections(file)
    )
    if evidence:
        return found("harness-bug", evidence, examples)
    shown = ", ".join(f"{c.label} {c.answered[0].tokens_at_end}" for c in file.cells[:6] if c.answered)
    return passed(f"every answer kept the K asked for, by the method asked for ({shown})")


def _contradictions(cell: AnswerCell) -> Iterator[tuple[str, Sightings]]:
    """Answers of a cell whose record contradicts the cell or itself, by what is wrong."""
    all_seen = [Sightings() for _ in _CONTRADICTIONS]
    for answer in cell.answered:
        for seen, (contradicts, _) in zip(all_seen, _CONTRADICTIONS, strict=True):
            if contradicts(cell, answer):
                seen.add(answer)
    for seen, (_, words) in zip(all_seen, _CONTRADICTIONS, strict=True):
        if seen.count:
            yield words(cell, seen.first), seen


def _is_misread(cell: AnswerCell, answer: Answer) -> bool:
    return cell.budget != NO_BUDGET and answer.tokens_asked not in _resolutions(answer)


def _is_unkept(cell: AnswerCell, answer: Answer) -> bool:
    return cell.budget != NO_BUDGET and answer.tokens_at_end != _planned(answer)


_CONTRADICTIONS: tuple[tuple[Callable[[AnswerCell, Answer], bool], Callable[[AnswerCell, Answer], str]], ...] = (
    (
        lambda cell, answer: cell.method is not None and answer.method != cell.method,
        lambda cell, answer: f"ran {answer.method!r} instead of {cell.method!r}",
    ),
    (
        lambda cell, answer: answer.positions != cell.positions,
        lambda cell, answer: f"ran with {answer.positions} positions instead of {cell.positions} ones",
    ),
    (
        _is_misread,
        lambda _, answer: (
            f"resolved {answer.budget_asked} of N = {answer.num_vision_tokens} to K = {answer.tokens_asked}"
        ),
    ),
    (_is_unkept, lambda _, answer: f"asked for K = {_planned(answer)} and kept {answer.tokens_at_end}"),
    (
        lambda _, answer: not layers_as_asked(answer),
        lambda _, answer: (
            f"asked for latency {answer.latency_asked} and ran {layers_run(answer):g} of "
            f"{len(answer.groups_run or ())} layers"
        ),
    ),
    (
        lambda _, answer: not _indices_agree(answer),
        lambda _, answer: f"list patches other than {answer.tokens_at_end} different ones of N, in order",
    ),
)
"""What an answer's record may contradict, and how that is said of the first that does."""


def _resolutions(answer: Answer) -> set[int | None]:
    """K for the budget asked; with several images alike it may be resolved for each or for all."""
    if answer.budget_asked is None or answer.num_vision_tokens is None:
        return {answer.tokens_asked}
    try:
        budget = TokenBudget.parse(answer.budget_asked)
    except BudgetError:
        return set()
    images = len(answer.kept_sets) if answer.kept_sets else 1
    if len(set(answer.tokens_per_image or ())) > 1:
        return {budget.resolve(answer.num_vision_tokens)}
    per_image = answer.num_vision_tokens // images
    return {budget.resolve(answer.num_vision_tokens), images * budget.resolve(per_image)}


def _planned(answer: Answer) -> int | None:
    """K that should be kept: what was asked for, or less where the method cannot keep that many."""
    return answer.tokens_asked if answer.tokens_planned is None else answer.tokens_planned


def _per_sample(cell: AnswerCell) -> bool:
    """True if the cell's method chooses for each sample (by its image, its question or its seed)."""
    return any(answer.chosen_per_sample for answer in cell.answered)


def _indices_agree(answer: Answer) -> bool:
    if answer.kept_sets is None:
        return True
    images = len(answer.kept_sets)
    limits = answer.tokens_per_image or ((answer.num_vision_tokens or 0) // max(1, images),) * images
    return (
        len(limits) == images
        and all(map(is_within, answer.kept_sets, limits))
        and sum(limits) == (answer.num_vision_tokens or 0)
        and answer.num_kept == answer.tokens_at_end
    )


def same_selections(file: AnswerFile) -> Iterator[tuple[AnswerCell, AnswerCell]]:
    """Pairs of cells of two methods, one of them choosing per sample, that kept the same patches throughout.

    One of the two did not run: another branch did. Cells that leave the same layers out, or none, are compared.
    """
    for cells in file.groups.values():
        choosing = {cell.label for cell in cells if _per_sample(cell)}
        for first, second in combinations(cells, 2):
            if first.selection == second.selection or first.schedule != second.schedule:
                continue
            if choosing & {first.label, second.label} and _kept_the_same(first, second):
                yield first, second


def _kept_the_same(first: AnswerCell, second: AnswerCell) -> bool:
    """True if all samples that both answered, and there are some, kept the same patches in both, and not all."""
    compared = 0
    for sample_id, answer in first.by_sample.items():
        other = second.by_sample.get(sample_id)
        if other is None:
            continue
        if answer.kept_sets != other.kept_sets or not chose_some(answer):
            return False
        compared += 1
    return compared >= MIN_SAMPLES_TO_COMPARE


def chose_some(answer: Answer) -> bool:
    """True if a choice was made and recorded: some patches kept, some dropped."""
    total = answer.num_vision_tokens or 0
    return answer.kept_sets is not None and 0 < answer.num_kept < total


def _check_by_answers(file: AnswerFile) -> Observation:
    """For lmms-eval: all answers the same at budgets far apart."""
    suspicious, judged = [], 0
    for group, cells in file.groups.items():
        for method in sorted({cell.method or "" for cell in cells}):
            known = [cell for cell in cells if (cell.method or "") == method and cell.answered]
            if not _far_apart(known):
                continue
            judged += 1
            if same_answers(known) and not _has_a_reason(known):
                labels = ", ".join(cell.label for cell in known)
                suspicious.append((f"{group or file.source}: every answer is the same in {labels}", known))
    if suspicious:
        evidence = [line for line, _ in suspicious]
        # A full-length prompt at every budget says that the model was not told; the answers alone do not.
        certain = all(_same_prompt_lengths(cells) for _, cells in suspicious)
        if certain:
            evidence.append("and so is input_tokens")
        return found("harness-bug" if certain else "cannot-tell", evidence)
    if not judged:
        return not_visible("it needs files at two known budgets far apart, and lmms-eval does not record K")
    return passed("answers, or the lengths of prompts, change with the budget")


def _has_a_reason(cells: list[AnswerCell]) -> bool:
    """Say whether equal answers are no wonder: all prompts differ in length, as K does, or all answers are right."""
    first = cells[0].by_sample
    differ = all(
        answer.prompt_length is not None and answer.prompt_length != first[sample_id].prompt_length
        for cell in cells[1:]
        for sample_id, answer in cell.by_sample.items()
    )
    return differ or all(answer.score == 1.0 for cell in cells for answer in cell.answered)


def _far_apart(cells: list[AnswerCell]) -> bool:
    """Shares are compared with shares, counts with counts: N is not in these files."""
    budgets = []
    for cell in cells:
        try:
            budgets.append(TokenBudget.parse(cell.budget))
        except BudgetError:
            continue
    ratios = [budget.ratio for budget in budgets if budget.ratio is not None]
    counts = [budget.count for budget in budgets if budget.count is not None]
    return any(values and min(values) <= _WIDE_SPREAD * max(values) for values in (ratios, counts))


def _same_prompt_lengths(cells: list[AnswerCell]) -> bool:
    first = cells[0].by_sample
    return all(
        answer.prompt_length is not None and answer.prompt_length == first[sample_id].prompt_length
        for cell in cells
        for sample_id, answer in cell.by_sample.items()
    )


def check_selection_reads_input(file: AnswerFile) -> Observation:
    """Additional: a method that chooses per sample chose the same patches for all of them."""
    elsewhere = {cell.label for pair in same_selections(file) for cell in pair}
    evidence, judged = [], 0
    for cell in file.cells:
        if not _per_sample(cell):
            continue
        count, first, alike = _choices(cell)
        if first is None or count < MIN_SAMPLES_TO_COMPARE:
            continue
        judged += 1
        if alike and cell.label not in elsewhere:
            evidence.append(f"{cell.label}: all {count} samples kept the same {first.num_kept} patches")
    # Under a scheduler that draws, every method is answered in several draws, and may keep the same patches in all.
    drawing = {cell.selection for cell in file.cells if not cell.schedule and any(a.draw for a in cell.answers)}
    repeated = [cell.label for cell in file.cells if cell.selection in drawing and _draws_are_equal(cell)]
    if repeated:
        evidence.extend(f"{label}: every draw kept the same patches of every sample" for label in repeated)
        return found("harness-bug", evidence)
    if evidence:
        # One linear layer on a pooled vector can collapse to positions: then that is what was learned.
        collapsed = all(line.startswith("budget-token@") for line in evidence)
        return found("model-finding" if collapsed else "cannot-tell", evidence)
    if not judged:
        return not_visible(
            f"no method that chooses per sample has {MIN_SAMPLES_TO_COMPARE} samples with their kept patches"
        )
    return passed(f"{judged} cells of methods that choose per sample; none kept one set of patches for all samples")


def _choices(cell: AnswerCell) -> tuple[int, Answer | None, bool]:
    """Return how many answers chose patches, the first of them, and whether all chose as it did."""
    count, first, alike = 0, None, True
    for answer in cell.answered:
        if chose_some(answer):
            count, first = count + 1, first or answer
            alike = alike and answer.kept_sets == first.kept_sets
    return count, first, alike


def _draws_are_equal(cell: AnswerCell) -> bool:
    """Draws that differ in nothing are one draw, counted several times."""
    first: dict[str, int] = {}
    several = set[str]()
    for answer in cell.answered:
        if not chose_some(answer):
            continue
        kept = hash(answer.kept_sets)
        if answer.sample_id not in first:
            first[answer.sample_id] = kept
        elif first[answer.sample_id] != kept:
            return False
        else:
            several.add(answer.sample_id)
    return len(several) >= MIN_SAMPLES_TO_COMPARE
