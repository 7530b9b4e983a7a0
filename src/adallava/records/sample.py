"""One answer, as a line of `samples.jsonl`."""

from typing import Any

from pydantic import (
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from adallava.records import index_sets, older_files
from adallava.records.estimates import Record
from adallava.records.names import EmptyCause
from adallava.records.picture_frames import Frame, seen_share
from adallava.records.what_ran import WhatRan

PICTURES_JOINED = "+"
"""Between what tells the images of one sample apart."""

WITHOUT_PATCHES = "without patches"
"""Context of validating a line whose sets of patches nobody will read: most of what a record takes in memory."""

_RAN_FIELDS = frozenset(WhatRan.model_fields)
_ONE_PICTURE = WhatRan.model_fields["whole_images"].default


class SampleRecord(Record):
    """One answer of one cell.

    In a line of `samples.jsonl`, the fields of `ran` are next to the others, and each set of `kept_indices` is a
    bitmap (`index_sets`); in older files it is a list.
    """

    cell: str
    """`<method>@<budget>`, for instance `question@0.25`, `uniform@64`, `full@1.0`, `none@none`; with `+compact`
    after it where positions are renumbered, and `/<scheduler>@<latency>` where layers of the LLM are left out."""
    sample_id: str
    draw: int
    """Which of the repeated draws of a method that draws at random; 0 for every other method."""
    ran: WhatRan
    """All counts are 0 for a failed sample."""
    question: str
    answers: list[str]
    kind: str | None = None
    """Question type, where the task has one."""
    picture_sha256: str | None = None
    """Digest of the decoded image's size and pixels: samples about one image share it, and are not independent. For
    several images, their digests joined by `PICTURES_JOINED`. None for a sample that failed."""
    frames: list[Frame] | None = None
    """Of each image, which part the model sees. None for failed samples, and for image processors whose steps are
    not known."""
    response: str
    score: float | None
    """In [0, 1]; None only for a failed sample."""
    empty_cause: EmptyCause | None = None
    """Set if and only if `response` is empty or white space."""
    batch_ms: float
    """Wall time of the batch that the sample was answered in."""
    batch_size: int
    part_ms: dict[str, float]
    """Measured milliseconds by part (`PART_NAMES`) of the batch, divided by `batch_size`."""
    flops: dict[str, int]
    """FLOPs of this sample by part; empty where the model's cannot be counted."""
    kv_bytes: int | None = None
    """Keys and values of this sample when its answer ended, padding excluded."""
    peak_memory_bytes: int | None = None
    """Peak of the device's allocator during the batch (CUDA), or of the process (CPU)."""
    cpu_by_others: float | None = None
    """Share of the machine's cores that other processes used during the batch; None off Linux."""
    error: str | None = None
    """Why the sample failed, if it did: `<error type>: <message>`."""

    @model_validator(mode="before")
    @classmethod
    def _of_line(cls, data: Any, info: ValidationInfo) -> Any:
        """Read a line: put together what ran, and what an older version did not write."""
        if not isinstance(data, dict) or "ran" in data:
            return data
        line = older_files.complete_sample(data)
        # Where no grids say it, how many images there are follows from these sets.
        if info.context == WITHOUT_PATCHES and line["grids"]:
            line["kept_indices"] = ()
        line["kept_indices"] = [index_sets.unpack(one) for one in line["kept_indices"]]
        line["ran"] = {name: line.pop(name) for name in _RAN_FIELDS & line.keys()}
        return line

    @model_serializer(mode="wrap")
    def _as_line(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        line: dict[str, Any] = write(self)
        line.update(line.pop("ran"))
        if info.mode == "json":
            line["kept_indices"] = [index_sets.pack(one) for one in line["kept_indices"]]
        if line["window_tokens"] is None:  # Of most models, and of no interest there.
            del line["window_tokens"]
        if line["whole_images"] == _ONE_PICTURE:  # Of most samples, and of every older file.
            del line["whole_images"]
        return line

    @property
    def seen_share(self) -> float | None:
        """Share of its image that the model sees, of several images the least; None where it is not known."""
        return min(map(seen_share, self.frames)) if self.frames else None
