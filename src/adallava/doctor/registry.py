"""The registry of offline checks, one per known failure and a few more, and the reading of what to check."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adallava.doctor.answers import AnswerFile
from adallava.doctor.checks.batch_dependence import check_batch_dependence
from adallava.doctor.checks.budgets import check_budget_applied, check_selection_reads_input
from adallava.doctor.checks.completeness import check_samples_complete, check_summary_matches
from adallava.doctor.checks.crops import check_pictures_cut, says_what_was_seen
from adallava.doctor.checks.decoding_known import check_decoding
from adallava.doctor.checks.empties import (
    check_answers_cut,
    check_blank_answers,
    check_empties_scored,
    check_first_token_eos,
    check_full_budget,
)
from adallava.doctor.checks.engines_known import check_engines
from adallava.doctor.checks.failures import check_devices, check_failed_samples
from adallava.doctor.checks.lengths import check_off_by_one, check_placeholders
from adallava.doctor.checks.meaning import check_answers_of_task, check_full_above_majority, check_full_above_none
from adallava.doctor.findings import Diagnosis, Observation, Outcome, not_visible
from adallava.doctor.sources.lmms_eval_rows import read_rows
from adallava.doctor.sources.lmms_eval_samples import load_lmms_eval, samples_files
from adallava.doctor.sources.run_folder import load_run_folder, sample_files
from adallava.errors import InputError, RunFolderError
from adallava.records.jsonl import read_lines
from adallava.records.regular_files import open_regular


@dataclass(frozen=True)
class FileCheck:
    """A check over loaded answers: a pure function, its name, what it looks for, what to do, and for which files."""

    id: str
    failure: int | None
    title: str
    remedy: str
    observe: Callable[[AnswerFile], Observation]
    applies: Callable[[AnswerFile], bool] = lambda _: True
    of_failed: bool = False
    """Whether failed samples alone show what it looks for; the others pass only where a sample was answered."""

    def run(self, file: AnswerFile) -> Outcome:
        """Look, and return what was seen together with what this check is."""
        observation = self.observe(file)
        if observation.status == "passed" and not self.of_failed and not _has_answer(file):
            observation = not_visible("no sample was answered")
        return outcome(self.id, self.failure, self.title, self.remedy, observation)


def _has_answer(file: AnswerFile) -> bool:
    return any(not answer.failed for cell in file.cells for answer in cell.answers)


def outcome(check: str, failure: int | None, title: str, remedy: str, observation: Observation) -> Outcome:
    """Join an observation with the check that made it."""
    return Outcome(
        check=check,
        failure=failure,
        title=title,
        status=observation.status,
        severity=observation.severity,
        evidence=observation.evidence,
        examples=observation.examples,
        remedy=remedy if observation.status == "found" else None,
    )


FILE_CHECKS: tuple[FileCheck, ...] = (
    FileCheck(
        "answers-outside-task",
        None,
        "hardly any response is one of the task's answers, right or wrong",
        "Compare no methods on this run. Look at a few prompts and responses: the model may not know what kind of "
        "answer is asked for (--question-suffix says so), or the labels are written in a form that no model uses.",
        check_answers_of_task,
    ),
    FileCheck(
        "full-not-above-none",
        None,
        "the full-token model is not above answers without the image",
        "Compare no methods on this run: what they keep of the image cannot matter. Check whether images and "
        "questions belong together, and whether the questions need the image.",
        check_full_above_none,
    ),
    FileCheck(
        "full-not-above-majority",
        None,
        "the full-token model is not above the most frequent answer",
        "Compare no methods on this run: one word to every question does as well. Look at the prompts and responses, "
        "and whether the model can do the task.",
        check_full_above_majority,
    ),
    FileCheck(
        "empty-answers-scored",
        1,
        "a score is reported over empty answers",
        "Do not use the score. Record with every empty answer why it is empty (the first new token, the "
        "number of new tokens), and fail a run with more than 1 % of them; then look at that cause.",
        check_empties_scored,
    ),
    FileCheck(
        "answers-cut",
        2,
        "answers were generated and cut away",
        "generate() returns the prompt and the new tokens when it is given input_ids, and only the new "
        "tokens when it is given inputs_embeds alone. Take the prompt's length from the call that made the "
        "sequences, and cut by it in one place.",
        check_answers_cut,
    ),
    FileCheck(
        "placeholders-misaligned",
        3,
        "image placeholders and image features differ in number",
        "Shorten ids, attention mask, labels and positions together, per sample, to the K placeholders "
        "kept; prompt_length must be the text's tokens plus tokens_kept.",
        check_placeholders,
    ),
    FileCheck(
        "full-budget-differs",
        4,
        "the full budget takes another path",
        "Send K = N through the same code as K < N, returning the same shape of result; compare its "
        "tokens with the stock model's (`adallava doctor --model`).",
        check_full_budget,
    ),
    FileCheck(
        "off-by-one",
        5,
        "prompt ids and embeddings are one token apart",
        "Whatever inserts or drops a token (a latency token, a separator) must do so in ids, mask, "
        "positions and embeddings at once; assert their lengths where they are made.",
        check_off_by_one,
    ),
    FileCheck(
        "batch-dependence",
        6,
        "an answer depends on its batch",
        "Run the same samples with batch size 1 and compare. Look for indices, masks or positions taken "
        "from row 0 or row -1 and used for every row.",
        check_batch_dependence,
    ),
    FileCheck(
        "budget-not-applied",
        7,
        "the budget or the method did not reach the model",
        "Check that the budget is passed with each call, that caches are keyed by it, and that the "
        "checkpoint or adapter holds the method asked for; record K kept where the LLM is called.",
        check_budget_applied,
    ),
    FileCheck(
        "devices-mixed",
        8,
        "parts of the model are on two devices",
        "Load the whole model, tower and adapter included, onto one device; give inputs to that device.",
        check_devices,
        of_failed=True,
    ),
    FileCheck(
        "first-token-eos",
        9,
        "the model ends its answer at once",
        "This is what the model does at these budgets, not a fault of the harness, as long as the checks "
        "above pass: report it with the score, or train over these budgets. `adallava doctor --model` "
        "shows it live.",
        check_first_token_eos,
    ),
    FileCheck(
        "blank-answers",
        None,
        "answers hold only white space or special tokens",
        "Look at the new tokens' ids. Often the prompt's template is not the one the model was trained with.",
        check_blank_answers,
    ),
    FileCheck(
        "selection-ignores-input",
        None,
        "a method that chooses per sample chose the same patches for all",
        "Either one sample's indices are used for every sample, or a learned method has collapsed to "
        "positions: `adallava doctor --model` shows which.",
        check_selection_reads_input,
    ),
    FileCheck(
        "failed-samples",
        None,
        "samples failed",
        "Read the reasons; repair the data or the code, and run again. Failed samples are in no mean.",
        check_failed_samples,
        of_failed=True,
    ),
    FileCheck(
        "samples-incomplete",
        None,
        "samples are missing or doubled",
        "Run the same command again: a sweep continues where it stopped. Cells over different samples cannot be "
        "compared.",
        check_samples_complete,
        of_failed=True,
    ),
    FileCheck(
        "summary-mismatch",
        None,
        "the summary does not follow from the samples",
        "Compute results.json again from the samples; do not use its figures.",
        check_summary_matches,
        of_failed=True,
    ),
    FileCheck(
        "decoding-unrecorded",
        None,
        "how the answers were decoded is not recorded",
        "Run again with this version.",
        check_decoding,
        of_failed=True,
    ),
    FileCheck(
        "engines-recorded",
        None,
        "which engines ran the answers",
        "Run again with one --engine that can run every cell.",
        check_engines,
        of_failed=True,
    ),
    FileCheck(
        "pictures-cut",
        None,
        "the model did not see all of its images",
        "Run again with --pad-to-square, which shows all of each, and see whether the scores differ (`adallava "
        "compare`); or look at the images in the report, where the part that was seen is framed.",
        check_pictures_cut,
        says_what_was_seen,
        of_failed=True,
    ),
)
"""First whether the figures mean anything at all, then in the order in which a person would meet the failures."""


def load_answers(path: Path) -> AnswerFile:
    """Load a run folder of this package, or lmms-eval's samples (a file, or a folder of them).

    Raises:
        InputError: if the path does not exist or is neither.
        RunFolderError: if it is a run folder that cannot be read.
    """
    if path.is_dir():
        if (path / "run.json").exists() or sample_files(path):
            return load_run_folder(path)
        if samples_files(path):
            return load_lmms_eval(path)
        raise InputError(
            f"{path} holds neither samples.jsonl of a sweep nor *_samples_*.jsonl of lmms-eval: "
            "give the folder that one of them wrote to"
        )
    if not path.exists():
        raise InputError(f"{path} does not exist: give a run folder, or a samples file of lmms-eval")
    if _is_line_of_sweep(path):
        return load_run_folder(path)
    rows, _ = read_rows(path)
    if rows and {"filtered_resps", "resps"} & rows[0].keys() and "doc_id" in rows[0]:
        return load_lmms_eval(path)
    raise InputError(f"{path} is neither a samples.jsonl of a sweep nor one of lmms-eval (no `cell`, no `doc_id`)")


def _is_line_of_sweep(path: Path) -> bool:
    with open_regular(path) as file:
        first = next((line for line in read_lines(file) if not line.blank), None)
    try:
        row = json.loads(first.data) if first else None
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "cell" in row


def diagnose_answers(file: AnswerFile) -> Diagnosis:
    """Run every check that applies over loaded answers."""
    total = sum(len(cell.answers) for cell in file.cells)
    return Diagnosis(
        source=file.source,
        form=file.form,
        summary=f"{total} answers in {len(file.cells)} cells: {', '.join(cell.label for cell in file.cells)}",
        outcomes=tuple(check.run(file) for check in FILE_CHECKS if check.applies(file)),
    )


def diagnose_run(path: str | Path) -> Diagnosis:
    """Load a run and diagnose it.

    Raises:
        InputError, RunFolderError: see `load_answers`.
    """
    try:
        return diagnose_answers(load_answers(Path(path)))
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
