"""Empty and mangled answers: failures 1, 2, 4 and 9, and answers of nothing but blanks.

One cause, one finding: every empty answer is put into exactly one class, and each check reports its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from adallava.doctor.answers import EMPTY_SHARE_LIMIT, Answer, AnswerCell, AnswerFile, Sightings, percent
from adallava.doctor.findings import Observation, Severity, found, not_visible, passed
from adallava.doctor.tails import tails_of_answers, tails_of_questions
from adallava.records import Results

EmptyClass = Literal["eos", "blank", "cut", "uncounted", "unknown"]
"""`eos`: the first new token ended the answer; `blank`: white space or special tokens; `cut`: tokens were
generated, or must have been, and their text is gone; `uncounted`: no cause where one must be recorded;
`unknown`: the format does not tell."""

_ECHO_SHARE = 0.05
_MIN_ECHO_CHARACTERS = 12
_BREAKS_OF_HARNESS: tuple[EmptyClass, ...] = ("cut", "uncounted", "unknown")


@dataclass
class EmptyGroup:
    """The empty answers of one class, or several, in one cell."""

    cell: AnswerCell
    seen: Sightings = field(default_factory=Sightings)
    lengths: set[int] = field(default_factory=set)
    num_scored: int = 0
    score: float = 0.0

    def add(self, answer: Answer) -> None:
        """Count one more."""
        self.seen.add(answer)
        if answer.answer_length is not None:
            self.lengths.add(answer.answer_length)
        if answer.score is not None:
            self.num_scored += 1
            self.score += answer.score

    @property
    def share(self) -> float:
        """Of the cell's samples that did not fail."""
        return self.seen.count / len(self.cell.answered)

    def line(self) -> str:
        """One line of evidence: count, share, and the score reported over them all the same."""
        scored = f", scored {self.score / self.num_scored:.3f} on average" if self.num_scored else ", without a score"
        return f"{self.cell.label}: {percent(self.seen.count, len(self.cell.answered))} empty{scored}"


def empty_class(answer: Answer, *, causes_recorded: bool) -> EmptyClass:
    """Say what kind of empty an empty answer is, from its recorded cause and its length in tokens."""
    cause, length = answer.empty_cause, answer.answer_length
    if cause in ("whitespace-only", "special-tokens-only"):
        return "blank"
    if cause == "no-new-tokens":
        return "cut"
    if not causes_recorded and answer.response:
        return "blank"
    if length is None:
        return "unknown"
    # One token may be an EOS. Two or more with no text at all, and no cause that explains it, were lost.
    if length > 1 or length < 0:
        return "cut"
    if cause == "first-token-eos":
        return "eos"
    if causes_recorded:
        return "uncounted"
    # A wrapper that leaves EOS out of its count writes 0 for what another writes 1.
    return "eos" if length == 1 else "unknown"


def empty_groups(file: AnswerFile, *classes: EmptyClass) -> tuple[EmptyGroup, ...]:
    """The empty answers of the given classes, per cell; cells without any are left out."""
    causes_recorded = file.form == "run-folder"
    groups = []
    for cell in file.cells:
        group = EmptyGroup(cell)
        for answer in cell.answered if cell.num_empty else ():
            if answer.empty and empty_class(answer, causes_recorded=causes_recorded) in classes:
                group.add(answer)
        if group.seen.count:
            groups.append(group)
    return tuple(groups)


def _over_limit(groups: tuple[EmptyGroup, ...]) -> tuple[EmptyGroup, ...]:
    return tuple(group for group in groups if group.share > EMPTY_SHARE_LIMIT)


def _full_only(file: AnswerFile) -> tuple[EmptyGroup, ...]:
    """Broken cells at the full budget, where every smaller budget answers."""
    broken = _over_limit(empty_groups(file, *_BREAKS_OF_HARNESS))
    chosen = []
    for name, cells in file.groups.items():
        here = [group for group in broken if group.cell.group == name]
        smaller_exist = any(cell.full is False and cell.answered for cell in cells)
        if here and smaller_exist and all(group.cell.full for group in here):
            chosen.extend(here)
    return tuple(chosen)


def _not_full_only(file: AnswerFile, *classes: EmptyClass) -> tuple[EmptyGroup, ...]:
    claimed = {group.cell.label for group in _full_only(file)}
    return tuple(group for group in empty_groups(file, *classes) if group.cell.label not in claimed)


def check_empties_scored(file: AnswerFile) -> Observation:
    """Failure 1: empties nobody counted, or a summary that is not flagged for them."""
    evidence: list[str] = []
    groups = _not_full_only(file, "uncounted") + _over_limit(_not_full_only(file, "unknown"))
    evidence.extend(group.line() + "; no cause recorded" for group in groups)
    if file.results is not None:
        evidence.extend(_unflagged(file, file.results))
    if evidence:
        only_unknown = file.form == "lmms-eval"
        severity: Severity = "cannot-tell" if only_unknown else "harness-bug"
        return found(severity, evidence, [name for group in groups for name in group.seen.names])
    empties, total = sum(cell.num_empty for cell in file.cells), sum(len(cell.answers) for cell in file.cells)
    return passed(f"{percent(empties, total)} of the answers are empty, and each has a cause or is too rare")


def _unflagged(file: AnswerFile, results: Results) -> Iterator[str]:
    cells = {cell.label: cell for cell in file.cells}
    for summary in results.cells:
        cell = cells.get(summary.cell)
        if cell is None:
            continue
        empties = cell.num_empty
        noticed = sum(count for cause, count in summary.empties.items() if cause != "error")
        if noticed != empties:
            yield f"{cell.label}: {empties} answers are empty, and results.json counts {noticed}"
        if empties > EMPTY_SHARE_LIMIT * len(cell.answered) and not summary.flagged:
            counted = percent(empties, len(cell.answered))
            accuracy = f"{summary.accuracy.mean:.3f}" if summary.accuracy else "none"
            yield f"{cell.label}: {counted} empty, yet results.json has accuracy {accuracy} without a flag"


def check_answers_cut(file: AnswerFile) -> Observation:
    """Failure 2: tokens were generated and their text is gone, or only a fragment of it is left."""
    groups = _not_full_only(file, "cut")
    if file.form == "lmms-eval":
        # One or two special tokens and an EOS look alike there: only a share tells.
        groups = _over_limit(groups)
    evidence = [f"{group.line()}; their token counts are {_lengths(group)}" for group in groups]
    examples = [name for group in groups for name in group.seen.names]
    for cell in file.cells:
        for line, ids in (tails_of_answers(cell), _echoes(cell)):
            if line:
                evidence.append(line)
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in ids)
    if evidence:
        return found("harness-bug", evidence, examples)
    return _check_tails_of_questions(file) or _nothing_cut(file)


def _check_tails_of_questions(file: AnswerFile) -> Observation | None:
    found_in = [(cell, *tails_of_questions(cell)) for cell in file.cells]
    evidence = [line for _, line, _ in found_in if line]
    if not evidence:
        return None
    evidence.append("the file names no right answers: `adallava doctor … --task lmms:<task>` compares with them")
    return found(
        "cannot-tell", evidence, [f"{name} in {cell.label}" for cell, line, ids in found_in if line for name in ids]
    )


def _nothing_cut(file: AnswerFile) -> Observation:
    if all(answer.answer_length is None for answer in file.answers):
        if any(cell.num_empty for cell in file.cells):
            return not_visible("there are empty answers, but no count of generated tokens to compare them with")
        return passed("no answer is empty, the tail of a right one, or an echo of its prompt (no token counts)")
    if not any(answer.targets for answer in file.answers):
        return passed(
            "no answer has tokens without text, or echoes its prompt; the file names no right answers, so tails were "
            "looked for among the questions' words alone: --task lmms:<task> compares with the right ones"
        )
    return passed("no answer has tokens without text, is the tail of a right one, or echoes its prompt")


def _lengths(group: EmptyGroup) -> str:
    lengths = sorted(group.lengths)
    return ", ".join(map(str, lengths[:5])) + (", …" if len(lengths) > 5 else "")


def _echoes(cell: AnswerCell) -> tuple[str | None, list[str]]:
    """Answers that hold their own question: the prompt was not cut off."""
    seen = Sightings.of(
        answer
        for answer in cell.answered
        if answer.question
        and len(answer.question) >= _MIN_ECHO_CHARACTERS
        and answer.question.strip() in answer.response
    )
    if seen.count <= _ECHO_SHARE * len(cell.answered):
        return None, []
    return f"{cell.label}: {percent(seen.count, len(cell.answered))} of the answers repeat the prompt", [
        *seen.by_sample
    ]


def check_full_budget(file: AnswerFile) -> Observation:
    """Failure 4: the full budget takes a path of its own and answers otherwise, or nothing."""
    groups = _full_only(file)
    evidence = [f"{group.line()}, while every smaller budget answers" for group in groups]
    examples = [name for group in groups for name in group.seen.names]
    compared = 0
    for group, cells in file.groups.items():
        reference = file.full_cell(group)
        for cell in cells:
            if reference is None or not cell.full or (cell.method, cell.budget) == (reference.method, reference.budget):
                continue
            num_shared = len(cell.by_sample.keys() & reference.by_sample.keys())
            if num_shared == 0:
                continue
            compared += 1
            differing = _differing(cell, reference)
            if len(differing) > EMPTY_SHARE_LIMIT * num_shared:
                count = percent(len(differing), num_shared)
                evidence.append(f"{cell.label} and {reference.label} keep all N tokens, yet {count} answers differ")
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in differing)
    if evidence:
        certain = file.form == "run-folder"
        return found("harness-bug" if certain else "cannot-tell", evidence, examples)
    if not any(cell.full for cell in file.cells):
        return not_visible("no cell is known to be at the full budget")
    if not any(cell.answered for cell in file.cells if cell.full):
        return not_visible("no sample was answered at the full budget")
    if compared == 0 and all(cell.full is not False for cell in file.cells):
        return not_visible("the full budget is the only cell: there is no second one to compare it with")
    return passed(f"the full budget answers; {compared} other cells with all N tokens agree with it")


def _differing(cell: AnswerCell, reference: AnswerCell) -> list[str]:
    return [
        sample_id
        for sample_id, answer in cell.by_sample.items()
        if (other := reference.by_sample.get(sample_id)) is not None
        and not answer.empty
        and not other.empty
        and answer.response != other.response
    ]


def check_first_token_eos(file: AnswerFile) -> Observation:
    """Failure 9: the model's first new token ends the answer, at some budgets only."""
    all_groups = empty_groups(file, "eos")
    groups = _over_limit(all_groups)
    if groups:
        touched = {group.cell.label for group in all_groups}
        free = [cell.label for cell in file.cells if cell.label not in touched]
        evidence = [group.line() + "; the first new token was EOS" for group in groups]
        evidence.append(f"without any: {', '.join(free)}" if free else "no cell is free of it")
        return found(
            "model-finding" if free else "cannot-tell", evidence, [n for group in groups for n in group.seen.names]
        )
    if file.form == "lmms-eval" and all(answer.answer_length is None for answer in file.answers):
        return not_visible("the lines hold no count of generated tokens, so a lone EOS looks like no token")
    rare = sum(group.seen.count for group in all_groups)
    return passed(f"{rare} answers began with EOS, in no cell more than {100 * EMPTY_SHARE_LIMIT:g} %")


def check_blank_answers(file: AnswerFile) -> Observation:
    """Additional: answers of white space or special tokens only."""
    groups = _over_limit(empty_groups(file, "blank"))
    if groups:
        evidence = [group.line() + "; only white space or special tokens" for group in groups]
        return found("model-finding", evidence, [name for group in groups for name in group.seen.names])
    return passed(f"in no cell more than {100 * EMPTY_SHARE_LIMIT:g} % of the answers")
