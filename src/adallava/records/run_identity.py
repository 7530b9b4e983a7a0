"""When two runs are one and the same, by what their files hold and not by their names; and when one extends another."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from adallava.records import Run
from adallava.records.setting_words import setting_words, value_words

_NUMERIC_VERSIONS = ("torch", "transformers")

_DECIDES_NO_ANSWER = frozenset({"timing_batch_sizes", "title"})
_TOLD_APART = frozenset({"limit", "model", "task"})
"""Fields with a rule of their own, see `differences`."""
_ORIGINS = {
    "adallava_version": "version of adallava",
    "weights_sha256": "SHA-256 of the weights",
    "adapter_sha256": "SHA-256 of the adapters",
    "scheduler_sha256": "SHA-256 of the schedulers' adapters",
    "task_sha256": "SHA-256 of the task's questions",
}


def differences(there: Run, asked: Run) -> Iterator[str]:
    """Name everything that decides answers and differs between a run and one that is to go on with it.

    A limit may grow: its answers are a part of the larger run's. A model and a local file are identified by their
    content, or by their names where a run does not say what they held (older runs, and runs of bundled tasks).

    Args:
        there: what a folder holds.
        asked: what is to run, with `task_sha256` as it is at the limit of `there`.
    """
    for name, old, new in _pairs(there, asked):
        if old != new:
            yield f"{name} was {_shown(old)} and is {_shown(new)}"
    old_limit, new_limit = there.config.limit, asked.config.limit
    if old_limit != new_limit and not extends(there, asked):
        least = "all" if old_limit is None else f"{old_limit} or more"
        yield (
            f"--limit was {old_limit or 'all'} and is {new_limit}, and a run can be extended but not cut short, "
            f"since its answers are kept: ask for {least}"
        )


def _shown(value: Any) -> str:
    if isinstance(value, str) and value != value.strip():
        return json.dumps(value, ensure_ascii=False)
    return "not recorded" if value is None else value_words(value)


def extends(there: Run, asked: Run) -> bool:
    """Return whether the limit of `asked` takes more samples than that of `there`, and all of its."""
    old, new = there.config.limit, asked.config.limit
    return old is not None and (new is None or new > old)


def joined(there: Run, asked: Run) -> Run:
    """Return what a folder's run is from now on: as it was, over the samples and the batch sizes to time at of both.

    A title that is asked for replaces the one that was there.
    """
    sizes = tuple(sorted({*there.config.timing_batch_sizes, *asked.config.timing_batch_sizes}))
    config: dict[str, Any] = {"timing_batch_sizes": sizes, "title": asked.config.title or there.config.title}
    provenance: dict[str, Any] = {}
    if extends(there, asked):
        config["limit"] = asked.config.limit
        provenance["task_sha256"] = asked.provenance.task_sha256
    return there.model_copy(
        update={
            "config": there.config.model_copy(update=config),
            "provenance": there.provenance.model_copy(update=provenance),
        }
    )


def at_limit_of(there: Run, asked: Run, sha256_of_first: Callable[[int], str | None]) -> Run:
    """Return `asked` with the hash that its task had at the limit of `there`, if it extends it."""
    if there.config.limit is None or not extends(there, asked):
        return asked
    sha256 = sha256_of_first(there.config.limit)
    return asked.model_copy(update={"provenance": asked.provenance.model_copy(update={"task_sha256": sha256})})


def _pairs(there: Run, asked: Run) -> Iterator[tuple[str, Any, Any]]:
    """Yield what decides answers, in the words of the command line, with its values."""
    old, new = (_settings(one) for one in (there, asked))
    if not (_names_files(there) and _names_files(asked)):
        yield "--model", there.config.model, asked.config.model
    if not (_is_of_file(there) and _is_of_file(asked)) or there.provenance.task_sha256 != asked.provenance.task_sha256:
        yield "--task", there.config.task, asked.config.task
    yield from ((words, old[words], new[words]) for words in old)
    for name, words in _ORIGINS.items():
        yield words, getattr(there.provenance, name), getattr(asked.provenance, name)
    old_files, new_files = there.provenance.model_files_sha256, asked.provenance.model_files_sha256
    if old_files is not None and new_files is not None:
        for name in sorted(old_files.keys() | new_files.keys()):
            yield (
                f"SHA-256 of the model's {name}",
                old_files.get(name, "no such file"),
                new_files.get(name, "no such file"),
            )
    for name in (*_NUMERIC_VERSIONS, *(("torchao",) if there.config.quantization != "none" else ())):
        yield f"version of {name}", there.provenance.versions.get(name), asked.provenance.versions.get(name)


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings with a rule for all of them, by the words of the command line; None for what is not known."""
    values = run.config.model_dump(mode="json", exclude={*_DECIDES_NO_ANSWER, *_TOLD_APART, "decoding"})
    pixels = {name: values[name] or "not given" for name in ("least_pixels", "most_pixels")}
    settings = {setting_words(name): value for name, value in (values | pixels).items()}
    decoding = run.config.decoding
    return settings | {
        "--generation-option": decoding and decoding.words,
        "the token ids that end an answer": decoding and decoding.eos_token_ids,
        "the token id of padding": decoding and decoding.pad_token_id,
    }


def _names_files(run: Run) -> bool:
    return run.provenance.model_files_sha256 is not None


def _is_of_file(run: Run) -> bool:
    """Return whether the task is a local file: nothing else has columns."""
    return bool(run.config.columns) and run.provenance.task_sha256 is not None
