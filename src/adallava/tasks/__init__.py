"""Tasks: the bundled one, local files, and how responses are scored. Needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from adallava.errors import InputError

from .local import local_task
from .scoring import EXACT_MATCH, METRICS, check_answers, exact_match, load_metric, normalise_answer
from .task import Task, TaskSample

__all__ = ["BUNDLED_TASKS", "METRICS", "Task", "TaskSample", "exact_match", "load_task", "normalise_answer"]

BUNDLED_TASKS = ("scenes",)


def load_task(
    name_or_path: str,
    *,
    split: str | None = None,
    limit: int | None = 100,
    columns: Mapping[str, str] | None = None,
    metric: str = EXACT_MATCH,
) -> Task:
    """Load a bundled task by name, or a local `.jsonl` or `.parquet` file by path.

    Args:
        split: of a bundled task (default `test`); a local file has none.
        limit: take the first so many samples; None takes all of a file's.
        columns: see `local_task`; for a local file only.
        metric: a name of `METRICS`; for a local file only.

    Raises:
        UnknownNameError: for another metric.
        InputError: for a limit below 1, an option that does not fit the task, or a file that cannot be read.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} leaves no samples: give at least 1")
    load_metric(metric)
    if name_or_path not in BUNDLED_TASKS:
        if split is not None:
            raise InputError(f"--split {split} does not fit {name_or_path}: a local file has no splits")
        return _scored_by(metric, local_task(Path(name_or_path), limit=limit, columns=columns))
    if columns:
        raise InputError(f"task {name_or_path} is bundled and has no columns to name: {dict(columns)}")
    if metric != EXACT_MATCH:
        raise InputError(f"task {name_or_path} has one answer a question: --metric {metric} does not fit it")
    return _scenes_task(split or "test", limit)


def _scored_by(metric: str, task: Task) -> Task:
    for sample in task.samples:
        check_answers(metric, sample.id, sample.answers)
    return replace(task, metric=metric)


def _scenes_task(split: str, limit: int | None) -> Task:
    from .scenes import scene_sample

    if limit is None:
        raise InputError("task scenes is generated without end: give a limit")
    samples = []
    for index in range(limit):
        question = scene_sample(split, index)[1]
        samples.append(
            TaskSample(
                id=f"{split}-{index:06d}",
                question=question.text,
                answers=(question.answer,),
                kind=question.kind,
                load_image=partial(_scene_image, split, index),
            )
        )
    return Task("scenes", tuple(samples), split=split, sha256=None, columns={})


def _scene_image(split: str, index: int) -> Image.Image:
    # Drawn again rather than kept: a picture is 150 KB, and drawing one takes about a millisecond.
    from .scenes import scene_sample

    return Image.fromarray(scene_sample(split, index)[0].image)
