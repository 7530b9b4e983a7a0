"""What was asked for and what it ran on: `run.json`."""

from typing import Any

from pydantic import model_validator

from adallava.records import older_files
from adallava.records.config import RunConfig
from adallava.records.estimates import Record
from adallava.records.names import SCHEMA_VERSION


class Provenance(Record):
    """What it ran on. `started_at` is the only field that two equal runs may differ in on one machine."""

    adallava_version: str
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    weights_sha256: str
    adapter_sha256: dict[str, str]
    """By method, for learned methods."""
    scheduler_sha256: dict[str, str]
    """By scheduler, for learned schedulers."""
    weight_counts: dict[str, int]
    """Weights of the matrices that a first token reads, by part: `vision`, `projector`, the LLM's `layers` and
    `output`."""
    model_files_sha256: dict[str, str] | None
    """By name, of the checkpoint's files besides weights that decide an answer: configuration, tokenizer, templates.
    None where a file does not say."""
    task_sha256: str | None
    """Digest of a local file's bytes; None for a bundled task, which is versioned with the package."""
    hardware: dict[str, Any]
    command: str
    started_at: str


class Run(Record):
    """`run.json`."""

    schema_version: int = SCHEMA_VERSION
    config: RunConfig
    provenance: Provenance

    @model_validator(mode="before")
    @classmethod
    def _of_file(cls, data: Any) -> Any:
        """Put in what an older version did not write."""
        return older_files.complete_run(data, tuple(RunConfig.model_fields)) if isinstance(data, dict) else data
