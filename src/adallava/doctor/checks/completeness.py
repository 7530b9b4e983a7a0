"""Additional checks: is every sample in every cell once, and does the summary follow from the samples?"""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import product
from statistics import fmean

from adallava.doctor.answers import AnswerCell, AnswerFile, percent
from adallava.doctor.findings import Observation, found, not_visible, passed
from adallava.records import FULL_METHOD, NONE_METHOD, Cell
from adallava.records.counted_nouns import counted

_TOLERANCE = 1e-6


def check_samples_complete(file: AnswerFile) -> Observation:
    """Additional: samples missing from cells, or in them twice; cells asked for and not there."""
    evidence = list(file.notes)
    examples: list[str] = []
    for group, cells in file.groups.items():
        everything = {answer.sample_id for cell in cells for answer in cell.answers}
        name = f" of task {group}" if group else ""
        for cell in cells:
            missing, draws = _missing(cell, everything), cell.num_draws
            if missing:
                what = "samples" if draws == 1 else f"answers in {draws} draws"
                evidence.append(f"{cell.label} lacks {percent(len(missing), len(everything) * draws)} {what}{name}")
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in missing)
            twice = _repeated(cell)
            if twice:
                evidence.append(f"{cell.label} holds {len(twice)} samples more than once, with the same answer")
                examples.extend(f"{sample_id} in {cell.label}" for sample_id in twice)
    evidence.extend(_absent_cells(file))
    evidence.extend(_absent_draws(file))
    if evidence:
        return found("harness-bug", evidence, examples)
    sizes = ", ".join(counted(len({one.sample_id for one in cell.answers}), "sample") for cell in file.cells[:1])
    return passed(f"{counted(len(file.cells), 'cell')} of {sizes}, each sample once in each draw of each cell")


def _missing(cell: AnswerCell, everything: set[str]) -> list[str]:
    """Samples that a draw of the cell lacks, once for each such draw."""
    num_draws = cell.num_draws
    if not cell.repeated and len(cell.answers) == len(everything) * num_draws:
        return []
    there = {(answer.sample_id, answer.draw) for answer in cell.answers}
    asked = product(sorted(everything), range(num_draws))
    return [sample_id for sample_id, draw in asked if (sample_id, draw) not in there]


def _repeated(cell: AnswerCell) -> list[str]:
    """Samples recorded twice alike in one draw; those answered differently are failure 6's."""
    responses = cell.repeated_responses(cell.answers)
    return list(dict.fromkeys(key[0] for key, texts in responses.items() if len(texts) == 1))


def _absent_cells(file: AnswerFile) -> Iterator[str]:
    if file.config is None:
        return
    methods = {_selection_method(cell) for cell in file.cells}
    for method in dict.fromkeys([FULL_METHOD, *file.config.methods]):
        if method not in methods:
            yield f"method {method} was asked for and has no cell"
    for positions in file.config.positions:
        absent = methods - {_selection_method(cell) for cell in file.cells if cell.positions == positions}
        for method in file.config.methods:
            if method in absent - {FULL_METHOD, NONE_METHOD}:
                yield f"method {method} has no cell with {positions} positions"
    if file.results is not None:
        labels = {cell.label for cell in file.cells}
        for summary in file.results.cells:
            if summary.cell not in labels:
                yield f"results.json reports {summary.cell}, which has no sample"


def _selection_method(cell: AnswerCell) -> str | None:
    """Return the method that chose the tokens; a cell with layers left out has the scheduler after it."""
    return None if cell.method is None else cell.method.partition("/")[0]


def _absent_draws(file: AnswerFile) -> Iterator[str]:
    asked = {summary.cell: summary.draws for summary in (file.results.cells if file.results is not None else ())}
    for cell in file.cells:
        if cell.num_draws < asked.get(cell.label, 1):
            yield f"{cell.label} has {cell.num_draws} draws, and results.json says {asked[cell.label]}"


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
    means = _means(cell)
    scored = [mean for mean in means.values() if mean is not None]
    num_samples = len(means)
    mean = fmean(scored) if scored else None
    stated = summary.accuracy.mean if summary.accuracy else None
    if (mean is None) != (stated is None) or not math.isclose(mean or 0.0, stated or 0.0, abs_tol=_TOLERANCE):
        yield f"{cell.label}: results.json says accuracy {stated}, the samples' mean score is {mean}"
    counts = {
        "samples": (summary.num_samples, num_samples),
        "failed": (summary.num_failed, num_samples - len(scored)),
    }
    for name, (stated_count, own_count) in counts.items():
        if stated_count != own_count:
            yield f"{cell.label}: results.json counts {stated_count} {name}, the samples {own_count}"


def _means(cell: AnswerCell) -> dict[str, float | None]:
    """Return each sample's mean score over its draws; None where it failed in any draw, as in the summary."""
    sums: dict[str, float | None] = {}
    times = Counter[str]()
    for answer in cell.answers:
        if answer.sample_id in sums:
            times[answer.sample_id] += 1
        before, score = sums.get(answer.sample_id, 0.0), None if answer.failed else answer.score
        sums[answer.sample_id] = None if before is None or score is None else before + score
    return {key: None if total is None else total / (1 + times[key]) for key, total in sums.items()}
