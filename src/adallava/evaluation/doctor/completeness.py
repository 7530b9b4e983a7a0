"""Additional checks: is every sample in every cell once, and does the summary follow from the samples?"""

import math
from collections import Counter
from collections.abc import Iterator

from adallava.records import FULL_METHOD, Cell

from .answers import AnswerCell, AnswerFile, percent
from .findings import Observation, found, not_visible, passed

_TOLERANCE = 1e-6


def check_samples_complete(file: AnswerFile) -> Observation:
    """Additional: samples missing from cells, or in them twice; cells asked for and not there."""
    evidence = list(file.notes)
    examples: list[str] = []
    for task, cells in file.tasks.items():
        everything = {answer.sample_id for cell in cells for answer in cell.answers}
        for cell in cells:
            missing = sorted(everything - {answer.sample_id for answer in cell.answers})
            if missing:
                name = f" of task {task}" if task else ""
                evidence.append(f"{cell.label} lacks {percent(len(missing), len(everything))} samples{name}")
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in missing)
            twice = _repeated(cell)
            if twice:
                evidence.append(f"{cell.label} holds {len(twice)} samples more than once, with the same answer")
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in twice)
    evidence.extend(_absent_cells(file))
    if evidence:
        return found("harness-bug", evidence, examples)
    sizes = ", ".join(f"{len(cell.answers)}" for cell in file.cells[:1])
    return passed(f"{len(file.cells)} cells of {sizes} samples, each sample once in each cell")


def _repeated(cell: AnswerCell) -> list[str]:
    """Samples recorded twice alike; those answered differently are failure 6's."""
    rows = Counter(answer.sample_id for answer in cell.answers)
    texts = Counter(sample_id for sample_id, _ in {(a.sample_id, a.response) for a in cell.answers})
    return [sample_id for sample_id, count in rows.items() if count > 1 and texts[sample_id] == 1]


def _absent_cells(file: AnswerFile) -> Iterator[str]:
    if file.config is None:
        return
    methods = {cell.method for cell in file.cells}
    for method in dict.fromkeys([FULL_METHOD, *file.config.methods]):
        if method not in methods:
            yield f"method {method} was asked for and has no cell"
    if file.results is not None:
        labels = {cell.label for cell in file.cells}
        for summary in file.results.cells:
            if summary.cell not in labels:
                yield f"results.json reports {summary.cell}, of which there is no sample"


def check_summary_matches(file: AnswerFile) -> Observation:
    """Additional: `results.json` must follow from the samples."""
    if file.results is None:
        missing = "there is no results.json: the run was not finished" if file.form == "run-folder" else None
        return not_visible(missing or "lmms-eval's summary holds metrics of its own; recompute them with its task")
    summaries = {summary.cell: summary for summary in file.results.cells}
    evidence = []
    for cell in file.cells:
        summary = summaries.get(cell.label)
        if summary is None:
            evidence.append(f"{cell.label} has {len(cell.answers)} samples and is not in results.json")
        else:
            evidence.extend(_mismatches(cell, summary))
    if evidence:
        return found("harness-bug", evidence)
    return passed(f"counts and accuracies of {len(file.cells)} cells follow from the samples")


def _mismatches(cell: AnswerCell, summary: Cell) -> Iterator[str]:
    scores = [answer.score for answer in cell.answered if answer.score is not None]
    mean = sum(scores) / len(scores) if scores else None
    stated = summary.accuracy.mean if summary.accuracy else None
    if (mean is None) != (stated is None) or not math.isclose(mean or 0.0, stated or 0.0, abs_tol=_TOLERANCE):
        yield f"{cell.label}: results.json says accuracy {stated}, the samples' mean score is {mean}"
    failed = sum(answer.failed for answer in cell.answers)
    counts = {
        "samples": (summary.num_samples, len(cell.answers)),
        "failed": (summary.num_failed, failed),
    }
    for name, (stated_count, counted) in counts.items():
        if stated_count != counted:
            yield f"{cell.label}: results.json counts {stated_count} {name}, the samples {counted}"
