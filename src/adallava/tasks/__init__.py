"""Tasks: the bundled one, local files, and how responses are scored. Needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from adallava.errors import InputError
from adallava.records import SampleName
from adallava.registry import task_source

from .local import local_task
from .normalising import normalise_answer
from .sampling import random_order
from .scoring import EXACT_MATCH, METRICS, exact_match, load_metric
from .task import Task, TaskSample

__all__ = ["BUNDLED_TASKS", "METRICS", "Task", "TaskSample", "exact_match", "load_task", "normalise_answer"]

BUNDLED_TASKS = ("scenes",)

MAX_SCENES = 1_000_000
"""Of the bundled task, which is generated without end and held in memory."""


def load_task(
    name_or_path: str,
    *,
    split: str | None = None,
    limit: int | None = 100,
    columns: Mapping[str, str] | None = None,
    metric: str | None = None,
    include_path: Path | None = None,
    sample: SampleName = "first",
    seed: int = 0,
    allow_outside: bool = False,
) -> Task:
    """Load a bundled task by name, a local `.jsonl` or `.parquet` file by path, or a harness's by `<source>:<name>`.

    Args:
        split: of a bundled task (default `test`); a local file has none.
        limit: take so many samples; None takes all of a file's.
        columns: see `local_task`; for a local file only.
        metric: of a local file, a name of `METRICS` (default `exact-match`); of a harness's task, one of its own.
        include_path: folder with further tasks of the source.
        sample: which samples a limit takes: the first, or a random sample, stratified by kind, of which a larger one
            keeps all (`sampling.random_order`).
        seed: of the random sample.
        allow_outside: let a local file name images outside of its folder.

    Raises:
        UnknownNameError: for another metric.
        InputError: for a limit below 1, an option that does not fit the task, or a file that cannot be read.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} leaves no samples: give at least 1")
    load_source = task_source(name_or_path)
    if load_source is not None:
        if split is not None or columns:
            raise InputError(
                f"task {name_or_path} has its own split and columns: leave {_options(split, columns or {})} out"
            )
        own = partial(load_source, name_or_path.partition(":")[2], metric=metric, include_path=include_path)
        return own(limit=limit) if sample == "first" else _at_random(own(limit=None), limit, seed)
    if include_path is not None:
        raise InputError(f"--include-path {include_path} does not fit task {name_or_path}: it is for lmms:<name>")
    metric = metric or EXACT_MATCH
    load_metric(metric)
    if name_or_path not in BUNDLED_TASKS:
        if split is not None:
            raise InputError(f"--split {split} does not fit {name_or_path}: a local file has no splits")
        return local_task(
            Path(name_or_path),
            limit=limit,
            columns=columns,
            metric=metric,
            sample=sample,
            seed=seed,
            allow_outside=allow_outside,
        )
    _check_bundled(name_or_path, columns, metric, sample)
    return _scenes_task(split or "test", limit)


def _options(split: str | None, columns: Mapping[str, str]) -> str:
    """Return the options that named them: `--split test`, `--image-column photo`."""
    named = [f"--{role}-column {name}" for role, name in columns.items()]
    return ", ".join([*([] if split is None else [f"--split {split}"]), *named])


def _check_bundled(name: str, columns: Mapping[str, str] | None, metric: str, sample: SampleName) -> None:
    """Refuse what does not fit a bundled task."""
    if sample != "first":
        raise InputError(f"task {name} is generated at random: its first samples are a random sample already")
    if columns:
        raise InputError(f"task {name} is bundled and has no columns to name: leave {_options(None, columns)} out")
    if metric != EXACT_MATCH:
        raise InputError(f"task {name} has one answer a question: --metric {metric} does not fit it")


def _at_random(task: Task, limit: int | None, seed: int) -> Task:
    order = random_order([one.id for one in task.samples], [one.kind for one in task.samples], seed)[:limit]
    samples = tuple(task.samples[place] for place in order)
    return replace(task, samples=samples, sha256=replace(task, samples=samples).sha256_of_first(len(samples)))


def _scenes_task(split: str, limit: int | None) -> Task:
    from .scenes import scene_sample

    if limit is None:
        raise InputError("task scenes is generated without end: give a limit")
    if limit > MAX_SCENES:
        raise InputError(f"limit {limit} is over the {MAX_SCENES} samples of task scenes that fit into memory")
    samples = []
    for index in range(limit):
        question = scene_sample(split, index)[1]
        samples.append(
            TaskSample(
                id=f"{split}-{index:06d}",
                question=question.text,
                answers=(question.answer,),
                kind=question.kind,
                load_images=partial(_scene_image, split, index),
            )
        )
    return Task("scenes", tuple(samples), split=split, sha256=None, columns={})


def _scene_image(split: str, index: int) -> tuple[Image.Image, ...]:
    # Drawn again rather than kept: an image is 150 KB, and drawing one takes about a millisecond.
    from .scenes import scene_sample

    return (Image.fromarray(scene_sample(split, index)[0].image),)
