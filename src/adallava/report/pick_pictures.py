"""Choose, by rule and not by hand, the samples whose images go into the page."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from PIL import Image

from adallava.records.picture_frames import Frame
from adallava.report.embed import data_uri
from adallava.report.patches import plain_picture
from adallava.report.sample_table import SampleRow, SampleTable, is_right
from adallava.report.seen import with_padding

NUM_PICTURES = 120
"""Samples with an image, if nobody asks for another number."""

PICTURES_BYTES = 1_600_000
"""For all images together, as base64, at the usual number of them."""

KEPT_BYTES = 1_200_000
"""For the bitmaps of kept patches, before packing."""

Group = Literal["differ", "all-right", "all-wrong", "failed"]

_SHARES: dict[Group, float] = {"differ": 0.7, "all-right": 0.1, "all-wrong": 0.2, "failed": 0.0}


@dataclass(frozen=True)
class Pictures:
    """The samples with an image, in the order to show them, and what a reader must know of the choice.

    Attributes:
        ids: sample ids.
        uris: of each sample's images a JPEG `data:` URI each; none where they were not to be had.
        frames: of each image, in shares of the image at its URI, what the model sees; None where it is not known,
            and the image has the shape of the grid.
        missing: by id, why there is no image.
        group_counts: how many samples of the run, not of the choice, are in each group.
    """

    ids: tuple[str, ...]
    uris: tuple[tuple[str, ...], ...]
    frames: tuple[tuple[Frame | None, ...], ...]
    missing: Mapping[str, str]
    group_counts: Mapping[Group, int]


def choose_pictures(
    table: SampleTable,
    images_of: Callable[[str], Sequence[Image.Image]],
    num_pictures: int | None = None,
) -> Pictures:
    """Return images of the samples on which the cells differ most, and of some that all get right or wrong.

    The same files and images give the same choice, whatever the order of the file.

    Args:
        table: the answers of every cell that the page shows.
        images_of: the images of a sample id; none where there are none any more.
        num_pictures: how many samples at most; None is `NUM_PICTURES`, or as many as `KEPT_BYTES` has room for.
    """
    number = num_pictures if num_pictures is not None else min(NUM_PICTURES, _room_for(table))
    groups: dict[Group, list[tuple[float, SampleRow]]] = {group: [] for group in _SHARES}
    for row in table.rows:
        group, disagreement = _group(table, row.sample_id)
        groups[group].append((disagreement, row))
    chosen = _pick(groups, number)
    allowance = PICTURES_BYTES // max(1, min(len(chosen), NUM_PICTURES))
    uris, frames, missing = [], [], {}
    for row in chosen:
        own, placed, reason = _pictures(row, images_of, allowance)
        uris.append(own)
        frames.append(placed)
        if reason:
            missing[row.sample_id] = reason
    counts = {group: len(rows) for group, rows in groups.items()}
    return Pictures(tuple(row.sample_id for row in chosen), tuple(uris), tuple(frames), missing, counts)


def _room_for(table: SampleTable) -> int:
    bytes_each = max((row.num_patches for row in table.rows), default=1) / 8 * max(1, len(table.columns))
    return max(12, int(KEPT_BYTES / max(bytes_each, 1)))


def _group(table: SampleTable, sample_id: str) -> tuple[Group, float]:
    """Return the group, and how much the cells disagree: the variance of right and wrong, at most 0.25."""
    scores = [table.score(cell, sample_id) for cell, answers in table.columns.items() if sample_id in answers]
    if any(score is None for score in scores):
        return "failed", 0.0
    share = sum(map(is_right, scores)) / max(1, len(scores))
    if share == 1:
        return "all-right", 0.0
    return ("differ", share * (1 - share)) if share else ("all-wrong", 0.0)


def _pick(groups: Mapping[Group, list[tuple[float, SampleRow]]], number: int) -> list[SampleRow]:
    """Take each group's share; what one lacks, the others give, in the groups' order."""
    queues = {group: _in_turns(rows) for group, rows in groups.items()}
    taken = {group: round(share * number) for group, share in _SHARES.items()}
    taken = {group: min(count, len(queues[group])) for group, count in taken.items()}
    for group, queue in queues.items():
        room = max(0, number - sum(taken.values()))
        taken[group] += min(room, len(queue) - taken[group])
    return [row for group, count in taken.items() for row in queues[group][:count]]


def _in_turns(rows: Iterable[tuple[float, SampleRow]]) -> list[SampleRow]:
    """Order samples by disagreement, types taking turns; equals go by hash, which favours no place in the file."""
    by_kind: dict[str, list[tuple[float, bytes, SampleRow]]] = defaultdict(list)
    for disagreement, row in rows:
        digest = hashlib.sha256(row.sample_id.encode("utf-8", errors="replace")).digest()
        by_kind[row.kind or ""].append((-disagreement, digest, row))
    ordered = [sorted(by_kind[kind], key=lambda item: item[:2]) for kind in sorted(by_kind)]
    return [item[2] for turn in zip_longest(*ordered) for item in turn if item is not None]


def _pictures(
    row: SampleRow, images_of: Callable[[str], Sequence[Image.Image]], allowance_bytes: int
) -> tuple[tuple[str, ...], tuple[Frame | None, ...], str]:
    """Return the URI of each image, the frame on it, and why there is none."""
    images = images_of(row.sample_id)
    if not images:
        return (), (), "the image was not found"
    if row.grids and len(images) != len(row.grids):
        return (), (), f"the sample had {len(row.grids)} images when it was asked, and has {len(images)} now"
    shown = []
    try:
        for number, image in enumerate(images):
            if row.frames is None:
                plain, frame = plain_picture(image, row.grids[number] if row.grids else (1, 1)), None
            else:
                plain, frame = with_padding(image, row.frames[number])
            shown.append((data_uri(plain, allowance_bytes // len(images)), frame))
    except OSError as error:
        # Pillow reads lazily: a damaged file shows itself only here.
        return (), (), f"the image could not be read: {error}"
    return tuple(uri for uri, _ in shown), tuple(frame for _, frame in shown), ""


def kinds_of(rows: Sequence[SampleRow]) -> tuple[str, ...]:
    """Return the question types in order of first appearance, the most frequent first among equals."""
    return tuple(kind for kind, _ in Counter(row.kind for row in rows if row.kind).most_common())
