"""Choose a dozen samples, by rule and not by hand, and show what each method kept and answered."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from PIL import Image

from adallava.records import FULL_METHOD, Cell, Results, SampleRecord
from adallava.report import formats
from adallava.report.embed import data_uri
from adallava.report.marks import Mark, method_marks
from adallava.report.patches import draw_kept_patches, plain_picture, square_grid
from adallava.report.tables import is_blind

NUM_EXAMPLES = 12

Group = Literal["differ", "all-right", "all-wrong", "failed"]

GROUP_TITLES: dict[Group, str] = {
    "differ": "The answers differ",
    "all-right": "All right",
    "all-wrong": "All wrong",
    "failed": "Not answered by every cell",
}
_WANTED: dict[Group, int] = {"differ": 6, "all-right": 3, "all-wrong": 3, "failed": 0}

_EXAMPLES_BYTES = 2_200_000
"""For all pictures together, as base64: with the rest, the page stays below 3 MB without plotly.js."""


@dataclass(frozen=True)
class ExampleCells:
    """The cells shown side by side: the full-token model, methods at one budget, then those without one."""

    budget: str | None
    """None if the run has no method at a budget."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Answer:
    """One method's answer to an example. Either `uri` holds its picture or `no_picture` says why not."""

    method: str
    mark: Mark
    uri: str
    alt: str
    no_picture: str
    blind: bool
    """Whether the method keeps no vision token, so that there is nothing to draw."""
    kept: str
    response: str
    verdict: Literal["right", "wrong", "partly", "failed"]
    detail: str


@dataclass(frozen=True)
class Example:
    """One sample as all shown cells answered it."""

    sample_id: str
    group: Group
    question: str
    expected: tuple[str, ...]
    kind: str | None
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Examples:
    """The examples, and how many samples of each group the run has, so that the choice cannot mislead."""

    budget: str | None
    group_counts: dict[Group, int]
    chosen: tuple[Example, ...]


def example_cells(results: Results) -> ExampleCells:
    """Return what to show: the budget that most methods ran at, of these the middle one by tokens kept.

    Budgets that keep every token are taken only where there is no other.
    """
    at_budget: dict[str, list[Cell]] = defaultdict(list)
    for cell in results.cells:
        if cell.method != FULL_METHOD and not is_blind(cell):
            at_budget[cell.budget_asked].append(cell)
    reducing = {
        budget: cells
        for budget, cells in at_budget.items()
        if all(cell.tokens_kept_layer_average < cell.num_vision_tokens for cell in cells)
    }
    candidates = reducing or at_budget
    full = [cell for cell in results.cells if cell.method == FULL_METHOD]
    blind = [cell for cell in results.cells if is_blind(cell)]
    if not candidates:
        return ExampleCells(None, (*full, *blind))
    most = max(len(cells) for cells in candidates.values())
    widest = [budget for budget, cells in candidates.items() if len(cells) == most]
    widest.sort(key=lambda budget: (max(cell.tokens_kept_layer_average for cell in candidates[budget]), budget))
    budget = widest[(len(widest) - 1) // 2]
    return ExampleCells(budget, (*full, *candidates[budget], *blind))


def choose_examples(
    results: Results,
    samples: Iterable[SampleRecord],
    image_of: Callable[[str], Image.Image | None],
    num_examples: int = NUM_EXAMPLES,
) -> Examples:
    """Return the examples of a run. The same files and pictures give the same examples.

    Args:
        results: the run's cells.
        samples: every record of the run; only those of the shown cells are held in memory.
        image_of: the picture of a sample id, or None where there is none any more.
        num_examples: how many to show at most.
    """
    shown = example_cells(results)
    names = [cell.cell for cell in shown.cells]
    by_sample: dict[str, dict[str, SampleRecord]] = defaultdict(dict)
    for record in samples:
        if record.cell in names:
            by_sample[record.sample_id][record.cell] = record
    groups: dict[Group, list[str]] = {group: [] for group in GROUP_TITLES}
    for sample_id, records in by_sample.items():
        groups[_group(records, names)].append(sample_id)
    picked = _pick(groups, by_sample, num_examples)
    marks = method_marks(cell.method for cell in results.cells)
    num_pictures = max(1, len(picked) * sum(not is_blind(cell) for cell in shown.cells))
    drawer = _Drawer(marks, _EXAMPLES_BYTES // num_pictures)
    return Examples(
        budget=shown.budget,
        group_counts={group: len(ids) for group, ids in groups.items()},
        chosen=tuple(
            _example(
                group,
                [by_sample[id_][name] for name in names if name in by_sample[id_]],
                image_of(id_),
                drawer,
            )
            for group, id_ in picked
        ),
    )


def _group(records: Mapping[str, SampleRecord], names: Sequence[str]) -> Group:
    scores = [records[name].score if name in records else None for name in names]
    if any(score is None for score in scores):
        return "failed"
    right = [score is not None and score >= 0.5 for score in scores]
    if all(right):
        return "all-right"
    return "differ" if any(right) else "all-wrong"


def _pick(
    groups: Mapping[Group, list[str]], by_sample: Mapping[str, Mapping[str, SampleRecord]], number: int
) -> list[tuple[Group, str]]:
    """Take the wanted number of each group; what one lacks, the others give, in the groups' order."""
    queues = {group: _mixed(ids, by_sample) for group, ids in groups.items()}
    share = number / NUM_EXAMPLES
    taken = {group: queues[group][: round(_WANTED[group] * share)] for group in groups}
    for group in groups:
        missing = number - sum(len(ids) for ids in taken.values())
        already = len(taken[group])
        taken[group] = taken[group] + queues[group][already : already + max(0, missing)]
    return [(group, id_) for group, ids in taken.items() for id_ in ids]


def _mixed(ids: Sequence[str], by_sample: Mapping[str, Mapping[str, SampleRecord]]) -> list[str]:
    """Order ids so that types take turns; within a type by hash, which favours no place in the file."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for id_ in sorted(ids, key=lambda id_: hashlib.sha256(id_.encode()).digest()):
        kind = next(iter(by_sample[id_].values())).kind
        by_kind[kind or ""].append(id_)
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    return [id_ for turn in turns for id_ in turn if id_ is not None]


@dataclass(frozen=True)
class _Drawer:
    """Turns records and a picture into `Answer`s."""

    marks: Mapping[str, Mark]
    bytes_per_picture: int

    def answer(self, record: SampleRecord, image: Image.Image | None) -> Answer:
        uri, no_picture = "", ""
        drawing: Image.Image | None = None
        blind = record.tokens_kept == 0 and record.score is not None
        if image is None:
            no_picture = "the picture was not found"
        elif not blind:
            try:
                drawing = _drawing(record, image)
            except OSError as error:
                # Pillow reads lazily: a damaged file shows itself only here.
                no_picture = f"the picture could not be read: {error}"
        if drawing is not None:
            uri = data_uri(drawing, self.bytes_per_picture)
        verdict, detail = _verdict(record)
        return Answer(
            method=record.method,
            mark=self.marks[record.method],
            uri=uri,
            alt=_alt(record),
            no_picture=no_picture,
            blind=blind,
            kept=f"{formats.count(record.tokens_at_end)} of {formats.count(record.num_vision_tokens)} tokens",
            response=record.response,
            verdict=verdict,
            detail=detail,
        )


def _drawing(record: SampleRecord, image: Image.Image) -> Image.Image:
    """Draw a sample's first picture; without recorded patches, or on no square grid, the bare picture."""
    kept = record.kept_indices
    grid = square_grid(record.num_vision_tokens // max(1, len(kept or [])))
    if record.method == FULL_METHOD or not kept or grid is None:
        return plain_picture(image, grid or (1, 1))
    return draw_kept_patches(image, kept[0], grid, merged=record.merged)


def _alt(record: SampleRecord) -> str:
    if record.method == FULL_METHOD:
        return f"The picture of sample {record.sample_id}, whole."
    verb = "combined into" if record.merged else "kept"
    return (
        f"The picture of sample {record.sample_id} with the patches that {record.method} {verb} "
        f"{record.tokens_at_end} of {record.num_vision_tokens} vision tokens."
    )


def _verdict(record: SampleRecord) -> tuple[Literal["right", "wrong", "partly", "failed"], str]:
    if record.score is None:
        return "failed", record.error or "no reason recorded"
    if record.score >= 1:
        return "right", ""
    if record.score > 0:
        return "partly", f"score {formats.figures3(record.score)}"
    return "wrong", ""


def _example(group: Group, records: Sequence[SampleRecord], image: Image.Image | None, drawer: _Drawer) -> Example:
    first = records[0]
    expected = tuple(answer for answer, _ in Counter(first.answers).most_common(5))
    return Example(
        sample_id=first.sample_id,
        group=group,
        question=first.question,
        expected=expected,
        kind=first.kind,
        answers=tuple(drawer.answer(record, image) for record in records),
    )
